"""A blocking call that may be abandoned."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable


async def run_abandonable(work: Callable[[], None], discard: Callable[[], None]) -> None:
    """Run blocking `work` in a thread that never holds up the exit; `discard` undoes it if nobody waits any more.

    The executor of the event loop is not used: a few brokers that do not answer would fill it, and leaving the loop
    waits for it.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def finish(error: Exception | None) -> None:
        if done.done():
            discard()
        elif error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def run() -> None:
        error: Exception | None = None
        try:
            work()
        except Exception as caught:
            error = caught
        try:
            loop.call_soon_threadsafe(finish, error)
        except RuntimeError:  # the loop is closed
            discard()

    threading.Thread(target=run, name="dial", daemon=True).start()
    await done
