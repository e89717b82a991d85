"""Samples that fit a task, and what is said about those that do not."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgemw.core.bundle import Manifest, Slot, Spec
from edgemw.core.errors import DataError
from edgemw.learning.dataset import Dataset, Samples, fit, fit_dataset

Array = npt.NDArray[Any]


def manifest(
    *, x: tuple[int, ...] = (2,), y: tuple[int, ...] = (), target: str = "int64", classes: int | None = 3, source: str = "float32"
) -> Manifest:
    layout = (Slot("w", (2,), 0),)
    return Manifest("toy", layout, Spec(x, source), Spec(y, target), Spec((3,), "float32"), "any", ("accuracy",), classes=classes)


def good(count: int = 4) -> Samples:
    return Samples(np.ones((count, 2), np.float32), np.arange(count) % 3)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "uint16", "int64", "bool"])
def test_numbers_of_every_kind_become_the_dtype_of_the_task(dtype: str) -> None:
    fitted = fit(Samples(np.ones((4, 2), dtype), np.ones(4, dtype)), manifest())
    assert (fitted.x.dtype.name, fitted.y.dtype.name) == ("float32", "int64")
    np.testing.assert_array_equal(fitted.x, 1)


def test_strided_samples_become_contiguous() -> None:
    fitted = fit(Samples(np.ones((2, 8), np.float32).T[::2], np.zeros(8, np.int64)[::2]), manifest())
    assert fitted.x.flags.c_contiguous
    assert fitted.y.flags.c_contiguous


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.ones((4, 3)), np.zeros(4), "inputs have shape (3,) per sample, the task takes (2,)"),
        (np.ones((4, 2)), np.zeros((4, 1)), "targets have shape (1,) per sample, the task takes ()"),
        (np.ones((4, 2)), np.zeros(3), "4 inputs but 3 targets"),
        (np.array(1.0), np.zeros(3), "inputs are one value, not one per sample"),
        (np.full((4, 2), "a"), np.zeros(4), "inputs are of dtype <U1, the task takes float32"),
        (np.ones((4, 2), complex), np.zeros(4), "inputs are of dtype complex128"),
        (np.full((4, 2), None), np.zeros(4), "inputs are of dtype object"),
        (np.ones((4, 2)), np.array(["cat"] * 4), "targets are of dtype <U3, the task takes int64"),
        (np.ones((4, 2)), np.array([0, 1, 2, 3]), "labels run from 0 to 3, the task has classes 0 to 2"),
        (np.ones((4, 2)), np.array([0, -1, 2, 1]), "labels run from -1 to 2, the task has classes 0 to 2"),
        (np.ones((4, 2)), np.array([0, 1.5, 2, 0.5]), "2 of 4 targets hold fractions, the task takes integers, first in row 1"),
        (np.ones((4, 2)), np.array([0, 1, np.nan, 1]), "1 of 4 targets hold NaN or infinite values, first in row 2"),
        (np.ones((4, 2)), np.array([0, 1, 1e30, 1]), "1 of 4 targets are beyond int64, first in row 2"),
        (np.ones((4, 2)), np.array([0, 1, 2**63 + 1, 1], np.uint64), "1 of 4 targets are beyond int64, first in row 2"),
        (np.array([[1, 1], [1, 1e300], [-1e39, 0]]), np.zeros(3), "2 of 3 inputs are beyond float32, first in row 1"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(x: Array, y: Array, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        fit(Samples(x, y), manifest())


def test_nan_is_counted_by_rows_and_the_first_is_named() -> None:
    x = np.ones((1000, 4, 5), np.float32)
    x[17, 2, 2], x[17, 3, 3], x[400, 0, 0], x[999] = np.nan, np.inf, -np.inf, np.nan
    with pytest.raises(DataError, match=r"3 of 1000 inputs hold NaN or infinite values, first in row 17"):
        fit(Samples(x, np.zeros(1000, np.int64)), manifest(x=(4, 5)))


def test_whole_numbers_written_as_floats_are_labels() -> None:
    assert fit(Samples(np.ones((3, 2)), np.array([0.0, 1.0, 2.0])), manifest()).y.tolist() == [0, 1, 2]


def test_a_regression_has_no_classes() -> None:
    fitted = fit(Samples(np.ones((2, 2)), np.array([[-5.5, 9e9]] * 2)), manifest(y=(2,), target="float32", classes=None))
    assert fitted.y.dtype == np.float32


def test_table_indices_are_inputs_too() -> None:
    fitted = fit(Samples(np.array([[1, 2], [3, 4]], np.uint8), np.zeros(2)), manifest(source="int64"))
    assert fitted.x.dtype == np.int64


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
def test_an_empty_test_part_is_no_error(dtype: str) -> None:
    fitted = fit_dataset(Dataset(good(), Samples(np.empty((0, 2), dtype), np.empty(0, dtype))), manifest())
    assert (len(fitted.train), len(fitted.test)) == (4, 0)


def test_an_empty_training_part_is_an_error() -> None:
    with pytest.raises(DataError, match="no samples to train on"):
        fit_dataset(Dataset(good(0), good()), manifest())


def test_a_bad_test_part_is_refused_too() -> None:
    bad = Samples(np.ones((2, 2), np.float32), np.array([0, 7]))
    with pytest.raises(DataError, match="labels run from 0 to 7"):
        fit_dataset(Dataset(good(), bad), manifest())


def test_take_picks_rows_of_both_sides() -> None:
    taken = good().take(np.array([2, 1]))
    assert (len(taken), taken.y.tolist()) == (2, [2, 1])
