"""A net in memory: the real state machines, with messages and blobs handed over by hand and saved state in dictionaries.

Every machine can be killed and made again from what it saved. Nothing here decides anything: it only carries.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from edgemw.core.bundle import Bundle, Manifest, Slot, Spec, Vector
from edgemw.core.events import Fact, Finished, LinkUp, SetTimer, Timer
from edgemw.core.ids import Place, UpdateId
from edgemw.device.cycle import Cycle
from edgemw.device.events import Install, Installed, Memory, OpenTask, SaveAck, SaveMemory, SaveRound, TaskOpened, Work, Worked
from edgemw.device.uplink import Uplink
from edgemw.fog import events as fog_events
from edgemw.fog.accounts import Accounts
from edgemw.fog.events import (
    BundleGiven,
    FogMemory,
    Forwarded,
    Released,
    Remainder,
    SaveBundle,
    SaveForward,
    SaveOutcomes,
    SaveRelease,
    SaveShelf,
    SaveUpdate,
    Settled,
)
from edgemw.fog.forwarder import Forwarder
from edgemw.fog.release import TopOptions
from edgemw.fog.top import Top
from edgemw.fog.window import WindowOptions
from edgemw.learning.trainer import Trained
from edgemw.storage import journal
from edgemw.wire import topics
from edgemw.wire.messages import Blob, Frame, Presence, RoundReport, pack, unpack
from edgemw.wire.sender import Kept
from edgemw.wire.traffic import Arrived, Fetch, Fetched, FetchFailed, PublishBlob, Published, Retire, Send, Upload

TASK = "toy"
NET = "net"


def toy_bundle(size: int = 64, value: float = 0.0) -> Bundle:
    """A bundle whose graphs are never run."""
    manifest = Manifest(
        name=TASK,
        layout=(Slot("w", (size,), 0),),
        input=Spec((1,), "float32"),
        target=Spec((), "int64"),
        output=Spec((1,), "float32"),
        loss="mse",
        metrics=("mse",),
    )
    return Bundle(manifest, b"infer", b"train", np.full(size, value, np.float32))


@dataclass
class Disk:
    """What a node has saved."""

    memory: Memory = field(default_factory=Memory)
    outbox: dict[UpdateId, tuple[Frame, str, bool]] = field(default_factory=dict)
    window: dict[UpdateId, Frame] = field(default_factory=dict)
    forwarded: dict[UpdateId, Forwarded] = field(default_factory=dict)
    settled: dict[UpdateId, Settled] = field(default_factory=dict)
    bundle: bytes | None = None
    known: set[bytes] = field(default_factory=set)
    released: Released | None = None
    shelf: tuple[Blob, ...] = ()
    remainder: Remainder | None = None
    accounts: Accounts = field(default_factory=Accounts)
    boots: int = 0


Learn = Callable[[str, int, Vector], Trained]


class World:
    """Nodes by name, a queue of publications, retained messages and blobs."""

    def __init__(self, learn: Learn, *, size: int = 64, bundle: Bundle | None = None) -> None:
        self.bundle = bundle or toy_bundle(size)
        self.served: dict[str, Vector] = {}
        self.now = 0.0
        self.learn = learn
        self.machines: dict[str, Any] = {}
        self.parents: dict[str, str] = {}
        self.options: dict[str, Any] = {}
        self.disks: dict[str, Disk] = {}
        self.retained: dict[str, Frame] = {}
        self.blobs: dict[tuple[str, bytes], bytes] = {}
        self.queue: deque[tuple[str, Any]] = deque()
        self.timers: dict[tuple[str, str], float] = {}
        self.facts: list[tuple[str, Fact]] = []
        self.finished: set[str] = set()
        self.releases: list[int] = []
        self.loses: Callable[[str, Frame], bool] = lambda target, frame: False
        self.copies: Callable[[str, Frame], int] = lambda target, frame: 1
        self.refuses: Callable[[str, Blob], bool] = lambda name, blob: False
        self.reports: list[RoundReport] = []
        self.uplinks: dict[str, Uplink] = {}  # of devices; `Upload` here takes no tokens
        self.holding: dict[str, list[Work]] = {}  # nodes whose work is finished by hand
        self.fetching: dict[str, list[Fetch]] = {}  # nodes whose blobs are fetched by hand

    # -- nodes

    def top(self, name: str, options: TopOptions) -> None:
        self._add(name, "", options)
        if self.disks[name].bundle is None:
            self.give(name, BundleGiven(self.bundle.to_bytes()))

    def fog(self, name: str, parent: str, options: WindowOptions) -> None:
        self._add(name, parent, options)

    def device(self, name: str, parent: str) -> None:
        self._add(name, parent, None)

    def _add(self, name: str, parent: str, options: Any) -> None:
        self.parents[name], self.options[name] = parent, options
        self.disks.setdefault(name, Disk())
        self.start(name)

    def start(self, name: str) -> None:
        """Make a node's machine from its disk and connect it."""
        disk, parent, options = self.disks[name], self.parents[name], self.options[name]
        disk.boots += 1
        place = Place(NET, name, parent, disk.boots)
        if options is None:
            kept = tuple(Kept(frame, receiver, acked) for frame, receiver, acked in disk.outbox.values())
            self.machines[name] = Cycle(place, TASK, disk.memory, kept, self.now, self.uplinks.get(name))
        else:
            memory = FogMemory(
                open=tuple(disk.window.values()),
                forwarded=tuple(disk.forwarded.values()),
                settled=tuple(disk.settled.items()),
                bundle=disk.bundle,
                bundles_known=frozenset(disk.known),
                released=disk.released,
                shelf=disk.shelf,
                remainder=disk.remainder,
                accounts=disk.accounts,
            )
            make = Top if isinstance(options, TopOptions) else Forwarder
            self.machines[name] = make(place, TASK, options, memory, self.now)
        self._presence(name, "online")
        self.reconnect(name)

    def reconnect(self, name: str) -> None:
        """The link is up: the broker says again what is retained."""
        self.give(name, LinkUp())
        for topic, frame in list(self.retained.items()):
            if self._hears(name, topic):
                self.give(name, Arrived(topics.parse(topic), frame))

    def kill(self, name: str) -> None:
        """kill -9: what was not saved is gone."""
        del self.machines[name]
        self.queue = deque(item for item in self.queue if item[0] != name)
        self.timers = {key: at for key, at in self.timers.items() if key[0] != name}
        self.holding.pop(name, None) if name in self.holding and not self.holding[name] else None
        if name in self.holding:
            self.holding[name] = []
        self._presence(name, "lost")

    def _presence(self, name: str, state: str) -> None:
        parent = self.parents[name]
        frame = Frame("", name, self.disks[name].boots, 0, Presence(state, "node", parent))
        self._publish(topics.build(NET, parent or name, "presence", node=name), frame, retain=True)

    # -- time

    def give(self, name: str, event: Any) -> None:
        self.queue.append((name, event))

    def settle(self) -> None:
        """Deliver everything that is on its way."""
        while self.queue:
            name, event = self.queue.popleft()
            machine = self.machines.get(name)
            if machine is not None:
                for action in machine.handle(event, self.now):
                    if name in self.machines:
                        self._act(name, action)

    def run(self, seconds: float) -> None:
        """Deliver everything and let timers go off for a while."""
        end = self.now + seconds
        self.settle()
        while self.timers and min(self.timers.values()) <= end:
            (name, timer), at = min(self.timers.items(), key=lambda item: (item[1], item[0]))
            del self.timers[name, timer]
            self.now = max(self.now, at)
            self.give(name, Timer(timer))
            self.settle()
        self.now = end

    def finish(self, name: str) -> None:
        """Finish work that is held back."""
        for work in self.holding[name]:
            self.give(name, self._work(name, work))
        self.holding[name] = []

    def fetch(self, name: str, action: Fetch) -> None:
        """Bring a blob, if it is there."""
        if self.refuses(name, action.blob):
            self.give(name, FetchFailed(action.blob, "it is too large"))
            return
        found = self.blobs.get((action.domain, action.blob.label))
        if found is not None:
            self.give(name, Fetched(action.blob, found))

    # -- actions

    def _act(self, name: str, action: Any) -> None:
        match action:
            case Send(topic=topic, frame=frame, retain=retain):
                self._publish(topic, frame, retain=retain)
            case Upload(topic=topic, frame=frame):
                self._publish(topic, frame, retain=False)
            case PublishBlob(domain=domain, blob=blob, data=data):
                self.blobs[domain, blob.label] = data
                self.give(name, Published(domain, blob))
            case Retire(domain=domain, blob=blob):
                self.blobs.pop((domain, blob.label), None)
            case Fetch() if name in self.fetching:
                self.fetching[name].append(action)
            case Fetch():
                self.fetch(name, action)
            case SetTimer(name=timer, at=at):
                self.timers[name, timer] = at
            case Fact():
                self.facts.append((name, action))
            case Finished():
                self.finished.add(name)
            case OpenTask(blob=blob):
                self.give(name, TaskOpened(blob.digest, self.bundle.manifest, self.bundle.theta0))
            case Install(release=release, theta=theta):
                self.served[name] = theta
                self.give(name, Installed(release.number))
            case Work():
                if name in self.holding:
                    self.holding[name].append(action)
                else:
                    self.give(name, self._work(name, action))
            case _:
                self._save(name, self.disks[name], action)

    def _work(self, name: str, work: Work) -> Worked:
        trained = self.learn(name, work.release.number, work.theta) if work.train else None
        return Worked(work.release.number, trained, {"test.mse": (1.0, 1.0), "uplink": (10.0, 1.0)})

    def _save(self, name: str, disk: Disk, action: Any) -> None:
        match action:
            case SaveRound(memory=memory, frame=frame):
                disk.memory = memory
                disk.outbox[frame.id] = frame, self.parents[name], False
            case SaveMemory(memory=memory, forget=forget):
                disk.memory = memory
                for update in forget:
                    disk.outbox.pop(update, None)
            case SaveAck(update=update):
                disk.outbox[update] = (*disk.outbox[update][:2], True)
            case SaveUpdate(frame=frame, accounts=accounts):
                disk.window[frame.id], disk.accounts = frame, accounts
            case SaveForward(forwarded=forwarded, remainder=remainder):
                disk.remainder = remainder
                disk.forwarded[forwarded.frame.id] = forwarded
                for member in forwarded.members:
                    disk.window.pop(member, None)
            case fog_events.SaveAck(update=update):
                old = disk.forwarded[update]
                disk.forwarded[update] = replace(old, acknowledged=True)
            case SaveOutcomes(outcomes=outcomes, accounts=accounts, forwarded=forwarded_id, remainder=remainder):
                self._settle(disk, outcomes)
                disk.accounts = accounts
                disk.remainder = remainder if remainder is not None else disk.remainder
                if forwarded_id is not None:
                    disk.forwarded.pop(forwarded_id, None)
            case SaveRelease(released=released, outcomes=outcomes, accounts=accounts):
                self._settle(disk, outcomes)
                disk.released, disk.accounts = released, accounts
                self.releases.append(released.manifest.number)
            case SaveShelf(blobs=blobs):
                disk.shelf = blobs
            case SaveBundle(digest=digest, data=data, released=released):
                disk.bundle, disk.released = data, released
                disk.known.add(digest)
            case _:
                raise AssertionError(f"nobody carries out {action}")

    def _settle(self, disk: Disk, outcomes: tuple[tuple[UpdateId, Settled], ...]) -> None:
        for update, outcome in outcomes:
            disk.window.pop(update, None)
            disk.settled[update] = outcome
            of_child = sorted(settled for settled in disk.settled if settled.node == update.node)
            for old in of_child[: -journal.KEPT_OUTCOMES]:
                del disk.settled[old]

    # -- the broker

    def _publish(self, topic: str, frame: Frame, *, retain: bool) -> None:
        frame = unpack(pack(frame))
        if isinstance(frame.message, RoundReport):
            self.reports.append(frame.message)
        if retain:
            self.retained[topic] = frame
        for name in list(self.machines):
            if self._hears(name, topic) and not self.loses(name, frame):
                for _ in range(self.copies(name, frame)):
                    self.give(name, Arrived(topics.parse(topic), frame))

    def _hears(self, name: str, text: str) -> bool:
        topic = topics.parse(text)
        if topic.domain not in (name, self.parents[name]):
            kept = {receiver for _, receiver, _ in self.disks[name].outbox.values()}
            return topic.domain in kept and topic.channel == "reply" and topic["node"] == name
        if topic.domain == self.parents[name]:
            return topic.channel in ("task", "release") or (topic.channel == "reply" and topic["node"] == name)
        return topic.domain == name and topic.channel in ("presence", "update", "task")
