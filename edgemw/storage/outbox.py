"""Updates on their way up, of a device or a fog node, and what a device keeps between rounds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgpack

from edgemw.core.ids import UpdateId
from edgemw.storage.database import Database
from edgemw.wire.messages import Frame, pack, unpack


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """A device's memory of a task; vectors are float32 little endian.

    `residual` is [P], or None for zeros; `personal` the device's own values by the name of the tensor.
    The four masses are its books, `weight_owed` is what its next update is to count for beside its own.
    """

    run: int
    trained_on: int
    measured_on: int
    residual: bytes | None
    updates_sent: int
    weight_sent: int
    updates_returned: int
    weight_returned: int
    mass_trained: float = 0.0
    mass_moved: float = 0.0
    mass_sent: float = 0.0
    mass_imbalance: float = 0.0
    weight_owed: int = 0
    personal: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GroupRow:
    """How far a device has come with a group that adds under masks; `group` is packed, or empty."""

    run: int
    release: int
    fog: str
    seed: bytes = field(repr=False)
    group: bytes
    dealt: tuple[bytes, ...]
    survivors: bytes


@dataclass(frozen=True, slots=True)
class KeptUpdate:
    """An update without an outcome; `note` is a fog node's, of what is in it, or a device's: the update under its masks."""

    frame: Frame
    receiver: str
    note: bytes | None
    acknowledged: bool


def put_update(db: Database, frame: Frame, receiver: str, note: bytes | None = None) -> None:
    """Keep an update that has not been sent yet, for the fog node that is to have it."""
    db.execute(
        "INSERT OR REPLACE INTO outbox (task, boot, seq, receiver, frame, note) VALUES (?, ?, ?, ?, ?, ?)",
        frame.task, frame.boot, frame.seq, receiver, pack(frame), note,
    )  # fmt: skip


def acknowledge(db: Database, task: str, update: UpdateId) -> None:
    """Note that the receiver has it."""
    db.execute("UPDATE outbox SET acknowledged = 1 WHERE task = ? AND boot = ? AND seq = ?", task, update.boot, update.seq)


def forget(db: Database, task: str, update: UpdateId) -> None:
    """Drop an update whose outcome is known."""
    db.execute("DELETE FROM outbox WHERE task = ? AND boot = ? AND seq = ?", task, update.boot, update.seq)


def kept_updates(db: Database, task: str) -> list[KeptUpdate]:
    """Updates without an outcome, oldest first."""
    sql = "SELECT frame, receiver, note, acknowledged FROM outbox WHERE task = ? ORDER BY boot, seq"
    rows: list[Any] = db.execute(sql, task)
    return [KeptUpdate(unpack(frame), receiver, note, bool(acknowledged)) for frame, receiver, note, acknowledged in rows]


def receivers(db: Database) -> list[str]:
    """Fog nodes that have an update of this node and have not said what became of it."""
    return [str(row[0]) for row in db.execute("SELECT DISTINCT receiver FROM outbox ORDER BY receiver")]


def put_device_row(db: Database, task: str, row: DeviceRow) -> None:
    """Keep a device's memory of a task; call it inside a transaction."""
    db.execute(
        "INSERT OR REPLACE INTO device_task VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        task, row.run, row.trained_on, row.measured_on, row.residual, row.updates_sent, row.weight_sent,
        row.updates_returned, row.weight_returned, row.mass_trained, row.mass_moved, row.mass_sent, row.mass_imbalance,
        row.weight_owed,
    )  # fmt: skip
    db.execute("DELETE FROM personal WHERE task = ?", task)
    for name, data in row.personal.items():
        db.execute("INSERT INTO personal VALUES (?, ?, ?)", task, name, data)


def device_row(db: Database, task: str) -> DeviceRow | None:
    """A device's memory of a task, if it has one."""
    counts = "run, trained_on, measured_on, residual, updates_sent, weight_sent, updates_returned, weight_returned"
    columns = f"{counts}, mass_trained, mass_moved, mass_sent, mass_imbalance, weight_owed"
    sql = f"SELECT {columns} FROM device_task WHERE task = ?"  # noqa: S608  (the columns stand above)
    rows: list[Any] = db.execute(sql, task)
    own: list[Any] = db.execute("SELECT name, data FROM personal WHERE task = ? ORDER BY name", task)
    return replace(DeviceRow(*rows[0]), personal=dict(own)) if rows else None


def put_group(db: Database, task: str, row: GroupRow) -> None:
    """Keep how far a device has come with a group."""
    values = row.run, row.release, row.fog, row.seed, row.group, bytes(msgpack.packb(row.dealt)), row.survivors
    db.execute("INSERT OR REPLACE INTO masks VALUES (?, ?, ?, ?, ?, ?, ?, ?)", task, *values)


def forget_groups(db: Database, task: str, keys: Iterable[tuple[int, int]]) -> None:
    """Drop groups that are over, by run and release."""
    for run, release in keys:
        db.execute("DELETE FROM masks WHERE task = ? AND run = ? AND release = ?", task, run, release)


def groups(db: Database, task: str) -> list[GroupRow]:
    """What a device has kept of groups."""
    sql = "SELECT run, release, fog, seed, members, dealt, survivors FROM masks WHERE task = ? ORDER BY run, release"
    rows: list[Any] = db.execute(sql, task)
    return [
        GroupRow(run, release, fog, seed, group, tuple(msgpack.unpackb(dealt)), survivors)
        for run, release, fog, seed, group, dealt, survivors in rows
    ]


def known_tasks(db: Database) -> list[str]:
    """Tasks that this node has anything about."""
    sql = (
        "SELECT task FROM device_task UNION SELECT task FROM outbox UNION SELECT task FROM window "
        "UNION SELECT task FROM release UNION SELECT task FROM accounts"
    )
    return [str(row[0]) for row in db.execute(sql)]
