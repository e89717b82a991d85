"""Chunks of what is still on its way here, on disk: `edgemw.wire.parts.Parts` on a node's database.

A write is not waited for on the disk: what a power cut takes back is asked for again. What was kept in one life and has not been
asked for in the next is of no use to anybody, and goes when the one after that begins.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from edgemw.core.errors import StorageError
from edgemw.storage.database import Database
from edgemw.wire.messages import Blob

log = logging.getLogger(__name__)


class DiskParts:
    """The table `part`: at most `limit_bytes`, and nothing more where the disk does not take it."""

    def __init__(self, db: Database, limit_bytes: int) -> None:
        self._db, self._limit_bytes = db, limit_bytes
        with db.transaction(durable=False):
            db.execute("DELETE FROM part WHERE unused = 1")
            db.execute("UPDATE part SET unused = 1")
        rows: list[Any] = db.execute("SELECT owner, digest, place, LENGTH(data) FROM part")
        self._sizes: dict[tuple[str, bytes], dict[int, int]] = {}
        for owner, digest, index, size in rows:
            self._sizes.setdefault((owner, bytes(digest)), {})[index] = size
        self._told = False

    @property
    def held_bytes(self) -> int:
        """What is kept."""
        return sum(size for sizes in self._sizes.values() for size in sizes.values())

    def keep(self, owner: str, blob: Blob, index: int, data: bytes) -> None:
        """See Parts."""
        if self.held_bytes + len(data) > self._limit_bytes:
            return
        values = owner, blob.digest, blob.size, blob.chunk_size, index, data
        if self._write("INSERT OR REPLACE INTO part VALUES (?, ?, ?, ?, ?, ?, 0)", *values):
            self._sizes.setdefault((owner, blob.digest), {})[index] = len(data)

    def kept(self, owner: str, blob: Blob) -> Mapping[int, bytes]:
        """See Parts."""
        key = owner, blob.digest
        if key not in self._sizes or not self._write("UPDATE part SET unused = 0 WHERE owner = ? AND digest = ?", *key):
            return {}
        rows: list[Any] = self._db.execute("SELECT size, chunk_size, place, data FROM part WHERE owner = ? AND digest = ?", *key)
        if any((size, chunk_size) != (blob.size, blob.chunk_size) for size, chunk_size, _, _ in rows):
            self.forget(*key)
            return {}
        return {index: bytes(data) for _, _, index, data in rows}

    def forget(self, owner: str, digest: bytes) -> None:
        """See Parts."""
        if self._sizes.pop((owner, digest), None) is not None:
            self._write("DELETE FROM part WHERE owner = ? AND digest = ?", owner, digest)

    def _write(self, sql: str, *values: object) -> bool:
        """A help and no promise: whether it was done; why not is said once."""
        try:
            with self._db.transaction(durable=False):
                self._db.execute(sql, *values)
        except StorageError as error:
            if not self._told:
                log.warning("transfers begin again in another life: %s", error)
            self._told = True
            return False
        return True
