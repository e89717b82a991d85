"""A door in a thread of its own, beside whatever else its process does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any, Self

from edgemw.core.errors import EdgeError, single
from edgemw.serving.door import Door, DoorLimits
from edgemw.serving.requests import Handle

log = logging.getLogger(__name__)


class BesideDoor:
    """Answers from `start` to `stop`; also a context manager. `handle` is called in the door's thread."""

    def __init__(
        self,
        handle: Handle,
        address: str,
        *,
        setting: str = "serving.http",
        socket: Path | None = None,
        limits: DoorLimits | None = None,
        beside: Callable[[], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        """Name the doors; nothing is opened before `start`.

        Args:
            handle, address, setting, socket, limits: see `Door`; an empty address is no HTTP door.
            beside: runs in the same loop while the doors are open; cancelled before they close.
        """
        self._beside = beside
        self._handle, self._address, self._setting, self._socket, self._limits = handle, address, setting, socket, limits
        self._thread: Thread | None = None
        self._stopping: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None
        self._url = ""

    @property
    def url(self) -> str:
        """Where the HTTP door is, once started; "" where there is none."""
        return self._url

    def start(self) -> None:
        """Listen.

        Raises:
            ConfigError: as `Door.listen` and `Door.listen_unix`.
        """
        started: Future[str] = Future()
        self._thread = Thread(target=self._live, args=(started,), name="door", daemon=True)
        self._thread.start()
        self._url = started.result()

    def stop(self) -> None:
        """Let answers go out, and close."""
        if self._thread is None:
            return
        if self._stopping is not None:
            loop, event = self._stopping
            with suppress(RuntimeError):  # it has ended by itself
                loop.call_soon_threadsafe(event.set)
        self._thread.join()
        self._thread = self._stopping = None

    def _live(self, started: Future[str]) -> None:
        try:
            asyncio.run(self._run(started))
        except OSError as error:  # no file is left for a loop
            if started.done():
                raise
            started.set_exception(error)

    async def _run(self, started: Future[str]) -> None:
        door = Door(self._handle, self._limits)
        stopping = asyncio.Event()
        try:
            url = await door.listen(self._address, self._setting) if self._address else ""
            if self._socket is not None:
                await door.listen_unix(self._socket)
        except Exception as error:  # it is raised where `start` was called
            await door.stop()
            started.set_exception(error)
            return
        self._stopping = asyncio.get_running_loop(), stopping
        try:
            async with asyncio.TaskGroup() as tasks:
                beside = tasks.create_task(self._beside()) if self._beside is not None else None
                started.set_result(url)
                await stopping.wait()
                if beside is not None:
                    beside.cancel()
                    await asyncio.wait([beside])
                await door.stop()
        except* EdgeError as errors:
            log.error("predictions end: %s", single(errors))
        finally:
            await door.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
