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

Done = Callable[["Computed | Answer"], None]
"""Told the outputs, or what is answered instead; once, in the loop."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Computed:
    """Outputs float32[B, *output] of a question, and the release that gave them."""

    outputs: Outputs
    release: int


@dataclass(slots=True)
class _Waiting:
    question: Question
    done: Done
    until: float  # of the loop's clock


class Turns:
    """See the module. All of it is called in one loop."""

    def __init__(self, *, queue: int = 64) -> None:
        """Say how many questions may wait; one more is refused."""
        self._queue, self._waiting = queue, deque[_Waiting]()
        self._computing: list[_Waiting] = []
        self._worker: ThreadPoolExecutor | None = None

    def compute(self, question: Question, done: Done) -> None:
        """Compute a prediction now, or when its turn comes."""
        if question.served.pace.seconds(len(question.x)) <= FAST_S:
            done(_result(question))
        elif len(self._waiting) >= self._queue:
            done(problem(429, f"{self._queue} requests are waiting already: try again later"))
        else:
            until = float("inf") if question.timeout_s is None else _now() + question.timeout_s
            self._waiting.append(_Waiting(question, done, until))
            if not self._computing:
                self._next()

    def close(self) -> None:
        """Answer whoever waits that nothing comes; what is being computed is not waited for."""
        waiting = [*self._computing, *self._waiting]
        self._computing.clear()
        self._waiting.clear()
        if self._worker is not None:
            self._worker.shutdown(wait=False, cancel_futures=True)
            self._worker = None
        for each in waiting:
            each.done(problem(503, "the server stops"))

    def _next(self) -> None:
        """Send to the thread who is first, and who can go along."""
        now, batch = _now(), list[_Waiting]()
        rows = 0
        while self._waiting:
            first = self._waiting[0]
            served, more = first.question.served, len(first.question.x)
            if now > first.until:
                self._waiting.popleft().done(problem(503, "its turn did not come within the timeout of the request"))
                continue
            if batch and (served is not batch[0].question.served or rows + more > served.pace.rows):
                break
            batch.append(self._waiting.popleft())
            rows += more
        if not batch:
            return
        self._computing = batch
        self._worker = self._worker or ThreadPoolExecutor(1, thread_name_prefix="predicting")
        future = self._worker.submit(_results, [each.question for each in batch])
        future.add_done_callback(partial(_call_in, asyncio.get_running_loop(), partial(self._computed, batch)))

    def _computed(self, batch: list[_Waiting], future: Future[list[Computed | Answer]]) -> None:
        if self._computing is not batch:  # closed meanwhile
            return
        self._computing = []
        self._next()  # the thread computes while these are written
        error = None if future.cancelled() else future.exception()
        if future.cancelled() or error is not None:
            log.error("a prediction failed", exc_info=error)
        failed = problem(500, "internal error: the log of the server says more")
        results = [failed] * len(batch) if future.cancelled() or error is not None else future.result()
        for each, result in zip(batch, results, strict=True):
            each.done(result)


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
