"""What a fog node can show of its last windows: the signed updates that were in each, and the certificates of their senders.

The tables are made when the first of it is kept: who keeps none has none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgemw.core.ids import UpdateId
from edgemw.storage.database import Database
from edgemw.wire.messages import Frame, pack

_TABLES = (
    "CREATE TABLE IF NOT EXISTS evidence (number INTEGER PRIMARY KEY, task TEXT, frame BLOB, note TEXT NOT NULL, bytes INTEGER)",
    "CREATE TABLE IF NOT EXISTS evidence_member (number INTEGER, place INTEGER, frame BLOB, PRIMARY KEY (number, place))",
    "CREATE TABLE IF NOT EXISTS credential (node TEXT, der BLOB, PRIMARY KEY (node, der))",
)


@dataclass(frozen=True, slots=True)
class EvidenceRow:
    """One window, as it stands in a file that its node could have altered: nothing of it is believed yet.

    Attributes:
        frame: what was sent up, packed; None at the top.
        note: how it was summed, as JSON.
        members: the updates in it, packed, in order.
    """

    number: int
    frame: Any
    note: Any
    members: tuple[Any, ...]


def prepare(db: Database) -> None:
    """Make the tables, where they are not there."""
    for sql in _TABLES:
        db.execute(sql)


def put_window(
    db: Database, task: str, sent: Frame | None, note: str, members: Sequence[UpdateId], limit_bytes: int
) -> tuple[str, ...]:
    """Keep a window that is about to leave the table of open ones; of all windows the newest that fit into the limit stay.

    Call it inside a transaction. Returns whose updates were in it.
    """
    find = "SELECT frame FROM window WHERE task = ? AND node = ? AND boot = ? AND seq = ?"
    found: list[Any] = [row[0] for m in members for row in db.execute(find, task, m.node, m.boot, m.seq)]
    if not found:
        return ()
    rows: list[Any] = db.execute("SELECT COALESCE(MAX(number), 0) + 1 FROM evidence")
    number, own = rows[0][0], None if sent is None else pack(sent)
    size_bytes = sum(map(len, found)) + len(own or b"") + len(note)
    db.execute("INSERT INTO evidence VALUES (?, ?, ?, ?, ?)", number, task, own, note, size_bytes)
    for place, frame in enumerate(found):
        db.execute("INSERT INTO evidence_member VALUES (?, ?, ?)", number, place, frame)
    kept: list[Any] = db.execute("SELECT number, bytes FROM evidence ORDER BY number DESC")
    total = 0
    for old, old_bytes in kept:
        total += old_bytes
        if total > limit_bytes:
            db.execute("DELETE FROM evidence WHERE number <= ?", old)
            db.execute("DELETE FROM evidence_member WHERE number <= ?", old)
            break
    return tuple(dict.fromkeys(member.node for member in members))


def put_credential(db: Database, node: str, der: bytes) -> None:
    """Keep the certificate of a node."""
    db.execute("INSERT OR IGNORE INTO credential VALUES (?, ?)", node, der)


def windows(db: Database, task: str) -> list[EvidenceRow]:
    """What is kept of a task, oldest first."""
    if not _is_there(db):
        return []
    rows: list[Any] = db.execute("SELECT number, frame, note FROM evidence WHERE task = ? ORDER BY number", task)
    return [EvidenceRow(number, own, note, _members(db, number)) for number, own, note in rows]


def credentials(db: Database) -> Mapping[Any, tuple[Any, ...]]:
    """The certificates that are kept, DER, by node; not believed yet either."""
    found: dict[Any, tuple[Any, ...]] = {}
    rows: list[Any] = db.execute("SELECT node, der FROM credential ORDER BY node") if _is_there(db) else []
    for node, der in rows:
        found[node] = (*found.get(node, ()), der)
    return found


def _members(db: Database, number: int) -> tuple[Any, ...]:
    rows: list[Any] = db.execute("SELECT frame FROM evidence_member WHERE number = ? ORDER BY place", number)
    return tuple(frame for (frame,) in rows)


def _is_there(db: Database) -> bool:
    return bool(db.execute("SELECT 1 FROM sqlite_master WHERE name = 'evidence'"))
