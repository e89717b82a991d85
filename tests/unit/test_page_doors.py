"""What browsers get of a fog node while its loop is busy, hangs or ends."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgemw.app.history import History
from edgemw.app.overview import Overview
from edgemw.app.page import doors
from edgemw.app.page.doors import Page
from edgemw.core.ids import Place
from edgemw.transport.memory import MemoryBroker, MemoryLink


@contextmanager
def looping() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop that runs in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield loop
    finally:
        asyncio.run_coroutine_threadsafe(_finish(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _finish() -> None:
    """Let nothing that was asked for be left behind."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


@pytest.fixture
def overview(tmp_path: Path) -> Overview:
    return Overview(Place("net", "top", "", 1), MemoryLink(MemoryBroker(), "top"), History(tmp_path / "history.jsonl"))


def test_many_browsers_are_answered_from_one_look(overview: Overview) -> None:
    with looping() as loop:
        look = Page(overview, loop).doors["/overview"]
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: look(""), range(24)))
    assert {status for status, _, _ in answers} == {200}
    assert len({body for _, _, body in answers}) == 1
    assert json.loads(answers[0][2])["node"] == "top"


def test_browsers_do_not_queue_up_while_the_loop_hangs(overview: Overview, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "LATE_S", 0.3)
    with looping() as loop:
        page, free = Page(overview, loop), threading.Event()
        loop.call_soon_threadsafe(free.wait)
        began = time.monotonic()
        with ThreadPoolExecutor(16) as pool:
            statuses = {status for status, _, _ in pool.map(lambda _: page.doors["/overview"](""), range(16))}
        took = time.monotonic() - began
        free.set()
    assert statuses == {503}
    assert took < 3.0  # one after the other it is five


def test_a_node_that_ends_lets_go_of_who_is_being_answered(overview: Overview) -> None:
    with looping() as loop, ThreadPoolExecutor(1) as pool:
        page, free, waits = Page(overview, loop), threading.Event(), threading.Event()

        def hang() -> None:
            waits.set()
            free.wait()

        loop.call_soon_threadsafe(hang)
        assert waits.wait(10)
        answer = pool.submit(page.doors["/overview"], "")
        while page._looking is None:
            time.sleep(0.001)
        began = time.monotonic()
        page.close()
        assert answer.result()[0] == 503
        assert time.monotonic() - began < 2.0
        assert page.doors["/overview"]("")[0] == 503
        free.set()
