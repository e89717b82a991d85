"""The folder of a run on this machine: what it was made for, and how far its run is.

run.json                     what the run is of; nothing else goes on in this folder
broker/ data/ logs/ nodes/   the broker's state, the devices' samples, what nodes printed, their files and state
report.json, report.png      written when the run ends
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from edgemw.core.errors import ConfigError, EdgeError
from edgemw.storage import journal
from edgemw.storage.database import Database
from edgemw.wire.messages import ReleaseManifest

NOTE = "run.json"


@dataclass(frozen=True, slots=True)
class Purpose:
    """What a folder is for.

    Attributes:
        net: name of the federation.
        task: name of the task.
        bundle: sha256 of its bundle, in hex.
        data: sha256 of the samples and of who has which, in hex; "" where tiers bring their own.
    """

    net: str
    task: str
    bundle: str
    data: str


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep every other `edgemw up` out of a folder, which is made if it is not there, and goes again if it stays empty.

    Raises:
        ConfigError: another one is in it.
        EdgeError: it cannot be made.
    """
    if folder.exists() and not folder.is_dir():
        yield  # `used` says what is there
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise _unusable(folder, error) from error
    try:
        _lock(folder, handle)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # something is in it
                folder.rmdir()
    finally:
        os.close(handle)


def used(folder: Path, purpose: Purpose) -> bool:
    """Whether a run with this purpose was started in a folder before; False for a folder that is empty or not there.

    Raises:
        ConfigError: something else is in the folder.
        EdgeError: it cannot be read.
    """
    try:
        if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            return False
        text = (folder / NOTE).read_text() if (folder / NOTE).is_file() else "{}"
    except OSError as error:
        raise _unusable(folder, error) from error
    try:
        found = Purpose(**json.loads(text))
    except (ValueError, TypeError):
        raise _taken(folder, "is not empty, and not the folder of a run") from None
    if found.net != purpose.net:
        raise _taken(folder, f"holds a run of {found.net!r}, not of {purpose.net!r}")
    if (found.task, found.bundle) != (purpose.task, purpose.bundle):
        of, here = (f"{p.task!r} (bundle {p.bundle[:12]})" for p in (found, purpose))
        raise _taken(folder, f"holds a run of task {of}, not of {here}")
    if found.data != purpose.data:
        raise _taken(folder, "holds a run on other samples, or on these dealt out otherwise")
    return True


def make(folder: Path, purpose: Purpose) -> None:
    """Make the folder of a run and note its purpose. Raises EdgeError if it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / NOTE).write_text(json.dumps(asdict(purpose), indent=1) + "\n")
    except OSError as error:
        raise _unusable(folder, error) from error


def last_release(folder: Path, top: str, task: str) -> int | None:
    """Number of the last release that the top of a folder's run made, if there is one.

    Raises:
        StorageError: the run is going on, or another version of edgemw made it.
    """
    state = folder / "nodes" / top
    if not (state / "state.db").is_file():
        return None
    db = Database(state)
    try:
        row = journal.release(db, task)
    finally:
        db.close()
    if row is None:
        return None
    assert isinstance(row.manifest.message, ReleaseManifest)
    return row.manifest.message.number


def _lock(folder: Path, handle: int) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _taken(folder, "another edgemw up runs in it") from None


def _taken(folder: Path, why: str) -> ConfigError:
    return ConfigError(f"{why}: give another folder with --out", file=str(folder))


def _unusable(folder: Path, error: OSError) -> EdgeError:
    return EdgeError(f"{folder}: {error.strerror}: give another folder with --out")
