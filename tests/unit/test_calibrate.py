"""`edgemw profile calibrate`: what is measured, what the profile that it writes says, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from edgemw.bench.calibrate import Calibration, Spread, calibrate, own_cores
from edgemw.bench.cost import class_of
from edgemw.bench.local import SOURCE, local_profile
from edgemw.cli.main import main
from edgemw.core.bundle import read_bundle
from edgemw.core.config.loader import load
from edgemw.core.errors import BundleError
from edgemw.profiles.catalogue import load_profile, profile_names
from edgemw.profiles.device import Profile
from edgemw.profiles.known import numbers
from edgemw.profiles.writer import profile_text
from edgemw.simulation.toy import toy_bundle

DIGITS = Path(__file__).parents[2] / "examples" / "quickstart" / "digits.edge"
KEYS = (
    "training_steps_per_s",
    "training_macs_per_s",
    "inference_s",
    "encode_bytes_per_s",
    "merge_bytes_per_s",
    "decode_bytes_per_s",
)
FOUND = Calibration(
    measured={f"compute.{key}": Spread(1234.5678, 1200.0, 1250.0) for key in KEYS},
    threads=3,
    steps_by_threads={1: 500.0, 3: 1234.5678},
    batch=32,
    parameters=50826,
    task="digits",
    cores=4,
    ram_bytes=2 << 30,
    others=0.0,
)


def run_calibrate(*words: str | Path) -> int:
    return main(["profile", "calibrate", "--seconds", "0.5", *map(str, words)])


def test_it_writes_a_profile_that_others_can_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "mine.toml"
    assert run_calibrate("--base", "raspberry-pi-4b", "--name", "mine", "--out", out, "--json") == 0
    said = capsys.readouterr()
    document = json.loads(said.out)
    assert (document["file"], document["profile"], document["base"]) == (str(out), "mine", "raspberry-pi-4b")
    assert [*document["measured"]] == [f"compute.{key}" for key in KEYS]
    assert all(0 < each["low"] <= each["median"] <= each["high"] for each in document["measured"].values())
    assert "turn 7 of 7" in said.err
    profile = load_profile(out)
    assert profile.power == load_profile("raspberry-pi-4b").power, "what it draws is not measured"
    assert "dramble" in profile.sources
    assert profile.cpu == load_profile("raspberry-pi-4b").cpu, "the watts are of all its cores"
    here = {key: number.how for key, number in numbers(profile) if number.source == SOURCE}
    assert here == dict.fromkeys(
        ["memory.ram_bytes", "defaults.training.threads", *(f"compute.{key}" for key in KEYS)], "measured"
    )
    assert main(["profile", "show", str(out)]) == 0
    assert "compute.training_steps_per_s" in capsys.readouterr().out
    (tmp_path / "device.toml").write_text('net = "n"\nnode = { id = "d", parent = "top", profile = "./mine.toml" }\n')
    assert main(["config", "explain", "training.threads", "--config", str(tmp_path / "device.toml"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["training.threads"]["origin"] == "profile mine"


def test_a_file_that_is_there_is_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "mine.toml"
    out.write_text("something else")
    assert run_calibrate("--base", "raspberry-pi-5", "--out", out) == 3
    assert "is there already: give another --out, or --force" in capsys.readouterr().err
    assert out.read_text() == "something else"
    assert run_calibrate("--base", "raspberry-pi-5", "--out", out, "--force") == 0
    assert load_profile(out).name == "raspberry-pi-5-local"
    assert f"written to {out}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--base", "raspberry-pi-9"], "there is no profile 'raspberry-pi-9'"),
        (["--bundle", "none.edge"], "none.edge"),
        (["--bundle", str(DIGITS.with_name("device.toml"))], "device.toml"),
        (["--name", "My Board"], "is not 1 to 40 of a-z"),
        (["--out", "mine.txt"], "ends in .toml"),
        (["--out", "no/such/mine.toml"], "is no folder"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_calibrate(*words) == 3
    error = capsys.readouterr().err
    assert said in error
    assert "turn" not in error
    assert [*tmp_path.iterdir()] == []


def test_a_task_that_cannot_be_trained_here_is_refused() -> None:
    with pytest.raises(BundleError):
        calibrate(toy_bundle(64), 0.1, lambda text: None)


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "1e9", "soon"])
def test_seconds_are_some(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["profile", "calibrate", f"--seconds={seconds}"])
    assert ended.value.code == 2
    assert "from 0.5 to 3600" in capsys.readouterr().err


def test_every_number_of_threads_is_tried() -> None:
    told: list[str] = []
    found = calibrate(read_bundle(DIGITS.read_bytes()), 0.5, told.append, threads=(1, 2))
    assert [*found.steps_by_threads] == [1, 2]
    assert found.threads in (1, 2)
    assert found.measured["compute.training_steps_per_s"].median == found.steps_by_threads[found.threads]
    assert (found.cores, found.batch, found.parameters) == (own_cores(), 32, 50826)
    assert found.ram_bytes > 1 << 27
    assert len(told) == 7


def test_the_profile_says_what_was_measured_and_keeps_the_rest() -> None:
    base = load_profile("raspberry-pi-4b")
    profile = local_profile(base, "mine", FOUND, "here, today")
    assert profile.compute.training_steps_per_s is not None
    assert profile.compute.training_steps_per_s.value == 1235.0
    assert (
        profile.compute.training_steps_per_s.note
        == "digits, 50826 parameters, batches of 32, threads: 3; quartiles 1.2e+03 and 1.25e+03"
    )
    assert (profile.cpu.cores, profile.memory.ram_bytes, profile.defaults.training.threads) != (None, None, None)
    assert profile.cpu.isa == "cortex-a72"
    assert (profile.power, profile.radios, profile.compute.fp64_flops_per_s) == (
        base.power,
        base.radios,
        base.compute.fp64_flops_per_s,
    )
    assert profile.sources[SOURCE] == "here, today"
    assert {number.source for _, number in numbers(profile)} == set(profile.sources), "no source that no number is from"
    again = local_profile(profile, "mine", replace(FOUND, cores=2), "here, tomorrow")
    assert again.sources[SOURCE] == "here, tomorrow"


def test_a_machine_of_no_class_has_no_power(tmp_path: Path) -> None:
    profile = local_profile(None, "local", FOUND, "here")
    assert (profile.power.idle_w, profile.runs, [*profile.sources]) == (None, "python", [SOURCE])
    (tmp_path / "local.toml").write_text(profile_text(profile))
    assert class_of(str(tmp_path / "local.toml")).training_s(50826, 32 * 1234.5678) == pytest.approx(3 * 50826 * 32, rel=1e-3)


def test_a_busy_machine_and_values_that_differ_are_told() -> None:
    assert FOUND.warnings == ()
    (busy,) = replace(FOUND, others=0.5).warnings
    assert busy.startswith("other programs used 0.5 cores meanwhile")
    (wide,) = replace(FOUND, measured={"compute.inference_s": Spread(1.0, 0.8, 1.2)}).warnings
    assert wide.startswith("compute.inference_s differed by 40% between quartiles")


@pytest.mark.parametrize("name", profile_names())
def test_a_written_profile_loads_as_the_same(name: str) -> None:
    found = load_profile(name)
    text = profile_text(found)
    assert load(Profile, text, "x.toml", cwd=Path("/")).value == found
    headers = [line for line in text.splitlines() if line.startswith("[")]
    assert len(headers) == len(set(headers)) <= len(tomllib.loads(text)), "numbers are lines, not tables"


def test_it_needs_no_torch(tmp_path: Path) -> None:
    words = ["profile", "calibrate", "--seconds", "0.5", "--base", "raspberry-pi-5", "--out", str(tmp_path / "a.toml")]
    code = (
        f"import sys\nfrom edgemw.cli.main import main\nassert main({words}) == 0\n"
        "print(*sorted({'torch', 'onnx', 'sklearn', 'scipy'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stderr.splitlines()[-1] == ""


def test_a_written_profile_keeps_names_that_toml_must_quote_and_lists_that_are_empty() -> None:
    found = load_profile("raspberry-pi-4b")
    named = replace(found, sources=found.sources | {"bench 2026.03": 'a meter, with "quotes"'}, energy_sources=("model",))
    assert load(Profile, profile_text(named), "x.toml", cwd=Path("/")).value == named


def test_watts_of_one_core_are_not_multiplied_by_the_cores_that_calibrate_has_seen() -> None:
    base = load_profile("x86-vcpu")
    assert base.power.per_core
    assert local_profile(base, "mine", replace(FOUND, cores=8), "here, today").cpu == base.cpu
