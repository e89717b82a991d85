"""Blobs on their way here from the broker: which are asked for now, and which wait for their turn.

    newest first | asked for: the first MAX_ACTIVE | waiting: the rest

A blob that is wanted anew goes to the front, because a newer release makes older ones worthless. One that has brought
nothing since the last look goes to the end: it may have been removed from the broker, and must not hold up the others.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgemw.wire.chunks import Assembler
from edgemw.wire.fields import LABEL_BYTES
from edgemw.wire.messages import Blob, Chunk

MAX_ACTIVE = 8
MAX_KNOWN = 256

Source = tuple[str, Blob]
"""A domain and a blob in it."""


@dataclass(slots=True, eq=False)
class _Entry:
    domain: str
    assembler: Assembler
    moved: bool = True  # since the last look; one that was just asked for is given time

    @property
    def source(self) -> Source:
        return self.domain, self.assembler.blob


class Fetching:
    """The blobs that are wanted and not here yet."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._entries: list[_Entry] = []

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def held_bytes(self) -> int:
        """Bytes that have arrived and are kept."""
        return sum(entry.assembler.held_bytes for entry in self._entries)

    @property
    def active(self) -> list[Source]:
        """What to ask the broker for."""
        return [entry.source for entry in self._entries[:MAX_ACTIVE]]

    def want(self, domain: str, blob: Blob) -> list[Blob]:
        """Put a blob at the front; returns what is given up because there are too many, from the end."""
        entry = self._find(blob.label)
        if entry is not None:
            self._entries.remove(entry)
        if entry is None or entry.source != (domain, blob):
            entry = _Entry(domain, Assembler(blob))
        self._entries.insert(0, entry)
        given_up = [entry.assembler.blob for entry in self._entries[MAX_KNOWN:]]
        del self._entries[MAX_KNOWN:]
        return given_up

    def add(self, chunk: Chunk) -> tuple[Blob, bytes] | None:
        """Take a chunk; returns the blob once it is complete. What nobody wants is left alone.

        Raises:
            WireError: the chunk does not belong to its blob, or the whole does not match the digest.
        """
        entry = self._find(chunk.digest[:LABEL_BYTES])
        if entry is None:
            return None  # complete already: the rest of the retained chunks still come in
        before = entry.assembler.held_bytes
        data = entry.assembler.add(chunk)
        entry.moved = entry.moved or entry.assembler.held_bytes > before
        if data is not None:
            self._entries.remove(entry)
            return entry.assembler.blob, data
        self._stay_within_limit(entry)
        return None

    def look(self) -> list[Source]:
        """Move what stands still to the end; returns what has to be asked for again."""
        still = [entry for entry in self._entries[:MAX_ACTIVE] if not entry.moved]
        self._entries = [entry for entry in self._entries if entry not in still] + still
        for entry in self._entries[:MAX_ACTIVE]:
            entry.moved = False
        return [entry.source for entry in self._entries[:MAX_ACTIVE] if entry in still]

    def _find(self, label: bytes) -> _Entry | None:
        return next((entry for entry in self._entries if entry.assembler.blob.label == label), None)

    def _stay_within_limit(self, growing: _Entry) -> None:
        for entry in reversed(self._entries):
            if self.held_bytes <= self._limit_bytes:
                return
            if entry is not growing:
                entry.assembler.forget()
