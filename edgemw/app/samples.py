"""From the [[data]] tables of a device to the samples of a task, and from one data set to the files of many devices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
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
from edgemw.learning.partition import Rows
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
    keep = np.ones(_length(columns, named, where), bool)
    for name, value in data.select.items():
        keep &= _one_value(columns, name, where) == value
    if not keep.any():
        wanted = " and ".join(f"{name} = {value!r}" for name, value in data.select.items())
        raise DataError(f"{where}: no samples" + (f" with {wanted}" if wanted else ""))
    x = _shaped(_array(columns, data.x)[keep], manifest.input.shape)
    y = _shaped(_array(columns, data.y)[keep], manifest.target.shape)
    samples = Samples(x, y)
    if data.split:
        side = _one_value(columns, data.split, where)[keep]
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


def _length(columns: Columns, names: Sequence[str], where: str) -> int:
    """How many samples the named columns have; others in the file may be about anything."""
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


def _one_value(columns: Columns, name: str, where: str) -> Array:
    column = columns[name]
    if column.ndim != 1:
        raise DataError(f"{where}: {name!r} has {column.shape[1:]} values per sample, one is needed")
    return column


def _array(columns: Columns, names: str | tuple[str, ...]) -> Array:
    return columns[names] if isinstance(names, str) else np.stack([columns[name] for name in names], axis=1)


def _shaped(rows: Array, shape: tuple[int, ...]) -> Array:
    """Flat rows, and single values, are given the task's shape; any other difference is for `fit` to refuse."""
    fits = rows.ndim <= 2 and math.prod(rows.shape[1:]) == math.prod(shape)
    return rows.reshape(len(rows), *shape) if fits else rows


def _held_out(samples: Samples, fraction: float) -> Dataset:
    order = np.random.Generator(np.random.Philox(0)).permutation(len(samples))
    count = min(round(fraction * len(samples)), len(samples) - 1)  # something is left to train on
    return Dataset(samples.take(np.sort(order[count:])), samples.take(np.sort(order[:count])))


def deal_out(settings: DatasetSettings, devices: Sequence[str], folder: Path) -> dict[str, Path]:
    """Write one .npz (x, y, split) per device and give the files by device.

    Training samples are dealt out as `partition` says. Test samples are dealt out evenly, each to one device, so that sums
    over the devices are the metric on the whole test set. Where the partition is natural they go to the device that has their
    client, and evenly where no device has.

    Raises:
        DataError: the data cannot be read or dealt out so, or a device would have fewer than `min_size` training samples.
    """
    whole = _whole(settings)
    rng = np.random.default_rng(settings.seed)
    train_rows, test_rows = np.flatnonzero(~whole.test), np.flatnonzero(whole.test)
    if whole.client is not None:
        parts = partition.natural(whole.client[train_rows], len(devices))
        tests = _by_owner(whole.client[train_rows], parts, whole.client[test_rows], rng)
    else:
        if settings.partition == "dirichlet":
            parts = partition.dirichlet(whole.y[train_rows], len(devices), settings.alpha, settings.min_size, rng)
        else:
            parts = partition.iid(len(train_rows), len(devices), rng)
        tests = partition.iid(len(test_rows), len(devices), rng)
    for device, part in zip(devices, parts, strict=True):
        if len(part) < settings.min_size:
            raise DataError(f"{device} would have {len(part)} training samples, min_size asks for {settings.min_size}")
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for device, part, held in zip(devices, parts, tests, strict=True):
        rows = np.concatenate([train_rows[part], test_rows[held]])
        split = np.concatenate([np.zeros(len(part), np.int8), np.ones(len(held), np.int8)])
        paths[device] = folder / f"{device}.npz"
        np.savez(paths[device], x=whole.x[rows], y=whole.y[rows], split=split)
    return paths


def _by_owner(owners: Array, parts: Sequence[Rows], clients: Array, rng: np.random.Generator) -> list[Rows]:
    """Rows of `clients` for each part: those of its owners, and an even share of those that no part owns."""
    nobodys = np.flatnonzero(~np.isin(clients, owners))
    shares = partition.iid(len(nobodys), len(parts), rng)
    own = [np.flatnonzero(np.isin(clients, owners[part])) for part in parts]
    return [np.sort(np.concatenate([mine, nobodys[share]])) for mine, share in zip(own, shares, strict=True)]


@dataclass(frozen=True, slots=True)
class _Whole:
    """A data set before it is dealt out; `client` only where that decides who gets what."""

    x: Array
    y: Array
    client: Array | None
    test: npt.NDArray[np.bool_]


def _whole(settings: DatasetSettings) -> _Whole:
    columns = _digits(settings) if settings.source == "digits" else read_table(settings.path or Path())
    where = str(settings.path or settings.source)
    client = settings.client if settings.partition == "natural" else ""
    count = _length(columns, [settings.x, settings.y, *_names(settings.split), *_names(client)], where)
    if settings.split:
        test = _one_value(columns, settings.split, where) == 1
    else:
        order = np.random.default_rng(settings.seed).permutation(count)
        test = np.zeros(count, bool)
        test[order[: round(settings.test_fraction * count)]] = True
    owners = _one_value(columns, client, where) if client else None
    return _Whole(columns[settings.x], columns[settings.y], owners, test)


def _digits(settings: DatasetSettings) -> Columns:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise DataError('source = "digits" needs scikit-learn: pip install "edgemw[quickstart]"') from None
    x, y = load_digits(return_X_y=True)
    return {settings.x: (x / 16).astype(np.float32), settings.y: y.astype(np.int64)}
