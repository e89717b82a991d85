"""The signed evidence of nodes that are not running, read from their databases for `edgemw.fog.evidence`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgemw.app.books import states_in
from edgemw.core.errors import ConfigError, WireError
from edgemw.fog.evidence import Evidence, Proven, Summed, Verdict, verify
from edgemw.storage import evidence, journal, outbox
from edgemw.storage.database import Database
from edgemw.storage.evidence import EvidenceRow
from edgemw.wire.fields import MAX_INTEGER
from edgemw.wire.messages import Frame, unpack

MAX_WHY = 64


def read_verdicts(folders: Sequence[Path], ca: Path) -> list[Verdict]:
    """What the evidence in all databases below these folders shows, by the certificate of the authority.

    Raises:
        ConfigError: the certificate cannot be used, or nobody has kept evidence.
        StorageError: a node is running, or its file is damaged.
    """
    shown, fogs = _read(folders)
    return verify(shown, proven_with(ca), fogs)


def read_evidence(folders: Sequence[Path]) -> list[Evidence]:
    """What fog nodes show in all databases below these folders. Raises as `read_verdicts`."""
    return _read(folders)[0]


def _read(folders: Sequence[Path]) -> tuple[list[Evidence], frozenset[str]]:
    """What is shown, and which fog nodes there are, also where they show nothing."""
    shown: list[Evidence] = []
    fogs: set[str] = set()
    for path in states_in(folders):
        db = Database(path)
        try:
            place = db.place()
            if place is not None:
                net, node, _, role = place
                fogs |= {node} if role == "fog" else set()
                shown += _shown_in(db, net, node)
        finally:
            db.close()
    if not shown:
        names = ", ".join(map(str, folders))
        raise ConfigError(f"no fog node below {names} has kept evidence: give security.evidence a size", key="--ca")
    return shown, frozenset(fogs)


def _shown_in(db: Database, net: str, node: str) -> Iterator[Evidence]:
    faults: list[str] = []
    certificates = _certificates(node, evidence.credentials(db), faults)
    for task in outbox.known_tasks(db):
        rows = evidence.windows(db, task)
        if rows:
            windows = tuple(window for row in rows if (window := _summed(node, row, faults)) is not None)
            yield Evidence(net, node, task, windows, certificates, journal.remainder(db, task) is not None, tuple(faults))
            faults.clear()


def _certificates(node: str, rows: Mapping[Any, tuple[Any, ...]], faults: list[str]) -> dict[str, tuple[bytes, ...]]:
    bad = sum(not isinstance(der, bytes) for ders in rows.values() for der in ders)
    if bad:
        faults.append(f"{node} shows {bad} certificates that are no bytes")
    return {str(child): tuple(der for der in ders if isinstance(der, bytes)) for child, ders in rows.items()}


def _summed(node: str, row: EvidenceRow, faults: list[str]) -> Summed | None:
    """A window as its node shows it; None, and a fault of the node, where that cannot be read."""
    try:
        note = _Note(**json.loads(row.note))
        note.check()
        sent = None if row.frame is None else _frame(row.frame)
        return Summed(sent, tuple(map(_frame, row.members)), note.release, note.parameters, note.whole, note.why)
    except (ValueError, TypeError, RecursionError, WireError) as error:  # a node can write what it likes into its own file
        faults.append(f"evidence {row.number} of {node} cannot be read: {error}"[:200])
        return None


def _frame(data: Any) -> Frame:
    if not isinstance(data, bytes):
        raise TypeError("a frame that is no bytes")
    return unpack(data)


@dataclass(frozen=True, slots=True)
class _Note:
    """How a window was summed, as its node has noted it."""

    release: int
    parameters: dict[str, int | float | str]
    whole: bool
    why: str = ""

    def check(self) -> None:
        """Raises ValueError where it is no such note."""
        sound = type(self.release) is int and abs(self.release) <= MAX_INTEGER
        sound &= isinstance(self.parameters, dict)
        sound &= type(self.whole) is bool and isinstance(self.why, str) and len(self.why) <= MAX_WHY
        if not (sound and all(isinstance(value, int | float | str) for value in self.parameters.values())):
            raise ValueError("its note is not as a fog node makes it")


def proven_with(ca: Path) -> Proven:
    """What verifies signatures by the certificate of an authority. Raises ConfigError where it cannot be used."""
    try:
        from edgemw.trust.credentials import authority, proven_by
    except ModuleNotFoundError as error:
        raise ConfigError("signatures need cryptography: pip install 'edgemw[security]'", key="--ca") from error
    try:
        return proven_by(authority(ca.read_bytes()))
    except OSError as error:
        raise ConfigError(f"{ca}: {error.strerror or error}", key="--ca") from error
    except ConfigError as error:
        raise ConfigError(f"{ca}: {error.reason}", key="--ca") from error
