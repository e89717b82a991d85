"""The bounded queue between a connection and the reader of a link.

Overflow policy, by name: "leave with the broker". QoS 0 arrivals are dropped and counted when the queue is full. QoS 1
arrivals are acknowledged only when the reader comes back for the next event, so the broker's own in-flight window holds
the rest back. A broker that has more in flight than fits here (3.1.1 cannot be told how much that is) finds some of it
not taken and never acknowledged; once the reader has caught up, the link reconnects, and the broker delivers it again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from edgemw.transport.link import Down, LinkEvent, Received, Up


@dataclass(frozen=True, slots=True)
class _Entry:
    event: LinkEvent
    size_bytes: int = 0
    acknowledge: Callable[[], None] | None = None


class Inbox:
    """Events in order of arrival, bounded in messages and in bytes."""

    def __init__(self, *, max_messages: int, max_bytes: int) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._entries: deque[_Entry] = deque()
        self._messages = 0
        self._bytes = 0
        self._in_hand: _Entry | None = None
        self._look: Callable[[Received], bool] | None = None
        self._closed = False
        self._arrived = asyncio.Event()
        self._owed = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

    def look_first(self, look: Callable[[Received], bool]) -> None:
        """Have arrivals that nothing is before dealt with, where `look` says so, instead of being queued."""
        self._look = look

    def put_state(self, event: Up | Down) -> None:
        """Add a change of state; unread changes with nothing between them are replaced by the newest."""
        if isinstance(event, Down):
            while self._entries and not isinstance(self._entries[-1].event, Received):
                self._entries.pop()
        self._entries.append(_Entry(event))
        self._arrived.set()

    def offer(self, event: Received, size_bytes: int, acknowledge: Callable[[], None] | None) -> bool:
        """Add an arrival; False when it does not fit (a single one of any size fits into an empty queue)."""
        if self._look is not None and self._is_first() and self._look(event):
            if acknowledge is not None:
                acknowledge()
            return True
        over = self._messages + 1 > self._max_messages or self._bytes + size_bytes > self._max_bytes
        if over and self._messages:
            if acknowledge is not None:
                self._owed.set()
            return False
        self._empty.clear()
        self._entries.append(_Entry(event, size_bytes, acknowledge))
        self._messages += 1
        self._bytes += size_bytes
        self._arrived.set()
        return True

    def _is_first(self) -> bool:
        """Whether nothing waits, or has still to be acknowledged: acknowledgements go in the order of arrival."""
        return not self._entries and (self._in_hand is None or self._in_hand.acknowledge is None)

    async def get(self) -> LinkEvent | None:
        """The next event, after acknowledging the one taken before; None once closed and read to the end."""
        self.acknowledge_in_hand()
        if not self._messages:
            self._empty.set()
        while not self._entries:
            if self._closed:
                return None
            self._arrived.clear()
            await self._arrived.wait()
        entry = self._entries.popleft()
        self._in_hand = entry
        if isinstance(entry.event, Received):
            self._messages -= 1
            self._bytes -= entry.size_bytes
        return entry.event

    def acknowledge_in_hand(self) -> None:
        """The reader is done with the event that it took last."""
        entry, self._in_hand = self._in_hand, None
        if entry is not None and entry.acknowledge is not None:
            entry.acknowledge()

    async def caught_up(self) -> None:
        """Return when something was left with the broker and the reader has dealt with all that was taken."""
        while True:
            await self._owed.wait()
            await self._empty.wait()
            if self._owed.is_set():
                return

    def nothing_owed(self) -> None:
        """The connection ended, so the broker will deliver again anyway."""
        self._owed.clear()

    def close(self) -> None:
        """End the queue after what is in it."""
        self._closed = True
        self._arrived.set()
