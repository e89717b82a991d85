"""One data set dealt out to the devices of a deployment: who gets which rows, whether they fit the task, their files."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgemw.app.samples import Array, length_of, one_value, shaped
from edgemw.app.settings import Dataset as DatasetSettings
from edgemw.core.bundle import Manifest
from edgemw.core.errors import DataError
from edgemw.learning import partition
from edgemw.learning.dataset import Dataset, Samples, fit, fit_dataset
from edgemw.learning.partition import Rows
from edgemw.storage.tables import Columns, read_table


@dataclass(frozen=True, slots=True)
class Dealt:
    """A data set and who has which of its rows.

    Attributes:
        samples: all of it.
        rows: of each device, those to train on and those held out.
        how: how it was dealt out, in words.
        refused: the devices whose samples do not fit the task, and why.
    """

    samples: Samples
    rows: Mapping[str, tuple[Rows, Rows]]
    how: str
    refused: Mapping[str, str]

    def digest(self) -> str:
        """The sha256, in hex, of the samples and of who has which."""
        sha = hashlib.sha256()
        for array in (self.samples.x, self.samples.y):
            sha.update(f"{array.dtype} {array.shape}\n".encode())
            sha.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        for device, (train, test) in self.rows.items():
            sha.update(f"{device} {len(train)} {len(test)}\n".encode())
            sha.update(np.concatenate([train, test]).astype("<i8").tobytes())
        return sha.hexdigest()

    def write(self, folder: Path) -> dict[str, Path]:
        """Write one .npz (x, y, split) per device and give the files by device."""
        folder.mkdir(0o700, parents=True, exist_ok=True)
        paths = {}
        for device, (train, test) in self.rows.items():
            part = self.samples.take(np.concatenate([train, test]))
            split = np.concatenate([np.zeros(len(train), np.int8), np.ones(len(test), np.int8)])
            paths[device] = folder / f"{device}.npz"
            np.savez(paths[device], x=part.x, y=part.y, split=split)
        return paths


def as_its_arrays_say(settings: DatasetSettings, said: Container[str]) -> DatasetSettings:
    """The settings of a file that has arrays of the usual names: `split` tells what is held out, `client` whose a sample is.

    Args:
        said: the keys that were decided already.
    """
    names = _arrays(settings.path) if settings.path is not None else frozenset()
    if "split" in names and "split" not in said:
        settings = replace(settings, split="split")
    if settings.client in names and "partition" not in said:
        settings = replace(settings, partition="natural")
    return settings


def _arrays(path: Path) -> frozenset[str]:
    """Names of the arrays in an .npz file; none where it cannot be read, which `deal_out` refuses."""
    try:
        with zipfile.ZipFile(path) as archive:
            return frozenset(name.removesuffix(".npy") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return frozenset()


def deal_out(settings: DatasetSettings, devices: Sequence[str], manifest: Manifest) -> Dealt:
    """Deal a data set out to devices.

    Training samples are dealt out as `partition` says. Test samples are dealt out evenly, each to one device, so that sums
    over the devices are the metric on the whole test set. Where the partition is natural they go to the device that has their
    client, and evenly where no device has. Rows that hold NaN or infinite values cost the devices that get them, nobody else.

    Raises:
        DataError: the data cannot be read or dealt out so, a device would have fewer than `min_size` training samples, or
            they do not fit the task on any device.
    """
    whole = _whole(settings, manifest)
    rng = np.random.default_rng(settings.seed)
    train_rows, test_rows = np.flatnonzero(~whole.test), np.flatnonzero(whole.test)
    if whole.client is not None:
        owners = whole.client[train_rows]
        parts = _natural(settings, whole, owners, len(devices))
        tests = _by_owner(owners, parts, whole.client[test_rows], rng)
    else:
        parts = _mixed(settings, whole, train_rows, len(devices), rng)
        tests = partition.iid(len(test_rows), len(devices), rng)
    for device, part in zip(devices, parts, strict=True):
        if len(part) < settings.min_size:
            had = f"{device} would have {len(part)} training samples"
            raise DataError(f"{whole.where}: {had}, data.min_size asks for {settings.min_size}")
    shares = zip(devices, parts, tests, strict=True)
    rows = {device: (train_rows[part], test_rows[held]) for device, part, held in shares}
    refused = dict(_refused(whole, rows, manifest))
    if len(refused) == len(rows):
        device, reason = next(iter(refused.items()))
        raise DataError(f"{whole.where}: no device has samples that fit: {device}: {reason}")
    return Dealt(whole.samples, rows, _how(settings, whole, len(devices)), refused)


def _natural(settings: DatasetSettings, whole: _Whole, owners: Array, devices: int) -> list[Rows]:
    clients = len(np.unique(owners))
    if devices > clients:
        raise DataError(
            f"{whole.where}: array {settings.client!r} names {clients} clients, fewer than the {devices} devices: "
            "ask for fewer devices, or mix clients with data.partition=iid"
        )
    return partition.natural(owners, devices)


def _mixed(settings: DatasetSettings, whole: _Whole, rows: Rows, devices: int, rng: np.random.Generator) -> list[Rows]:
    if devices * settings.min_size > len(rows):
        had = f"{len(rows)} training samples cannot give {devices} devices {settings.min_size} each"
        raise DataError(f"{whole.where}: {had}, as data.min_size asks for")
    if settings.partition == "iid":
        return partition.iid(len(rows), devices, rng)
    try:
        return partition.dirichlet(whole.samples.y[rows], devices, settings.alpha, settings.min_size, rng)
    except DataError as error:
        raise DataError(f"{whole.where}: data.partition=dirichlet: {error}") from error


def _by_owner(owners: Array, parts: Sequence[Rows], clients: Array, rng: np.random.Generator) -> list[Rows]:
    """Rows of `clients` for each part: those of its owners, and an even share of those that no part owns."""
    nobodys = np.flatnonzero(~np.isin(clients, owners))
    shares = partition.iid(len(nobodys), len(parts), rng)
    own = [np.flatnonzero(np.isin(clients, owners[part])) for part in parts]
    return [np.sort(np.concatenate([mine, nobodys[share]])) for mine, share in zip(own, shares, strict=True)]


def _how(settings: DatasetSettings, whole: _Whole, devices: int) -> str:
    if whole.client is not None:
        how = f"{len(np.unique(whole.client))} clients (array {settings.client!r}) go whole to {devices} devices"
    elif settings.partition == "dirichlet":
        how = f"dealt out unevenly by class (dirichlet, alpha {settings.alpha:g}) to {devices} devices"
    else:
        how = f"dealt out evenly to {devices} devices"
    held = f"where array {settings.split!r} is 1" if settings.split else "at random"
    return f"{whole.where}: {how}; {whole.test.sum()} of {len(whole.test)} are held out for testing, {held}"


# ------------------------------------------------------------------------------------------------------------- the whole


@dataclass(frozen=True, slots=True)
class _Whole:
    """A data set before it is dealt out.

    Attributes:
        where: its name in messages.
        samples: in the shapes of the task.
        usable: rows without NaN and infinite values.
        client: whose each row is; only where that decides who gets it.
        test: the rows that are held out.
    """

    where: str
    samples: Samples
    usable: Array
    client: Array | None
    test: Array


def _whole(settings: DatasetSettings, manifest: Manifest) -> _Whole:
    columns = _digits(settings) if settings.source == "digits" else read_table(settings.path or Path())
    where = str(settings.path or settings.source)
    client = settings.client if settings.partition == "natural" else ""
    named = [settings.x, settings.y, *(name for name in (settings.split, client) if name)]
    count = length_of(columns, named, where)
    if settings.split:
        test = _held_out(one_value(columns, settings.split, where), settings.split, where)
    else:
        order = np.random.default_rng(settings.seed).permutation(count)
        test = np.zeros(count, bool)
        test[order[: round(settings.test_fraction * count)]] = True
    x, y = shaped(columns[settings.x], manifest.input.shape), shaped(columns[settings.y], manifest.target.shape)
    usable = _finite(x) & _finite(y)
    try:
        fit(Samples(x, y) if usable.all() else Samples(x[usable], y[usable]), manifest)
    except DataError as error:
        raise DataError(f"{where}: {error} (inputs are array {settings.x!r}, targets array {settings.y!r})") from error
    return _Whole(where, Samples(x, y), usable, one_value(columns, client, where) if client else None, test)


def _held_out(split: Array, name: str, where: str) -> Array:
    values = np.unique(split)
    if split.dtype.kind not in "biuf" or not np.isin(values, (0, 1)).all():
        found = ", ".join(map(repr, values[:4].tolist()))
        raise DataError(f"{where}: array {name!r} must be 0 for training and 1 for test samples, found {found}")
    return np.asarray(split == 1)


def _finite(array: Array) -> Array:
    """The rows without NaN and infinite values, bool[N]."""
    if array.dtype.kind != "f":
        return np.ones(len(array), bool)
    return np.asarray(np.isfinite(array).all(axis=tuple(range(1, array.ndim))))


def _refused(whole: _Whole, rows: Mapping[str, tuple[Rows, Rows]], manifest: Manifest) -> Iterator[tuple[str, str]]:
    """The devices that will not train, and what they will say."""
    for device, (train, test) in rows.items():
        if whole.usable[train].all() and whole.usable[test].all():
            continue
        try:
            fit_dataset(Dataset(whole.samples.take(train), whole.samples.take(test)), manifest)
        except DataError as error:
            yield device, str(error)


def _digits(settings: DatasetSettings) -> Columns:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise DataError('source = "digits" needs scikit-learn: pip install "edgemw[quickstart]"') from None
    x, y = load_digits(return_X_y=True)
    return {settings.x: (x / 16).astype(np.float32), settings.y: y.astype(np.int64)}
