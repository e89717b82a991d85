"""The shell of a node: one event loop that feeds state machines, one per task, and carries out what they ask for.

Everything that happens becomes an event in one queue; one task takes them in order. Transfers run beside it, so that a
slow link never holds up a decision. What the machines ask for beyond messages (training, saving, serving) is the role's.

Events that wait together are decided on together: the role keeps what they ask for in one transaction, because waiting for the
disk costs more than all the rest, and only then anything is sent. Where it cannot be kept, nothing of it is sent and the node
ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Protocol
from zlib import crc32

from edgemw.core.events import Fact, Finished, LinkDown, LinkUp, SetTimer, Stop, Timer
from edgemw.core.ids import Place
from edgemw.transport.channel import Channel, ChannelLimits
from edgemw.transport.filters import matches
from edgemw.transport.gate import Gate
from edgemw.transport.link import Down, Link, Received, Up, Will
from edgemw.wire import publication, topics
from edgemw.wire.bucket import Bucket
from edgemw.wire.messages import Frame, Presence, ReleaseManifest, Status, StatusRequest, TaskManifest, Telemetry
from edgemw.wire.parts import Parts
from edgemw.wire.traffic import (
    Arrived,
    Emitted,
    Fetch,
    Fetched,
    FetchFailed,
    FetchStalled,
    PublishBlob,
    Published,
    Retire,
    Send,
    Upload,
)

REFRESH_S = 30.0
MAX_QUEUE = 1000
TURNS = 2  # of the loop, for what has arrived to become an event: one to read it, one to take it
MAX_BATCH = 100  # events that are decided on before timers, arrivals and what was asked for have their turn
MAX_NEIGHBOURS = 100_000

Wanted = tuple[str, Any]
"""A task, and an action that its machine asks for."""

_OF_THE_SHELL = (Send, Upload, PublishBlob, Retire, Fetch, SetTimer, Fact, Finished)

log = logging.getLogger(__name__)


class Machine(Protocol):
    """A role's state machine for one task."""

    @property
    def state(self) -> str:
        """One word."""
        ...

    def reason(self, now: float) -> str:
        """Why something is not right."""
        ...

    def facts(self, now: float) -> dict[str, int | float | str]:
        """Numbers for `status`."""
        ...

    def handle(self, event: Any, now: float) -> Iterable[Any]:
        """Take one event; give actions."""
        ...


class Role(Protocol):
    """What makes a shell a device or a fog node."""

    role: str

    def subscriptions(self, place: Place) -> list[str]:
        """Topic filters that the node listens to."""
        ...

    def machine(self, task: str, now: float) -> Machine | None:
        """A machine for a task that was heard of; None to leave the task alone."""
        ...

    def act(self, wanted: Sequence[Wanted]) -> None:
        """Carry out actions that are the role's own; what comes of them is posted as events.

        What is to be kept comes first and in one transaction. Where this raises, nothing of it is kept.
        """
        ...

    def observe(self, task: str, fact: Fact) -> None:
        """Count a fact."""
        ...


@dataclass(frozen=True, slots=True)
class Doors:
    """What a shell is wired to.

    Attributes:
        place: where it stands.
        link: its link.
        limits: what it accepts.
        clock: seconds.
        bucket: how many bytes updates may take.
        parts: where chunks are kept for another life.
        facts: of the node, beside those of each task.
        telemetry: makes what is told to the parent again and again; None tells nothing.
        telemetry_s: between two of those.
        credential: the certificate of the key that it signs updates with, DER; empty where it signs none.
        heard: told of what others say about themselves: presence and telemetry.
        hears: told of everything that arrives, also of what is not for this node's role; from the loop, so briefly.
    """

    place: Place
    link: Link
    limits: ChannelLimits
    clock: Callable[[], float]
    bucket: Bucket | None = None
    parts: Parts | None = None
    facts: Callable[[], Mapping[str, int | float | str]] = dict
    telemetry: Callable[[], Telemetry] | None = None
    telemetry_s: float = 15.0
    credential: bytes = b""
    heard: Callable[[Frame], None] = lambda frame: None
    hears: Callable[[str, bytes], None] = lambda topic, payload: None


def last_will(role: str, place: Place, credential: bytes = b"") -> Will:
    """What the broker says of a node that has gone silent."""
    lost = _presence("lost", role, place, credential)
    return Will(lost.topic, publication.write(lost.topic, lost.frame))


class Shell:
    """See the module. `run` lives until `Finished`, or until it is cancelled."""

    def __init__(self, doors: Doors, role: Role) -> None:
        self._doors, self._role = doors, role
        self._machines: dict[str, Machine] = {}
        self._events: asyncio.Queue[tuple[str | None, Any]] = asyncio.Queue()
        self._room = asyncio.Event()  # set while the queue is short enough to read on
        self._room.set()
        self._timers: dict[tuple[str, str], tuple[float, asyncio.TimerHandle]] = {}  # by task and name: when, and what rings
        self._wanted: dict[bytes, set[str]] = {}
        self._presence: dict[str, Arrived] = {}  # the last word about each neighbour, for machines that are made later
        self._finished: set[str] = set()
        self._filters = role.subscriptions(doors.place)
        self._group: asyncio.TaskGroup | None = None
        self._connected = self._stopping = False
        self._link_reason = "not connected yet"
        self._gate = Gate(doors.bucket, doors.clock) if doors.bucket is not None else None
        self.channel = Channel(doors.link, doors.place, doors.limits, self._on_channel, self._spawn, self._gate, doors.parts)

    @property
    def machines(self) -> dict[str, Machine]:
        """The machines by task."""
        return self._machines

    @property
    def connected(self) -> bool:
        """Whether the broker is reachable."""
        return self._connected

    def open_tasks(self, tasks: Iterable[str]) -> None:
        """Make machines for tasks that are known from the disk."""
        for task in tasks:
            self._machine(task)

    def post(self, task: str | None, event: Any) -> None:
        """Put an event into the queue; from the loop's thread. None is for every machine."""
        self._events.put_nowait((task, event))
        if self._events.qsize() >= MAX_QUEUE:
            self._room.clear()

    async def run(self) -> None:
        """Serve until every machine has finished after a Stop."""
        async with self._doors.link, asyncio.TaskGroup() as group:
            self._group = group
            own = {"listen": self._listen(), "refresh": self._refresh(), "telemetry": self._tell()}
            helpers = [group.create_task(work, name=name) for name, work in own.items()]
            for topic_filter in self._filters:
                await self._doors.link.subscribe(topic_filter)
            try:
                await self._decide()
                await self._say_presence("offline")  # whoever is cut short says nothing: the link leaves, and the will speaks
            finally:
                if self._gate is not None:
                    self._gate.close()
                for helper in helpers:
                    helper.cancel()
                for _, timer in self._timers.values():
                    timer.cancel()

    def stop(self) -> None:
        """Ask every machine to finish what it is doing."""
        self._stopping = True
        self.post(None, Stop())

    # -- events

    async def _listen(self) -> None:
        async for event in self._doors.link.events():
            match event:
                case Up(where=where):
                    log.info("link up: %s", where)
                    self._connected = True
                    # Beside the reader: a broker may not answer before the reader has taken what it sent first.
                    self._spawn(self._say_presence("online"))
                    self._spawn(self.channel.refresh())
                    self.post(None, LinkUp())
                case Down(reason=reason):
                    if self._connected or reason != self._link_reason:
                        log.warning("link down: %s", reason)
                    self._connected, self._link_reason = False, reason
                    self.post(None, LinkDown(reason))
                case Received(topic=topic, payload=payload):
                    self._doors.hears(topic, payload)
                    if self._is_for_us(topic):
                        await self.channel.receive(topic, payload)
                        await self._room.wait()

    def _is_for_us(self, topic: str) -> bool:
        """Some brokers deliver retained messages that nobody here has asked for."""
        return "/blob/" in topic or any(matches(topic_filter, topic) for topic_filter in self._filters)

    async def _refresh(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_S)
            if self.channel.fetching and self._connected:
                await self.channel.refresh()

    async def _tell(self) -> None:
        """Tell the parent about this node, at times that differ from node to node."""
        make, place = self._doors.telemetry, self._doors.place
        if make is None or not place.parent:
            return
        topic, interval_s = topics.build(place.net, place.parent, "telemetry", node=place.node), self._doors.telemetry_s
        await asyncio.sleep(interval_s * (crc32(place.node.encode()) % 1000) / 1000)
        for number in count():
            message = await asyncio.to_thread(_made, make)  # sensors may take their time
            if message is not None and self._connected:
                await self.channel.carry(Send(topic, Frame("", place.node, place.boot, number, message)))
            await asyncio.sleep(interval_s)

    def _on_channel(self, event: Emitted) -> None:
        match event:
            case Arrived(topic=topic, frame=Frame(message=StatusRequest())):
                self._spawn(self._answer(topic))
            case Arrived(frame=Frame(message=Telemetry()) as frame):
                self._doors.heard(frame)
            case Arrived(frame=Frame(task="", node=node) as frame):
                self._doors.heard(frame)
                if node in self._presence or len(self._presence) < MAX_NEIGHBOURS:
                    self._presence[node] = event
                self.post(None, event)
            case Arrived(frame=frame):
                if isinstance(frame.message, TaskManifest | ReleaseManifest):  # nothing else makes a task known here
                    self._machine(frame.task)
                self.post(frame.task, event)
            case Published():
                self.post(None, event)
            case _:
                self._tell_readers(event)

    def _tell_readers(self, event: Fetched | FetchFailed | FetchStalled) -> None:
        """Say what became of a blob to the tasks that have asked for it."""
        for task in self._wanted.get(event.blob.digest, set()):
            self.post(task, event)
        if not isinstance(event, FetchStalled):
            self._wanted.pop(event.blob.digest, None)

    async def _decide(self) -> None:
        while not self._over:
            events = await self._waiting()
            wanted: list[Wanted] = []
            try:
                for task, event in events:
                    wanted += self._wants(task, event)
                    if self._over:
                        break
            finally:
                self._carry_out(wanted)  # also where a machine has failed at a later event
            await asyncio.sleep(0)  # timers, arrivals and what is sent have their turn, however many events wait

    async def _waiting(self) -> list[tuple[str | None, Any]]:
        """The events that are there, at least one, and those that come while the loop has turns to bring more."""
        events = [await self._events.get()]
        idle = 0
        while len(events) < MAX_BATCH and idle < TURNS:
            if self._events.empty():
                idle += 1
                await asyncio.sleep(0)
            else:
                idle = 0
                events.append(self._events.get_nowait())
        if self._events.qsize() < MAX_QUEUE:
            self._room.set()
        return events

    @property
    def _over(self) -> bool:
        """Whether nobody here has anything more to do."""
        return self._stopping if not self._machines else self._finished >= set(self._machines)

    def _wants(self, task: str | None, event: Any) -> list[Wanted]:
        """What the machine of a task makes of an event, or all machines where it is for every task."""
        names = list(self._machines) if task is None else [task] if task in self._machines else []
        wanted = [(name, action) for name in names for action in self._handle(name, event)]
        self._finished.update(name for name, action in wanted if isinstance(action, Finished))
        return wanted

    def _handle(self, task: str, event: Any) -> Iterable[Any]:
        """What a machine makes of an event.

        One that fails may have changed its state, and what it wanted kept is lost with its actions: it cannot go on from
        here, only from the disk, and in another life, because the numbers of its updates begin anew.
        """
        try:
            return self._machines[task].handle(event, self._doors.clock())
        except Exception:
            log.exception("%s for task %s failed: this node ends; restarted, it goes on from its disk", _in_words(event), task)
            raise

    def _machine(self, task: str) -> None:
        if task not in self._machines:
            machine = self._role.machine(task, self._doors.clock())
            if machine is not None:
                self._machines[task] = machine
                for event in self._presence.values():
                    self.post(task, event)
                if self._connected:
                    self.post(task, LinkUp())
                if self._stopping:
                    self.post(task, Stop())

    # -- actions

    def _carry_out(self, wanted: Sequence[Wanted]) -> None:
        """Keep first, then send: what is said is on the disk."""
        own = [(task, action) for task, action in wanted if not isinstance(action, _OF_THE_SHELL)]
        if own:
            self._role.act(own)
        for task, action in wanted:
            self._act(task, action)

    def _act(self, task: str, action: Any) -> None:
        match action:
            case Send() | Upload() | PublishBlob() | Retire():
                self._spawn(self.channel.carry(action))
            case Fetch(blob=blob):
                self._wanted.setdefault(blob.digest, set()).add(task)
                self._spawn(self.channel.carry(action))
            case SetTimer(name=name, at=at):
                self._set_timer(task, name, at)
            case Fact():
                self._role.observe(task, action)

    def _set_timer(self, task: str, name: str, at: float) -> None:
        old_at, old = self._timers.get((task, name), (None, None))
        if old_at == at:
            return  # machines say so at every event
        if old is not None:
            old.cancel()
        delay = max(0.0, at - self._doors.clock())
        self._timers[task, name] = at, asyncio.get_running_loop().call_later(delay, self._ring, task, name)

    def _ring(self, task: str, name: str) -> None:
        del self._timers[task, name]
        self.post(task, Timer(name))

    def _spawn(self, work: Any) -> None:
        assert self._group is not None
        self._group.create_task(work, name="transfer")

    # -- presence and status

    async def _say_presence(self, state: str) -> None:
        await self.channel.carry(_presence(state, self._role.role, self._doors.place, self._doors.credential))

    async def _answer(self, asked: topics.Topic) -> None:
        place = self._doors.place
        topic = topics.build(place.net, asked.domain, "answer", asker=asked["node"], node=place.node)
        for task, status in self.status():
            await self.channel.carry(Send(topic, Frame(task, place.node, place.boot, 0, status)))

    async def snapshot(self) -> list[tuple[str, Status]]:
        """The status, for other threads: machines belong to the loop."""
        return list(self.status())

    def status(self) -> Iterator[tuple[str, Status]]:
        """How the node is, per task; one without a task where it has none."""
        place, role, now = self._doors.place, self._role.role, self._doors.clock()
        link, facts = "" if self._connected else f"broker: {self._link_reason}", self._doors.facts()
        if not self._machines:
            yield "", Status(role, place.parent, "waiting", link or "no task has been published here yet", dict(facts))
        for task, machine in self._machines.items():
            reason = "; ".join(filter(None, (link, machine.reason(now))))
            yield task, Status(role, place.parent, machine.state, reason[:500], {**machine.facts(now), **facts})


def _made(make: Callable[[], Telemetry]) -> Telemetry | None:
    """What a node tells about itself; whatever goes wrong there must not end it."""
    try:
        return make()
    except Exception:
        log.exception("no telemetry this time")
        return None


def _presence(state: str, role: str, place: Place, credential: bytes) -> Send:
    topic = topics.build(place.net, place.parent or place.node, "presence", node=place.node)
    return Send(topic, Frame("", place.node, place.boot, 0, Presence(state, role, place.parent, credential)), retain=True)


def _in_words(event: Any) -> str:
    """What an event was, and whose."""
    if isinstance(event, Arrived):
        return f"{type(event.frame.message).__name__} of {event.frame.node}"
    return type(event).__name__
