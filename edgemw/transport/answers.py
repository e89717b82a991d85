"""Requests that the broker still has to answer (SUBSCRIBE, UNSUBSCRIBE), by packet id."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from edgemw.core.errors import LinkError


@dataclass(frozen=True, slots=True)
class _Question:
    future: asyncio.Future[None]
    asked_at_s: float


class Answers:
    """Matches answers to those who wait for them."""

    def __init__(self) -> None:
        self._open: dict[int, _Question] = {}
        self._failed: LinkError | None = None

    def expect(self, packet_id: int) -> asyncio.Future[None]:
        """A future for the answer to the request with this id; none comes any more once the connection has ended."""
        loop = asyncio.get_running_loop()
        question = _Question(loop.create_future(), loop.time())
        if self._failed is not None:
            finish(question.future, self._failed)
        else:
            self._open[packet_id] = question
        return question.future

    def settle(self, packet_id: int, error: LinkError | None) -> None:
        """The answer came; unknown ids are ignored."""
        question = self._open.pop(packet_id, None)
        if question is not None:
            finish(question.future, error)

    def fail(self, error: LinkError) -> None:
        """The connection ended: whoever waits for an answer gets the error, and whoever asks from now on."""
        self._failed = error
        questions, self._open = self._open, {}
        for question in questions.values():
            finish(question.future, error)

    def overdue(self, timeout_s: float) -> bool:
        """Whether any answer is late."""
        now_s = asyncio.get_running_loop().time()
        return any(now_s - question.asked_at_s > timeout_s for question in self._open.values())


def finish(future: asyncio.Future[None], error: LinkError | None) -> None:
    """Settle a future unless whoever waited for it has left."""
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
