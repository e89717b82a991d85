"""The signed evidence of nodes that are not running, read from their databases for `edgemw.fog.evidence`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from edgemw.core.errors import ConfigError
from edgemw.fog.evidence import Evidence, Proven, Summed, Verdict, verify
from edgemw.storage import evidence, outbox
from edgemw.storage.database import Database
from edgemw.storage.evidence import EvidenceRow


def read_verdicts(folders: Sequence[Path], ca: Path) -> list[Verdict]:
    """What the evidence in all databases below these folders shows, by the certificate of the authority.

    Raises:
        ConfigError: the certificate cannot be used, or nobody has kept evidence.
        StorageError: a node is running, or its file is damaged.
    """
    return verify(read_evidence(folders), proven_with(ca))


def read_evidence(folders: Sequence[Path]) -> list[Evidence]:
    """What fog nodes show in all databases below these folders. Raises as `read_verdicts`."""
    paths = sorted({path.parent for folder in folders for path in folder.rglob("state.db")})
    shown = [found for path in paths for found in _shown_in(path)]
    if not shown:
        names = ", ".join(map(str, folders))
        raise ConfigError(f"no fog node below {names} has kept evidence: give security.evidence a size", key="--ca")
    return shown


def _shown_in(folder: Path) -> Iterator[Evidence]:
    db = Database(folder)
    try:
        place = db.place()
        if place is None:
            return
        net, node, _, _ = place
        certificates = evidence.credentials(db)
        for task in outbox.known_tasks(db):
            rows = evidence.windows(db, task)
            if rows:
                yield Evidence(net, node, task, tuple(map(_summed, rows)), certificates)
    finally:
        db.close()


def _summed(row: EvidenceRow) -> Summed:
    note = json.loads(row.note)
    return Summed(row.frame, row.members, note["release"], note["parameters"], note["whole"])


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
