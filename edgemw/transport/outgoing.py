"""Publications of one connection, from the hand-over to the broker's acknowledgement."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from edgemw.core.errors import LinkError
from edgemw.transport.answers import finish
from edgemw.transport.window import Window

SENT = 0
"""Instead of a packet id: all of it is with the socket already."""


@dataclass(slots=True)
class _Pending:
    done: asyncio.Future[None]
    size_bytes: int
    slots: int
    handed_at_s: float


class Outgoing:
    """Keeps the window and matches acknowledgements to the callers that wait for them.

    A caller that is cancelled leaves its publication in flight: the broker has it, so the room stays taken until the
    acknowledgement comes or the connection ends.
    """

    def __init__(self, window: Window) -> None:
        self._window = window
        self._pending: dict[int, _Pending] = {}
        self._failed: LinkError | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._progress_s = asyncio.get_running_loop().time()

    async def send(self, size_bytes: int, *, qos: int, hand_over: Callable[[], int]) -> None:
        """Wait for room, hand one publication over and wait until it is settled.

        Args:
            hand_over: gives the publication to the client library and returns its packet id, or SENT.

        Raises:
            LinkError: the broker refused it, or the connection ended first.
        """
        slots = 1 if qos else 0
        await self._window.acquire(size_bytes, slots)
        if self._failed is not None:  # between its turn and now
            raise self._failed
        settled = self._hand_over(size_bytes, slots, hand_over)
        if settled is not None:
            await settled

    def send_at_once(self, size_bytes: int, hand_over: Callable[[], int]) -> bool:
        """As `send` at QoS 0, where nobody has to be waited for and nobody waits; False where there is no room.

        Raises:
            LinkError: as `send`.
        """
        if not self._window.take_at_once(size_bytes, 0):
            return False
        rest = self._hand_over(size_bytes, 0, hand_over)
        if rest is not None:
            rest.add_done_callback(_seen)
        return True

    def _hand_over(self, size_bytes: int, slots: int, hand_over: Callable[[], int]) -> asyncio.Future[None] | None:
        """What has to be waited for until the publication is settled; None where it is."""
        try:
            packet_id = hand_over()
        except BaseException:
            self._window.release(size_bytes, slots)
            raise
        if packet_id == SENT:
            self._window.release(size_bytes, slots)
            return None
        loop = asyncio.get_running_loop()
        pending = _Pending(loop.create_future(), size_bytes, slots, loop.time())
        self._pending[packet_id] = pending
        self._idle.clear()
        return pending.done

    def settle(self, packet_id: int, error: LinkError | None = None) -> None:
        """The broker answered (QoS 1) or the socket took it (QoS 0); unknown ids are ignored."""
        pending = self._pending.pop(packet_id, None)
        if pending is None:
            return
        self.progressed()
        self._window.release(pending.size_bytes, pending.slots)
        finish(pending.done, error)
        if not self._pending:
            self._idle.set()

    def progressed(self) -> None:
        """Something moved: the clock of the acknowledgement timeout starts again."""
        self._progress_s = asyncio.get_running_loop().time()

    def overdue(self, timeout_s: float) -> bool:
        """Whether the oldest publication has waited that long without any progress on the connection."""
        if not self._pending:
            return False
        oldest_s = min(pending.handed_at_s for pending in self._pending.values())
        return asyncio.get_running_loop().time() - max(oldest_s, self._progress_s) > timeout_s

    def fail(self, error: LinkError) -> None:
        """The connection ended: everything in flight and everyone in the queue gets the error."""
        self._failed = error
        self._window.close(error)
        pending, self._pending = self._pending, {}
        for entry in pending.values():
            finish(entry.done, error)
        self._idle.set()

    async def drain(self) -> None:
        """Return when nothing is in flight."""
        await self._idle.wait()


def _seen(done: asyncio.Future[None]) -> None:
    """Nobody waits for it, and asyncio need not complain of an error that nobody has looked at."""
    if not done.cancelled():
        done.exception()
