"""When a prediction is computed: at once in the loop, or beside it in its turn.

    question --fast--> computed in the loop
             --slow--> line of bounded length -> one thread, as many of the same release together as pays -> answered in the loop

What a prediction takes is known from when its release was installed (`pace.py`). A fast one takes less than handing it to a
thread and back, so nothing waits and there is nothing to put together. A slow one would make every client of the loop wait.

Requests are put together only while they wait for their turn anyhow: nobody waits for company.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from edgemw.core.errors import EdgeError
from edgemw.serving.api import Answer, Question, problem
from edgemw.serving.pace import FAST_S
from edgemw.serving.slot import Outputs

MAX_WAITING_BYTES = 64 << 20
"""That those who wait may hold together."""

Done = Callable[["Computed | Answer"], None]
"""Told the outputs, or what is answered instead; once, in the loop."""
GiveUp = Callable[[], None]
"""Called when nobody waits for an answer any more."""
_STOPPING = problem(503, "the server stops")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Computed:
    """Outputs float32[B, *output] of a question, and the release that gave them."""

    outputs: Outputs
    release: int


@dataclass(slots=True, eq=False)
class _Waiting:
    question: Question
    done: Done
    until: float  # of the loop's clock

    def tell(self, result: Computed | Answer) -> None:
        """One that cannot be told does not keep it from the others."""
        try:
            self.done(result)
        except Exception:
            log.exception("an answer could not be given")


class Turns:
    """See the module. All of it is called in one loop."""

    def __init__(self, *, queue: int = 64) -> None:
        """Say how many questions may wait; one more is refused, and so is what does not fit into memory beside them."""
        self._queue, self._waiting, self._bytes = queue, deque[_Waiting](), 0
        self._computing: list[_Waiting] = []
        self._worker: ThreadPoolExecutor | None = None
        self._closed = False

    def compute(self, question: Question, done: Done) -> GiveUp | None:
        """Compute a prediction now, or when its turn comes; then what is returned takes it out of the line."""
        if question.served.pace.seconds(len(question.x)) <= FAST_S:
            done(_result(question))
            return None
        if self._closed:
            done(_STOPPING)
            return None
        if len(self._waiting) >= self._queue or self._bytes + question.size_bytes > MAX_WAITING_BYTES:
            done(problem(429, f"{len(self._waiting)} requests are waiting already: try again later"))
            return None
        until = float("inf") if question.timeout_s is None else _now() + question.timeout_s
        waiting = _Waiting(question, done, until)
        self._waiting.append(waiting)
        self._bytes += question.size_bytes
        if not self._computing:
            self._next()
        return partial(self._give_up, waiting)

    def close(self) -> None:
        """Tell whoever waits that nothing comes. What is being computed is answered when it is, if the loop lives so long."""
        self._closed = True
        waiting = list(self._waiting)
        self._waiting.clear()
        self._bytes = 0
        if self._worker is not None:
            self._worker.shutdown(wait=False)
            self._worker = None
        for each in waiting:
            each.tell(_STOPPING)

    def _give_up(self, waiting: _Waiting) -> None:
        if waiting in self._waiting:
            self._waiting.remove(waiting)
            self._bytes -= waiting.question.size_bytes

    def _next(self) -> None:
        """Send to the thread who is first, and who can go along; then tell those whose time is over, who may ask again."""
        now, batch, late = _now(), list[_Waiting](), list[_Waiting]()
        rows = 0
        while self._waiting:
            first = self._waiting[0]
            over = now > first.until
            if batch and not over and not _fits(first, batch[0], rows):
                break
            self._waiting.popleft()
            self._bytes -= first.question.size_bytes
            if over:
                late.append(first)
                continue
            batch.append(first)
            rows += len(first.question.x)
            if rows >= first.question.served.pace.rows:
                break
        if batch:
            self._computing = batch
            self._worker = self._worker or ThreadPoolExecutor(1, thread_name_prefix="predicting")
            future = self._worker.submit(_results, [each.question for each in batch])
            future.add_done_callback(partial(_call_in, asyncio.get_running_loop(), partial(self._computed, batch)))
        for each in late:
            each.tell(problem(503, "its turn did not come within the timeout of the request"))

    def _computed(self, batch: list[_Waiting], future: Future[list[Computed | Answer]]) -> None:
        self._computing = []
        if not self._closed:
            self._next()  # the thread computes while these are written
        error = future.exception()
        if error is not None:
            log.error("a prediction failed", exc_info=error)
        failed = problem(500, "internal error: the log of the server says more")
        results = [failed] * len(batch) if error is not None else future.result()
        for each, result in zip(batch, results, strict=True):
            each.tell(result)


def _fits(one: _Waiting, first: _Waiting, rows: int) -> bool:
    """Whether a question can be computed with another one that has gathered so many rows."""
    served = one.question.served
    return served is first.question.served and rows + len(one.question.x) <= served.pace.rows


def _now() -> float:
    return asyncio.get_running_loop().time()


def _call_in(
    loop: asyncio.AbstractEventLoop,
    call: Callable[[Future[list[Computed | Answer]]], None],
    future: Future[list[Computed | Answer]],
) -> None:
    """From the thread into the loop; one that has ended needs no answers."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(call, future)


def _result(question: Question) -> Computed | Answer:
    """Of one question."""
    try:
        [outputs], release = question.slot.compute([question.x], question.served)
    except EdgeError as error:
        return problem(400, str(error))
    return Computed(outputs, release)


def _results(questions: list[Question]) -> list[Computed | Answer]:
    """Of questions to one release, with one run; where that fails each for itself, for one of them is to blame."""
    if len(questions) > 1:
        first = questions[0]
        try:
            outputs, release = first.slot.compute([each.x for each in questions], first.served)
            return [Computed(each, release) for each in outputs]
        except EdgeError as error:
            log.debug("%s", error)
    return [_result(each) for each in questions]
