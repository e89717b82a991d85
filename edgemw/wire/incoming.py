"""Large updates on their way here: offered, granted, coming in chunk by chunk.

What others can make this node hold is bounded three times: by what one sender may have on its way, by the number of updates
from all of them, and by the bytes that have arrived. Where room is needed, the oldest update of whoever holds the most
gives way: a sender that offers without end displaces itself. What was displaced is offered again by its sender.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from edgemw.core.errors import WireError
from edgemw.wire.chunks import Assembler
from edgemw.wire.messages import Blob, Chunk
from edgemw.wire.parts import Parts
from edgemw.wire.topics import Topic

MAX_UPDATES = 256
MAX_UPDATES_PER_NODE = 8


@dataclass(frozen=True, slots=True)
class _Entry:
    node: str
    topic: Topic
    assembler: Assembler


class Incoming:
    """The updates that are coming in, oldest first."""

    def __init__(self, limit_bytes: int, parts: Parts | None = None) -> None:
        self._limit_bytes, self._parts = limit_bytes, parts
        self._entries: dict[tuple[str, bytes], _Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def held_bytes(self) -> int:
        """Bytes that have arrived and are kept."""
        return sum(entry.assembler.held_bytes for entry in self._entries.values())

    def offer(self, node: str, topic: Topic, blob: Blob) -> list[int]:
        """Take an offer; returns the chunks that are missing. A blob that was offered with another size begins again."""
        key = node, blob.digest
        known = self._entries.get(key)
        if known is None or known.assembler.blob != blob:
            if known is not None:
                self._forget(key)
            self._make_room_for(node)
            known = self._entries[key] = _Entry(node, topic, Assembler(blob, node, self._parts))
            self._stay_within_limit(key)
        return known.assembler.missing

    def add(self, node: str, chunk: Chunk) -> tuple[Topic, bytes] | None:
        """Take a chunk; returns where the update was offered and its bytes once it is complete.

        Raises:
            WireError: the update was not offered or has given way, or the chunk does not belong to it.
        """
        key = node, chunk.digest
        entry = self._entries.get(key)
        if entry is None:
            raise WireError("unasked", "a chunk of an update that was not offered")
        data = entry.assembler.add(chunk)
        if data is not None:
            del self._entries[key]
            return entry.topic, data
        self._stay_within_limit(key)
        return None

    def _stay_within_limit(self, growing: tuple[str, bytes]) -> None:
        while self.held_bytes > self._limit_bytes and growing in self._entries:
            self._give_way(self._largest_holder())

    def _make_room_for(self, node: str) -> None:
        if sum(entry.node == node for entry in self._entries.values()) >= MAX_UPDATES_PER_NODE:
            self._give_way(node)
        elif len(self._entries) >= MAX_UPDATES:
            counts = Counter(entry.node for entry in self._entries.values())
            self._give_way(max(counts, key=counts.__getitem__))

    def _largest_holder(self) -> str:
        held: Counter[str] = Counter()
        for entry in self._entries.values():
            held[entry.node] += entry.assembler.held_bytes
        return max(held, key=held.__getitem__)

    def _give_way(self, node: str) -> None:
        self._forget(next(key for key, entry in self._entries.items() if entry.node == node))

    def _forget(self, key: tuple[str, bytes]) -> None:
        self._entries.pop(key).assembler.forget()
