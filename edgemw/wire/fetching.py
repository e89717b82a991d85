"""Blobs on their way here from the broker: which of their chunks are asked for now, and what waits for its turn.

    newest first | the first MAX_ACTIVE: of each AHEAD chunks are asked for | waiting: the rest

A chunk is a retained message under a topic of its own, and only chunks that are missing are asked for: after a connection was
lost, or in another life (`parts.py`), the rest comes and no more. With a few asked for at once a broker has MAX_ACTIVE * AHEAD
messages in its queue for this node, however large the blobs are.

A blob that is wanted anew goes to the front, because a newer release makes older ones worthless. Where nothing at all has come
for a while (`look`), those that are asked for stand still: they go to the end, because they may have been removed from the broker
and must not hold up the others, and what they lack is asked for again. Each time that happens to a blob, the next time takes
twice as long: on a slow link what was asked for is on its way still, and comes twice then. Only a look asks again: what arrived
altered, or had to give way, would come at once and for ever otherwise.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from edgemw.wire.chunks import Assembler
from edgemw.wire.fields import LABEL_BYTES
from edgemw.wire.messages import Blob, Chunk
from edgemw.wire.parts import Parts

MAX_ACTIVE = 8
AHEAD = 8
MAX_KNOWN = 256
MOST_PATIENCE = 64
HERE = ""
"""Whose parts these are, in `parts`: no sender has this name."""

Piece = tuple[str, Blob, int]
"""A domain, a blob in it, and the index of a chunk."""


@dataclass(slots=True, eq=False)
class _Entry:
    domain: str
    assembler: Assembler
    still: int = -1  # looks that have found that nothing came; one that was just asked for is given time
    patience: int = 1  # how many of them make it stand still
    asked: list[int] = field(default_factory=list)  # chunks that have not come
    waiting: deque[int] = field(default_factory=deque)  # chunks to ask for when others have come

    def begin(self) -> None:
        """Ask for everything that is missing, a few chunks at a time."""
        self.asked, self.waiting = [], deque(self.assembler.missing)
        self.go_on()

    def go_on(self) -> None:
        while self.waiting and len(self.asked) < AHEAD:
            self.asked.append(self.waiting.popleft())

    @property
    def pieces(self) -> list[Piece]:
        return [(self.domain, self.assembler.blob, index) for index in self.asked]


class Fetching:
    """The blobs that are wanted and not here yet.

    Attributes:
        stalled: those that stood still at the last look.
    """

    def __init__(self, limit_bytes: int, parts: Parts | None = None) -> None:
        self._limit_bytes, self._parts = limit_bytes, parts
        self._entries: list[_Entry] = []
        self._moved = False  # since the last look
        self.stalled: list[Blob] = []

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def held_bytes(self) -> int:
        """Bytes that have arrived and are kept."""
        return sum(entry.assembler.held_bytes for entry in self._entries)

    @property
    def asked(self) -> list[Piece]:
        """What to ask the broker for."""
        return [piece for entry in self._entries[:MAX_ACTIVE] for piece in entry.pieces]

    def want(self, domain: str, blob: Blob) -> list[Blob]:
        """Put a blob at the front; returns what is given up because there are too many, from the end."""
        entry = self._find(blob.label)
        if entry is not None:
            self._entries.remove(entry)
        if entry is None or (entry.domain, entry.assembler.blob) != (domain, blob):
            entry = _Entry(domain, Assembler(blob, HERE, self._parts))
            entry.begin()
        self._entries.insert(0, entry)
        self._stay_within_limit(entry)
        given_up = [entry.assembler for entry in self._entries[MAX_KNOWN:]]
        del self._entries[MAX_KNOWN:]
        for assembler in given_up:
            assembler.forget()
        return [assembler.blob for assembler in given_up]

    def add(self, chunk: Chunk) -> tuple[Blob, bytes] | None:
        """Take a chunk; returns the blob once it is complete. What nobody wants is left alone.

        Raises:
            WireError: the chunk does not belong to its blob, or the whole does not match the digest.
        """
        entry = self._find(chunk.digest[:LABEL_BYTES])
        if entry is None:
            return None  # complete already: what was asked for twice still comes in
        assembler, before = entry.assembler, entry.assembler.held_bytes
        if chunk.index in entry.asked:
            entry.asked.remove(chunk.index)
            entry.go_on()
        data = assembler.add(chunk)
        self._moved = self._moved or assembler.held_bytes > before
        if data is not None:
            self._entries.remove(entry)
            return assembler.blob, data
        self._stay_within_limit(entry)
        return None

    def look(self) -> list[Piece]:
        """Move what stands still to the end; returns what has to be asked for again."""
        moved, self._moved = self._moved, False
        active = self._entries[:MAX_ACTIVE]
        for entry in active:
            entry.still = 0 if moved else entry.still + 1
        late = [entry for entry in active if entry.still >= entry.patience]
        self._entries = [entry for entry in self._entries if entry not in late] + late
        for entry in late:
            entry.still, entry.patience = 0, min(2 * entry.patience, MOST_PATIENCE)
            entry.begin()
        self.stalled = [entry.assembler.blob for entry in late]
        return [piece for entry in self._entries[:MAX_ACTIVE] if entry in late for piece in entry.pieces]

    def _find(self, label: bytes) -> _Entry | None:
        return next((entry for entry in self._entries if entry.assembler.blob.label == label), None)

    def _stay_within_limit(self, growing: _Entry) -> None:
        for entry in reversed(self._entries):
            if self.held_bytes <= self._limit_bytes:
                return
            if entry is not growing:
                entry.assembler.forget()
