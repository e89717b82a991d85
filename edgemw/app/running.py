"""A node that runs: what devices and fog nodes have in common, from the database to the page."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from edgemw.app.broker import mqtt_settings, own_client_id
from edgemw.app.energy import Used, energy_facts, measuring
from edgemw.app.history import History
from edgemw.app.overview import Overview
from edgemw.app.page.doors import Page
from edgemw.app.revocations import watch_revocations
from edgemw.app.settings import DeviceFile, FogFile, Limits
from edgemw.app.trust import credential_of, revoked_keys, role_of, trust_of
from edgemw.core.files import replace_file
from edgemw.core.ids import Place
from edgemw.storage.database import Database
from edgemw.storage.parts import DiskParts
from edgemw.telemetry.exporter import Exporter
from edgemw.telemetry.fleet import Fleet
from edgemw.telemetry.machine import machine_now
from edgemw.telemetry.observer import Observer
from edgemw.telemetry.process import ProcessUsage
from edgemw.telemetry.readings import Teller
from edgemw.telemetry.summary import Summary
from edgemw.transport.channel import ChannelLimits
from edgemw.transport.http import HttpServer
from edgemw.transport.mqtt import MqttLink
from edgemw.transport.shell import Doors, Role, Shell, last_will
from edgemw.wire.bucket import Bucket
from edgemw.wire.messages import Frame, Status, Telemetry
from edgemw.wire.signed import ANYBODY, Trust

STATUS_TIMEOUT_S = 2.0
SUMMARY_S = 60.0
TARGETS_S = 5.0
CHUNK_FRAME_BYTES = 512
HISTORY = "history.jsonl"

log = logging.getLogger(__name__)


class Server(Protocol):
    """What listens: a door in a thread of this process, or a process of its own."""

    @property
    def url(self) -> str:
        """Where, once started."""
        ...

    def start(self) -> None:
        """Listen. Raises ConfigError where the address cannot be used."""
        ...

    def stop(self) -> None:
        """End it."""
        ...


@dataclass(slots=True)
class Running:
    """What device and fog node have in common."""

    settings: DeviceFile | FogFile
    place: Place
    db: Database
    link: MqttLink
    observer: Observer
    used: Used
    fleet: Fleet | None = None
    trust: Trust = ANYBODY
    credential: bytes = b""

    def run(self, role: Role, attach: Callable[[Shell], None], bucket: Bucket | None = None) -> None:
        """Serve until stopped: the first signal lets work in hand be finished, the second does not."""
        limits = _channel_limits(self.settings.limits, bucket)
        parts = DiskParts(self.db, limits.held_bytes + limits.blob_bytes)
        with measuring(self.settings.node, self.settings.energy, self.used) as measured:
            machine = partial(machine_now, self.settings.energy.sysfs)
            telemetry = self.settings.telemetry
            publish_s, budget_w = float(telemetry.publish), self.settings.energy.budget
            teller = Teller(self.settings.node.site, telemetry.advertise, publish_s, budget_w, ProcessUsage())

            def tell() -> Telemetry:
                return teller.message(machine(), measured.life(), self.link.traffic, self.used.predictions)

            overview = self._overview()
            doors = Doors(
                self.place,
                self.link,
                limits,
                time.monotonic,
                bucket,
                parts,
                facts=lambda: energy_facts(measured.energy()),
                telemetry=tell if publish_s else None,
                telemetry_s=publish_s,
                credential=self.credential,
                heard=self._hear,
                hears=(lambda topic, payload: None) if overview is None else overview.hear,
            )
            shell = Shell(doors, role)
            self.observer.watch_link(lambda: self.link.traffic)
            self.observer.watch_channel(shell.channel.sent, shell.channel.received, shell.channel.refused)
            self.observer.watch_machine(machine, measured.profile, platform.machine())
            self.observer.watch_energy(measured.life, measured.states, budget_w)
            asyncio.run(self._serve(shell, attach, overview))

    def _overview(self) -> Overview | None:
        """What the page of a fog node shows; None where there is no page."""
        if self.fleet is None or not self.settings.telemetry.http:
            return None
        return Overview(self.place, self.link, History(self.settings.node.state / HISTORY))

    def _hear(self, frame: Frame) -> None:
        """Take what a node below says of itself."""
        if self.fleet is not None and frame.node != self.place.node:  # the top speaks in its own domain
            self.fleet.take(frame, time.monotonic(), time.time())

    async def _list_targets(self, path: Path, fleet: Fleet) -> None:
        """Keep the file of nodes with an address as it is; at first the one of an earlier life stays, until they were heard."""
        told = 0
        while True:
            await asyncio.sleep(TARGETS_S)
            if fleet.moves != told:
                moves = fleet.moves
                try:
                    await asyncio.to_thread(replace_file, path, fleet.targets())
                    told = moves
                except OSError as error:
                    log.warning("telemetry.targets cannot be written: %s", error)

    async def _serve(self, shell: Shell, attach: Callable[[Shell], None], overview: Overview | None) -> None:
        loop = asyncio.get_running_loop()

        def ask() -> list[tuple[str, Status]]:
            """The status, asked from a thread of the HTTP door: a loop that hangs is seen here too."""
            return asyncio.run_coroutine_threadsafe(shell.snapshot(), loop).result(STATUS_TIMEOUT_S)

        def health() -> tuple[bool, str]:
            try:
                return shell.connected, "; ".join(status.reason for _, status in ask() if status.reason)
            except TimeoutError:
                return False, f"the event loop has not answered for {STATUS_TIMEOUT_S:g} s"

        self.observer.watch_machines(lambda: [(task, s.state, s.reason, s.facts) for task, s in ask()])
        page = Page(overview, loop) if overview is not None else None
        exporter = Exporter(self.observer, health, self.fleet, page.doors if page is not None else {})
        address = self.settings.node.state / "telemetry.address"
        http, key = self.settings.telemetry.http, "telemetry.http"
        with listening(HttpServer(http, exporter.handle, setting=key) if http else None, address, key):
            path = self.settings.telemetry.targets
            listing = [self._list_targets(path, self.fleet)] if path is not None and self.fleet is not None else []
            watching = [overview.run(shell.status)] if overview is not None else []
            watching.append(watch_revocations(self.settings.security, self.trust))
            try:
                async with _beside(*listing, *watching):
                    await _until_stopped(shell, attach)
            finally:
                if page is not None:
                    page.close()  # before the door, which waits for who is being answered


@asynccontextmanager
async def _beside(*works: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Do something for as long as something else goes on."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work) for work in works]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


def summarize_later(shell: Shell) -> None:
    """Log how a node is doing every minute, from the loop that it runs in."""
    _tell_later(shell, Summary())


def _tell_later(shell: Shell, summary: Summary) -> None:
    def tell() -> None:
        summary.tell((task, s.state, s.reason, s.facts) for task, s in shell.status())
        _tell_later(shell, summary)

    asyncio.get_running_loop().call_later(SUMMARY_S, tell)


async def _until_stopped(shell: Shell, attach: Callable[[Shell], None]) -> None:
    attach(shell)
    main = asyncio.current_task()
    assert main is not None
    signals = 0

    def on_signal() -> None:
        nonlocal signals
        signals += 1
        if signals == 1:
            log.info("stopping: finishing what is in hand; once more stops at once")
            shell.stop()
        else:
            main.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    try:
        await shell.run()
    except asyncio.CancelledError:
        log.warning("stopped at once; what was finished is on disk")


@contextmanager
def node_of(settings: DeviceFile | FogFile) -> Iterator[Running]:
    """A node in another life, with its database open.

    Raises:
        ConfigError: a key or a certificate of [security] cannot be used.
        StorageError: the database cannot be used.
    """
    security = settings.security
    trust = trust_of(security, settings.node.id, role_of(settings), os.environ)
    credential = credential_of(security)
    for sentence in revoked_keys(security):
        log.warning(sentence)
    db = Database(settings.node.state)
    try:
        place = Place(settings.net, settings.node.id, settings.node.parent or "", db.next_boot(time.time()), os.urandom(32))
        role = "device" if isinstance(settings, DeviceFile) else "fog"
        db.note_place(place, role)
        client_id = own_client_id(place.net, place.node, settings.broker)
        link = MqttLink(mqtt_settings(settings.broker, client_id, os.environ, will=last_will(role, place, credential)))
        log.info(
            "starting",
            extra={"facts": {"role": role, "parent": place.parent or "-", "boot": place.boot, "broker": settings.broker.url}},
        )
        threads = settings.training.threads if isinstance(settings, DeviceFile) else 1
        used = Used(lambda: (link.traffic.sent_bytes, link.traffic.received_bytes), threads)
        fleet = Fleet(settings.limits.max_children) if isinstance(settings, FogFile) else None
        observer = Observer(role, place.node, settings.node.site)
        yield Running(settings, place, db, link, observer, used, fleet, trust, credential)
    finally:
        db.close()


@contextmanager
def listening(server: Server | None, note: Path, key: str) -> Iterator[None]:
    """Serve, and leave the address in a file for tools and people."""
    note.unlink(missing_ok=True)
    if server is None:
        yield
        return
    server.start()
    try:
        note.write_text(server.url + "\n")
        log.info("listening", extra={"facts": {key: server.url}})
        yield
    finally:
        server.stop()
        note.unlink(missing_ok=True)


def _channel_limits(limits: Limits, bucket: Bucket | None) -> ChannelLimits:
    """A chunk, with what stands around it, is never more than the bucket can hold: an update of an earlier life may be."""
    chunk_bytes = limits.max_message_bytes if bucket is None else min(limits.max_message_bytes, bucket.burst - CHUNK_FRAME_BYTES)
    return ChannelLimits(limits.max_update_bytes, limits.max_release_bytes, chunk_bytes)
