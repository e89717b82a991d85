"""An operator's view of a running net over MQTT: who is there, how each node is, what each round brought."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from edgemw.app.broker import mqtt_settings
from edgemw.app.census import Census, NodeStatus, question
from edgemw.app.settings import Broker
from edgemw.core.config.words import nearest
from edgemw.core.errors import ConfigError, LinkError, WireError
from edgemw.transport.connection import BrokerUnreachable
from edgemw.transport.link import Down, Link, Received, Up
from edgemw.transport.mqtt import MqttLink
from edgemw.wire import publication, topics
from edgemw.wire.chunks import CHUNK_BYTES, blob_of, cut
from edgemw.wire.messages import Frame, ReleaseManifest, RoundReport, TaskManifest
from edgemw.wire.signed import Signer, signed_proposal
from edgemw.wire.topics import Topic

SETTLE_S = 0.4


class Console:
    """One connection that listens to everything that nodes say about themselves.

    Attributes:
        census: what it has heard.
        reports: of rounds, with their task, as they come.
        connected: whether the broker is there.
        refused: why nodes could not be asked; "" where they could.
    """

    def __init__(self, link: Link, net: str, name: str = "") -> None:
        """Look at a net.

        Args:
            name: under which it asks: where a broker has access rules, that of the user; by chance where it is not given.
        """
        self._link, self._net = link, net
        self._name = name or f"console-{secrets.token_hex(4)}"
        self.refused = ""
        self._releases: dict[tuple[str, str], ReleaseManifest] = {}
        self._changed = asyncio.Event()
        self.census = Census()
        self.reports: asyncio.Queue[tuple[str, RoundReport]] = asyncio.Queue()
        self.connected = False

    async def run(self) -> None:
        """Listen until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen(), name="console")  # first, so that nothing waits for a reader
            await self._subscribe()

    async def _subscribe(self) -> None:
        for channel, values in (
            ("presence", {"node": "+"}),
            ("answer", {"asker": self._name, "node": "+"}),
            ("event", {"node": "+", "task": "+"}),
            ("release", {"task": "+"}),
        ):
            await self._link.subscribe(topics.build(self._net, "+", channel, **values))

    async def _listen(self) -> None:
        async for event in self._link.events():
            match event:
                case Up():
                    self.connected = True
                case Down():
                    self.connected = False
                case Received(topic=text, payload=payload) if payload:
                    try:
                        topic = topics.parse(text)
                        self._take(topic, publication.read(topic, payload))
                    except WireError:
                        continue  # somebody else's message: the nodes count those, a console only looks
            self._changed.set()

    def _take(self, topic: Topic, frame: Frame) -> None:
        match frame.message:
            case RoundReport() as report:
                self.reports.put_nowait((frame.task, report))
            case ReleaseManifest() as manifest:
                self._releases[topic.domain, frame.task] = manifest
        self.census.take(topic.domain, frame, time.monotonic())

    async def ask(self, timeout_s: float = 3.0) -> list[NodeStatus]:
        """Ask every node for its status; see `Census.statuses` for those that do not answer in time."""
        await self.settle()
        since_s, self.refused = time.monotonic(), ""
        for domain in sorted(self.census.now_in):
            try:
                await self._link.publish(*question(self._net, domain, self._name))
            except BrokerUnreachable as error:
                self.refused = str(error)
                break  # nobody can answer then, and that is what the caller is told
            except LinkError as error:
                self.refused = str(error)  # in this domain; it may be let ask in others
        online = {node for node, state in self.census.presence.items() if state == "online"}
        await self._until(lambda: online <= self.census.answered(since_s), timeout_s)
        await asyncio.sleep(0.05 if self.census.answered(since_s) else 0)  # a node with several tasks answers once for each
        return self.census.statuses(since_s)

    async def forget(self, nodes: Sequence[str], timeout_s: float = 3.0) -> None:
        """Take from the broker what it keeps about nodes that are gone for good.

        Raises:
            ConfigError: one of them answers, or has never been seen; then none is forgotten.
            LinkError: the broker did not take it.
        """
        since_s = time.monotonic()
        await self.ask(timeout_s)
        seen = list(self.census.presence)
        for node in nodes:
            if node not in seen:
                raise ConfigError(f"no node {node!r} has been seen in this net", suggestion=nearest(node, seen))
            if node in self.census.answered(since_s):
                raise ConfigError(f"{node} is online: stop it first")
        for node in nodes:
            for domain in self.census.domains(node):
                await self._link.publish(topics.build(self._net, domain, "presence", node=node), b"", retain=True)

    async def publish_task(
        self, domain: str, task: str, data: bytes, timeout_s: float, signer: Signer | None = None
    ) -> ReleaseManifest | None:
        """Put a bundle on the broker; gives the release that the top made of it, or None if it has not in time."""
        blob = blob_of(data, CHUNK_BYTES)
        for index in range(blob.chunks):
            topic = topics.build(self._net, domain, "blob", digest=blob.name, index=str(index))
            frame = Frame("", self._name, 0, 0, cut(data, blob, index))
            await self._link.publish(topic, publication.write(topic, frame), retain=True)
        topic = topics.build(self._net, domain, "task", task=task)
        manifest = TaskManifest(blob) if signer is None else signed_proposal(signer, self._net, task, blob)
        frame = Frame(task, self._name, 0, 0, manifest)
        await self._link.publish(topic, publication.write(topic, frame), retain=True)

        def taken() -> bool:
            manifest = self._releases.get((domain, task))
            return manifest is not None and manifest.bundle == blob.label

        await self._until(taken, timeout_s)
        return self._releases.get((domain, task)) if taken() else None

    async def settle(self) -> None:
        """Retained messages come right after a subscription; when no new node has for a moment, all are here."""
        known = -1
        while known != len(self.census.presence):
            known = len(self.census.presence)
            await asyncio.sleep(SETTLE_S)

    async def _until(self, true: Callable[[], bool], timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                while not true():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return


@asynccontextmanager
async def open_console(broker: Broker, net: str, env: Mapping[str, str], name: str = "") -> AsyncIterator[Console]:
    """Connect a console, which asks under this name. Raises LinkError when the broker cannot be used."""
    settings = mqtt_settings(broker, f"em1-console-{secrets.token_hex(6)}", env, wait=False)
    link = MqttLink(replace(settings, session_expiry_s=0))
    async with link, asyncio.TaskGroup() as group:
        console = Console(link, net, name)
        listening = group.create_task(console.run(), name="console")
        try:
            yield console
        finally:
            listening.cancel()
