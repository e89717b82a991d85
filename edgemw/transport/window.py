"""The in-flight window of one connection: how much has been handed to the broker and not been acknowledged.

paho counts messages only, and forgets even that when it reconnects. This window counts bytes too, belongs to one
connection and is first come, first served, so a large publication is not starved by small ones.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from edgemw.core.errors import LinkError


@dataclass(slots=True)
class _Waiter:
    size_bytes: int
    slots: int
    turn: asyncio.Future[None]
    is_let_in: bool = False


class Window:
    """At most `max_bytes` and `max_messages` at a time; one publication larger than the window goes alone."""

    def __init__(self, *, max_bytes: int, max_messages: int) -> None:
        self._max_bytes = max_bytes
        self._max_messages = max_messages
        self._bytes = 0
        self._messages = 0
        self._waiting: deque[_Waiter] = deque()
        self._let_in = 0  # those whose turn has come and who have not noticed: they go before whoever comes now
        self._closed: LinkError | None = None

    @property
    def used_bytes(self) -> int:
        """Bytes in flight."""
        return self._bytes

    @property
    def used_messages(self) -> int:
        """QoS 1 publications in flight."""
        return self._messages

    def take_at_once(self, size_bytes: int, slots: int) -> bool:
        """Take room where nobody has to be waited for, or say that there is none."""
        is_free = self._closed is None and not self._waiting and not self._let_in and self._fits(size_bytes, slots)
        if is_free:
            self._take(size_bytes, slots)
        return is_free

    async def acquire(self, size_bytes: int, slots: int) -> None:
        """Wait for room, then take it. `slots` is 1 for QoS 1 and 0 for QoS 0, which needs no acknowledgement.

        Raises:
            LinkError: the connection ended while waiting.
        """
        if self._closed is not None:
            raise self._closed
        if self.take_at_once(size_bytes, slots):
            return
        waiter = _Waiter(size_bytes, slots, asyncio.get_running_loop().create_future())
        self._waiting.append(waiter)
        try:
            await waiter.turn
        except asyncio.CancelledError:
            if waiter.is_let_in:
                self.release(size_bytes, slots)
            elif waiter in self._waiting:
                self._waiting.remove(waiter)
            raise
        finally:
            self._let_in -= waiter.is_let_in
            self._admit()

    def release(self, size_bytes: int, slots: int) -> None:
        """Give room back and let the next ones in."""
        self._bytes -= size_bytes
        self._messages -= slots
        self._admit()

    def close(self, error: LinkError) -> None:
        """Fail everyone who waits, now and later."""
        self._closed = error
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.turn.done():
                waiter.turn.set_exception(error)

    def _fits(self, size_bytes: int, slots: int) -> bool:
        has_room = self._bytes + size_bytes <= self._max_bytes or self._bytes == 0
        return has_room and self._messages + slots <= self._max_messages

    def _take(self, size_bytes: int, slots: int) -> None:
        self._bytes += size_bytes
        self._messages += slots

    def _admit(self) -> None:
        while self._waiting:
            first = self._waiting[0]
            if not first.turn.done():
                if not self._fits(first.size_bytes, first.slots):
                    return
                self._take(first.size_bytes, first.slots)
                first.is_let_in = True
                self._let_in += 1
                first.turn.set_result(None)
            self._waiting.popleft()
