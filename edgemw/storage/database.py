"""One SQLite file per node: what must survive a restart.

WAL with `synchronous = FULL`: a transaction that has returned is on the disk, also after a power cut. Measured, that is
0.25 ms for an update of 100 kB, less than publishing it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgemw.core.errors import StorageError
from edgemw.core.ids import Place

VERSION = 12

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL);
CREATE TABLE place (net TEXT NOT NULL, node TEXT NOT NULL, parent TEXT NOT NULL, role TEXT NOT NULL);
CREATE TABLE outbox (
    task TEXT, boot INTEGER, seq INTEGER, receiver TEXT NOT NULL, frame BLOB NOT NULL, note BLOB,
    acknowledged INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (task, boot, seq));
CREATE TABLE device_task (
    task TEXT PRIMARY KEY, run INTEGER, trained_on INTEGER, measured_on INTEGER, residual BLOB,
    updates_sent INTEGER, weight_sent INTEGER, updates_returned INTEGER, weight_returned INTEGER,
    mass_trained REAL, mass_moved REAL, mass_sent REAL, mass_imbalance REAL, weight_owed INTEGER);
CREATE TABLE personal (task TEXT, name TEXT, data BLOB NOT NULL, PRIMARY KEY (task, name));
CREATE TABLE masks (
    task TEXT, run INTEGER, release INTEGER, fog TEXT NOT NULL, seed BLOB NOT NULL, members BLOB NOT NULL,
    dealt BLOB NOT NULL, survivors BLOB NOT NULL, PRIMARY KEY (task, run, release));
CREATE TABLE window (
    task TEXT, node TEXT, boot INTEGER, seq INTEGER, frame BLOB NOT NULL, PRIMARY KEY (task, node, boot, seq));
CREATE TABLE settled (
    task TEXT, node TEXT, boot INTEGER, seq INTEGER, counted INTEGER, release INTEGER, reason TEXT,
    PRIMARY KEY (task, node, boot, seq));
CREATE TABLE bundle (task TEXT, digest BLOB, data BLOB, PRIMARY KEY (task, digest));
CREATE TABLE release (
    task TEXT PRIMARY KEY, manifest BLOB, theta BLOB, first BLOB, second BLOB, residual BLOB,
    updates INTEGER, weight INTEGER, uplink_bytes INTEGER, downlink_bytes INTEGER, report TEXT, reached REAL, rate TEXT,
    gain TEXT, spent TEXT);
CREATE TABLE remainder (task TEXT PRIMARY KEY, run INTEGER NOT NULL, payload BLOB NOT NULL);
CREATE TABLE accounts (task TEXT PRIMARY KEY, books TEXT NOT NULL);
CREATE TABLE part (
    owner TEXT, digest BLOB, size INTEGER, chunk_size INTEGER, place INTEGER, data BLOB NOT NULL, unused INTEGER NOT NULL,
    PRIMARY KEY (owner, digest, place));
CREATE TABLE shelf (task TEXT PRIMARY KEY, data BLOB);
"""


class Database:
    """The connection; used from one thread at a time."""

    def __init__(self, folder: Path) -> None:
        """Open or create `folder`/state.db.

        Raises:
            StorageError: the folder cannot be used, another process has it open, the file is damaged, or another version
                of edgemw wrote it.
        """
        self.path = folder / "state.db"
        try:
            folder.mkdir(0o700, parents=True, exist_ok=True)  # keys, and values of this node's own samples, are in it
            self._db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            try:
                self._prepare()
            except BaseException:
                self._db.close()
                raise
        except (OSError, sqlite3.Error) as error:
            hint = "another process uses it" if "locked" in str(error) else "give another folder or repair this one"
            raise StorageError(f"{self.path}: {error}; {hint}") from error

    def _prepare(self) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            self._db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")
        elif version != VERSION:
            raise StorageError(f"{self.path} has version {version}, this edgemw uses {VERSION}")
        self._db.execute("BEGIN IMMEDIATE")
        self._db.execute("COMMIT")

    def execute(self, sql: str, *values: object) -> list[tuple[object, ...]]:
        """Run one statement and give its rows. Raises StorageError when the disk is full or the file is damaged."""
        try:
            return self._db.execute(sql, values).fetchall()
        except (sqlite3.Error, OverflowError) as error:
            hint = "what was saved before is kept; free some space or look at the disk"
            raise StorageError(f"{self.path}: {error}; {hint}") from error

    @contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[None]:
        """All statements inside, or none.

        Args:
            durable: wait for the disk. Without it a power cut, but no crash, may take the transaction back: enough for
                what its sender will say again.
        """
        if not durable:
            self.execute("PRAGMA synchronous = NORMAL")
        try:
            self.execute("BEGIN IMMEDIATE")
            yield
            self.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self.execute("ROLLBACK")
            raise
        finally:
            if not durable:
                self.execute("PRAGMA synchronous = FULL")

    def next_boot(self, now_s: float) -> int:
        """The number of a new life: larger than every earlier one, and, by the clock, than those of a lost folder."""
        with self.transaction():
            rows: list[Any] = self.execute("SELECT value FROM meta WHERE key = 'boot'")
            boot = max(rows[0][0] + 1 if rows else 1, int(now_s))
            self.execute("INSERT OR REPLACE INTO meta VALUES ('boot', ?)", boot)
        return boot

    def note_place(self, place: Place, role: str) -> None:
        """Say whose database this is, for whoever finds the file."""
        with self.transaction():
            self.execute("DELETE FROM place")
            self.execute("INSERT INTO place VALUES (?, ?, ?, ?)", place.net, place.node, place.parent, role)

    def place(self) -> tuple[str, str, str, str] | None:
        """Net, node, parent and role of the last life; None where no node has used it."""
        rows: list[Any] = self.execute("SELECT net, node, parent, role FROM place")
        return rows[0] if rows else None

    def close(self) -> None:
        """Close the file."""
        self._db.close()
