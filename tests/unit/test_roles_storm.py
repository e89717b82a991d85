"""Kills, losses and a broker that forgets, at random: every update counted once, and the same release everywhere."""

from __future__ import annotations

import random

import numpy as np
import pytest

from edgemw.core.bundle import Vector
from edgemw.core.events import LinkUp
from edgemw.fog.events import Released, SaveBundle, SaveRelease
from edgemw.fog.release import TopOptions
from edgemw.fog.server import ServerOptions
from edgemw.fog.window import WindowOptions
from edgemw.learning.trainer import Trained
from tests.support.world import Disk, World

SIZE, ROUNDS = 4000, 25
FOGS = ("fog-0", "fog-1")
DEVICES = {"device-0": "fog-0", "device-1": "fog-1", "device-2": "fog-0", "device-3": "fog-1"}


class Storm(World):
    """Remembers every release that was saved: a number must never come back with other bits."""

    def __init__(self, seed: int, chunk_bytes: int) -> None:
        self.random = random.Random(seed)
        self.saved: dict[tuple[int, int], bytes] = {}
        super().__init__(self._learn, size=SIZE)
        options = TopOptions(
            WindowOptions(deadline_s=20.0, children=2), ServerOptions(), {}, rounds=ROUNDS, chunk_bytes=chunk_bytes
        )
        self.top("top", options)
        for fog in FOGS:
            self.fog(fog, "top", WindowOptions(deadline_s=10.0, children=2))
        for device, fog in DEVICES.items():
            self.device(device, fog)

    def _learn(self, node: str, release: int, theta: Vector) -> Trained:
        delta = np.random.default_rng([int(node[-1]), self.random.getrandbits(32)]).normal(0, 0.1, SIZE)
        return Trained(delta.astype(np.float32), 10, 1.0, 5)

    def _save(self, name: str, disk: Disk, action: object) -> None:
        super()._save(name, disk, action)
        if isinstance(action, SaveRelease | SaveBundle):
            self._note(action.released)

    def _note(self, released: Released) -> None:
        key, data = (released.manifest.run, released.manifest.number), released.theta.tobytes()
        assert self.saved.setdefault(key, data) == data

    def some_events(self) -> None:
        for _ in range(self.random.randint(1, 60)):
            if not self.queue:
                return
            name, event = self.queue.popleft()
            machine = self.machines.get(name)
            for action in machine.handle(event, self.now) if machine else ():
                self._act(name, action)

    def strike(self) -> None:
        victim = self.random.choice(["top", *FOGS, *DEVICES])
        self.kill(victim)
        if self.random.random() < 0.5:
            self.run(self.random.choice([1, 30]))
        forgets = self.random.random() < 0.2
        if forgets:
            self.blobs.clear()
            self.retained.clear()
        self.start(victim)
        if forgets:
            for name in self.machines:
                self.presence(name, "online")
                self.give(name, LinkUp())

    def check(self) -> None:
        for device in DEVICES:
            current = self.machines[device]._current
            if current is not None:
                assert self.saved[current.manifest.run, current.manifest.number] == current.theta.tobytes()


@pytest.mark.parametrize("chunk_bytes", [120_000, 2048])
@pytest.mark.parametrize("seed", range(3))
def test_whatever_happens_everything_is_counted_once_and_the_releases_are_the_same_everywhere(
    seed: int, chunk_bytes: int
) -> None:
    world = Storm(seed, chunk_bytes)
    world.loses = lambda target, frame: world.random.random() < 0.05
    for _ in range(100):
        world.some_events()
        if world.random.random() < 0.5:
            world.run(world.random.choice([1, 7, 25]))
        if world.random.random() < 0.4:
            world.strike()
        world.check()
    world.loses = lambda target, frame: False
    world.run(3000)
    world.check()
    released = world.disks["top"].released
    assert released is not None
    assert world.machines["top"].state == "finished"
    memories = [world.disks[device].memory for device in DEVICES]
    assert released.totals.updates == sum(memory.updates_sent - memory.updates_returned for memory in memories)
    assert released.totals.weight == sum(memory.weight_sent - memory.weight_returned for memory in memories)
    assert all(not disk.outbox and not disk.forwarded for disk in world.disks.values())
    assert released.manifest.number == ROUNDS
    assert {world.machines[device].release for device in DEVICES} == {released.manifest.number}
