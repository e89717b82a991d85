"""`edgemw bench serve` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgemw.app.wiring import open_oracle
from edgemw.bench import serving
from edgemw.bench.serving import Row, Serving
from edgemw.cli.main import main
from edgemw.core.bundle import read_bundle
from edgemw.core.plan import Plan
from edgemw.learning.dataset import Samples
from edgemw.learning.trainer import train
from edgemw.serving.store import ReleaseStore

BUNDLE = Path(__file__).parents[2] / "examples" / "quickstart" / "digits.edge"
SERVE = ["bench", "serve", "--task", str(BUNDLE)]


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "TURNS", 3)
    monkeypatch.setattr(serving, "WINDOW_S", 0.005)


def test_a_trained_release_on_digits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    x, y = datasets.load_digits(return_X_y=True)
    bundle = read_bundle(BUNDLE.read_bytes())
    everything = Samples((x / 16).astype(np.float32), y.astype(np.int64))
    trained = train(open_oracle(bundle, 1), bundle.theta0, everything, Plan(lr=0.1, epochs=5, batch_size=16), 0, lambda: False)
    ReleaseStore(tmp_path, 3).save("digits", bundle, 2, 7, bundle.theta0 + trained.delta)
    assert main([*SERVE, "--data", "digits", "--store", str(tmp_path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["weights"], document["trained"], document["test_samples"]) == ("release 7 of run 2", True, 359)
    assert (document["calibrated_on"], document["tolerance"], document["fault"]) == (256, 0.01, "")
    plain, int8 = document["rows"]
    assert (plain["precision"], int8["precision"]) == ("float32", "int8")
    assert plain["size_bytes"] == len(bundle.infer) + 4 * bundle.manifest.size
    assert int8["size_bytes"] < 0.35 * plain["size_bytes"]
    assert plain["metrics"]["accuracy"] > 0.9
    assert abs(plain["metrics"]["accuracy"] - int8["metrics"]["accuracy"]) < 0.02
    for row in (plain, int8):
        assert 0 < row["p50_us"] <= row["p99_us"]
        assert row["samples_per_s"] > 0 < row["open_ms"]
    assert (plain["make_ms"], int8["make_ms"] > 0, document["times"] > 0) == (0, True, True)
    assert document["recommendation"]["precision"] in ("float32", "int8")


def test_first_weights_of_ones_own_samples_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "my.npz", x=rng.random((50, 64), np.float32), y=rng.integers(0, 10, 50), split=np.arange(50) % 5 == 0)
    assert main([*SERVE, "--data", str(tmp_path / "my.npz")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "digits: 50826 parameters, first weights; 10 test samples"
    assert [line.split()[0] for line in lines[3:5]] == ["float32", "int8"]
    assert lines[-2].startswith("take ")
    assert lines[-1].endswith("give --store before you rely on this")


def row(precision: str, **metrics: float) -> Row:
    return Row(precision, 1, 0, 0, 1, 1, 1, metrics)


@pytest.mark.parametrize(
    ("rows", "times", "choice", "why"),
    [
        ((row("float32", accuracy=0.9), row("int8", accuracy=0.895)), 0.7, "int8", "0.70 times the time"),
        ((row("float32", accuracy=0.9), row("int8", accuracy=0.88)), 0.7, "float32", "int8 is worse: accuracy 0.8800"),
        ((row("float32", mse=1.0), row("int8", mse=1.02)), 0.7, "float32", "int8 is worse: mse 1.0200"),
        ((row("float32", accuracy=0.9), row("int8", accuracy=0.9)), 0.97, "float32", "int8 is not faster"),
        ((row("float32"), row("int8")), 0.5, "float32", "nothing says whether int8 is as good"),
        ((row("float32", accuracy=0.9),), None, "float32", "no products"),
    ],
)
def test_int8_is_recommended_only_where_it_is_faster_and_as_good(
    rows: tuple[Row, ...], times: float | None, choice: str, why: str
) -> None:
    found = Serving("t", 1, "w", True, 1, 1, 0.01, rows, times, "no products" if times is None else "")
    assert found.choice[0] == choice
    assert why in found.choice[1]
    assert f"take {choice}" in found.screen()
    assert found.document()["recommendation"]["precision"] == choice


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--data", "none.npz"], "none.npz"),
        (["--data", "digits", "--store", "nowhere"], "--store: there is no folder nowhere"),
        (["--data", "digits", "--store", "."], "--store: . holds no whole release of digits"),
        (["--data", "digits", "--task", "none.edge"], "none.edge: there is no such file"),
    ],
)
def test_what_is_refused_ends_with_3(
    flags: list[str], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*SERVE, *flags]) == 3
    assert reason in capsys.readouterr().err


def test_weights_that_overflow_end_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = read_bundle(BUNDLE.read_bytes())
    ReleaseStore(tmp_path, 3).save("digits", bundle, 1, 3, np.full(bundle.manifest.size, 3e38, np.float32))
    assert main([*SERVE, "--data", "digits", "--store", str(tmp_path)]) == 1
    assert "release 3 of run 1 cannot be served: outputs of 4 of 4 samples are not finite" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [[], ["--data", "digits", "--tolerance", "much"], ["--data", "digits", "--tolerance", "-1"]])
def test_wrong_usage_ends_with_2(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*SERVE, *flags])
    assert ended.value.code == 2
    assert "usage: edgemw bench serve" in capsys.readouterr().err


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["bench", "serve", "--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert "edgemw bench serve --task examples/quickstart/digits.edge --data digits" in out
    assert "exit code" in out
