"""What an authority has issued, as one file: without it nothing that was handed out before could be revoked."""

from __future__ import annotations

import datetime
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from edgemw.core.errors import ConfigError

MAX_INDEX_BYTES = 256 << 20
FORMAT = 1

Kind = Literal["node", "sign", "broker"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """One certificate.

    Attributes:
        name: its common name.
        kind: what it is for: a client of TLS, signatures, a server of TLS.
        serial: its number.
        until: when it ends, in UTC.
        revoked: when it was revoked; None where it was not.
        hosts: the names of a broker.
    """

    name: str
    kind: Kind
    serial: int
    until: datetime.datetime
    revoked: datetime.datetime | None = None
    hosts: tuple[str, ...] = ()

    def holds(self, now: datetime.datetime) -> bool:
        """Whether it opens anything at this time."""
        return self.revoked is None and now < self.until


@dataclass(frozen=True, slots=True)
class Index:
    """All certificates in the order in which they were made; `lists` counts the lists of revoked ones.

    `top` is the node that signs releases; empty where no deployment file has said it.
    """

    certificates: tuple[Issued, ...] = ()
    lists: int = 0
    top: str = ""


def index_bytes(index: Index) -> bytes:
    """The file."""
    rows = ",\n".join(json.dumps({**asdict(each), "serial": f"{each.serial:x}"}, default=_iso) for each in index.certificates)
    top = json.dumps(index.top)
    return f'{{"format": {FORMAT}, "lists": {index.lists}, "top": {top}, "certificates": [\n{rows}\n]}}\n'.encode()


def read_index(path: Path) -> Index:
    """Read the file.

    Raises:
        ConfigError: it is not there, or is not what was written.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_INDEX_BYTES + 1)
        if len(data) > MAX_INDEX_BYTES:
            raise ValueError("too large")
        document = json.loads(data)
        if document["format"] != FORMAT:
            raise ValueError(f"format {document['format']}")
        return Index(tuple(map(_issued, document["certificates"])), int(document["lists"]), str(document.get("top", "")))
    except FileNotFoundError as error:
        hint = "no authority here: make one with `edgemw pki init DIR`"
        raise ConfigError(hint, file=str(path)) from error
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror or error}", file=str(path)) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        reason = f"is not the list of what was issued ({error}): take it from a backup, without it nothing can be revoked"
        raise ConfigError(reason, file=str(path)) from error


def _issued(row: dict[str, Any]) -> Issued:
    if row["kind"] not in ("node", "sign", "broker"):
        raise ValueError(f"kind {row['kind']!r}")
    return Issued(
        name=str(row["name"]),
        kind=row["kind"],
        serial=int(row["serial"], 16),
        until=datetime.datetime.fromisoformat(row["until"]),
        revoked=datetime.datetime.fromisoformat(row["revoked"]) if row["revoked"] else None,
        hosts=tuple(map(str, row["hosts"])),
    )


def _iso(value: object) -> str:
    assert isinstance(value, datetime.datetime)
    return value.isoformat()
