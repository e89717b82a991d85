"""Samples, and whether they fit a task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemw.core.bundle import Manifest, Spec
from edgemw.core.errors import DataError

Array = npt.NDArray[Any]


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
        DataError: shape, dtype or labels do not fit the task, or a value is NaN or infinite.
    """
    if len(samples.x) != len(samples.y):
        raise DataError(f"{len(samples.x)} inputs but {len(samples.y)} targets")
    x = _cast(samples.x, manifest.input, "inputs")
    y = _cast(samples.y, manifest.target, "targets")
    if manifest.classes is not None and len(y) and not (y.min() >= 0 and y.max() < manifest.classes):
        raise DataError(f"labels run from {y.min()} to {y.max()}, the task has classes 0 to {manifest.classes - 1}")
    return Samples(x, y)


def fit_dataset(dataset: Dataset, manifest: Manifest) -> Dataset:
    """Both parts of a dataset, fitted. Raises DataError; an empty training part is one."""
    if len(dataset.train) == 0:
        raise DataError("no samples to train on")
    return Dataset(fit(dataset.train, manifest), fit(dataset.test, manifest))


def _cast(array: Array, spec: Spec, what: str) -> Array:
    if array.shape[1:] != spec.shape:
        raise DataError(f"{what} have shape {array.shape[1:]} per sample, the task takes {spec.shape}")
    if array.dtype.kind not in "fiub":
        raise DataError(f"{what} are of dtype {array.dtype}, the task takes {spec.dtype}")
    if array.dtype.kind == "f":
        bad: Array = np.flatnonzero(~np.isfinite(array.reshape(len(array), -1)).all(axis=1))
        if bad.size:
            raise DataError(f"{bad.size} of {len(array)} {what} hold NaN or infinite values, first in row {bad[0]}")
        if spec.dtype == "int64" and (array != np.floor(array)).any():
            raise DataError(f"{what} hold fractions, the task takes integers")
    return np.ascontiguousarray(array, dtype=spec.dtype)
