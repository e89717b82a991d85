"""`edgemw serve`: predictions from a store, in a process of its own that needs neither trainer nor broker."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgemw.core.errors import ConfigError
from edgemw.serving.api import Answer, Api, problem
from edgemw.serving.door import Door
from edgemw.serving.keeper import Keeper
from edgemw.serving.slot import LATENCY_S
from edgemw.serving.store import ReleaseStore
from edgemw.serving.watching import watch

if TYPE_CHECKING:
    from edgemw.app.answering import MqttDoor

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeSettings:
    """What is served, and where.

    Attributes:
        store: a device's folder of releases.
        tasks: the only ones to serve; empty is all.
        http: "HOST:PORT", or "" for none.
        socket: a Unix socket, or None.
        threads: of one prediction.
        ready_fd: told the URL of the HTTP door, as a line, once all doors are open; then closed.
        mqtt: a broker over which it answers too, or None.
    """

    store: Path
    tasks: tuple[str, ...] = ()
    http: str = "127.0.0.1:8090"
    socket: Path | None = None
    threads: int = 1
    ready_fd: int | None = None
    mqtt: MqttDoor | None = None


def run_serve(settings: ServeSettings) -> None:
    """Serve until a signal says stop.

    Raises:
        ConfigError: there is no such store, or an address cannot be used.
        StorageError: the store cannot be read.
    """
    if not settings.store.is_dir():
        raise ConfigError(f"there is no folder {settings.store}: a device keeps releases in its node.state/releases", key="STORE")
    keeper = Keeper(ReleaseStore(settings.store, keep=1), settings.tasks, threads=settings.threads)
    keeper.look()
    if not keeper.slots or any(slot.current is None for slot in keeper.slots.values()):
        waiting = ", ".join(name for name, slot in keeper.slots.items() if slot.current is None) or "any task"
        log.info("waiting for a release of %s", waiting)
    asyncio.run(_serve(settings, keeper))


async def _serve(settings: ServeSettings, keeper: Keeper) -> None:
    loop, stopping = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    api, node = Api(keeper.slots), settings.mqtt.node if settings.mqtt is not None else socket.gethostname()

    def handle(method: str, path: str, body: bytes, json_bytes: int | None = None) -> Answer:
        return _metrics(method, node, keeper, api) if path == "/metrics" else api.handle(method, path, body, json_bytes)

    door = Door(handle)
    try:
        url = await door.listen(settings.http, "--http") if settings.http else ""
        if url:
            log.info("listening", extra={"facts": {"http": url}})
        if settings.socket is not None:
            await door.listen_unix(settings.socket, "--socket")
            log.info("listening", extra={"facts": {"socket": str(settings.socket)}})
        if settings.ready_fd is not None:
            with os.fdopen(settings.ready_fd, "w") as ready:
                ready.write(url + "\n")
        gc.collect()
        gc.freeze()  # what lives as long as the process is not looked through again
        async with asyncio.TaskGroup() as tasks:
            beside = [tasks.create_task(watch(keeper, settings.store))]
            if settings.mqtt is not None:
                from edgemw.app.answering import answer_questions

                beside.append(tasks.create_task(answer_questions(settings.mqtt, api.handle, keeper.slots)))
            await stopping.wait()
            log.info("stopping")
            for task in beside:
                task.cancel()
    finally:
        await door.stop()


def _metrics(method: str, node: str, keeper: Keeper, api: Api) -> Answer:
    from edgemw.telemetry.service import TEXT_FORMAT, Served, service_metrics

    if method != "GET":
        return problem(405, "use GET here")
    served = [
        Served(
            task=task,
            release=slot.current.release if slot.current is not None else -1,
            releases=slot.installed,
            requests=slot.answered,
            samples=slot.samples,
            seconds=slot.seconds,
            taking=tuple(slot.taking),
            refused=task in keeper.refused,
        )
        for task, slot in sorted(keeper.slots.items())
    ]
    return Answer(200, TEXT_FORMAT, service_metrics(node, served, dict(api.refused), LATENCY_S))
