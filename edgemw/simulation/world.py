"""A net in virtual time: the state machines of production, what they have saved, a broker and its links.

Every node can be killed at any moment and made again from what it had saved, be cut off, or be slow; the broker can forget.
Nothing here decides anything: it carries messages, keeps what is to be kept, and lets time pass when nothing else can happen.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Iterable
from heapq import heappop, heappush
from typing import Any, NamedTuple, Protocol

from edgemw.core.bundle import Bundle, read_bundle, theta_view
from edgemw.core.errors import EdgeError, WireError
from edgemw.core.events import Fact, Finished, LinkDown, LinkUp, SetTimer, Timer
from edgemw.core.ids import Place
from edgemw.device.cycle import Cycle
from edgemw.device.events import Install, Installed, Left, OpenTask, TaskOpened, Work, Worked
from edgemw.device.uplink import Uplink
from edgemw.fog.forwarder import Forwarder
from edgemw.fog.release import TopOptions
from edgemw.fog.top import Top
from edgemw.fog.window import WindowOptions
from edgemw.simulation.broker import BrokerSpec, Sessions
from edgemw.simulation.chance import secret_of
from edgemw.simulation.disk import Disk
from edgemw.simulation.gate import Gate
from edgemw.simulation.links import Links
from edgemw.simulation.packets import added_bytes
from edgemw.simulation.shared import Shared
from edgemw.wire import topics
from edgemw.wire.chunks import CHUNK_BYTES, blob_of, cut
from edgemw.wire.following import Theta
from edgemw.wire.incoming import Incoming
from edgemw.wire.messages import MAX_INLINE_BYTES, Blob, Chunk, Frame, Presence, pack, unpack
from edgemw.wire.signed import ANYBODY, Trust
from edgemw.wire.topics import Topic
from edgemw.wire.traffic import Arrived, Fetch, Fetched, FetchStalled, PublishBlob, Published, Retire, Send, Upload

NET = "net"
_AROUND_BYTES = 100  # of a frame and a topic around an offer, or a chunk
_INCOMING_BYTES = 64 << 20
_STALLED_S = 60.0  # two looks of `transport/shell.py`
_ROUNDING_S = 1e-6
"""A clock that is ahead rounds: a timer that rang too early by that would be set again and again."""
_CARRIED = frozenset({Send, Upload, PublishBlob, Retire, Fetch})
_DONE_BY_DEVICES = frozenset({OpenTask, Install, Work})
_Key = tuple[str, bytes]
"""Of a blob: its domain and label."""

_Of = str
"""What can end: the connection of a node, by its name, or its life, by `_life`."""

Do = Callable[[str, Work], Worked]
"""Does the work of a device: measures a release, and trains from it."""


class Machine(Protocol):
    """What the three roles have in common."""

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

    def handle(self, event: Any, now: float) -> list[Any]:
        """Take one event; give actions."""
        ...


class Retained(NamedTuple):
    """What the broker says again to whoever comes."""

    frame: Frame
    size_bytes: int


class _Parts:
    """Chunks that a node keeps for another life."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, bytes], dict[int, bytes]] = {}

    def kept(self, owner: str, blob: Blob) -> dict[int, bytes]:
        """See Parts."""
        return dict(self._kept.get((owner, blob.digest), {}))

    def keep(self, owner: str, blob: Blob, index: int, data: bytes) -> None:
        """See Parts."""
        self._kept.setdefault((owner, blob.digest), {})[index] = data

    def forget(self, owner: str, digest: bytes) -> None:
        """See Parts."""
        self._kept.pop((owner, digest), None)


def _life(name: str) -> _Of:
    return f"life of {name}"  # no node has a name with spaces


class World:
    """Nodes by name, what is on its way to them, and what the broker retains.

    Attributes:
        now: seconds.
        machines: of the nodes that run.
        parents, disks: of all nodes.
        options: of the top and of fog nodes; devices have None, or nothing.
        uplinks: of devices that have one.
        trusts, credentials: of nodes that ask for signatures, or sign.
        queue: events that wait for their nodes, all of them due.
        retained: by topic.
        blobs: by domain and label.
        offline: nodes whose connection is down.
        skew: seconds that a node's clock is ahead.
        facts: what nodes said of themselves.
        finished: nodes that have nothing more to do.
        chunk_bytes: larger updates travel in chunks of this size.
        malformed: messages that were dropped, by reason.
        most_steps: events at one moment; more are taken for a circle.
        sessions: what the broker keeps for its readers; None is nothing.
    """

    def __init__(self, bundle: Bundle, do: Do, links: Links | None = None, broker: BrokerSpec | None = None) -> None:
        """Build a net without nodes; without a `broker` nothing is kept for who is not connected, and nothing is limited."""
        self.sessions = Sessions(broker) if broker is not None else None
        self.bundle, self.do, self.links = bundle, do, links or Links()
        self.now = 0.0
        self.machines: dict[str, Any] = {}
        self.parents: dict[str, str] = {}
        self.options: dict[str, Any] = {}
        self.disks: dict[str, Disk] = {}
        self.uplinks: dict[str, Uplink] = {}
        self.trusts: dict[str, Trust] = {}
        self.credentials: dict[str, bytes] = {}
        self.queue: deque[tuple[str, Any]] = deque()
        self.retained: dict[str, Retained] = {}
        self.blobs: dict[tuple[str, bytes], bytes] = {}
        self.offline: set[str] = set()
        self.skew: dict[str, float] = {}
        self.facts: list[tuple[str, Fact]] = []
        self.finished: set[str] = set()
        self.chunk_bytes = CHUNK_BYTES
        self.malformed: Counter[str] = Counter()
        self.most_steps = 1_000_000
        self._children: dict[str, dict[str, None]] = {}
        self._below: dict[str, str] = {}  # under whom a node has started last
        self._timers: dict[str, dict[str, float]] = {}
        self._later: list[tuple[float, int, str, Any, tuple[_Of, ...]]] = []  # due, order, node, event or timer, depends on
        self._order = 0
        self._ended: dict[_Of, int] = {}  # the order by which a connection or a life has ended last
        self._opened: dict[bytes, tuple[Bundle, Theta]] = {}
        self._shared = Shared()
        self._incoming: dict[str, Incoming] = {}
        self._parts: dict[str, _Parts] = {}
        self._gates: dict[str, Gate] = {}
        self._last_packed: tuple[Frame | None, bytes] = (None, b"")
        self._retained_in: dict[tuple[str, bool], dict[str, None]] = {}  # topics by domain, those of presence apart
        self._awaited: dict[_Key, dict[str, Fetch]] = {}
        self._wants: dict[str, set[_Key]] = {}

    # -- nodes

    def add(self, name: str, parent: str, options: TopOptions | WindowOptions | None) -> None:
        """Put a node below its parent, and start it."""
        self.parents[name], self.options[name] = parent, options
        self.disks.setdefault(name, Disk())
        self.start(name)

    def start(self, name: str) -> None:
        """Make a node's machine from its disk and connect it."""
        disk, parent = self.disks[name], self.parents[name]
        disk.boots += 1
        self._children.get(self._below.get(name, parent), {}).pop(name, None)
        self._children.setdefault(parent, {})[name] = None
        self._below[name] = parent
        self.machines[name] = self._machine(Place(NET, name, parent, disk.boots, secret_of(name, disk.boots)))
        if name not in self.offline:
            self.presence(name, "online")
            self.reconnect(name)

    def _machine(self, place: Place) -> Machine:
        name = place.node
        disk, options, now, task = self.disks[name], self.options.get(name), self.clock(name), self.bundle.manifest.name
        trust, left = self.trusts.get(name, ANYBODY), Left(disk.memory, disk.kept, joined=tuple(disk.joined.values()))
        if options is None:
            return Cycle(place, task, left, now, self.uplinks.get(name), self._shared.follow, trust)
        if isinstance(options, TopOptions):
            return Top(place, task, options, disk.fog_memory, now, trust)
        return Forwarder(place, task, options, disk.fog_memory, now, trust)

    def kill(self, name: str) -> None:
        """Kill -9: what was not saved is gone, and the broker says so."""
        del self.machines[name]
        self._timers.pop(name, None)
        self._not_awaited(name)
        self._ended[_life(name)] = self._order
        self._incoming.pop(name, None)
        if name in self._gates:
            self._gates.pop(name).close()
        self.queue = deque(item for item in self.queue if item[0] != name)
        self._disconnect(name)
        self.presence(name, "lost")

    def cut(self, name: str, reason: str = "cut off") -> None:
        """Take a node's connection: what is on its way to and from it is lost."""
        self.offline.add(name)
        self._disconnect(name)
        if name in self.machines:
            self.give(name, LinkDown(reason))
        self.presence(name, "lost")

    def mend(self, name: str) -> None:
        """Give a node its connection back."""
        self.offline.discard(name)
        if name in self.machines:
            self.presence(name, "online")
            self.reconnect(name)

    def restart_broker(self, *, forgets: bool) -> None:
        """Take everybody's connection for a moment; where it forgets, what was retained is gone."""
        connected = [name for name in self.machines if name not in self.offline]
        for name in connected:
            self.cut(name, "the broker is gone")
        if forgets:
            self.retained.clear()
            self.blobs.clear()
        for name in connected:
            self.mend(name)

    def reconnect(self, name: str) -> None:
        """The link is up: the broker sends what it has kept, and says again what is retained."""
        self.give(name, LinkUp())
        if self.sessions is not None:
            for message in self.sessions.returns(name, self.now):
                self._deliver(name, *message, self.now)
        for place in ((name, False), (name, True), (self.parents[name], False)):  # children do not listen to presence
            for text in list(self._retained_in.get(place, ())):
                topic, kept = topics.parse(text), self.retained.get(text)
                if kept is not None and name in self._readers(topic):
                    self._deliver(name, topic, kept.frame, kept.size_bytes, self.now)
        for key in sorted(self._wants.get(name, ())):
            self.fetch(name, self._awaited[key][name])

    def presence(self, name: str, state: str) -> None:
        """What is said of a node in its parent's domain."""
        parent = self.parents[name]
        role = "device" if self.options.get(name) is None else "fog"
        frame = Frame("", name, self.disks[name].boots, 0, Presence(state, role, parent, self.credentials.get(name, b"")))
        self._publish(topics.build(NET, parent or name, "presence", node=name), frame, retain=True)

    def _disconnect(self, name: str) -> None:
        self._ended[name] = self._order
        self.links.forget(name)
        if self.sessions is not None:
            self.sessions.leaves(name, self.now)
        self.queue = deque(item for item in self.queue if item[0] != name or not isinstance(item[1], Arrived | Fetched))

    # -- time

    def clock(self, name: str) -> float:
        """What a node's clock shows."""
        return self.now + self.skew.get(name, 0.0) if self.skew else self.now

    def jump(self, name: str, seconds: float) -> None:
        """Let a node's clock jump ahead, as after a sleep: its timers go off earlier."""
        self.skew[name] = self.skew.get(name, 0.0) + seconds
        for timer, at in [*self._timers.get(name, {}).items()]:
            self._ring_at(name, timer, at - seconds)

    def give(self, name: str, event: Any) -> None:
        """Let an event wait for a node; it is due."""
        self.queue.append((name, event))

    def give_at(self, at: float, name: str, event: Any, depends_on: tuple[_Of, ...]) -> None:
        """Let an event wait for a node until a time; it is lost if a connection or a life that it depends on ends before."""
        if at <= self.now:
            self.give(name, event)
        else:
            self.put_off(at, name, event, depends_on)

    def put_off(self, at: float, name: str, event: Any, depends_on: tuple[_Of, ...]) -> None:
        """As `give_at`, but after all that is due where the time is now.

        What can be called is called, and needs no name; a text names a timer, which rings if it is set to that time still.
        """
        self._order += 1
        heappush(self._later, (at, self._order, name, event, depends_on))

    def call_at(self, at: float, function: Callable[[], None], depends_on: tuple[_Of, ...]) -> None:
        """Call a function at a time, unless something that it depends on ends before."""
        if at <= self.now:
            function()
        else:
            self.put_off(at, "", function, depends_on)

    def settle(self) -> None:
        """Deliver everything that is due, and what comes of it."""
        steps = 0
        while self.queue:
            self.step()
            steps += 1
            if steps > self.most_steps:
                names = ", ".join(sorted({name for name, _ in self.queue})[:8])
                raise EdgeError(f"more than {self.most_steps} events at one moment, {self.now:g} s: {names} go on and on")

    def step(self) -> None:
        """Deliver the next event that is due."""
        name, event = self.queue.popleft()
        machine = self.machines.get(name)
        if machine is None:
            return
        if isinstance(event, Fetched):
            self._not_awaited(name, event.blob)
        for action in machine.handle(event, self.clock(name)):
            if self.machines.get(name) is not machine:
                return  # killed by what it did
            self._act(name, action)

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        """Let time pass, or less of it where `until` holds."""
        end = self.now + seconds
        self.settle()
        while self._later and self._later[0][0] <= end and not until():
            at, order, name, event, depends_on = heappop(self._later)
            self.now = max(self.now, at)
            if isinstance(event, str):  # a timer, which may have been set anew since
                self._ring(name, event, at)
            elif not self._is_lost(order, depends_on):
                if callable(event):
                    event()
                else:
                    self.give(name, event)
            self.settle()
        if not until() and math.isfinite(end):
            self.now = end

    def _is_lost(self, order: int, depends_on: tuple[_Of, ...]) -> bool:
        """Whether something has ended on which an event depends that was put off in this order."""
        ended = self._ended
        if ended:
            for of in depends_on:
                if ended.get(of, 0) >= order:
                    return True
        return False

    def _ring(self, name: str, timer: str, at: float) -> None:
        timers = self._timers.get(name, {})
        if timers.get(timer) == at:
            del timers[timer]
            if not timers:
                del self._timers[name]  # an emptied table keeps its memory
            self.give(name, Timer(timer))

    def _set_timer(self, name: str, timer: str, at: float) -> None:
        ahead = self.skew.get(name, 0.0)
        self._ring_at(name, timer, at - ahead + _ROUNDING_S if ahead else at)

    def _ring_at(self, name: str, timer: str, at: float) -> None:
        at = max(self.now, at)
        self._timers.setdefault(name, {})[timer] = at
        self.put_off(at, name, timer, ())

    # -- what nodes ask for

    def _act(self, name: str, action: Any) -> None:
        kind = type(action)
        if kind is SetTimer:
            self._set_timer(name, action.name, action.at)
        elif kind is Fact:
            self.note(name, action)
        elif kind in _CARRIED:
            self._carry(name, action)
        elif kind in _DONE_BY_DEVICES:
            self._act_on_device(name, action)
        elif kind is Finished:
            self.finished.add(name)
        else:
            self._save(name, self.disks[name], action)

    def _carry(self, name: str, action: Send | Upload | PublishBlob | Retire | Fetch) -> None:
        match action:
            case Send(topic=topic, frame=frame, retain=retain):
                self._publish(topic, frame, retain=retain)
            case Upload():
                self._upload_in_turn(name, action)
            case PublishBlob(domain=domain, blob=blob, data=data):
                self._put_blob(name, domain, blob, data)
            case Retire(domain=domain, blob=blob):
                self.blobs.pop((domain, blob.label), None)
            case Fetch():
                self.fetch(name, action)

    def _act_on_device(self, name: str, action: OpenTask | Install | Work) -> None:
        match action:
            case OpenTask(blob=blob, data=data):
                if blob.digest not in self._opened:
                    bundle = read_bundle(data)
                    self._opened[blob.digest] = bundle, theta_view(bundle.theta0)
                bundle, theta0 = self._opened[blob.digest]
                self.give(name, TaskOpened(blob.digest, bundle.manifest, theta0))
            case Install(release=release):
                self.give(name, Installed(release.number))
            case Work():
                self.work(name, action)

    def work(self, name: str, work: Work) -> None:
        """Do a device's work; Worked follows when it is done, in the same life."""
        self.give_at(self.now + self.work_s(name, work), name, self.do(name, work), self.in_this_life(name))

    @staticmethod
    def in_this_life(name: str) -> tuple[_Of, ...]:
        """What has to go on for something that a node does by itself."""
        return (_life(name),)

    def work_s(self, name: str, work: Work) -> float:
        """How long a device works."""
        return 0.0

    def note(self, name: str, fact: Fact) -> None:
        """Somebody has said what happened."""
        self.facts.append((name, fact))

    def _save(self, name: str, disk: Disk, action: Any) -> None:
        disk.save(action, self.parents[name])

    def fetch(self, name: str, fetch: Fetch) -> None:
        """Bring a blob, as soon as it is there."""
        key = fetch.domain, fetch.blob.label
        self._awaited.setdefault(key, {})[name] = fetch
        self._wants.setdefault(name, set()).add(key)
        found = self.blobs.get(key)
        if found is None:
            self.call_at(self.now + _STALLED_S, lambda: self._stalls(name, fetch), self.in_this_life(name))
        if found is not None and name not in self.offline and self._carries_chunks_of(fetch.blob):
            size_bytes = fetch.blob.size + fetch.blob.chunks * _AROUND_BYTES
            at = self.links.arrival(name, "down", size_bytes, self.now)
            self.give_at(at, name, Fetched(fetch.blob, found), (name,))

    def _stalls(self, name: str, fetch: Fetch) -> None:
        """Say so where a blob that was not there is waited for still."""
        if self._awaited.get((fetch.domain, fetch.blob.label), {}).get(name) is fetch:
            self.give(name, FetchStalled(fetch.blob))

    def _carries_chunks_of(self, blob: Blob) -> bool:
        return self.sessions is None or self.sessions.takes(min(blob.size, blob.chunk_size) + _AROUND_BYTES)

    def _not_awaited(self, name: str, blob: Blob | None = None) -> None:
        """A node has a blob, or waits for none any more."""
        for key in [key for key in self._wants.get(name, ()) if blob is None or key[1] == blob.label]:
            self._wants[name].discard(key)
            if not self._wants[name]:
                del self._wants[name]
            readers = self._awaited[key]
            del readers[name]
            if not readers:
                del self._awaited[key]

    def _put_blob(self, name: str, domain: str, blob: Blob, data: bytes) -> None:
        if name in self.offline:
            return
        self.blobs[domain, blob.label] = data
        self.give(name, Published(domain, blob))
        for reader, fetch in [*self._awaited.get((domain, blob.label), {}).items()]:
            self.fetch(reader, fetch)

    # -- updates

    def _upload_in_turn(self, name: str, upload: Upload) -> None:
        """Send an update when the uplink has tokens for it."""
        uplink = self.uplinks.get(name)
        if uplink is None or uplink.bucket is None:
            self._upload(name, upload)
            return

        def leave() -> bool:
            self._upload(name, upload)
            return name not in self.offline

        def wait(seconds: float, then: Callable[[], None]) -> None:
            self.put_off(self.now + seconds, "", then, self.in_this_life(name))

        if name not in self._gates:
            self._gates[name] = Gate(uplink.bucket, lambda: self.clock(name), wait)
        self._gates[name].pass_through((upload.frame.id, type(upload.frame.message)), len(self._packed(upload.frame)), leave)

    def _upload(self, name: str, upload: Upload) -> None:
        """Send an update: offered, and in the chunks that are missing, where it is large."""
        data, topic = self._packed(upload.frame), topics.parse(upload.topic)
        if len(data) <= min(MAX_INLINE_BYTES, self.chunk_bytes):
            self._publish(upload.topic, upload.frame, retain=False)
            return
        reader = topic.domain
        if name in self.offline or reader in self.offline or reader not in self.machines:
            return
        blob = blob_of(data, self.chunk_bytes)
        if not self._carries_chunks_of(blob):
            return
        missing = self._incoming_of(reader).offer(name, topic, blob)
        at = self.links.arrival(name, "up", _AROUND_BYTES, self.now)
        for index in missing:
            chunk = cut(data, blob, index)
            at = self.links.arrival(name, "up", len(chunk.data) + _AROUND_BYTES, at)
            self._send_chunk(reader, name, chunk, at)

    def _send_chunk(self, reader: str, name: str, chunk: Chunk, at: float) -> None:
        """Bring a chunk to a fog node at a time."""
        ends = (reader, _life(reader), name)
        self.call_at(at, lambda: self._on_chunk(reader, name, chunk), ends)

    def _on_chunk(self, reader: str, name: str, chunk: Chunk) -> None:
        try:
            found = self._incoming_of(reader).add(name, chunk)
        except WireError as error:
            self.malformed[error.reason] += 1
            return
        if found is not None:
            topic, data = found
            self.give(reader, Arrived(topic, unpack(data)))

    def _incoming_of(self, reader: str) -> Incoming:
        """What is coming in at a fog node, in its present life; chunks outlive it."""
        if reader not in self._incoming:
            self._incoming[reader] = Incoming(_INCOMING_BYTES, self._parts.setdefault(reader, _Parts()))
        return self._incoming[reader]

    # -- the broker

    def _publish(self, text: str, frame: Frame, *, retain: bool) -> None:
        """Publish what a node says, or what the broker says of a node that is lost."""
        name, is_will = frame.node, isinstance(frame.message, Presence) and frame.message.state == "lost"
        if name in self.offline and not is_will:
            return
        topic, data = topics.parse(text), self._packed(frame)
        frame, size_bytes = self._read(frame, data), len(data) + added_bytes(text, len(data))
        if self.sessions is not None and not self.sessions.takes(size_bytes):
            return
        if retain:
            self.retained[text] = Retained(frame, size_bytes)
            self._retained_in.setdefault((topic.domain, topic.channel == "presence"), {})[text] = None
        at = self.now
        if topic.domain != name and not is_will:
            at = self.links.arrival(name, "up", size_bytes, at)
        for reader in list(self._readers(topic)):
            self._deliver(reader, topic, frame, size_bytes, at, "" if is_will else name)

    def _read(self, frame: Frame, data: bytes) -> Frame:
        """What a frame that was written as these bytes is for who reads it."""
        return unpack(data)

    def _packed(self, frame: Frame) -> bytes:
        """The bytes of a frame, made once where it is asked for several times in a row."""
        if self._last_packed[0] is not frame:
            self._last_packed = frame, pack(frame)
        return self._last_packed[1]

    def _deliver(self, reader: str, topic: Topic, frame: Frame, size_bytes: int, at: float, writer: str = "") -> None:
        """Bring a message that is on the broker at a time to one who reads it."""
        sessions, message = self.sessions, (topic, frame, size_bytes)
        if reader not in self.machines or reader in self.offline:
            if sessions is not None:
                sessions.keep(reader, message, self.now)
            return
        if topic.domain != reader:  # who reads its own domain is beside the broker
            at = self.links.arrival(reader, "down", size_bytes, at)
            if sessions is not None and not sessions.keep(reader, message, self.now, at + self.links.delay_s(reader)):
                return
        self.give_at(at, reader, Arrived(topic, frame), (reader, writer) if writer else (reader,))

    def _readers(self, topic: Topic) -> Iterable[str]:
        """Who listens to a topic."""
        match topic.channel:
            case "release":
                return self._children.get(topic.domain, ())
            case "task":
                return (topic.domain, *self._children.get(topic.domain, ()))
            case "reply":
                node = topic["node"]
                former = {receiver for _, receiver, _ in self.disks[node].outbox.values()} if node in self.disks else ()
                return (node,) if self.parents.get(node) == topic.domain or topic.domain in former else ()
            case "presence" | "update":
                return (topic.domain,)
            case _:
                return ()
