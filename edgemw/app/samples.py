"""From the [[data]] tables of a device to the samples of a task, and from one data set to the files of many devices."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemw.app.settings import Data
from edgemw.app.settings import Dataset as DatasetSettings
from edgemw.core.bundle import Manifest
from edgemw.core.errors import DataError
from edgemw.learning import partition
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
    keep = np.ones(_length(columns, where), bool)
    for name, value in data.select.items():
        keep &= _column(columns, name, where) == value
    if not keep.any():
        raise DataError(f"{where}: no sample with {', '.join(f'{k} = {v}' for k, v in data.select.items())}")
    x = _shaped(_array(columns, data.x, where)[keep], manifest.input.shape)
    y = _array(columns, data.y, where)[keep]
    samples = Samples(x, y.reshape(len(y), *manifest.target.shape) if y.ndim == 1 else y)
    if data.split:
        side = _column(columns, data.split, where)[keep]
        return Dataset(samples.take(np.flatnonzero(side == data.train)), samples.take(np.flatnonzero(side == data.test)))
    return _held_out(samples, data.test_fraction)


def _from_function(data: Data) -> Columns:
    module, _, name = data.use.partition(":")
    try:
        made = getattr(import_module(module), name)()
    except (ImportError, AttributeError) as error:
        raise DataError(f"{data.use}: {error}") from error
    if not isinstance(made, tuple) or len(made) != 2:
        raise DataError(f"{data.use} must give a tuple (x, y)")
    return {"x": np.asarray(made[0]), "y": np.asarray(made[1])}


def _length(columns: Columns, where: str) -> int:
    lengths = {len(column) for column in columns.values() if column.ndim}
    if len(lengths) != 1:
        raise DataError(f"{where}: columns have different lengths: {sorted(lengths)}")
    return lengths.pop()


def _column(columns: Columns, name: str, where: str) -> Array:
    if name not in columns:
        raise DataError(f"{where}: no array {name!r}; there are {', '.join(columns)}")
    return columns[name]


def _array(columns: Columns, names: str | tuple[str, ...], where: str) -> Array:
    if isinstance(names, str):
        return _column(columns, names, where)
    return np.stack([_column(columns, name, where) for name in names], axis=1)


def _shaped(x: Array, shape: tuple[int, ...]) -> Array:
    """Flat rows are given the task's shape; any other difference is for `fit` to refuse."""
    fits = x.ndim == 2 and x.shape[1:] != shape and x.shape[1] == int(np.prod(shape, dtype=np.int64))
    return x.reshape(len(x), *shape) if fits else x


def _held_out(samples: Samples, fraction: float) -> Dataset:
    order = np.random.Generator(np.random.Philox(0)).permutation(len(samples))
    count = round(fraction * len(samples))
    return Dataset(samples.take(np.sort(order[count:])), samples.take(np.sort(order[:count])))


def deal_out(settings: DatasetSettings, devices: Sequence[str], folder: Path) -> dict[str, Path]:
    """Write one .npz (x, y, split) per device and give the files by device.

    Training samples are dealt out as `partition` says. Test samples are dealt out evenly, each to one device, so that sums
    over the devices are the metric on the whole test set; by client, where the partition is natural.

    Raises:
        DataError: the data cannot be read or dealt out so.
    """
    x, y, client, test = _whole(settings)
    rng = np.random.default_rng(settings.seed)
    train_rows, test_rows = np.flatnonzero(~test), np.flatnonzero(test)
    if settings.partition == "natural":
        if client is None:
            raise DataError(f"{settings.path}: no array {settings.client!r} says whose each sample is")
        parts = partition.natural(client[train_rows], len(devices))
        owners = [np.unique(client[train_rows[part]]) for part in parts]
        tests = [np.flatnonzero(np.isin(client[test_rows], owner)) for owner in owners]
    else:
        if settings.partition == "dirichlet":
            parts = partition.dirichlet(y[train_rows], len(devices), settings.alpha, settings.min_size, rng)
        else:
            parts = partition.iid(len(train_rows), len(devices), rng)
        tests = partition.iid(len(test_rows), len(devices), rng)
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for device, part, held in zip(devices, parts, tests, strict=True):
        rows = np.concatenate([train_rows[part], test_rows[held]])
        split = np.concatenate([np.zeros(len(part), np.int8), np.ones(len(held), np.int8)])
        paths[device] = folder / f"{device}.npz"
        np.savez(paths[device], x=x[rows], y=y[rows], split=split)
    return paths


def _whole(settings: DatasetSettings) -> tuple[Array, Array, Array | None, npt.NDArray[np.bool_]]:
    if settings.source == "digits":
        x, y = _digits()
        columns: Columns = {}
    else:
        columns = read_table(settings.path or Path())
        where = str(settings.path)
        x, y = _column(columns, settings.x, where), _column(columns, settings.y, where)
    if settings.split:
        test = _column(columns, settings.split, str(settings.path)) == 1
    else:
        order = np.random.default_rng(settings.seed).permutation(len(x))
        test = np.zeros(len(x), bool)
        test[order[: round(settings.test_fraction * len(x))]] = True
    return x, y, columns.get(settings.client), test


def _digits() -> tuple[Array, Array]:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise DataError('source = "digits" needs scikit-learn: pip install "edgemw[quickstart]"') from None
    x, y = load_digits(return_X_y=True)
    return (x / 16).astype(np.float32), y.astype(np.int64)
