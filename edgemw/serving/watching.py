"""Looks into a store when somebody rings, and now and then; never in the loop that answers."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from pathlib import Path

from edgemw.core.errors import StorageError
from edgemw.serving.bell import Bell
from edgemw.serving.keeper import Keeper

LOOK_S = 1.0
"""How often a store is looked at where nobody rings."""

log = logging.getLogger(__name__)


async def watch(keeper: Keeper, folder: Path) -> None:
    """Keep slots at what the store says, until cancelled; in a thread, for building a session takes milliseconds."""
    loop, rung = asyncio.get_running_loop(), asyncio.Event()
    rung.set()  # something may have come before the bell hung
    bell = _hang_up(folder)
    if bell is not None:
        loop.add_reader(bell, _hear, bell, rung)
    try:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):  # not wait_for, which loses a cancellation that comes with the ring
                    await rung.wait()
            rung.clear()
            try:
                await asyncio.to_thread(keeper.look)
            except StorageError as error:
                log.error("%s", error)
            except Exception:  # whatever is wrong with a store, what was served goes on
                log.exception("the store cannot be looked at")
    finally:
        if bell is not None:
            loop.remove_reader(bell)
            bell.close()


def _hear(bell: Bell, rung: asyncio.Event) -> None:
    bell.silence()
    rung.set()


def _hang_up(folder: Path) -> Bell | None:
    try:
        return Bell(folder)
    except OSError as error:
        log.info("the store is looked at every %g s: no bell can be put into it (%s)", LOOK_S, error.strerror or error)
        return None
