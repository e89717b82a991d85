"""A device's real shell, channel and cycle, on a link that is slow and breaks, below a fog node that answers as it likes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgemw.core.bundle import theta_view
from edgemw.core.events import Fact
from edgemw.core.ids import Place, UpdateId
from edgemw.core.plan import Plan
from edgemw.device.cycle import Cycle
from edgemw.device.events import (
    Install,
    Installed,
    Left,
    Memory,
    OpenTask,
    SaveAck,
    SaveMemory,
    SaveRound,
    TaskOpened,
    Work,
    Worked,
)
from edgemw.device.uplink import Uplink
from edgemw.learning.trainer import Trained
from edgemw.transport.channel import Channel, ChannelLimits
from edgemw.transport.link import Received
from edgemw.transport.memory import MemoryBroker, MemoryLink
from edgemw.transport.shell import Doors, Shell, Wanted
from edgemw.wire import topics
from edgemw.wire.bucket import Bucket
from edgemw.wire.chunks import blob_of
from edgemw.wire.messages import Ack, Frame, Outcome, ReleaseManifest, TaskManifest, Update
from edgemw.wire.sender import Kept
from edgemw.wire.traffic import Arrived, PublishBlob, Send
from tests.support.world import NET, TASK, toy_bundle

FOG = Place(NET, "fog", "", 1)
FRAME_BYTES = 512  # around a chunk
Rows = dict[UpdateId, Kept]


@dataclass(frozen=True)
class Conditions:
    """What happens around the device; probabilities of each event."""

    rate: float = 500.0
    burst: int = 4096
    max_upload_s: float = 0.0
    size: int = 2000
    slow_s: float = 0.0
    lose: float = 0.0
    give_back: float = 0.0
    tell: float = 1.0  # what became of an update, when it is taken: who is not told asks again


class SlowLink(MemoryLink):
    """Keeps each publication for a while, then notes when it left and how long it is."""

    def __init__(self, broker: MemoryBroker, conditions: Conditions, chance: random.Random) -> None:
        super().__init__(broker, "device", wait_for_broker=True)
        self._conditions, self._chance = conditions, chance
        self.uploads: list[tuple[float, int]] = []

    async def publish(self, topic: str, payload: bytes, **more: Any) -> None:
        counted = topics.parse(topic).channel in ("update", "chunk")
        if counted:
            await asyncio.sleep(self._chance.random() * self._conditions.slow_s)
        if counted and self._connection is not None:
            self.uploads.append((asyncio.get_running_loop().time(), len(payload)))
        await super().publish(topic, payload, **more)
        if counted:
            await asyncio.sleep(self._chance.random() * self._conditions.slow_s)


class Device:
    """The role of a device that trains at once; what it saves is kept here over its lives."""

    role = "device"

    def __init__(self, conditions: Conditions, memory: Memory, kept: Rows, boot: int, bucket: Bucket | None) -> None:
        self.memory, self.kept, self._boot = memory, kept, boot
        self._uplink = Uplink(bucket, conditions.max_upload_s)
        self._size = conditions.size
        self.shell: Shell | None = None
        self.facts: list[Fact] = []

    def subscriptions(self, place: Place) -> list[str]:
        return [
            topics.build(NET, place.parent, "reply", node=place.node, task="+"),
            topics.build(NET, place.parent, "task", task="+"),
            topics.build(NET, place.parent, "release", task="+"),
        ]

    def machine(self, task: str, now: float) -> Cycle:
        place = Place(NET, "device", "fog", self._boot)
        return Cycle(place, task, Left(self.memory, tuple(self.kept.values())), now, self._uplink)

    def observe(self, task: str, fact: Fact) -> None:
        self.facts.append(fact)

    def act(self, wanted: Sequence[Wanted]) -> None:
        for task, action in wanted:
            self._act(task, action)

    def _act(self, task: str, action: Any) -> None:
        assert self.shell is not None
        match action:
            case SaveRound(memory=memory, frame=frame):
                self.memory = memory
                self.kept[frame.id] = Kept(frame, "fog", acknowledged=False)
            case SaveMemory(memory=memory, forget=forget):
                self.memory = memory
                for update in forget:
                    self.kept.pop(update, None)
            case SaveAck(update=update):
                self.kept[update] = replace(self.kept[update], acknowledged=True)
            case OpenTask(blob=blob):
                bundle = toy_bundle(self._size)
                self.shell.post(task, TaskOpened(blob.digest, bundle.manifest, theta_view(bundle.theta0)))
            case Install(release=release):
                self.shell.post(task, Installed(release.number))
            case Work(release=release, train=train, seed=seed):
                delta = np.random.default_rng(seed).standard_t(3, self._size).astype(np.float32)
                trained = Trained(delta, 2, 1.0, 1) if train else None
                self.shell.post(task, Worked(release.number, trained, {"test.mse": (1.0, 1.0)}))


class Net:
    """The fog node and the broker, and one life of the device after the other."""

    def __init__(self, conditions: Conditions, seed: int, group: asyncio.TaskGroup) -> None:
        self.conditions, self.chance, self._group = conditions, random.Random(seed), group
        self.broker = MemoryBroker()
        self.fog = MemoryLink(self.broker, "fog", wait_for_broker=True)
        self.channel = Channel(self.fog, FOG, ChannelLimits(), self._answer, lambda work: self._spawn(work))
        self.link = SlowLink(self.broker, conditions, self.chance)
        self.uploads: list[tuple[float, int]] = []
        self.memory, self.kept, self.boot = Memory(), dict[UpdateId, Kept](), 0
        self.taken: dict[UpdateId, Update] = {}
        self.bundle = toy_bundle(conditions.size).to_bytes()
        self._life: asyncio.Task[None] | None = None

    async def open(self) -> None:
        for channel, values in (("update", {"node": "+", "task": "+"}), ("chunk", {"fog": "fog", "node": "+", "transfer": "+"})):
            await self.fog.subscribe(topics.build(NET, "fog", channel, **values))
        self._listener = self._group.create_task(self._listen())
        blob = blob_of(self.bundle)
        await self.channel.carry(PublishBlob("fog", blob, self.bundle))
        await self.channel.carry(Send(topics.build(NET, "fog", "task", task=TASK), self._frame(TaskManifest(blob)), retain=True))

    def close(self) -> None:
        self._listener.cancel()

    def start(self) -> None:
        """A new life of the device, with an empty bucket."""
        self.boot += 1
        conditions, clock = self.conditions, asyncio.get_running_loop().time
        bucket = Bucket(conditions.rate, conditions.burst, clock()) if conditions.rate else None
        self.link = SlowLink(self.broker, conditions, self.chance)
        self.device = Device(conditions, self.memory, self.kept, self.boot, bucket)
        limits = ChannelLimits(chunk_bytes=conditions.burst - FRAME_BYTES)
        self.shell = Shell(Doors(Place(NET, "device", "fog", self.boot), self.link, limits, clock, bucket), self.device)
        self.device.shell = self.shell
        self.shell.open_tasks([TASK])
        self._life = self._group.create_task(self._run())

    async def kill(self) -> None:
        """kill -9: what was saved is there."""
        assert self._life is not None
        self._life.cancel()
        await asyncio.wait([self._life])
        self.memory, self.kept = self.device.memory, self.device.kept
        self.uploads += self.link.uploads

    @property
    def cycle(self) -> Cycle:
        machine = self.shell.machines[TASK]
        assert isinstance(machine, Cycle)
        return machine

    async def release(self, number: int, *, train: bool = True, step: float = 1.0, codec: str = "lattice") -> None:
        theta = toy_bundle(self.conditions.size).theta0.tobytes()
        bundle = blob_of(self.bundle).label
        manifest = ReleaseManifest(0, number, bundle, blob_of(theta), train, codec, {}, step, Plan(), 4)
        await self.channel.carry(Send(topics.build(NET, "fog", "release", task=TASK), self._frame(manifest), retain=True))

    async def _run(self) -> None:
        await self.shell.run()

    async def _listen(self) -> None:
        async for event in self.fog.events():
            if isinstance(event, Received):
                await self.channel.receive(event.topic, event.payload)

    def _spawn(self, work: Any) -> None:
        self._group.create_task(work)

    def _frame(self, message: Any) -> Frame:
        return Frame(TASK, "fog", 1, 0, message)

    def _answer(self, event: Any) -> None:
        update = event.frame.message if isinstance(event, Arrived) else None
        if not isinstance(update, Update):
            return
        if self.chance.random() < self.conditions.lose:
            return
        frame = event.frame
        self.taken.setdefault(frame.id, update)
        topic = topics.build(NET, "fog", "reply", node=frame.node, task=TASK)
        self._spawn(self.channel.carry(Send(topic, self._frame(Ack(frame.boot, frame.seq)))))
        if self.chance.random() < self.conditions.tell:
            returned = self.chance.random() < self.conditions.give_back
            outcome = Outcome(frame.boot, frame.seq, not returned, 1, "stale" if returned else "")
            self._spawn(self.channel.carry(Send(topic, self._frame(outcome))))
