"""Sent + residuals = the sum of updates, over a whole tree and at every moment, whatever is lost, killed or given back."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgemw.compression.lattice import Lattice
from edgemw.compression.table import codec_named
from edgemw.core.bundle import Vector
from edgemw.core.ids import UpdateId
from edgemw.device.events import Memory, SaveMemory, SaveRound
from edgemw.device.uplink import Uplink
from edgemw.fog.audit import audit
from edgemw.fog.events import SaveRelease
from edgemw.fog.release import TopOptions
from edgemw.fog.server import ServerOptions
from edgemw.fog.window import WindowOptions
from edgemw.learning.trainer import Trained
from edgemw.simulation.books import books_of
from edgemw.wire.bucket import Bucket
from edgemw.wire.messages import Frame, Update, pack
from tests.support.world import Disk, World

Wide = npt.NDArray[np.float64]

SIZE, ROUNDS = 96, 14
FOGS = {"fog-0": "top", "fog-1": "top", "fog-2": "fog-1"}
DEVICES = {"device-0": "fog-0", "device-1": "fog-0", "device-2": "fog-2", "device-3": "fog-2", "device-4": "fog-1"}
RATE = 0.1
ANY = -1
"""The release of what adds to every other."""

BURST = 330
"""Bytes: what some devices have to make their updates fit into."""


@dataclass(frozen=True)
class Fleet:
    """How a fleet encodes its updates: the codec with its parameters, and the largest payload of a fog node."""

    codec: str = "lattice"
    parameters: dict[str, int | float | str] = field(default_factory=dict)
    fog_bytes: int = 0


FLEETS = {
    "lattice": Fleet(),
    "nearest": Fleet(parameters={"rounding": "nearest"}),
    "golomb": Fleet(parameters={"rounding": "nearest", "coder": "golomb"}),
    "dyadic": Fleet(parameters={"rounding": "nearest", "steps": "dyadic"}),
    "nested": Fleet(parameters={"rounding": "nearest", "steps": "dyadic"}, fog_bytes=24),
    "nested by chance": Fleet(parameters={"steps": "dyadic"}, fog_bytes=24),
    "lanes": Fleet("lanes", {"blocks": 3, "bits": 12, "members": 64}),
    **{name: Fleet(name) for name in ("dense", "topk", "qsgd", "signsgd")},
}


class Books(World):
    """A tree that keeps an account of all that was trained, sent, given back and counted in releases."""

    def __init__(self, seed: int, fleet: Fleet, *, churn: float = 0.0, rounds: int = ROUNDS) -> None:
        self.random, self.fleet, self.churn = random.Random(seed), fleet, churn
        self.feedback = codec_named(fleet.codec, **fleet.parameters).feedback
        self.trained, self.counted = np.zeros(SIZE), np.zeros(SIZE)
        self.sent, self.settled = Symbols(), Symbols()
        self.learnt: dict[tuple[str, int], tuple[int, Wide]] = {}
        self.weight_trained = self.weight_counted = 0
        self.in_releases: set[UpdateId] = set()
        self.spoilt: dict[UpdateId, bool] = {}
        super().__init__(self.teach, size=SIZE)
        window = WindowOptions(deadline_s=20.0, children=3)
        how = TopOptions(window, ServerOptions(), {}, rounds=rounds, codec=fleet.codec, parameters=fleet.parameters, kappa=2.0)
        self.top("top", how)
        for fog, parent in FOGS.items():
            self.fog(fog, parent, WindowOptions(deadline_s=8.0, max_staleness=1, budget_bytes=fleet.fog_bytes))
        for index, (device, parent) in enumerate(DEVICES.items()):
            if index % 2 and fleet.codec == "lattice":
                self.uplinks[device] = Uplink(Bucket(100.0, BURST, 0.0))
            self.device(device, parent)

    def teach(self, node: str, release: int, theta: Vector) -> Trained:
        rng = np.random.default_rng([int(node[-1]), release, self.random.getrandbits(30)])
        delta = rng.standard_t(3, SIZE).astype(np.float32)
        weight = 1 + int(node[-1])
        self.learnt[node, release] = weight, weight * delta.astype(np.float64)
        return Trained(delta, weight, 1.0, 5)

    def _publish(self, topic: str, frame: Frame, *, retain: bool) -> None:
        message = frame.message
        if isinstance(message, Update) and message.sections and self._spoils(frame.id):
            # its parent gives it back
            frame = replace(frame, message=replace(message, sections=(replace(message.sections[0], payload=b""),)))
        super()._publish(topic, frame, retain=retain)

    def _spoils(self, update: UpdateId) -> bool:
        return self.spoilt.setdefault(update, self.random.random() < self.churn)

    def _save(self, name: str, disk: Disk, action: Any) -> None:
        match action:
            case SaveRound(memory=memory, frame=Frame(message=Update(sections=(section, *_))) as frame):
                # a training that a kill cut off before it was saved has never been
                weight, mass = self.learnt[name, section.base]
                if not self.feedback:  # it stands for what is said of it
                    mass = said(frame) + kept(memory) - kept(disk.memory)
                self.trained += mass
                self.weight_trained += weight
                self.sent.add(frame)
                if name in self.uplinks:
                    assert len(pack(frame)) <= BURST
            case SaveMemory(forget=forget):
                for update in forget:
                    if not self.is_counted(name, update):
                        self.settled.add(disk.outbox[update][0])
            case SaveRelease(outcomes=outcomes):
                for update, settled in outcomes:
                    if settled.counted and update in disk.window:
                        self.counted += said(disk.window[update])
                        self.weight_counted += weight_of(disk.window[update])
                        self.settled.add(disk.window[update])
                        self.in_releases.add(update)
        super()._save(name, disk, action)

    def is_counted(self, name: str, update: UpdateId) -> bool:
        """Whether an update is inside a release, which its sender need not know yet."""
        parent = self.parents[name]
        if parent == "top":
            return update in self.in_releases
        disk = self.disks[parent]
        if update in disk.settled:
            return disk.settled[update].counted
        return any(update in kept.members and self.is_counted(parent, window) for window, kept in disk.forwarded.items())

    def on_its_way(self) -> list[Frame]:
        """The updates that have not been counted in a release nor given back."""
        return [
            frame
            for device in DEVICES
            for frame, _, _ in self.disks[device].outbox.values()
            if not self.is_counted(device, frame.id)
        ]

    def residuals(self) -> Wide:
        """The sum of what devices have not said yet."""
        total = np.zeros(SIZE)
        for device in DEVICES:
            total += kept(self.disks[device].memory)
        return total

    def remainders(self) -> Wide:
        """The sum of what fog nodes have not said yet of windows that are counted.

        What is kept back of a window on its way is on its way with the updates in it.
        """
        total = np.zeros(SIZE)
        for fog in FOGS:
            disk = self.disks[fog]
            total += stands_for(disk.remainder.payload if disk.remainder is not None else b"")
            for window, kept in disk.forwarded.items():
                if kept.brought and not self.is_counted(fog, window):
                    total += said(kept.frame) - stands_for(kept.brought)
        return total

    def weight_owed(self) -> int:
        """The weight of what was returned to devices and has not been sent again."""
        return sum(self.disks[device].memory.weight_owed for device in DEVICES)

    def some_events(self) -> None:
        for _ in range(self.random.randint(1, 40)):
            if self.queue:
                name, event = self.queue.popleft()
                machine = self.machines.get(name)
                for action in machine.handle(event, self.now) if machine else ():
                    self._act(name, action)

    def strike(self) -> None:
        victim = self.random.choice(["top", *FOGS, *DEVICES])
        self.kill(victim)
        if self.random.random() < 0.5:
            self.run(self.random.choice([1, 30]))
        self.start(victim)


class Symbols:
    """Sums of lattice symbols by the release that they belong to, exact in float64.

    On steps that are powers of two the sums of what symbols stand for are exact as well, whatever release they belong to.
    """

    def __init__(self) -> None:
        self._sums: dict[int, Wide] = {}

    def add(self, frame: Frame) -> None:
        message = frame.message
        assert isinstance(message, Update)
        for section in message.sections:
            step = codec_named(message.codec).check(section.payload, SIZE)
            values = codec_named(message.codec).decode(section.payload, SIZE)
            is_power = step == 0 or math.frexp(step)[0] == 0.5
            base, exact = (ANY, values.astype(np.float64)) if is_power else (section.base, np.rint(values / step))
            self._sums[base] = self._sums.get(base, np.zeros(SIZE)) + exact

    def plus(self, frames: list[Frame]) -> Symbols:
        total = Symbols()
        total._sums = dict(self._sums)
        for frame in frames:
            total.add(frame)
        return total

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Symbols):
            return NotImplemented
        bases = self._sums.keys() | other._sums.keys()
        return all(np.array_equal(self._sums.get(base, np.zeros(SIZE)), other._sums.get(base, np.zeros(SIZE))) for base in bases)

    __hash__ = None  # type: ignore[assignment]  # a sum that changes


def kept(memory: Memory) -> Wide:
    """The residual, or zeros for none."""
    return np.zeros(SIZE) if memory.residual is None else memory.residual.astype(np.float64)


def said(frame: Frame) -> Wide:
    """What the payloads of an update stand for."""
    message = frame.message
    assert isinstance(message, Update)
    codec, total = codec_named(message.codec), np.zeros(SIZE)
    for section in message.sections:
        total += codec.decode(section.payload, SIZE)
    return total


def stands_for(payload: bytes) -> Wide:
    """What a lattice payload stands for; zeros for none."""
    return Lattice().decode(payload, SIZE).astype(np.float64) if payload else np.zeros(SIZE)


def weight_of(frame: Frame) -> int:
    """The examples that an update stands for."""
    message = frame.message
    assert isinstance(message, Update)
    return sum(section.weight for section in message.sections)


@pytest.mark.parametrize("churn", [0.0, 0.5])
@pytest.mark.parametrize("fleet", FLEETS.values(), ids=FLEETS)
@pytest.mark.parametrize("seed", range(2))
def test_mass_is_conserved_over_the_tree_at_every_moment(seed: int, fleet: Fleet, churn: float) -> None:
    world = Books(seed, fleet, churn=churn)
    world.loses = lambda target, frame: world.random.random() < 0.1
    for _ in range(60):
        world.some_events()
        balanced(world)
        if world.random.random() < 0.5:
            world.run(world.random.choice([1, 7, 25]))
        if world.random.random() < 0.3:
            world.strike()
        balanced(world)
    world.loses = lambda target, frame: False
    world.churn = 0.0
    for name in world.machines:  # nothing is lost but with a connection, and whoever connects hears of the present release
        world.reconnect(name)
    world.run(3000)
    balanced(world)
    assert world.machines["top"].state == "finished"
    assert all(not world.disks[device].outbox for device in DEVICES)
    assert np.abs(world.counted).max() > 1
    assert churn == 0 or sum(world.spoilt.values()) > 10
    for device in DEVICES:
        assert world.machines[device].facts(world.now)["mass_imbalance"] < 1e-5
    for fog in ("top", *FOGS):
        assert world.machines[fog].facts(world.now)["mass_imbalance"] < 1e-14


def balanced(world: Books) -> None:
    """What was trained is in releases, on its way or in residuals: to the rounding of float32, symbols and weights exactly.

    The books that nodes keep on their own disks say the same.
    """
    way = world.on_its_way()
    found = world.counted + world.residuals() + world.remainders() + np.sum([np.zeros(SIZE), *map(said, way)], 0)
    np.testing.assert_allclose(found, world.trained, rtol=0, atol=1e-5 * max(1.0, np.abs(world.trained).max()))
    assert world.weight_counted + sum(map(weight_of, way)) + world.weight_owed() == world.weight_trained
    (found_books,) = audit(books_of(world))
    assert found_books.faults == ()
    if world.fleet.codec == "lattice" and not world.fleet.fog_bytes:
        assert world.settled.plus(way) == world.sent


class Quadratics(Books):
    """Every device has a minimum of its own, one of them far from the others; the fleet is to find the mean of all."""

    def __init__(self, churn: dict[str, float], rate: float = RATE) -> None:
        self.churns, self.rate = churn, rate
        self.thetas: list[Vector] = []
        super().__init__(0, Fleet(), rounds=60)

    def teach(self, node: str, release: int, theta: Vector) -> Trained:
        delta = (self.rate * (self.minimum(node) - theta)).astype(np.float32)
        self.learnt[node, release] = 10, 10 * delta.astype(np.float64)
        return Trained(delta, 10, 1.0, 5)

    def _spoils(self, update: UpdateId) -> bool:
        return update.node in self.churns and self.spoilt.setdefault(update, self.random.random() < self.churns[update.node])

    def _save(self, name: str, disk: Disk, action: Any) -> None:
        if isinstance(action, SaveRelease):
            self.thetas.append(action.released.theta)
        super()._save(name, disk, action)

    @staticmethod
    def minimum(node: str) -> Wide:
        common, own = np.random.default_rng(99), np.random.default_rng(int(node[-1]))
        return common.normal(0, 1, SIZE) + own.normal(0, 2.0 if node == "device-4" else 0.3, SIZE)

    def distance(self) -> float:
        """Of the mean of the last releases from the optimum, relative to where training began."""
        goal = np.mean([self.minimum(node) for node in DEVICES], axis=0)
        return float(np.linalg.norm(np.mean(self.thetas[-30:], axis=0) - goal) / np.linalg.norm(goal))

    def spread(self) -> float:
        """The root mean square of the same for each of the last releases."""
        goal = np.mean([self.minimum(node) for node in DEVICES], axis=0)
        squares = [float(np.sum((theta - goal) ** 2)) for theta in self.thetas[-30:]]
        return float(np.sqrt(np.mean(squares)) / np.linalg.norm(goal))


HALF = dict.fromkeys(DEVICES, 0.5)


@pytest.mark.parametrize(("churn", "most"), [({}, 0.1), (HALF, 0.15), ({"device-4": 0.75}, 0.25)], ids=["none", "half", "one"])
def test_training_reaches_the_same_where_updates_are_given_back(churn: dict[str, float], most: float) -> None:
    """Were what is given back lost, the fleet would miss its optimum by what the device with the most returns knows.

    A part of that is missed all the same: what one device says at once for many rounds is averaged with one round of the others.
    """
    world = Quadratics(churn)
    world.run(3000)
    assert world.machines["top"].state == "finished"
    assert world.distance() < most
    balanced(world)


def test_where_updates_are_given_back_steps_are_no_larger() -> None:
    """Were the weight of what is given back forgotten, a release would go as far as all the rounds that it makes up for."""
    world = Quadratics(HALF, rate=0.5)
    world.run(3000)
    assert world.machines["top"].state == "finished"
    assert world.spread() < 1.0
