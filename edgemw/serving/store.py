"""Releases on disk: what a node serves from after a restart, and what a `Predictor` opens.

    {folder}/{task}/bundles/{key}.edge           the task, once for all its releases
    {folder}/{task}/releases/{place}/theta.f32   float32[P], little endian
                                     int8.onnx   the same release quantised, weights inside, where it is served so
                                     meta.json   run, number, the bundle's key, sha256 of theta, and of int8.onnx
    {folder}/{task}/choice.json                  which release is to be served, where it is not the newest

`place` counts up: the newest release is the one that was saved last. Everything is written beside its place, brought to the
disk and renamed, so that a name that can be seen is whole. One process saves releases; any number of others may read, and choose
among them, meanwhile.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Lock
from uuid import uuid4

import numpy as np

from edgemw.core.bundle import MAX_PART_BYTES, Bundle, Manifest, Vector, read_bundle, theta_bytes
from edgemw.core.errors import BundleError, ConfigError, EdgeError, StorageError
from edgemw.core.ids import valid_id
from edgemw.serving.bell import ring

THETA, QUANTISED, META, CHOICE = "theta.f32", "int8.onnx", "meta.json", "choice.json"
RELEASES = "releases"
"""The store in the state folder of a device."""
FLOAT32, INT8 = "float32", "int8"
"""What a release is served as."""
MAX_META_BYTES = 4096
_TEMPORARY = ".new-"
_PATIENCE_S = 10.0


@dataclass(frozen=True, slots=True)
class StoredRelease:
    """A release that was read back and verified.

    Attributes:
        task: its task.
        run: the training run that made it.
        number: its number in that run.
        bundle: the task's bundle.
        theta: float32[P].
        place: where it stands in the store; grows with every release that is saved.
        key: names the bundle by its content.
        quantised: its int8 graph; empty where it is served as float32.
        damage: what is wrong with the file of that graph, "" where nothing is; the rest is whole.
    """

    task: str
    run: int
    number: int
    bundle: Bundle = field(repr=False)
    theta: Vector = field(repr=False)
    place: int
    key: str
    quantised: bytes = field(default=b"", repr=False)
    damage: str = ""

    @property
    def manifest(self) -> Manifest:
        """The task's manifest."""
        return self.bundle.manifest


@dataclass(frozen=True, slots=True)
class Choice:
    """Which release is to be served, as somebody has said.

    Attributes:
        place: of the release.
        until: the newest place for which that holds: a later release takes over; None is never.
    """

    place: int
    until: int | None


@dataclass(frozen=True, slots=True)
class Kept:
    """A release in a store, as a list of releases has it.

    Attributes:
        place: where it stands.
        run: the training run that made it; -1 where that cannot be read.
        number: its number in that run; -1 likewise.
        saved: seconds since 1970.
        size_bytes: of theta.
        fault: why it cannot be served, "" where it is whole.
        precision: what it is served as, FLOAT32 or INT8; "" where it cannot be served.
        damage: why it is served as float32 although it was kept as int8; "" otherwise.
    """

    place: int
    run: int
    number: int
    saved: float
    size_bytes: int
    fault: str
    precision: str
    damage: str


@dataclass(frozen=True, slots=True)
class _Meta:
    run: int
    number: int
    bundle: str
    sha256: str
    int8: str  # sha256 of the int8 graph, "" where there is none

    def document(self) -> dict[str, int | str]:
        return {name: value for name, value in asdict(self).items() if value != ""}


class ReleaseStore:
    """See the module. Its methods may be called from several threads."""

    def __init__(self, folder: Path, keep: int) -> None:
        """Name the store; nothing is made or touched before the first `save`.

        Args:
            folder: where it is.
            keep: how many of a task's newest releases `save` leaves, at least 1.
        """
        self._folder, self._keep = folder, max(1, keep)
        self._writing = Lock()
        self._whole: set[tuple[str, str]] = set()  # bundles that this process has written or verified

    def save(self, task: str, bundle: Bundle, run: int, number: int, theta: Vector, quantised: bytes = b"") -> None:
        """Keep a release as the newest of its task; after the return it survives a power cut.

        A release that is the newest already is left as it is.

        Args:
            quantised: its int8 graph, which is served then; empty is float32.

        Raises:
            BundleError: theta is not float32[P] of the bundle, or not finite.
            StorageError: the disk is full or the folder cannot be used.
        """
        if not valid_id(task):
            raise StorageError(f"{task!r} cannot name a task")
        if theta.dtype != np.float32 or theta.shape != (bundle.manifest.size,) or not np.isfinite(theta).all():
            raise BundleError(f"release {number} of {task} is not float32[{bundle.manifest.size}] of finite values")
        files = {THETA: theta_bytes(theta)} | ({QUANTISED: quantised} if quantised else {})
        meta = _Meta(run, number, _key(bundle), _digest(files[THETA]), _digest(quantised) if quantised else "")
        try:
            with self._writing:
                self._save(self._folder / task, task, bundle, meta, files)
            ring(self._folder)
        except OSError as error:
            raise StorageError(f"{self._folder}: release {number} of {task} cannot be kept: {error}") from error

    def latest(self, task: str, known: StoredRelease | None = None, *, below: int | None = None) -> StoredRelease | None:
        """The newest release of a task that is whole; None where there is none. What somebody went back from is passed over.

        Args:
            known: one that was read before, whose bundle need not be read again.
            below: a place; only those before it are looked at.

        Raises:
            StorageError: the folder cannot be read.
        """
        deadline, left = time.monotonic() + _PATIENCE_S, self._left_behind(task)
        while True:  # the writer may remove what was just listed, again and again where it is faster than this reader
            places = self._places(task)
            for place in reversed([place for place in places if place not in left and (below is None or place < below)]):
                try:
                    return self._read(task, place, known)
                except (OSError, EdgeError):
                    continue  # damaged or removed: the one before it stands in
            if places == self._places(task) or time.monotonic() > deadline:
                return None

    def at(self, task: str, place: int, known: StoredRelease | None = None) -> StoredRelease:
        """The release at a place.

        Raises:
            StorageError: there is none, or it is damaged.
        """
        try:
            return self._read(task, place, known)
        except (OSError, EdgeError) as error:
            raise StorageError(f"the release at place {place} is damaged: {error}") from error

    def kept(self, task: str) -> list[Kept]:
        """All releases of a task, oldest first, each read and verified.

        Raises:
            StorageError: the folder cannot be read.
        """
        return [self._kept(task, place) for place in self._places(task)]

    # -- choosing

    def choice(self, task: str) -> Choice | None:
        """What somebody has chosen, as long as it holds; None where the newest release is to be served.

        Raises:
            StorageError: the folder cannot be read.
        """
        return self.wanted_place(task)[1]

    def _left_behind(self, task: str) -> range:
        """The places from which somebody went back, also once a later release has taken over."""
        chosen = _read_choice(self._folder / task / CHOICE)
        return range(0) if chosen is None or chosen.until is None else range(chosen.place + 1, chosen.until + 1)

    def wanted_place(self, task: str) -> tuple[int, Choice | None]:
        """The place of the release that is to be served, whole or not, and the choice that says so; else it is the newest.

        -1 where there is none. Cheap: one look at the folder.

        Raises:
            StorageError: the folder cannot be read.
        """
        places = self._places(task)
        chosen = _read_choice(self._folder / task / CHOICE)
        if chosen is not None and chosen.place in places and (chosen.until is None or chosen.until >= places[-1]):
            return chosen.place, chosen
        return max(places, default=-1), None

    def wanted(self, task: str) -> StoredRelease | None:
        """The release that is to be served, if it is whole, or else the newest before it, or at all; None where there is none.

        Raises:
            StorageError: the folder cannot be read.
        """
        choice = self.choice(task)
        if choice is None:
            return self.latest(task)
        with suppress(StorageError):
            return self.at(task, choice.place)
        return self.instead(task, choice.place)

    def instead(self, task: str, place: int) -> StoredRelease | None:
        """What stands in for the release at a place: the newest whole one before it, or at all; None where there is none."""
        return self.latest(task, below=place) or self.latest(task)

    def choose(self, task: str, choice: Choice | None) -> None:
        """Have a release served instead of the newest, or the newest again; who serves from the store is told.

        Raises:
            StorageError: the folder cannot be written to, or the release is gone.
        """
        path = self._folder / task / CHOICE
        try:
            if choice is None:
                path.unlink(missing_ok=True)
            else:
                temporary = path.with_name(f"{_TEMPORARY}{uuid4().hex}")
                _write(temporary, json.dumps(asdict(choice)).encode())
                temporary.replace(path)
            _sync_folder(path.parent)
        except OSError as error:
            raise StorageError(f"{path} cannot be written: {error}") from error
        if choice is not None and choice.place not in self._places(task):
            raise StorageError(f"the release at place {choice.place} was removed meanwhile: list them again")
        ring(self._folder)

    def tasks(self) -> list[str]:
        """Tasks that have a release, sorted.

        Raises:
            StorageError: the folder cannot be read.
        """
        try:
            names = [entry.name for entry in self._folder.iterdir() if valid_id(entry.name)] if self._folder.is_dir() else []
        except OSError as error:
            raise StorageError(f"{self._folder} cannot be read: {error}") from error
        return sorted(name for name in names if self._places(name))

    # -- writing

    def _save(self, folder: Path, task: str, bundle: Bundle, meta: _Meta, files: Mapping[str, bytes]) -> None:
        bundles, releases = folder / "bundles", folder / "releases"
        for parent in (bundles, releases):
            parent.mkdir(parents=True, exist_ok=True)
            _remove_leftovers(parent)
        self._keep_bundle(bundles / f"{meta.bundle}.edge", task, bundle)
        places = self._places(task)
        if not (places and self._is_whole(releases / _name(places[-1]), meta)):
            _write_release(releases / _name(max(places, default=0) + 1), meta, files)
        self._prune(task, bundles, releases)

    def _keep_bundle(self, path: Path, task: str, bundle: Bundle) -> None:
        if (task, path.name) in self._whole:
            return
        if not _holds(path, bundle):
            temporary = path.with_name(f"{_TEMPORARY}{uuid4().hex}")
            _write(temporary, bundle.to_bytes())
            temporary.replace(path)
            _sync_folder(path.parent)
        self._whole.add((task, path.name))

    def _is_whole(self, place: Path, meta: _Meta) -> bool:
        try:
            whole = _digest((place / THETA).read_bytes()) == meta.sha256 and _read_quantised(place, meta.int8)[1] == ""
            return whole and _read_meta(place) == meta
        except (OSError, StorageError):
            return False

    def _prune(self, task: str, bundles: Path, releases: Path) -> None:
        places = self._places(task)
        newest, chosen = places[-self._keep :], _read_choice(self._folder / task / CHOICE)
        counts = chosen is not None and (chosen.until is None or chosen.until >= newest[0])  # until those it stands for are gone
        kept = {*newest, *({chosen.place} & set(places) if chosen is not None and counts else ())}
        for place in places:
            if place not in kept:
                _remove(releases / _name(place))
        used = {f"{key}.edge" for key in map(_bundle_of, (releases / _name(place) for place in kept))}
        for path in list(bundles.iterdir()):
            if path.name not in used:
                path.unlink()
                self._whole.discard((task, path.name))

    # -- reading

    def _places(self, task: str) -> list[int]:
        if not valid_id(task):
            return []
        try:
            return sorted(int(entry.name) for entry in (self._folder / task / "releases").iterdir() if entry.name.isdecimal())
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise StorageError(f"{self._folder / task} cannot be read: {error}") from error

    def _kept(self, task: str, place: int) -> Kept:
        folder = self._folder / task / "releases" / _name(place)
        run, number, saved, size_bytes, fault, precision, damage = -1, -1, 0.0, 0, "", "", ""
        try:
            status = (folder / THETA).stat()
            saved, size_bytes = status.st_mtime, status.st_size
            meta = _read_meta(folder)
            run, number = meta.run, meta.number
            release = self._read(task, place, None)
            precision, damage = INT8 if release.quantised else FLOAT32, release.damage
        except (OSError, EdgeError) as error:
            fault = str(error)
        return Kept(place, run, number, saved, size_bytes, fault, precision, damage)

    def _read(self, task: str, place: int, known: StoredRelease | None) -> StoredRelease:
        folder = self._folder / task
        meta = _read_meta(folder / "releases" / _name(place))
        path = folder / "bundles" / f"{meta.bundle}.edge"
        if known is not None and known.key == meta.bundle:
            bundle = known.bundle
        elif path.stat().st_size > 3 * MAX_PART_BYTES:
            raise StorageError(f"{path} is larger than a bundle can be")
        else:
            bundle = read_bundle(path.read_bytes())
        theta = _read_theta(folder / "releases" / _name(place) / THETA, bundle.manifest.size, meta.sha256)
        quantised, damage = _read_quantised(folder / "releases" / _name(place), meta.int8)
        return StoredRelease(task, meta.run, meta.number, bundle, theta, place, meta.bundle, quantised, damage)


def chosen_task(folder: Path, tasks: list[str], task: str | None) -> str:
    """The task that is meant, of those in a store; None is the only one.

    Raises:
        ConfigError: there is no such store, or no such task in it, or it has several and none was named.
    """
    if not folder.is_dir():
        raise ConfigError(f"there is no folder {folder}", key="store")
    if not tasks:
        meant = meant_folder(folder)
        raise ConfigError(f"{folder} holds no release{' yet' if meant is None else f', {meant} does'}", key="store")
    if task is None and len(tasks) == 1:
        return tasks[0]
    if task is None:
        raise ConfigError(f"{folder} has several tasks, name one of {', '.join(tasks)}", key="task")
    if task not in tasks:
        near = difflib.get_close_matches(task, tasks, 1)
        raise ConfigError(
            f"{folder} has no task {task!r}; it has {', '.join(tasks)}", key="task", suggestion=near[0] if near else None
        )
    return task


def meant_folder(folder: Path) -> Path | None:
    """The store beside a folder that is none: the one in a device's state, or around a task's folder; None where none is."""
    inside, whole = folder / RELEASES, folder.resolve()
    try:
        if ReleaseStore(inside, keep=1).tasks():
            return inside
        is_task = valid_id(whole.name) and ReleaseStore(whole.parent, keep=1).wanted_place(whole.name)[0] >= 0
        return whole.parent if is_task else None
    except StorageError:
        return None  # it is only a guess


def _name(place: int) -> str:
    return f"{place:010d}"


def _key(bundle: Bundle) -> str:
    """Names a bundle by its content, without compressing it."""
    parts = [bundle.infer, bundle.train or b"", theta_bytes(bundle.theta0)]
    parts += [bundle.reference.tobytes()] if bundle.reference is not None else []
    hashes = [hashlib.sha256(part).hexdigest() for part in parts]
    return hashlib.sha256(json.dumps([asdict(bundle.manifest), hashes], sort_keys=True).encode()).hexdigest()[:32]


def _holds(path: Path, bundle: Bundle) -> bool:
    try:
        return _key(read_bundle(path.read_bytes())) == _key(bundle)
    except (OSError, BundleError):
        return False


def _write_release(place: Path, meta: _Meta, files: Mapping[str, bytes]) -> None:
    temporary = place.with_name(f"{_TEMPORARY}{uuid4().hex}")
    temporary.mkdir()
    for name, data in files.items():
        _write(temporary / name, data)
    _write(temporary / META, json.dumps(meta.document(), sort_keys=True).encode())
    _sync_folder(temporary)
    temporary.rename(place)
    _sync_folder(place.parent)


def _read_meta(place: Path) -> _Meta:
    path = place / META
    if path.stat().st_size > MAX_META_BYTES:
        raise StorageError(f"{path} is too large")
    try:
        document = json.loads(path.read_bytes())
        bundle, sha256, int8 = str(document["bundle"]), str(document["sha256"]), str(document.get("int8", ""))
        meta = _Meta(int(document["run"]), int(document["number"]), bundle, sha256, int8)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StorageError(f"{path} is damaged: {error!r}") from error
    if not meta.bundle.isalnum():
        raise StorageError(f"{path} names no bundle")
    return meta


def _read_choice(path: Path) -> Choice | None:
    """What the file says; None where there is none. One that nobody has written so is as if there were none."""
    try:
        if path.stat().st_size > MAX_META_BYTES:
            return None
        document = json.loads(path.read_bytes())
        until = document["until"]
        return Choice(int(document["place"]), None if until is None else int(until))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _bundle_of(place: Path) -> str:
    """The bundle that a release needs, "" where the release is damaged."""
    try:
        return _read_meta(place).bundle
    except (OSError, StorageError):
        return ""


def _read_theta(path: Path, size: int, sha256: str) -> Vector:
    if path.stat().st_size != 4 * size:
        raise StorageError(f"{path} does not hold {size} parameters")
    data = path.read_bytes()
    if _digest(data) != sha256:
        raise StorageError(f"{path} does not match its sha256")
    theta = np.frombuffer(data, "<f4").astype(np.float32)
    if not np.isfinite(theta).all():
        raise StorageError(f"{path} holds NaN or infinite values")
    return theta


def _read_quantised(place: Path, sha256: str) -> tuple[bytes, str]:
    """The int8 graph of a release, empty where there is none, and what is wrong with it: weights are whole without it."""
    path = place / QUANTISED
    if not sha256:
        return b"", ""
    try:
        data = path.read_bytes() if path.stat().st_size <= MAX_PART_BYTES else b""
    except FileNotFoundError:
        return b"", f"{path} is missing"
    return (data, "") if _digest(data) == sha256 else (b"", f"{path} does not match its sha256")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Bring names to the disk: without it a rename may be lost in a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(place: Path) -> None:
    """Take a release away under another name first, so that no reader sees half of it."""
    doomed = place.with_name(f"{_TEMPORARY}{uuid4().hex}")
    place.rename(doomed)
    shutil.rmtree(doomed)


def _remove_leftovers(folder: Path) -> None:
    for path in list(folder.glob(f"{_TEMPORARY}*")):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
