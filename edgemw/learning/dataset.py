"""Samples, and whether they fit a task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemw.core.bundle import Manifest, Spec
from edgemw.core.errors import DataError

Array = npt.NDArray[Any]

_LARGEST = {"float32": np.float64(np.finfo(np.float32).max), "int64": np.nextafter(2.0**63, 0)}


@dataclass(frozen=True, slots=True)
class Samples:
    """Inputs [N, *input shape] and targets [N, *target shape]."""

    x: Array
    y: Array

    def __len__(self) -> int:
        return len(self.x)

    def take(self, rows: Array) -> Samples:
        """These rows."""
        return Samples(self.x[rows], self.y[rows])


@dataclass(frozen=True, slots=True)
class Dataset:
    """What a device has: samples to train on and samples held out to measure on."""

    train: Samples
    test: Samples


def fit(samples: Samples, manifest: Manifest) -> Samples:
    """The samples in the dtypes of the task, contiguous.

    Raises:
        DataError: shape, dtype or labels do not fit the task, or a value is NaN, infinite or beyond the task's dtype.
    """
    x = _cast(samples.x, manifest.input, "inputs")
    y = _cast(samples.y, manifest.target, "targets")
    if len(x) != len(y):
        raise DataError(f"{len(x)} inputs but {len(y)} targets")
    if manifest.classes is not None and len(y) and not (y.min() >= 0 and y.max() < manifest.classes):
        raise DataError(f"labels run from {y.min()} to {y.max()}, the task has classes 0 to {manifest.classes - 1}")
    return Samples(x, y)


def fit_dataset(dataset: Dataset, manifest: Manifest) -> Dataset:
    """Both parts of a dataset, fitted. Raises DataError; an empty training part is one."""
    if len(dataset.train) == 0:
        raise DataError("no samples to train on")
    return Dataset(fit(dataset.train, manifest), fit(dataset.test, manifest))


def _cast(array: Array, spec: Spec, what: str) -> Array:
    if array.ndim == 0:
        raise DataError(f"{what} are one value, not one per sample")
    if array.shape[1:] != spec.shape:
        raise DataError(f"{what} have shape {array.shape[1:]} per sample, the task takes {spec.shape}")
    if array.dtype.kind not in "fiub":
        raise DataError(f"{what} are of dtype {array.dtype}, the task takes {spec.dtype}")
    if array.dtype.kind == "f":
        _refuse_rows(array, ~np.isfinite(array), f"{what} hold NaN or infinite values")
        if spec.dtype == "int64":
            _refuse_rows(array, array != np.floor(array), f"{what} hold fractions, the task takes integers")
        _refuse_rows(array, np.abs(array) > _LARGEST[spec.dtype], f"{what} are beyond {spec.dtype}")
    elif array.dtype == np.uint64 and spec.dtype == "int64":
        _refuse_rows(array, array > np.iinfo(np.int64).max, f"{what} are beyond int64")
    return np.ascontiguousarray(array, dtype=spec.dtype)


def _refuse_rows(array: Array, wrong: npt.NDArray[np.bool_], complaint: str) -> None:
    rows = np.flatnonzero(wrong.any(axis=tuple(range(1, wrong.ndim))))
    if rows.size:
        raise DataError(f"{rows.size} of {len(array)} {complaint}, first in row {rows[0]}")
