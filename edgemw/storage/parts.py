"""Chunks of what is still on its way here, on disk: `edgemw.wire.parts.Parts` on a node's database.

A write is not waited for on the disk: what a power cut takes back is asked for again. What was kept in one life and has not been
asked for in the next is of no use to anybody, and goes when the one after that begins.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgemw.storage.database import Database
from edgemw.wire.messages import Blob


class DiskParts:
    """The table `part`. At most `limit_bytes` are kept; what comes beyond that is not."""

    def __init__(self, db: Database, limit_bytes: int) -> None:
        self._db, self._limit_bytes = db, limit_bytes
        with db.transaction(durable=False):
            db.execute("DELETE FROM part WHERE unused = 1")
            db.execute("UPDATE part SET unused = 1")
        rows: list[Any] = db.execute("SELECT owner, digest, SUM(LENGTH(data)) FROM part GROUP BY owner, digest")
        self._held: dict[tuple[str, bytes], int] = {(owner, bytes(digest)): size for owner, digest, size in rows}

    @property
    def held_bytes(self) -> int:
        """What is kept."""
        return sum(self._held.values())

    def keep(self, owner: str, blob: Blob, index: int, data: bytes) -> None:
        """See Parts."""
        if self.held_bytes + len(data) > self._limit_bytes:
            return
        key = owner, blob.digest
        with self._db.transaction(durable=False):
            self._db.execute(
                "INSERT OR REPLACE INTO part VALUES (?, ?, ?, ?, ?, ?, 0)", *key, blob.size, blob.chunk_size, index, data
            )
        self._held[key] = self._held.get(key, 0) + len(data)

    def kept(self, owner: str, blob: Blob) -> Mapping[int, bytes]:
        """See Parts."""
        key = owner, blob.digest
        if key not in self._held:
            return {}
        with self._db.transaction(durable=False):
            self._db.execute("UPDATE part SET unused = 0 WHERE owner = ? AND digest = ?", *key)
        rows: list[Any] = self._db.execute("SELECT size, chunk_size, place, data FROM part WHERE owner = ? AND digest = ?", *key)
        if any((size, chunk_size) != (blob.size, blob.chunk_size) for size, chunk_size, _, _ in rows):
            self.forget(*key)
            return {}
        return {index: bytes(data) for _, _, index, data in rows}

    def forget(self, owner: str, digest: bytes) -> None:
        """See Parts."""
        if self._held.pop((owner, digest), None) is not None:
            with self._db.transaction(durable=False):
                self._db.execute("DELETE FROM part WHERE owner = ? AND digest = ?", owner, digest)
