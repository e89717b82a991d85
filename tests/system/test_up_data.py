"""`edgemw up --data FILE`: what the arrays of the file mean, and samples that do not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.system.fleet import edgemw
from tests.system.test_up import QUICKSTART, SMALL, flags

Array = npt.NDArray[Any]
COUNT = 80


def arrays() -> dict[str, Array]:
    """Samples of four clients that fit the quickstart's task, every fourth held out; a sample's number is in its first pixel."""
    rows = np.arange(COUNT)
    x = np.random.default_rng(0).random((COUNT, 64)).astype(np.float32)
    x[:, 0] = rows
    return {"x": x, "y": rows % 10, "client": rows // 20, "split": (rows % 4 == 3).astype(np.int64)}


def up(folder: Path, columns: dict[str, Array], *settings: str) -> tuple[int, dict[str, Any], str]:
    """Run the quickstart on these arrays: exit code, summary, standard error."""
    path = folder / "mine.npz"
    np.savez(path, **columns)  # type: ignore[arg-type]  # names are ours
    words = [str(QUICKSTART), "--data", str(path), "--json", "--out", str(folder / "out")]
    done = edgemw("up", *words, *flags(*SMALL, "task.rounds=1", *settings), timeout_s=120)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return done.returncode, lines[-1] if lines else {}, done.stderr


def test_clients_and_held_out_samples_of_the_file_are_used(tmp_path: Path) -> None:
    code, _, errors = up(tmp_path, arrays())
    assert code == 0, errors
    assert "mine.npz: 4 clients (array 'client') go whole to 2 devices; 20 of 80 are held out for testing" in errors
    for device in range(2):
        with np.load(tmp_path / f"out/data/device-{device}.npz") as part:
            numbers = part["x"][:, 0].astype(int)
            assert {n // 20 for n in numbers} == {device, device + 2}
            np.testing.assert_array_equal(part["split"] == 1, numbers % 4 == 3)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"x": np.zeros((COUNT, 32), np.float32)}, "inputs have shape (32,) per sample, the task takes (64,)"),
        ({"y": np.arange(COUNT) % 11}, "labels run from 0 to 10, the task has classes 0 to 9"),
        ({"y": np.array(["seven"] * COUNT)}, "targets are of dtype <U5, the task takes int64"),
        ({"x": np.full((COUNT, 64), np.nan)}, "no device has samples that fit: device-0: 30 of 30 inputs hold NaN"),
        ({"client": np.zeros(COUNT)}, "array 'client' names 1 clients, fewer than the 2 devices"),
        ({"split": np.array(["train"] * COUNT)}, "array 'split' must be 0 for training and 1 for test samples, found 'train'"),
    ],
)
def test_samples_that_do_not_fit_are_refused_before_anything_starts(tmp_path: Path, change: dict[str, Array], says: str) -> None:
    code, _, errors = up(tmp_path, arrays() | change)
    assert code == 3
    assert f"{tmp_path / 'mine.npz'}: {says}" in errors
    assert not (tmp_path / "out").exists()


def test_a_device_with_unusable_samples_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    columns = arrays()
    columns["x"][21, 5] = np.nan
    code, summary, errors = up(tmp_path, columns)
    assert code == 0, errors
    assert summary["finished"] is True
    assert summary["reasons"].keys() == {"device-1"}
    assert "data refused: 1 of 30 inputs hold NaN" in summary["reasons"]["device-1"]
    assert "device-1 will not train: 1 of 30 inputs hold NaN or infinite values, first in row 1" in errors
    assert summary["updates_counted"] == summary["updates_sent"] == 1
