"""`edgemw serve`: predictions from a store, in a process of its own that needs neither trainer nor broker."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import logging
import os
import signal
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgemw.core.config.units import duration_text
from edgemw.core.errors import ConfigError, LinkError, single
from edgemw.serving.api import Answer, Api, problem
from edgemw.serving.door import Door
from edgemw.serving.keeper import BATCH_S, Canary, Keeper
from edgemw.serving.placement import Placement, Reply
from edgemw.serving.requests import Requests
from edgemw.serving.slot import LATENCY_S
from edgemw.serving.store import ReleaseStore, meant_folder
from edgemw.serving.turns import GiveUp, Turns
from edgemw.serving.watching import watch

if TYPE_CHECKING:
    from edgemw.app.answering import MqttDoor
    from edgemw.app.elsewhere import AskedNode
    from edgemw.app.settings import DeviceFile

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
        queue: questions to a slow model that may wait.
        batch_s: that answering several of them together may take; 0 is one at a time.
        canary: how a new release begins, or None: it answers everybody at once.
    """

    store: Path
    tasks: tuple[str, ...] = ()
    http: str = "127.0.0.1:8090"
    socket: Path | None = None
    threads: int = 1
    ready_fd: int | None = None
    mqtt: MqttDoor | None = None
    queue: int = 64
    batch_s: float = BATCH_S
    canary: Canary | None = None


def canary_of(share: float, seconds: float) -> Canary | None:
    """How a newer release begins; None where it answers all at once."""
    return Canary(share, seconds) if share else None


def mqtt_door(settings: DeviceFile, env: Mapping[str, str]) -> MqttDoor | None:
    """The MQTT door of a device, where its file wants one, or another service is to be asked."""
    serving = settings.serving
    if not serving.mqtt and not serving.ask:
        return None
    from edgemw.app.answering import Asks, MqttDoor
    from edgemw.serving.placement import Rule

    asks = Asks(serving.ask, Rule(serving.ask_below, serving.ask_deadline)) if serving.ask else None
    return MqttDoor(settings.broker, settings.net, settings.node.id, env, asks=asks, answers=serving.mqtt)


def serve_flags(settings: DeviceFile, origin: Sequence[str]) -> list[str]:
    """What a service of a device's own is told, besides where its store and its HTTP door are.

    Args:
        settings: of the device.
        origin: flags that name its file, and what was changed in it.
    """
    serving = settings.serving
    flags = ["--threads", str(settings.training.threads), "--log", settings.telemetry.log, "--queue", str(serving.queue)]
    flags += ["--batch-latency", duration_text(serving.batch_latency)]
    if serving.canary:
        flags += ["--canary", str(serving.canary), "--canary-for", duration_text(serving.canary_for)]
    if not serving.mqtt and not serving.ask:
        return flags
    return [*flags, *origin, *(() if serving.mqtt else ("--ask-only",))]


def fingerprint(settings: DeviceFile) -> str:
    """Changes with what a service of a device's own is told, also where that stands in its file. No secret is in it."""
    said = (settings.net, settings.node.id, settings.broker, settings.serving, settings.training.threads, settings.telemetry.log)
    return hashlib.sha256(repr(said).encode()).hexdigest()[:16]


def run_serve(settings: ServeSettings) -> None:
    """Serve until a signal says stop.

    Raises:
        ConfigError: there is no such store, or an address cannot be used.
        StorageError: the store cannot be read.
    """
    if not settings.store.is_dir():
        hint = "a device makes it, releases in its node.state, when it first starts: start that before, or make the folder"
        raise ConfigError(f"there is no folder {settings.store}: {hint}", key="STORE")
    keeper = Keeper(
        ReleaseStore(settings.store, keep=1),
        settings.tasks,
        threads=settings.threads,
        batch_s=settings.batch_s,
        canary=settings.canary,
    )
    keeper.look()
    if not keeper.slots or any(slot.current is None for slot in keeper.slots.values()):
        _say_what_is_missing(settings.store, keeper)
    asyncio.run(_serve(settings, keeper))


def _say_what_is_missing(store: Path, keeper: Keeper) -> None:
    """Raises ConfigError where another folder must have been meant."""
    waiting = ", ".join(name for name, slot in keeper.slots.items() if slot.current is None) or "any task"
    there = ReleaseStore(store, keep=1).tasks()
    if not there and (meant := meant_folder(store)) is not None:
        raise ConfigError(f"{store} holds no release, {meant} does", key="STORE")
    if there:
        log.warning("waiting for a release of %s; the store has %s", waiting, ", ".join(there))
    elif any(not entry.name.startswith(".") for entry in store.iterdir()):
        log.warning("waiting for a release of %s; %s holds other things than releases: is it the right folder?", waiting, store)
    else:
        log.info("waiting for a release of %s", waiting)


class Answering:
    """What answers requests from slots, and over MQTT where there is a door to it; `take` is a `Handle`. All in one loop."""

    def __init__(self, keeper: Keeper, node: str, *, queue: int, mqtt: MqttDoor | None) -> None:
        """Say what answers, and by which name metrics know it.

        Args:
            keeper: of the slots.
            node: label `device` of the metrics.
            queue: see `Turns`.
            mqtt: the door to MQTT; None is none.
        """
        self._keeper, self._node, self._mqtt, self._turns = keeper, node, mqtt, Turns(queue=queue)
        self._asked: AskedNode | None = None
        placement = None
        if mqtt is not None and mqtt.asks is not None:
            from edgemw.app.elsewhere import AskedNode

            self._asked = AskedNode(mqtt.net, mqtt.asks.node, mqtt.node)
            placement = Placement(mqtt.asks.rule, self._asked)
        self._requests = Requests(Api(keeper.slots), self._turns, placement)

    def take(self, method: str, path: str, body: bytes, json_bytes: int | None, reply: Reply) -> GiveUp | None:
        """Answer a request; that for metrics, too."""
        if path != "/metrics":
            return self._requests.take(method, path, body, json_bytes, reply)
        reply(_metrics(method, self._node, self._keeper, self._requests))
        return None

    async def beside(self, store: Path, *, without_broker: bool = False) -> None:
        """Keep the slots at what the store says, and answer over MQTT, until cancelled; then nobody waits in line any more.

        Args:
            store: the keeper's folder.
            without_broker: go on where the broker refuses this service, instead of raising LinkError.
        """
        async with asyncio.TaskGroup() as tasks:
            beside = [tasks.create_task(watch(self._keeper, store))]
            if self._mqtt is not None:
                beside.append(tasks.create_task(self._over_mqtt(self._mqtt, without_broker=without_broker)))
            try:
                await asyncio.Event().wait()
            finally:
                self._turns.close()
                for task in beside:
                    task.cancel()

    async def _over_mqtt(self, mqtt: MqttDoor, *, without_broker: bool) -> None:
        from edgemw.app.answering import answer_questions

        try:
            await answer_questions(mqtt, self._requests.take, self._keeper.slots, self._asked)
        except* LinkError as errors:
            if not without_broker:
                raise
            log.error("no answers over MQTT: %s", single(errors))


async def _serve(settings: ServeSettings, keeper: Keeper) -> None:
    loop, stopping = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    node = settings.mqtt.node if settings.mqtt is not None else socket.gethostname()
    answering = Answering(keeper, node, queue=settings.queue, mqtt=settings.mqtt)
    door = Door(answering.take)
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
            beside = tasks.create_task(answering.beside(settings.store))
            await stopping.wait()
            log.info("stopping")
            beside.cancel()
            await asyncio.wait([beside])
            await door.stop()
    finally:
        await door.stop()


def _metrics(method: str, node: str, keeper: Keeper, requests: Requests) -> Answer:
    from edgemw.telemetry.service import TEXT_FORMAT, Served, service_metrics

    if method != "GET":
        return problem(405, "use GET here")
    served = [
        Served(
            task=task,
            release=slot.current.release if slot.current is not None else -1,
            canary=slot.canary.release if slot.canary is not None else -1,
            releases=slot.installed,
            requests=slot.answered,
            samples=slot.samples,
            seconds=slot.seconds,
            taking=tuple(slot.taking),
            refused=task in keeper.refused,
        )
        for task, slot in sorted(keeper.slots.items())
    ]
    placed = requests.placement.decisions if requests.placement is not None else {}
    return Answer(200, TEXT_FORMAT, service_metrics(node, served, dict(requests.refused), dict(placed), LATENCY_S))
