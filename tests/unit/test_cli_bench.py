"""`edgemw bench codec` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgemw.cli.main import main

BUNDLE = Path(__file__).parents[2] / "examples" / "quickstart" / "digits.edge"
SHORT = ["bench", "codec", "--task", str(BUNDLE), "--data", "digits", "--rounds", "2", "--seeds", "1", "--devices", "4"]


def test_two_codecs_on_digits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SHORT, "--codecs", "lattice:kappa=4,topk:k=0.05", "--out", str(tmp_path / "new" / "bench")]) == 0
    out = capsys.readouterr().out
    assert "digits: dealt out unevenly by class (dirichlet, alpha 0.3) to 4 devices" in out
    assert "   3 of 3  seed 0  topk:k=0.05" in out
    assert "take " in out
    assert sorted(path.name for path in (tmp_path / "new" / "bench").iterdir()) == ["codecs.json", "codecs.png"]
    document = json.loads((tmp_path / "new" / "bench" / "codecs.json").read_text())
    assert [row["setting"] for row in document["settings"]] == ["dense:release=dense", "lattice:kappa=4", "topk:k=0.05"]
    assert all(row["conserved"] for row in document["settings"])


def test_json_alone_on_standard_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    budget = ["--budget", "1 GB", "--fogs", "0", "--partition", "iid"]
    assert main([*SHORT, "--codecs", "lattice", *budget, "--out", str(tmp_path), "--json"]) == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert document == json.loads((tmp_path / "codecs.json").read_text())
    assert document["budget_bytes"] == 10**9
    assert document["nodes"] == [4]
    progress = [json.loads(line) for line in captured.err.splitlines()]
    assert progress[0]["event"].startswith("digits: dealt out evenly to 4 devices")
    assert [line["setting"] for line in progress if "wall_s" in line] == ["dense:release=dense", "lattice"]


def test_a_budget_that_nothing_keeps_ends_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SHORT, "--codecs", "lattice", "--budget", "100", "--out", str(tmp_path)]) == 1
    assert "nothing stays within 100 B" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--budget", "much"], "--budget: not a size: 'much'"),
        (["--budget", "0"], "--budget: nothing can be sent within 0 bytes"),
        (["--codecs", "topk:k=2"], "--codecs: 'topk:k=2'"),
        (["--codecs", "lattice,,topk"], "no codec ''; known: lattice, "),
        (["--codecs", ""], "no codec ''; known: lattice, "),
        (["--task", "none.edge"], "none.edge: there is no such file: make it with `edgemw compile`"),
    ],
)
def test_what_is_refused_ends_with_3(
    flags: list[str], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*SHORT, *flags]) == 3
    assert reason in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "flags",
    [
        ["--seeds", "0"],
        ["--devices", "none"],
        ["--participation", "0"],
        ["--participation", "half"],
        ["--config", "x.toml", "--fogs", "1"],
        [],
    ],
)
def test_wrong_usage_ends_with_2(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["bench", "codec", *flags] if flags else ["bench"])
    assert ended.value.code == 2
    assert "usage: edgemw bench" in capsys.readouterr().err


def test_where_nobody_could_train_nothing_is_recommended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SHORT, "--codecs", "lattice", "--set", "plan.lr=1e30", "--out", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "nothing was learned, so none of these can be recommended" in out
    assert "take " not in out
    assert "lattice: device-0: loss or gradient is not finite" in out
    document = json.loads((tmp_path / "codecs.json").read_text())
    assert document["recommendation"] is None


def test_samples_have_to_be_given(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(SHORT[:4]) == 3
    assert "--data" in capsys.readouterr().err


@pytest.mark.parametrize(("flags", "least"), [(["--devices", "x"], 1), (["--rounds", "0"], 1), (["--fogs", "-1"], 0)])
def test_a_wrong_number_is_named_in_words(flags: list[str], least: int, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["bench", "codec", *flags])
    assert f"argument {flags[0]}: {flags[1]!r} is not a whole number of {least} or more" in capsys.readouterr().err


def test_progress_stays_readable_beside_long_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SHORT, "--codecs", "lattice:rounding=stochastic:kappa=8", "--out", str(tmp_path)]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if " seed 0  " in line]
    assert [line.split()[5] for line in lines] == ["dense:release=dense", "lattice:rounding=stochastic:kappa=8"]


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["bench", "codec", "--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert "edgemw bench codec --task examples/quickstart/digits.edge --data digits" in out
    assert "exit code" in out
