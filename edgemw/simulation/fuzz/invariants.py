"""What has to hold whatever happens, in every save and after every fault: checked with sums of its own, not the product's."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from edgemw.compression.table import codec_named
from edgemw.core.bundle import theta_bytes
from edgemw.core.ids import UpdateId
from edgemw.device.cycle import ALLOWANCE
from edgemw.device.events import SaveRound
from edgemw.fog.audit import audit
from edgemw.fog.collector import MAX_OPEN
from edgemw.fog.events import Forwarded, Released, SaveBundle, SaveForward, SaveRelease, SaveUpdate, Settled
from edgemw.fog.ledger import KEPT
from edgemw.simulation.books import books_of
from edgemw.simulation.disk import Disk
from edgemw.simulation.world import World
from edgemw.wire.messages import Frame, Update, pack

MOST_IMBALANCE, MOST_FOG_IMBALANCE = 1e-4, 1e-12  # of floats, and of integers
MOST_BLOBS = 64

Wide = npt.NDArray[np.float64]

STRANGER = "stranger"
"""Sends what is forged."""


class Broken(AssertionError):
    """An invariant does not hold; the text says which and where."""


def require(condition: bool, text: str) -> None:
    """Raise Broken unless it holds."""
    if not condition:
        raise Broken(text)


class Invariants:
    """See the module; remembers what has been seen of a run."""

    def __init__(self) -> None:
        self._thetas: dict[tuple[int, int], bytes] = {}
        self._newest = (-1, -1)
        self._plain: dict[UpdateId, Frame] = {}  # updates that were sent under masks

    def before_save(self, world: World, name: str, action: object) -> None:
        """Check what a node is about to save against what it has, and against what others have."""
        disk = world.disks[name]
        match action:
            case SaveRound(frame=frame, masked=masked) if masked is not None:
                require(pack(masked) != pack(frame), f"{name} sends {frame.id} as it is, under no mask")
                self._plain[frame.id] = frame
            case SaveUpdate(frame=frame):
                _check_unaltered(name, world.disks.get(frame.node), frame)
            case SaveForward(forwarded=forwarded):
                _check_forward(name, [self._read(disk.window[member]) for member in forwarded.members], forwarded)
            case SaveRelease(released=released, outcomes=outcomes):
                self._check_release(disk, released, outcomes)
            case SaveBundle(released=released):
                self._note(released)

    def check(self, world: World) -> None:
        """Check the whole net as it stands on its disks."""
        (found,) = audit(books_of(world))
        faults = [fault for fault in found.faults if not fault.startswith(STRANGER)]  # who has no books, and is said to have none
        require(not faults, f"the books do not agree: {'; '.join(faults[:3])}")
        for name, disk in world.disks.items():
            self._check_bounds(name, disk)
            machine = world.machines.get(name)
            if machine is None:
                continue
            imbalance = machine.facts(world.now)["mass_imbalance"]
            most = MOST_IMBALANCE if world.options.get(name) is None else MOST_FOG_IMBALANCE
            require(imbalance < most, f"{name} has lost or doubled {imbalance:.2g} of what it trained or merged")
        require(len(world.blobs) <= MOST_BLOBS * len(world.disks), f"{len(world.blobs)} blobs are on the broker")

    def installed(self, name: str, run: int, number: int, theta: bytes) -> None:
        """Check a release that a device uses."""
        require(self._thetas.get((run, number)) == theta, f"{name} has other bits of release {number} of run {run} than the top")

    def _note(self, released: Released) -> None:
        manifest = released.manifest
        at, theta = (manifest.run, manifest.number), released.theta
        require(bool(np.isfinite(theta).all()), f"release {manifest.number} is not finite")
        data = theta_bytes(theta)
        require(self._thetas.setdefault(at, data) == data, f"release {manifest.number} of run {manifest.run} came back changed")
        grows = at == (self._newest[0], self._newest[1] + 1) or (at[0] > self._newest[0] and at[1] == 0)
        require(grows or at == self._newest, f"after release {self._newest} came {at}")
        self._newest = at

    def _check_release(self, disk: Disk, released: Released, outcomes: tuple[tuple[UpdateId, Settled], ...]) -> None:
        self._note(released)
        if disk.released is None or disk.released.manifest.number + 1 != released.manifest.number:
            return
        counted = [self._read(disk.window[update]) for update, settled in outcomes if settled.counted]
        base = disk.released
        if base.manifest.parameters.get("steps") == "dyadic" and _is_late(counted, base.manifest.number):
            return  # fog nodes have weighed it by powers of two
        expected = base.master.astype(np.float64) + _mean(counted, base.manifest.number)
        scale = max(1e-3, float(np.abs(expected).max()))
        off = float(np.abs(released.master - expected).max()) / scale
        require(off < 1e-4, f"release {released.manifest.number} is {off:.2g} off the mean of its window")

    def _read(self, frame: Frame) -> Frame:
        """An update of a window as its sender alone can read it."""
        return self._plain.get(frame.id, frame)

    def _check_bounds(self, name: str, disk: Disk) -> None:
        require(len(disk.outbox) <= 4 * KEPT, f"{len(disk.outbox)} updates wait at {name}")
        waiting = sum(not acknowledged for _, _, acknowledged in disk.outbox.values())
        require(waiting <= ALLOWANCE + 1 + len(disk.outbox) // 2, f"{waiting} updates of {name} are without an answer")
        children = {update.node for update in disk.window}
        require(len(disk.window) <= MAX_OPEN * max(1, len(children)), f"{len(disk.window)} updates are in the window of {name}")
        require(len(disk.settled) <= KEPT * len({update.node for update in disk.settled}), f"{name} remembers too many outcomes")


def _check_unaltered(name: str, sender: Disk | None, frame: Frame) -> None:
    """What a fog node takes is what was sent, to the last bit, as far as its sender still has it."""
    if sender is None:
        return
    sent = sender.outbox[frame.id][0] if frame.id in sender.outbox else None
    sent = sender.masked.get(frame.id, sent)
    if frame.id in sender.forwarded:
        sent = sender.forwarded[frame.id].frame
    require(sent is None or pack(sent) == pack(frame), f"{name} takes another {frame.id} than was sent")


def _check_forward(name: str, parts: list[Frame], forwarded: Forwarded) -> None:
    """What a fog node sends stands for the updates of its window, to the last example."""
    weight, count = _weights(parts)
    said_weight, said_count = _weights([forwarded.frame])
    require((weight, count) == (said_weight, said_count), f"{name} forwards {said_weight} examples of {weight}")
    bases = {base for base, _, _ in _sections(parts)}
    if forwarded.brought or len(bases) > 1 or bases != {base for base, _, _ in _sections([forwarded.frame])}:
        return  # a budget keeps a part of it back, or what is late was weighed by its age
    off = float(np.abs(_sum([forwarded.frame]) - _sum(parts)).max(initial=0.0))
    scale = max(1e-3, float(np.abs(_sum(parts)).max(initial=0.0)))
    require(off < 1e-4 * scale, f"{name} forwards something else than its window, {off / scale:.2g} off")


def _sections(frames: list[Frame]) -> list[tuple[int, float, Wide]]:
    """Base, weight and what is said, of every section."""
    found = []
    for frame in frames:
        update = frame.message
        assert isinstance(update, Update)
        codec = codec_named(update.codec)
        for section in update.sections:
            found.append((section.base, float(section.weight), codec.decode(section.payload, update.size).astype(np.float64)))
    return found


def _weights(frames: list[Frame]) -> tuple[int, int]:
    updates = [frame.message for frame in frames if isinstance(frame.message, Update)]
    sections = [section for update in updates for section in update.sections]
    return sum(section.weight for section in sections), sum(section.count for section in sections)


def _sum(frames: list[Frame]) -> Wide:
    total: Wide = np.zeros(1)
    for _, _, said in _sections(frames):
        total = total + said
    return total


def _mean(frames: list[Frame], release: int) -> Wide:
    """The mean by the formula of `fog/server.py`, section by section."""
    total: Wide = np.zeros(1)
    weight = 0.0
    for base, examples, said in _sections(frames):
        discount = 1 / math.sqrt(1 + max(0, release - base))
        total = total + discount * said
        weight += discount * examples
    return total / weight if weight else total


def _is_late(frames: list[Frame], release: int) -> bool:
    """Whether something was trained from an older release."""
    return any(base != release for base, _, _ in _sections(frames))
