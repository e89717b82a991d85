"""What a fog node keeps: the open window, outcomes, and at the top the release and its bundle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgemw.core.errors import StorageError, WireError
from edgemw.core.ids import UpdateId
from edgemw.storage.database import Database
from edgemw.wire.messages import Frame, pack, unpack

KEPT_OUTCOMES = 64  # per child, as the ledger


@dataclass(frozen=True, slots=True)
class OutcomeRow:
    """What became of a child's update."""

    update: UpdateId
    counted: bool
    release: int
    reason: str


@dataclass(frozen=True, slots=True)
class ReleaseRow:
    """A release; vectors are float32 little endian.

    `manifest` is the frame that announces it, `report` the last word about a finished run, as JSON;
    `reached` the target that it reached, 0 for none, `rate` what was spent, `gain` how good it has become,
    `spent` what it has cost of privacy, as JSON.
    """

    manifest: Frame
    theta: bytes
    first: bytes | None
    second: bytes | None
    residual: bytes | None
    updates: int
    weight: int
    uplink_bytes: int
    downlink_bytes: int
    report: str | None
    reached: float
    rate: str
    gain: str
    spent: str | None = None


def put_window(db: Database, frame: Frame) -> None:
    """Keep a child's update in the open window."""
    key = frame.task, frame.node, frame.boot, frame.seq
    db.execute("INSERT OR REPLACE INTO window VALUES (?, ?, ?, ?, ?)", *key, pack(frame))


def open_window(db: Database, task: str) -> list[Frame]:
    """The updates of the open window in order of identity."""
    rows: list[Any] = db.execute("SELECT frame FROM window WHERE task = ? ORDER BY node, boot, seq", task)
    return [unpack(frame) for (frame,) in rows]


def take_from_window(db: Database, task: str, update: UpdateId) -> None:
    """Remove an update from the open window."""
    sql = "DELETE FROM window WHERE task = ? AND node = ? AND boot = ? AND seq = ?"
    db.execute(sql, task, update.node, update.boot, update.seq)


def put_outcomes(db: Database, task: str, rows: Sequence[OutcomeRow]) -> None:
    """Keep outcomes; of each child the last KEPT_OUTCOMES stay."""
    for row in rows:
        update = row.update
        take_from_window(db, task, update)
        db.execute(
            "INSERT OR REPLACE INTO settled VALUES (?, ?, ?, ?, ?, ?, ?)",
            task, update.node, update.boot, update.seq, row.counted, row.release, row.reason,
        )  # fmt: skip
    for child in {row.update.node for row in rows}:
        db.execute(
            "DELETE FROM settled WHERE task = ?1 AND node = ?2 AND (boot, seq) <= "
            "(SELECT boot, seq FROM settled WHERE task = ?1 AND node = ?2 ORDER BY boot DESC, seq DESC LIMIT 1 OFFSET ?3)",
            task, child, KEPT_OUTCOMES,
        )  # fmt: skip


def outcomes(db: Database, task: str) -> list[OutcomeRow]:
    """The outcomes that are kept."""
    rows: list[Any] = db.execute("SELECT node, boot, seq, counted, release, reason FROM settled WHERE task = ?", task)
    return [
        OutcomeRow(UpdateId(node, boot, seq), bool(counted), release, reason)
        for node, boot, seq, counted, release, reason in rows
    ]


def put_bundle(db: Database, task: str, digest: bytes, data: bytes) -> None:
    """Make this the task's bundle; of earlier ones the digest stays."""
    db.execute("UPDATE bundle SET data = NULL WHERE task = ?", task)
    db.execute("INSERT OR REPLACE INTO bundle VALUES (?, ?, ?)", task, digest, data)


def bundles(db: Database, task: str) -> dict[bytes, bytes | None]:
    """Digests of all bundles that the task ever had; the present one with its data."""
    rows: list[Any] = db.execute("SELECT digest, data FROM bundle WHERE task = ?", task)
    return dict(rows)


def put_release(db: Database, task: str, row: ReleaseRow) -> None:
    """Keep the current release."""
    db.execute(
        "INSERT OR REPLACE INTO release VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        task, pack(row.manifest), row.theta, row.first, row.second, row.residual,
        row.updates, row.weight, row.uplink_bytes, row.downlink_bytes, row.report, row.reached, row.rate, row.gain, row.spent,
    )  # fmt: skip


def release(db: Database, task: str) -> ReleaseRow | None:
    """The current release, if there is one. Raises StorageError when it cannot be read."""
    columns = (
        "manifest, theta, first, second, residual, updates, weight, uplink_bytes, downlink_bytes, report, reached, rate, gain, "
        "spent"
    )
    sql = f"SELECT {columns} FROM release WHERE task = ?"  # noqa: S608  (the columns stand one line above)
    rows: list[Any] = db.execute(sql, task)
    if not rows:
        return None
    try:
        return ReleaseRow(unpack(rows[0][0]), *rows[0][1:])
    except WireError as error:
        hint = "another version of edgemw wrote it: use that one, or give another folder"
        raise StorageError(f"{db.path}: the release of task {task!r} cannot be read: {error}; {hint}") from error


def put_shelf(db: Database, task: str, data: bytes) -> None:
    """Note what is on the broker for a task, in whatever form the fog node writes it."""
    db.execute("INSERT OR REPLACE INTO shelf VALUES (?, ?)", task, data)


def shelf(db: Database, task: str) -> bytes | None:
    """What `put_shelf` noted last."""
    rows: list[Any] = db.execute("SELECT data FROM shelf WHERE task = ?", task)
    return bytes(rows[0][0]) if rows else None


def put_remainder(db: Database, task: str, run: int, payload: bytes) -> None:
    """Keep what the forwarded windows of a run have not said yet."""
    db.execute("INSERT OR REPLACE INTO remainder VALUES (?, ?, ?)", task, run, payload)


def remainder(db: Database, task: str) -> tuple[int, bytes] | None:
    """What `put_remainder` kept last: the run, and a payload."""
    rows: list[Any] = db.execute("SELECT run, payload FROM remainder WHERE task = ?", task)
    return (int(rows[0][0]), bytes(rows[0][1])) if rows else None


def put_accounts(db: Database, task: str, books: str) -> None:
    """Keep the books of a task, as JSON."""
    db.execute("INSERT OR REPLACE INTO accounts VALUES (?, ?)", task, books)


def accounts(db: Database, task: str) -> str | None:
    """What `put_accounts` kept last."""
    rows: list[Any] = db.execute("SELECT books FROM accounts WHERE task = ?", task)
    return str(rows[0][0]) if rows else None
