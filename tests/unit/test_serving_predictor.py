"""`edgemw.Predictor`, `edgemw predict --store`: from a folder to predictions."""

from __future__ import annotations

import argparse
import doctest
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgemw.cli import predict as command
from edgemw.core.bundle import Bundle, read_bundle
from edgemw.core.errors import ConfigError, DataError, StorageError
from edgemw.serving import predictor as module
from edgemw.serving.predictor import Predictor
from edgemw.serving.session import open_inference
from edgemw.serving.store import THETA, ReleaseStore

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "examples" / "quickstart" / "digits.edge"


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return read_bundle(DIGITS.read_bytes())


@pytest.fixture
def folder(tmp_path: Path, bundle: Bundle) -> Path:
    ReleaseStore(tmp_path / "store", 3).save("digits", bundle, 1, 0, bundle.theta0)
    return tmp_path / "store"


def test_the_example_in_the_docstring_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert doctest.testmod(module).failed == 0


def test_it_gives_what_the_session_gives(folder: Path, bundle: Bundle) -> None:
    predictor = Predictor(folder)
    x = np.random.default_rng(0).random((5, 64))
    expected = open_inference(bundle.infer, bundle.theta0, size=bundle.manifest.size).run(x.astype(np.float32))
    np.testing.assert_array_equal(predictor.predict(x), expected)
    np.testing.assert_allclose(predictor.predict(x[2].tolist()), expected[2], rtol=1e-5)
    assert predictor.manifest == bundle.manifest
    with pytest.raises(DataError, match=r"one sample \[64\] or a batch \[N, 64\]"):
        predictor.predict(x[:, :63])


def test_it_goes_over_to_a_newer_release(folder: Path, bundle: Bundle) -> None:
    predictor = Predictor(folder)
    assert not predictor.refresh()
    ReleaseStore(folder, 3).save("digits", bundle, 1, 4, np.zeros_like(bundle.theta0))
    assert predictor.refresh()
    assert predictor.release == 4
    assert not predictor.predict(np.ones(64)).any()


def test_a_damaged_newer_release_changes_nothing(folder: Path, bundle: Bundle) -> None:
    predictor = Predictor(folder)
    ReleaseStore(folder, 3).save("digits", bundle, 1, 4, np.zeros_like(bundle.theta0))
    newest = max((folder / "digits" / "releases").iterdir())
    (newest / THETA).write_bytes(b"")
    assert not predictor.refresh()
    assert predictor.release == 0
    assert Predictor(folder).release == 0


def test_what_is_missing_is_named(folder: Path, bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no folder"):
        Predictor(tmp_path / "elsewhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="no release yet"):
        Predictor(tmp_path / "empty")
    with pytest.raises(ConfigError, match="did you mean 'digits'"):
        Predictor(folder, "digit")
    ReleaseStore(folder, 3).save("other", bundle, 1, 0, bundle.theta0)
    with pytest.raises(ConfigError, match="digits, other"):
        Predictor(folder)
    assert Predictor(folder, "other").task == "other"
    shutil.rmtree(folder / "digits" / "bundles")
    with pytest.raises(StorageError, match="damaged"):
        Predictor(folder, "digits")


def test_it_needs_neither_torch_nor_paho_nor_prometheus() -> None:
    code = "import sys; from edgemw import Predictor; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "paho", "prometheus_client", "onnx"} & set(loaded)


# -- the command

Run = Callable[..., int]


@pytest.fixture
def run() -> Run:
    def call(*arguments: object) -> int:
        main = argparse.ArgumentParser()
        command.add_parser(main.add_subparsers())
        args = main.parse_args(["predict", *map(str, arguments)])
        return int(args.run(args))

    return call


def test_a_line_for_each_sample(folder: Path, run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", x=np.random.default_rng(0).random((3, 64)))
    assert run("--store", folder, "--input", tmp_path / "in.npz") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("class ") and 0.1 < float(line.split()[-1]) <= 1 for line in lines)
    assert run("--store", folder, "--input", tmp_path / "in.npz", "--row", "-1") == 0
    assert capsys.readouterr().out.splitlines() == lines[-1:]


@pytest.mark.parametrize("flags", [["--json-output"], ["--json"]])
def test_the_machine_form(
    folder: Path, run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, flags: list[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps([0.5] * 64)))
    assert run("--store", folder, "--input", "-", *flags) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["task"], document["release"]) == ("digits", 0)
    assert document["classes"] == [int(np.argmax(document["outputs"][0]))]
    assert document["scores"][0] == pytest.approx(np.exp(document["outputs"][0]).max() / np.exp(document["outputs"][0]).sum())


def test_samples_from_a_json_file(folder: Path, run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text(json.dumps([[0.5] * 64, [1] * 64]))
    assert run("--store", folder, "--input", tmp_path / "in.json", "--task", "digits") == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_a_model_that_does_not_classify_gives_numbers(
    bundle: Bundle, run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    regression = replace(bundle, manifest=replace(bundle.manifest, classes=None))
    ReleaseStore(tmp_path, 3).save("digits", regression, 1, 0, np.zeros_like(bundle.theta0))
    values = json.dumps([[0.5] * 64, [1.0] * 64])
    assert run("--store", tmp_path, "--json", values) == 0
    assert capsys.readouterr().out.splitlines() == [" ".join(["0"] * 10)] * 2
    assert run("--store", tmp_path, "--json", values, "--json-output") == 0
    assert json.loads(capsys.readouterr().out) == {"task": "digits", "release": 0, "outputs": [[0.0] * 10] * 2}


def test_an_error_in_the_machine_form_is_json(folder: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--store", folder, "--json", "[1]", "--json-output") == 3
    assert "one sample [64]" in json.loads(capsys.readouterr().err)["error"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--json", "[[1, 2]]"], "one sample [64]"),
        (["--json", "[[1], [1, 2]]"], "not a JSON array of numbers"),
        (["--json", "[[1"], "not a JSON array"),
        (["--json", '["a"]'], "not a number"),
        (["--input", "none.npz"], "none.npz cannot be read"),
        (["--input", DIGITS], "no array 'x'"),
        (["--json", "[[1, 2]]", "--row", "1"], "there is no sample 1"),
        (["--json", "[[1, 2]]", "--task", "digit"], "did you mean 'digits'"),
    ],
)
def test_what_does_not_fit_ends_with_code_3_and_says_why(
    folder: Path, run: Run, capsys: pytest.CaptureFixture[str], arguments: list[object], text: str
) -> None:
    assert run("--store", folder, *arguments) == 3
    assert text in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--json", "[1]"],
        ["--store", "a", "--url", "http://b", "--json", "[1]"],
        ["--store", "a"],
        ["--store", "a", "--input", "x.npz", "--json", "[1]"],
        ["--url", "http://b", "--json", "[1]"],
    ],
)
def test_wrong_usage_ends_with_code_2(run: Run, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(*arguments)
    assert ended.value.code == 2


def test_the_help_ends_with_two_examples(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("--help")
    lines = capsys.readouterr().out.rstrip().splitlines()
    assert all(line.startswith("  edgemw predict --") for line in lines[-2:])
