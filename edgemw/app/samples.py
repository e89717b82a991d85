"""From the [[data]] tables of a device to the samples of a task."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemw.app.settings import Data
from edgemw.core.bundle import Manifest
from edgemw.core.errors import DataError
from edgemw.learning.dataset import Dataset, Samples
from edgemw.storage.tables import Columns, read_table

Array = npt.NDArray[Any]


def load_samples(tables: Sequence[Data], manifest: Manifest) -> Dataset:
    """The samples that a device's settings name for a task.

    Raises:
        DataError: none are named, or they cannot be read.
    """
    chosen = [table for table in tables if table.task == manifest.name] or [table for table in tables if not table.task]
    if not chosen:
        raise DataError(f"no [[data]] table for task {manifest.name!r}")
    return _load(chosen[0], manifest)


def _load(data: Data, manifest: Manifest) -> Dataset:
    columns = _from_function(data) if data.use else read_table(data.path or Path())
    where = str(data.path or data.use)
    named = [*_names(data.x), *_names(data.y), *data.select, *_names(data.split)]
    keep = np.ones(length_of(columns, named, where), bool)
    for name, value in data.select.items():
        keep &= one_value(columns, name, where) == value
    if not keep.any():
        wanted = " and ".join(f"{name} = {value!r}" for name, value in data.select.items())
        raise DataError(f"{where}: no samples" + (f" with {wanted}" if wanted else ""))
    x = shaped(_array(columns, data.x)[keep], manifest.input.shape)
    y = shaped(_array(columns, data.y)[keep], manifest.target.shape)
    samples = Samples(x, y)
    if data.split:
        side = one_value(columns, data.split, where)[keep]
        return Dataset(samples.take(np.flatnonzero(side == data.train)), samples.take(np.flatnonzero(side == data.test)))
    return _held_out(samples, data.test_fraction)


def _from_function(data: Data) -> Columns:
    module, _, name = data.use.partition(":")
    try:
        load = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise DataError(f"{data.use}: {error}") from error
    made = load()
    if not isinstance(made, tuple) or len(made) != 2:
        raise DataError(f"{data.use} must give a tuple (x, y)")
    return {"x": np.asarray(made[0]), "y": np.asarray(made[1])}


def _names(names: str | tuple[str, ...]) -> tuple[str, ...]:
    return names if isinstance(names, tuple) else (names,) if names else ()


def length_of(columns: Columns, names: Sequence[str], where: str) -> int:
    """How many samples the named columns have; others in the file may be about anything.

    Raises:
        DataError: one is not there, or they differ in length.
    """
    lengths: dict[str, int] = {}
    for name in names:
        if name not in columns:
            raise DataError(f"{where}: no array {name!r}; there are {', '.join(columns) or 'none'}")
        if columns[name].ndim == 0:
            raise DataError(f"{where}: {name!r} is one value, not one per sample")
        lengths[name] = len(columns[name])
    if len(set(lengths.values())) > 1:
        raise DataError(f"{where}: columns differ in length: {', '.join(f'{n} has {rows}' for n, rows in lengths.items())}")
    return next(iter(lengths.values()))


def one_value(columns: Columns, name: str, where: str) -> Array:
    """A column with one value per sample, [N]. Raises DataError when it has more."""
    column = columns[name]
    if column.ndim != 1:
        raise DataError(f"{where}: {name!r} has {column.shape[1:]} values per sample, one is needed")
    return column


def _array(columns: Columns, names: str | tuple[str, ...]) -> Array:
    return columns[names] if isinstance(names, str) else np.stack([columns[name] for name in names], axis=1)


def shaped(rows: Array, shape: tuple[int, ...]) -> Array:
    """Flat rows, and single values, are given the task's shape; any other difference is for `fit` to refuse."""
    fits = rows.ndim <= 2 and math.prod(rows.shape[1:]) == math.prod(shape)
    return rows.reshape(len(rows), *shape) if fits else rows


def _held_out(samples: Samples, fraction: float) -> Dataset:
    """Each sample says by itself whether it is held out, so that one more or less never changes what another one is for.

    A split by row numbers would: then a sample would change a sum over samples by more than its own part of it.
    """
    x, y = _as_every_source(samples.x), _as_every_source(samples.y)
    drawn = [hashlib.blake2b(x[row].tobytes() + y[row].tobytes(), digest_size=8).digest() for row in range(len(samples))]
    held = np.frombuffer(b"".join(drawn), "<u8") < np.uint64(fraction * 2.0**64)
    if held.all():
        raise DataError(f"test_fraction = {fraction:g} leaves none of {len(samples)} samples to train on: 0 holds none out")
    return Dataset(samples.take(np.flatnonzero(~held)), samples.take(np.flatnonzero(held)))


def _as_every_source(array: Array) -> Array:
    """Numbers as float32, so that a table says the same as arrays do."""
    with np.errstate(over="ignore", invalid="ignore"):
        return array.astype(np.float32) if array.dtype.kind in "fiub" else array
