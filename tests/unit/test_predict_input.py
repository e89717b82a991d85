"""Samples for `edgemw predict`: from every kind of file that people have, and what it says to any other."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgemw.cli import predict as command
from edgemw.core.bundle import read_bundle
from edgemw.serving.store import ReleaseStore

DIGITS = Path(__file__).parents[2] / "examples" / "quickstart" / "digits.edge"
X = np.random.default_rng(0).random((3, 64)).round(3)

Run = Callable[..., int]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    bundle, folder = read_bundle(DIGITS.read_bytes()), tmp_path_factory.mktemp("store")
    ReleaseStore(folder, 1).save("digits", bundle, 1, 0, bundle.theta0)
    return folder


@pytest.fixture
def run(store: Path) -> Run:
    def call(*arguments: object) -> int:
        main = argparse.ArgumentParser()
        command.add_parser(main.add_subparsers())
        args = main.parse_args(["predict", "--store", str(store), *map(str, arguments)])
        return int(args.run(args))

    return call


def save_as_text(path: Path, x: np.ndarray) -> None:
    np.savetxt(path, x, delimiter=",")


def save_as_json(path: Path, x: np.ndarray) -> None:
    path.write_text(json.dumps(x.tolist()))


SAVE: dict[str, Callable[[Path, np.ndarray], None]] = {
    "in.npy": np.save,
    "in.npz": lambda path, x: np.savez(path, x=x),
    "in.csv": save_as_text,
    "in.json": save_as_json,
}


@pytest.mark.parametrize("name", SAVE)
def test_every_format_gives_the_same_answer(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert run("--json", json.dumps(X.tolist()), "--json-output") == 0
    expected = json.loads(capsys.readouterr().out)
    SAVE[name](tmp_path / name, X)
    assert run("--input", tmp_path / name, "--json-output") == 0
    assert json.loads(capsys.readouterr().out) == expected
    assert run("--input", tmp_path / name, "--row", "1", "--json-output") == 0
    assert json.loads(capsys.readouterr().out)["outputs"][0] == pytest.approx(expected["outputs"][1], rel=1e-5)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("in.txt", b"0.5, 1.0\n", "in.txt is no array: .npz, .npy, .csv (numbers, one sample a line) and .json are read"),
        ("in.npy", b"", "in.npy is no array"),
        ("in.npz", b"PK\x03\x04 and no more", "in.npz is no array"),
        ("in.npy", b"\x93NUMPY\x01\x00", "in.npy cannot be read"),
        ("in.csv", b"a,b\n1,2\n", "in.csv cannot be read: could not convert string to float: 'a'"),
        ("in.csv", b"1,2\n3\n", "in.csv cannot be read: the lines do not have as many numbers"),
        ("in.csv", b"\n", "in.csv cannot be read: the lines do not have as many numbers, or there are none"),
        ("in.csv", b"\xff\xfe", "in.csv cannot be read"),
        ("in.csv", b"1,2\n", "one sample [64]"),
        ("in.json", b"{}", "in.json holds something that is not a number"),
    ],
)
def test_what_is_no_array_is_refused_with_what_is_read(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes, says: str
) -> None:
    (tmp_path / name).write_bytes(content)
    assert run("--input", tmp_path / name) == 3
    printed = capsys.readouterr().err
    assert says in printed
    assert printed.startswith("edgemw: ")
    assert "pickle" not in printed


@pytest.mark.parametrize("x", [np.array([{}], object), np.array(["a"] * 64)])
def test_an_array_of_something_else_is_refused(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], x: np.ndarray
) -> None:
    for name in ("in.npy", "in.npz"):
        SAVE[name](tmp_path / name, x)
        assert run("--input", tmp_path / name) == 3
        printed = capsys.readouterr().err
        assert "not numbers" in printed or "not a number" in printed
        assert "pickle" not in printed


@pytest.mark.parametrize("arguments", [["[[1]]"], ["--task", "digits", "[[1]]"], ["[[1]]", "--json"]])
def test_values_without_their_flag_are_told_which_it_is(
    run: Run, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(*arguments)
    assert ended.value.code == 2
    assert "'[[1]]' stands alone: samples are given with --json VALUES or --input FILE" in capsys.readouterr().err
