"""An operator's view of a running net over MQTT: who is there, how each node is, what each round brought."""

from __future__ import annotations

import asyncio
import secrets
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from edgemw.app.settings import Broker
from edgemw.app.wiring import mqtt_settings
from edgemw.core.config.words import nearest
from edgemw.core.errors import ConfigError, LinkError, WireError
from edgemw.transport.link import Down, Link, Received, Up
from edgemw.transport.mqtt import MqttLink
from edgemw.wire import publication, topics
from edgemw.wire.chunks import CHUNK_BYTES, blob_of, cut
from edgemw.wire.messages import Frame, Presence, ReleaseManifest, RoundReport, Status, StatusRequest, TaskManifest
from edgemw.wire.topics import Topic

SETTLE_S = 0.4
_SILENT = {
    "online": ("silent", "is connected but does not answer: it may hang, or be overloaded"),
    "lost": ("lost", "its connection broke: power, network or a crash"),
    "offline": ("stopped", ""),  # on purpose: nothing is wrong with it
}
"""State and reason of a node that does not answer, by the last word about it."""


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """How one node is with one task; `task` is "" for a node without one."""

    node: str
    task: str
    status: Status


class Console:
    """One connection that listens to everything that nodes say about themselves."""

    def __init__(self, link: Link, net: str) -> None:
        self._link, self._net = link, net
        self._name = f"console-{secrets.token_hex(4)}"
        self._presence: dict[str, tuple[str, int, Presence]] = {}  # node: domain, boot, last word
        self._domains: defaultdict[str, set[str]] = defaultdict(set)  # node: where it has ever been
        self._answers: dict[tuple[str, str], Status] = {}
        self._releases: dict[tuple[str, str], ReleaseManifest] = {}
        self._changed = asyncio.Event()
        self.reports: asyncio.Queue[tuple[str, RoundReport]] = asyncio.Queue()
        self.connected = False

    @property
    def presence(self) -> Mapping[str, str]:
        """The state of each node that was ever there, by its id."""
        return {node: message.state for node, (_, _, message) in self._presence.items()}

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
            case Presence() as presence:
                self._domains[frame.node].add(topic.domain)
                known = self._presence.get(frame.node)
                if known is None or frame.boot >= known[1]:
                    self._presence[frame.node] = topic.domain, frame.boot, presence
            case Status() as status:
                self._answers[frame.node, frame.task] = status
            case RoundReport() as report:
                self.reports.put_nowait((frame.task, report))
            case ReleaseManifest() as manifest:
                self._releases[topic.domain, frame.task] = manifest

    async def ask(self, timeout_s: float = 3.0) -> list[NodeStatus]:
        """Ask every node for its status; those that do not answer in time get a reason that says so.

        A node whose parent is not there gets a reason too: it cannot know whether its parent was ever there.
        """
        await self.settle()
        self._answers.clear()
        for domain in sorted({domain for domain, _, _ in self._presence.values()}):
            topic = topics.build(self._net, domain, "ask", node=self._name)
            try:
                await self._link.publish(topic, publication.write(topic, Frame("", self._name, 0, 0, StatusRequest())))
            except LinkError:
                break  # nobody can answer then, and that is what the caller is told
        online = {node for node, state in self.presence.items() if state == "online"}

        def all_answered() -> bool:
            return online <= {node for node, _ in self._answers}

        await self._until(all_answered, timeout_s)
        await asyncio.sleep(0.05 if self._answers else 0)  # a node with several tasks answers once for each
        return sorted(
            [*self._answered(), *self._silent()], key=lambda s: (s.status.role != "fog", s.status.parent, s.node, s.task)
        )

    def _answered(self) -> list[NodeStatus]:
        return [
            NodeStatus(node, task, replace(status, reason="; ".join(filter(None, (self._about(status.parent), status.reason)))))
            for (node, task), status in self._answers.items()
        ]

    def _about(self, parent: str) -> str:
        """Why a node that is there hears nothing from its parent; empty when the parent is there too, or it needs none."""
        if not parent:
            return ""
        if parent not in self._presence:
            near = nearest(parent, [node for node in self._presence if self.role(node) != "device"])
            return f"its parent {parent!r} has never been seen" + (f" (did you mean {near!r}?)" if near else "")
        if self.role(parent) == "device":
            return f"its parent {parent!r} is a device"
        state = self.presence[parent]
        return "" if state == "online" else f"its parent {parent!r} is {_SILENT.get(state, (state, ''))[0]}"

    def _silent(self) -> list[NodeStatus]:
        answered = {node for node, _ in self._answers}
        silent = []
        for node, (_, _, presence) in self._presence.items():
            if node not in answered:
                state, reason = _SILENT.get(presence.state, (presence.state, ""))
                silent.append(NodeStatus(node, "", Status(presence.role, presence.parent, state, reason, {})))
        return silent

    async def forget(self, nodes: Sequence[str], timeout_s: float = 3.0) -> None:
        """Take from the broker what it keeps about nodes that are gone for good.

        Raises:
            ConfigError: one of them answers, or has never been seen; then none is forgotten.
            LinkError: the broker did not take it.
        """
        await self.ask(timeout_s)
        for node in nodes:
            if node not in self._presence:
                raise ConfigError(f"no node {node!r} has been seen in this net", suggestion=nearest(node, list(self._presence)))
            if any(answered == node for answered, _ in self._answers):
                raise ConfigError(f"{node} is online: stop it first")
        for node in nodes:
            for domain in sorted(self._domains[node]):
                await self._link.publish(topics.build(self._net, domain, "presence", node=node), b"", retain=True)

    def role(self, node: str) -> str:
        """What a node is: "top", "fog" (with a parent) or "device"; empty when it has never been seen."""
        if node not in self._presence:
            return ""
        presence = self._presence[node][2]
        return "top" if presence.role == "fog" and not presence.parent else presence.role

    def top(self) -> str | None:
        """Id of the fog node without a parent, if it has been seen."""
        return next((node for node in self._presence if self.role(node) == "top"), None)

    async def publish_task(self, domain: str, task: str, data: bytes, timeout_s: float) -> ReleaseManifest | None:
        """Put a bundle on the broker; gives the release that the top made of it, or None if it has not in time."""
        blob = blob_of(data, CHUNK_BYTES)
        for index in range(blob.chunks):
            topic = topics.build(self._net, domain, "blob", digest=blob.name, index=str(index))
            frame = Frame("", self._name, 0, 0, cut(data, blob, index))
            await self._link.publish(topic, publication.write(topic, frame), retain=True)
        topic = topics.build(self._net, domain, "task", task=task)
        frame = Frame(task, self._name, 0, 0, TaskManifest(blob))
        await self._link.publish(topic, publication.write(topic, frame), retain=True)

        def taken() -> bool:
            manifest = self._releases.get((domain, task))
            return manifest is not None and manifest.bundle == blob.label

        await self._until(taken, timeout_s)
        return self._releases.get((domain, task)) if taken() else None

    async def settle(self) -> None:
        """Retained messages come right after a subscription; when no new node has for a moment, all are here."""
        known = -1
        while known != len(self._presence):
            known = len(self._presence)
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
async def open_console(broker: Broker, net: str, env: Mapping[str, str]) -> AsyncIterator[Console]:
    """Connect a console. Raises LinkError when the broker cannot be used."""
    settings = mqtt_settings(broker, f"em1-console-{secrets.token_hex(6)}", env, wait=False)
    link = MqttLink(replace(settings, session_expiry_s=0))
    async with link, asyncio.TaskGroup() as group:
        console = Console(link, net)
        listening = group.create_task(console.run(), name="console")
        try:
            yield console
        finally:
            listening.cancel()
