"""Whose prediction is computed when: fast ones at once, slow ones in their turn, together where that pays, in bounds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest

from edgemw.core.bundle import Manifest, read_bundle
from edgemw.core.errors import DataError
from edgemw.learning.oracle import Array
from edgemw.serving.api import Answer, Question
from edgemw.serving.pace import BATCHES, Pace, measured
from edgemw.serving.slot import Outputs, Served, Slot
from edgemw.serving.turns import MAX_WAITING_BYTES, Computed, Turns

MANIFEST: Manifest = read_bundle((Path(__file__).parents[2] / "examples" / "quickstart" / "digits.edge").read_bytes()).manifest
SLOW = Pace(0.5)


class Model:
    """Gives each row its first value; waits for `go_on` if told to, and refuses negative values."""

    def __init__(self, pace: Pace, release: int = 0) -> None:
        self.batches: list[int] = []
        self.begun, self.go_on = Event(), Event()
        self.go_on.set()
        self.slot = Slot()
        self.slot.install(Served(self._predict, "digits", release, MANIFEST, pace=pace))

    def _predict(self, x: Array) -> Outputs:
        self.begun.set()
        assert self.go_on.wait(10)
        self.batches.append(len(x))
        if (x < 0).any():
            raise DataError("negative")
        return np.repeat(x[:, :1], 10, axis=1)

    def hold(self) -> None:
        self.go_on.clear()
        self.begun.clear()

    def question(self, value: float, rows: int = 1, timeout_s: float | None = None) -> Question:
        served = self.slot.current
        assert served is not None
        return Question(self.slot, served, np.full((rows, 64), value, np.float32), timeout_s=timeout_s)


class Asking:
    """Questions, and what was said to each."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.heard: list[tuple[int, Computed | Answer]] = []
        self._asked, self._changed = 0, asyncio.Event()

    def ask(self, question: Question) -> None:
        number, self._asked = self._asked, self._asked + 1

        def done(result: Computed | Answer) -> None:
            self.heard.append((number, result))
            self._changed.set()

        self.turns.compute(question, done)

    async def all(self) -> dict[int, Computed | Answer]:
        async with asyncio.timeout(10):
            while len(self.heard) < self._asked:
                self._changed.clear()
                await self._changed.wait()
        return dict(self.heard)


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(scenario())


def value_of(result: Computed | Answer) -> float:
    assert isinstance(result, Computed), result
    assert (result.outputs == result.outputs[0, 0]).all()
    return float(result.outputs[0, 0])


def status_of(result: Computed | Answer) -> int:
    assert isinstance(result, Answer), result
    return result.status


def test_a_fast_model_answers_at_once() -> None:
    async def scenario() -> None:
        asking = Asking(Turns())
        asking.ask(Model(Pace(1e-5), release=7).question(3, rows=2))
        [(_, result)] = asking.heard  # nothing was awaited
        assert value_of(result) == 3
        assert isinstance(result, Computed)
        assert (result.release, len(result.outputs)) == (7, 2)

    run(scenario)


def test_many_rows_of_a_fast_model_are_a_slow_request() -> None:
    async def scenario() -> None:
        asking, model = Asking(Turns()), Model(Pace(1e-5, 64, 1e-5))
        asking.ask(model.question(3, rows=1000))
        assert asking.heard == []
        assert value_of((await asking.all())[0]) == 3
        asking.turns.close()

    run(scenario)


def test_a_slow_model_leaves_the_loop_to_others() -> None:
    async def scenario() -> None:
        asking, slow, fast = Asking(Turns()), Model(SLOW), Model(Pace())
        slow.hold()
        asking.ask(slow.question(1))
        assert await asyncio.to_thread(slow.begun.wait, 10)
        asking.ask(fast.question(2))
        assert [number for number, _ in asking.heard] == [1]
        slow.go_on.set()
        assert [value_of(result) for _, result in sorted((await asking.all()).items())] == [1, 2]
        asking.turns.close()

    run(scenario)


def test_more_than_may_wait_are_refused_at_once_and_the_others_answered() -> None:
    async def scenario() -> None:
        asking, model = Asking(Turns(queue=2)), Model(SLOW)
        model.hold()
        for value in range(5):
            asking.ask(model.question(value))
        assert [(number, status_of(result)) for number, result in asking.heard] == [(3, 429), (4, 429)]
        model.go_on.set()
        heard = await asking.all()
        assert [value_of(heard[number]) for number in range(3)] == [0, 1, 2]
        asking.turns.close()

    run(scenario)


def test_who_waits_is_computed_together_where_that_pays() -> None:
    async def scenario() -> None:
        asking, model = Asking(Turns()), Model(Pace(0.5, rows=4, row_s=0.1))
        model.hold()
        for value in range(8):
            asking.ask(model.question(value, rows=2 if value == 5 else 1))
        model.go_on.set()
        heard = await asking.all()
        assert [value_of(heard[number]) for number in range(8)] == list(range(8))
        assert [len(result.outputs) for result in heard.values() if isinstance(result, Computed)] == [1] * 5 + [2, 1, 1]
        assert model.batches == [1, 4, 4]  # the first did not wait for company
        assert (model.slot.answered, model.slot.samples) == (8, 9)
        asking.turns.close()

    run(scenario)


def test_where_it_does_not_pay_each_is_computed_for_itself() -> None:
    async def scenario() -> None:
        asking, model = Asking(Turns()), Model(SLOW)
        for value in range(4):
            asking.ask(model.question(value))
        await asking.all()
        assert model.batches == [1] * 4
        asking.turns.close()

    run(scenario)


def test_two_releases_are_never_computed_together() -> None:
    async def scenario() -> None:
        asking, one, two = Asking(Turns()), Model(Pace(0.5, 8, 0.1), release=1), Model(Pace(0.5, 8, 0.1), release=2)
        one.hold()
        for model in (one, one, two, two, one):
            asking.ask(model.question(1))
        one.go_on.set()
        releases = [result.release for _, result in sorted((await asking.all()).items()) if isinstance(result, Computed)]
        assert releases == [1, 1, 2, 2, 1]
        assert (one.batches, two.batches) == ([1, 1, 1], [2])
        asking.turns.close()

    run(scenario)


def test_one_that_is_refused_does_not_spoil_the_answers_of_those_beside_it() -> None:
    async def scenario() -> None:
        asking, model = Asking(Turns()), Model(Pace(0.5, 8, 0.1))
        model.hold()
        for value in (0, 1, -1, 2):
            asking.ask(model.question(value))
        model.go_on.set()
        heard = await asking.all()
        assert [value_of(heard[number]) for number in (0, 1, 3)] == [0, 1, 2]
        assert status_of(heard[2]) == 400
        asking.turns.close()

    run(scenario)


def test_a_turn_that_comes_too_late_is_not_computed() -> None:
    async def scenario() -> None:
        asking, model = Asking(Turns()), Model(SLOW)
        model.hold()
        asking.ask(model.question(0))
        asking.ask(model.question(1, timeout_s=1e-6))
        asking.ask(model.question(2, timeout_s=60))
        assert await asyncio.to_thread(model.begun.wait, 10)
        model.go_on.set()
        heard = await asking.all()
        assert (value_of(heard[0]), status_of(heard[1]), value_of(heard[2])) == (0, 503, 2)
        assert model.batches == [1, 1]
        asking.turns.close()

    run(scenario)


def test_whoever_waits_when_it_closes_is_told_so_and_what_is_being_computed_is_answered() -> None:
    async def scenario() -> None:
        asking, model = Asking(Turns()), Model(SLOW)
        model.hold()
        for value in range(3):
            asking.ask(model.question(value))
        asking.turns.close()
        asking.ask(model.question(3))
        assert [(number, status_of(result)) for number, result in asking.heard] == [(1, 503), (2, 503), (3, 503)]
        model.go_on.set()
        assert value_of((await asking.all())[0]) == 0

    run(scenario)


def test_who_asks_again_when_told_it_is_too_late_takes_nobodys_turn() -> None:
    async def scenario() -> None:
        turns, model = Turns(), Model(SLOW)
        asking, again = Asking(turns), Asking(turns)
        model.hold()
        asking.ask(model.question(0))
        turns.compute(model.question(1, timeout_s=1e-6), lambda _: again.ask(model.question(5)))
        asking.ask(model.question(2))
        assert await asyncio.to_thread(model.begun.wait, 10)
        model.go_on.set()
        heard = await asking.all()
        assert [value_of(heard[number]) for number in range(2)] == [0, 2]
        assert value_of((await again.all())[0]) == 5
        turns.close()

    run(scenario)


def test_an_answer_that_cannot_be_given_does_not_keep_others_from_theirs() -> None:
    async def scenario() -> None:
        asking, model = Asking(Turns()), Model(Pace(0.5, 8, 0.1))
        model.hold()
        asking.ask(model.question(0))

        def fails(_: Computed | Answer) -> None:
            raise ValueError("on purpose")

        asking.turns.compute(model.question(1), fails)
        asking.ask(model.question(2))
        model.go_on.set()
        heard = await asking.all()
        assert [value_of(heard[number]) for number in range(2)] == [0, 2]
        asking.turns.close()

    run(scenario)


def test_who_goes_away_leaves_the_line() -> None:
    async def scenario() -> None:
        asking, model = Asking(Turns(queue=1)), Model(SLOW)
        model.hold()
        asking.ask(model.question(0))
        give_up = asking.turns.compute(model.question(1), lambda _: pytest.fail("nobody waits for it"))
        assert give_up is not None
        give_up()
        give_up()
        asking.ask(model.question(2))
        model.go_on.set()
        heard = await asking.all()
        assert [value_of(heard[number]) for number in range(2)] == [0, 2]
        assert model.batches == [1, 1]
        asking.turns.close()

    run(scenario)


def test_those_who_wait_hold_no_more_memory_than_there_is_for_them() -> None:
    async def scenario() -> None:
        asking, model = Asking(Turns(queue=1000)), Model(SLOW)
        model.hold()
        rows = MAX_WAITING_BYTES // 4 // (64 * 4)
        for value in range(7):
            asking.ask(model.question(value, rows=rows))
        assert [(number, status_of(result)) for number, result in asking.heard] == [(5, 429), (6, 429)]
        model.go_on.set()
        await asking.all()
        asking.ask(model.question(7, rows=rows))
        assert value_of((await asking.all())[7]) == 7
        asking.turns.close()

    run(scenario)


def test_requests_that_are_computed_together_take_the_whole_time_each() -> None:
    async def scenario() -> None:
        seconds: list[float] = []
        slot = Slot(seconds.append)
        slot.install(Served(busy(0.02, 0.0), "digits", 0, MANIFEST, pace=Pace(0.5, 8, 0.1)))
        served = slot.current
        assert served is not None
        outputs, _ = slot.compute([X, X, X], served)
        assert [len(each) for each in outputs] == [1, 1, 1]
        assert len(seconds) == 3
        assert min(seconds) >= 0.02

    run(scenario)


# -- pace


def busy(per_call_s: float, per_row_s: float) -> Callable[[Array], Outputs]:
    def predict(x: Array) -> Outputs:
        until = time.perf_counter() + per_call_s + per_row_s * len(x)
        while time.perf_counter() < until:
            pass
        return np.zeros((len(x), 10), np.float32)

    return predict


X = np.zeros((1, 64), np.float32)


def test_a_model_whose_calls_cost_more_than_its_rows_is_worth_batching() -> None:
    pace = measured(busy(0.002, 0.00001), X, most_s=1.0)
    assert pace.rows == BATCHES[-1]
    assert pace.one_s >= 0.002
    assert pace.seconds(64) < 64 * pace.one_s / 4


def test_a_model_whose_rows_cost_it_all_is_not() -> None:
    assert measured(busy(0.0, 0.002), X, most_s=1.0).rows == 1


def test_a_fast_model_is_not_tried_with_more_than_a_row() -> None:
    rows: list[int] = []

    def predict(x: Array) -> Outputs:
        rows.append(len(x))
        return np.zeros((len(x), 10), np.float32)

    assert measured(predict, X, most_s=1.0).rows == 1
    assert set(rows) == {1}


@pytest.mark.parametrize("most_s", [0.0, 0.001])
def test_no_batch_takes_longer_than_it_may(most_s: float) -> None:
    assert measured(busy(0.002, 0.0001), X, most_s=most_s).rows == 1
