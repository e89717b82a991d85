"""A net to which things happen: the faults of the fuzzer, one method each, and how everything heals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from edgemw.core.bundle import Vector, theta_bytes
from edgemw.core.encoded import Section
from edgemw.core.errors import WireError
from edgemw.core.events import Fact
from edgemw.device.events import Install, SaveJoined, SaveMemory, Work, Worked
from edgemw.fog import events as fog
from edgemw.fog.events import BundleGiven
from edgemw.fog.release import TopOptions
from edgemw.fog.server import ServerOptions
from edgemw.fog.window import WindowOptions
from edgemw.learning.trainer import Trained
from edgemw.simulation.chance import Chance
from edgemw.simulation.disk import Disk
from edgemw.simulation.fuzz.invariants import STRANGER, Invariants, require
from edgemw.simulation.fuzz.options import Options
from edgemw.simulation.links import Links
from edgemw.simulation.toy import toy_bundle
from edgemw.simulation.world import World
from edgemw.wire import publication, topics
from edgemw.wire.messages import Chunk, Frame, Update
from edgemw.wire.topics import Topic
from edgemw.wire.traffic import Arrived, Upload

MOST_PAUSE_S = 90.0
LIVENESS_S = 20_000.0
_KEPT_MESSAGES = 50


class Storm(World):
    """See the module.

    Attributes:
        seen: how often things happened that should happen in some run.
        invariants: what has to hold.
    """

    def __init__(self, options: Options) -> None:
        self.asked, self.chance, self.seen, self.invariants = options, Chance(options.seed), Counter[str](), Invariants()
        super().__init__(toy_bundle(options.size), self._train, Links(lambda node: options.link, self.chance))
        self._undurable: dict[str, Disk] = {}
        self._crash_after: dict[str, int] = {}
        self._full: set[str] = set()
        self._muted: dict[str, str] = {}
        self._forged = 0
        self._slow: set[str] = set()
        self._messages: list[tuple[Topic, Frame]] = []
        self._heals: list[tuple[float, Callable[[], None]]] = []
        self.chunk_bytes, self.most_steps = options.chunk_bytes, 100_000
        self._build()

    def _build(self) -> None:
        asked = self.asked
        children = Counter([*asked.fogs.values(), *asked.devices.values()])
        window = WindowOptions(k=asked.k, quorum=asked.quorum, deadline_s=asked.deadline_s, max_staleness=asked.max_staleness)
        top = TopOptions(
            _among(children["top"], window),
            ServerOptions(),
            {},
            rounds=asked.rounds,
            codec=asked.codec,
            parameters=asked.parameters,
            kappa=4.0,
            chunk_bytes=asked.chunk_bytes,
            threshold=asked.threshold,
        )
        self.add("top", "", top)
        self.give("top", BundleGiven(self.bundle.to_bytes()))
        for node, parent in asked.fogs.items():
            self.add(node, parent, replace(_among(children[node], window), budget_bytes=asked.fog_bytes))
        for node, parent in asked.devices.items():
            self.add(node, parent, None)

    # -- a run

    def run_through(self) -> None:
        """Let faults happen, heal everything, and wait for the end. Raises Broken where an invariant does not hold."""
        end = self.now + self.asked.storm_s
        while self.now < end:
            self.run(self.chance.waiting(self.asked.every_s, "faults"))
            self._heal_what_is_due(self.now)
            self.invariants.check(self)
            kind = self.chance.one_of(self.asked.faults, "faults")
            self.seen[f"fault {kind}"] += 1
            _FAULTS[kind](self)
            self.settle()
            self.invariants.check(self)
        self._heal_what_is_due(float("inf"))
        self._calm()
        self.run(LIVENESS_S, self._done)
        self.invariants.check(self)
        self._require_end()

    def _done(self) -> bool:
        return self.machines["top"].state == "finished" and not any(disk.outbox or disk.forwarded for disk in self.disks.values())

    def _require_end(self) -> None:
        reasons = {name: machine.reason(self.now) for name, machine in self.machines.items()}
        why = "; ".join(f"{name}: {reason}" for name, reason in reasons.items() if reason)
        ends = self.machines["top"].state == "finished"
        require(ends, f"the run does not end ({LIVENESS_S:g} s after everything healed): {why}")
        for name, disk in self.disks.items():
            require(not disk.outbox and not disk.forwarded, f"{name} still waits for an outcome at the end: {why}")
        released = self.disks["top"].released
        assert released is not None
        last = released.manifest.number
        require(last == self.asked.rounds, f"the run ends with release {last} of {self.asked.rounds}")
        self.run(LIVENESS_S, lambda: all(self.machines[device].release == last for device in self.asked.devices))
        for device in self.asked.devices:
            at = self.machines[device].release
            require(at == last, f"{device} ends with release {at} of {last}")

    def _heal_what_is_due(self, now: float) -> None:
        due = [heal for at, heal in self._heals if at <= now]
        self._heals = [(at, heal) for at, heal in self._heals if at > now]
        for heal in due:
            heal()
        self.settle()

    def _heal_later(self, heal: Callable[[], None]) -> None:
        """Let something heal after a while."""
        self._heals.append((self.now + self.chance.between(0.0, MOST_PAUSE_S, "pauses"), heal))

    def _calm(self) -> None:
        self._crash_after.clear()
        self.links.slowed.clear()
        for name in [*self.disks]:
            if name not in self.machines:
                self.start(name)
        self.settle()

    # -- faults

    def _any(self, names: list[str] | None = None) -> str:
        return self.chance.one_of(names or [*self.disks], "victims")

    def _back(self, name: str) -> None:
        if name not in self.machines:
            self.start(name)

    def _dies(self, name: str) -> None:
        if name in self.machines:
            self.kill(name)
            self._heal_later(lambda: self._back(name))

    def kill_one(self) -> None:
        """Kill -9: what was saved is there."""
        self._dies(self._any())

    def power_cut(self) -> None:
        """A power cut: what was saved without waiting for the disk is gone, back to the last save that was waited for."""
        name = self._any()
        if name in self.machines:
            self._dies(name)
            before = self._undurable.pop(name, None)
            if before is not None:
                self.seen["a save was torn off"] += 1
                self.disks[name] = replace(before, boots=self.disks[name].boots)

    def crash_soon(self) -> None:
        """A crash between two of the actions that one event asks for."""
        self._crash_after[self._any()] = self.chance.whole(0, 3, "crash")

    def cut_one(self) -> None:
        """A connection is lost for a while."""
        name = self._any()
        if name not in self.offline:
            self.cut(name)
            self._heal_later(lambda: self.mend(name))

    def mute_one(self) -> None:
        """One direction of a connection carries nothing for a while; then it is lost, and made anew."""
        name, direction = self._any(), self.chance.one_of(("up", "down"), "mute")
        if name in self._muted or name in self.offline:
            return
        self._muted[name] = direction

        def again() -> None:
            self._muted.pop(name, None)
            if name not in self.offline:
                self.cut(name)
                self.mend(name)

        self._heal_later(again)

    def slow_one(self) -> None:
        """A node is a hundred times slower, and so is its link."""
        name = self._any()
        self.links.slowed[name] = 100.0
        self._slow.add(name)

        def again() -> None:
            self.links.slowed.pop(name, None)
            self._slow.discard(name)

        self._heal_later(again)

    def suspend_one(self) -> None:
        """A node's clock jumps ahead, as after a sleep."""
        self.jump(self._any(), self.chance.between(1.0, 1000.0, "clock"))

    def broker_restarts(self) -> None:
        """The broker restarts, and may forget everything."""
        self.restart_broker(forgets=self.chance.happens(0.5, "broker"))

    def half_gone(self) -> None:
        """Half of the devices are gone, and come back at the same moment."""
        gone = [device for device in self.asked.devices if self.chance.happens(0.5, "victims") and device in self.machines]
        for device in gone:
            self.kill(device)

        def again() -> None:
            for device in gone:
                self._back(device)

        self._heal_later(again)

    def replay_one(self) -> None:
        """An old message comes once more."""
        if self._messages:
            topic, frame = self.chance.one_of(self._messages, "replay")
            for reader in list(self._readers(topic)):
                if reader in self.machines:
                    self.seen["an old message came again"] += 1
                    self.give(reader, Arrived(topic, frame))

    def hostile_one(self) -> None:
        """A neighbour sends something malformed, for its reader: cut short, with flipped bits, or with numbers that cannot be."""
        if not self._messages:
            return
        topic, frame = self.chance.one_of(self._messages, "hostile")
        data = bytearray(publication.write(_text(topic), frame))
        kind = self.chance.one_of(("short", "flipped", "version", "not finite"), "hostile")
        if kind == "not finite" and isinstance(frame.message, Update) and frame.message.sections:
            self._not_finite(topic, frame, frame.message)
            return
        if kind == "short":
            del data[self.chance.whole(0, len(data) - 1, "hostile") :]
        elif kind == "version":
            data[0] ^= 0xFF
        else:
            for _ in range(self.chance.whole(1, 8, "hostile")):
                data[self.chance.whole(0, len(data) - 1, "hostile")] ^= 1 << self.chance.whole(0, 7, "hostile")
        try:
            publication.read(topic, bytes(data))
        except WireError:
            self.seen["a malformed message was dropped"] += 1  # what is readable is not let through: a link has its own checksum

    def _not_finite(self, topic: Topic, frame: Frame, update: Update) -> None:
        """A number that is none is refused where the message is read: no role sees it."""
        section = update.sections[0]
        vector = np.full(update.size, np.nan, "<f4").tobytes()
        bad = replace(update, sections=(Section(section.base, 1, 1, float("nan"), vector), *update.sections[1:]))
        try:
            publication.read(topic, publication.write(_text(topic), replace(frame, message=bad)))
        except WireError:
            self.seen["a message with NaN was dropped"] += 1

    def forged_one(self) -> None:
        """A stranger sends an update that can be read and cannot be right; whoever takes it is found out at once."""
        if not self._messages:
            return
        topic, frame = self.chance.one_of(self._messages, "forged")
        update, reader = frame.message, topic.domain
        if not (isinstance(update, Update) and update.sections and reader in self.machines):
            return
        kind = self.chance.one_of([*_FORGERIES], "forged")
        self._forged += 1
        frame = replace(frame, node=STRANGER, boot=1, seq=self._forged, message=_FORGERIES[kind](update))
        topic = replace(topic, values={**topic.values, "node": STRANGER})
        try:
            frame = publication.read(topic, publication.write(_text(topic), frame))
        except WireError:
            return  # of several sections, say, one from the future is out of order
        self.give(reader, Arrived(topic, frame))
        self.settle()
        if reader in self.machines:
            disk = self.disks[reader]
            settled = disk.settled.get(frame.id)
            self.seen["a forged update was refused"] += settled is not None
            taken = frame.id in disk.window or (settled is not None and settled.counted)
            require(not taken, f"{reader} took an update that was forged: {kind}")

    def fresh_fog(self) -> None:
        """Another node takes the id of a fog node over: the broker lets the first one go, and gives the second its place."""
        name = self._any([*self.asked.fogs] or ["top"])
        if name in self.machines:
            self.seen["a node took another's place"] += 1
            self.kill(name)
            self.start(name)

    def disk_full(self) -> None:
        """Nothing can be saved for a while: a node ends where it tries, and is started again."""
        name = self._any()
        self._full.add(name)
        self._heal_later(lambda: self._full.discard(name))

    def new_task(self) -> None:
        """The operator gives the top other first weights: a new training run."""
        if "top" in self.machines and self.seen["fault new-task"] < 3:
            self.bundle = toy_bundle(self.asked.size, value=self.chance.between(-1.0, 1.0, "task"))
            self.give("top", BundleGiven(self.bundle.to_bytes()))

    # -- what the net does otherwise

    def work_s(self, name: str, work: Work) -> float:
        """Exponentially distributed; a hundred times as long on a slow node."""
        if self.asked.work_s == 0:
            return 0.0
        time_s = self.chance.waiting(self.asked.work_s, name, "work") * (100.0 if name in self._slow else 1.0)
        return min(time_s, LIVENESS_S / 10)  # or nobody could tell that from standing still

    def _train(self, name: str, work: Work) -> Worked:
        if not work.train:
            return Worked(work.release.number, None, {"test.mse": (1.0, 1.0)})
        key = int(self.chance.number(name, "delta") * 2**53)
        delta: Vector = np.random.Generator(np.random.Philox(key)).normal(0.0, 0.1, work.theta.size).astype(np.float32)
        return Worked(work.release.number, Trained(delta, 1 + int(name[-1]), 1.0, 1), {"test.mse": (1.0, 1.0)})

    def _act(self, name: str, action: Any) -> None:
        left = self._crash_after.get(name)
        if left is not None:
            if left == 0:
                del self._crash_after[name]
                self.seen["a crash between two actions"] += 1
                self._dies(name)
                return
            self._crash_after[name] = left - 1
        match action:
            case Fact(name=fact, values=values):
                self._count(fact, values)
            case Install(release=release, theta=theta):
                self.invariants.installed(name, release.run, release.number, theta_bytes(theta))
        super()._act(name, action)

    def _count(self, fact: str, values: dict[str, int | float | str]) -> None:
        reason = str(values.get("reason", ""))
        if fact == "duplicate":
            self.seen["a duplicate was dropped"] += 1
        elif fact == "window_closed" and values["late"]:
            self.seen["a window closed without everybody"] += 1
        elif fact == "masks":
            self.seen[f"a group was {values['outcome']}"] += 1
            self.seen["masks of dropped devices came off"] += bool(values["dropped"])
        elif fact == "update_refused" and reason.startswith("stale"):
            self.seen["a stale update was returned"] += 1
        elif fact == "settled" and not values["counted"]:
            self.seen["a device took an update back"] += 1

    def _save(self, name: str, disk: Disk, action: Any) -> None:
        if name in self._full:
            self.seen["a save failed"] += 1
            self._dies(name)
            return
        self.invariants.before_save(self, name, action)
        if _is_durable(action):
            self._undurable.pop(name, None)
        else:
            self._undurable.setdefault(name, disk.copy())
        super()._save(name, disk, action)

    def _deliver(self, reader: str, topic: Topic, frame: Frame, size_bytes: int, at: float, writer: str = "") -> None:
        if self._muted.get(reader) == "down" or self._muted.get(writer) == "up":
            self.seen["a message was lost"] += 1
            return
        if topic.channel == "update" and len(self._messages) < _KEPT_MESSAGES:
            self._messages.append((topic, frame))
        super()._deliver(reader, topic, frame, size_bytes, at, writer)
        if topic.channel in ("update", "reply") and self.chance.happens(self.asked.double, "double"):
            super()._deliver(reader, topic, frame, size_bytes, at + self.chance.waiting(5.0, "double"), writer)

    def _send_chunk(self, reader: str, name: str, chunk: Chunk, at: float) -> None:
        if self._muted.get(reader) == "down" or self._muted.get(name) == "up":
            self.seen["a chunk was lost"] += 1
            return
        if chunk.index > 0 and self.chance.happens(self.asked.altered, "chunks"):
            self.seen["a chunk said it was another one"] += 1
            chunk = replace(chunk, index=chunk.index - 1)
        super()._send_chunk(reader, name, chunk, at)
        if self.chance.happens(self.asked.double, "chunks"):
            self.seen["a chunk came twice"] += 1
            super()._send_chunk(reader, name, chunk, at + self.chance.waiting(5.0, "chunks"))

    def _upload(self, name: str, upload: Upload) -> None:
        parts = self._incoming.get(topics.parse(upload.topic).domain)
        before = parts.held_bytes if parts is not None else 0
        super()._upload(name, upload)
        if before and parts is not None and parts.held_bytes == before:
            self.seen["a transfer went on with the chunks that were missing"] += 1


def _among(children: int, window: WindowOptions) -> WindowOptions:
    """A window that asks for no more updates than there are children, as files are checked to do."""
    return replace(window, children=children, quorum=min(window.quorum, children))


def _text(topic: Topic) -> str:
    return topics.build(topic.net, topic.domain, topic.channel, **topic.values)


def _is_durable(action: Any) -> bool:
    """Whether a role waits for the disk, as `fog/agent.py` and `device/agent.py` say it."""
    match action:
        case fog.SaveOutcomes(outcomes=outcomes):
            return not all(outcome.counted for _, outcome in outcomes)
        case SaveMemory(durable=durable):
            return durable
        case SaveJoined(joined=joined):
            return joined is not None
        case _:
            return type(action).__name__ not in ("SaveAck", "SaveShelf")


def _first(update: Update, **places: Any) -> Update:
    return replace(update, sections=(replace(update.sections[0], **places), *update.sections[1:]))


_FORGERIES: dict[str, Callable[[Update], Update]] = {
    "cut short": lambda update: _first(update, payload=update.sections[0].payload[:-1]),
    "longer": lambda update: _first(update, payload=update.sections[0].payload + b"\x01"),
    "of another size": lambda update: replace(update, size=update.size + 1),
    "of another codec": lambda update: replace(update, codec="other"),
    "of another run": lambda update: replace(update, run=update.run + 1000),
    "from the future": lambda update: _first(update, base=update.sections[0].base + 1000),
    "too heavy": lambda update: _first(update, weight=1 << 60),
    "too many": lambda update: _first(update, count=1 << 40),
}

_FAULTS: dict[str, Callable[[Storm], None]] = {
    "kill": Storm.kill_one,
    "power": Storm.power_cut,
    "crash": Storm.crash_soon,
    "cut": Storm.cut_one,
    "mute": Storm.mute_one,
    "slow": Storm.slow_one,
    "suspend": Storm.suspend_one,
    "broker": Storm.broker_restarts,
    "crowd": Storm.half_gone,
    "replay": Storm.replay_one,
    "hostile": Storm.hostile_one,
    "forged": Storm.forged_one,
    "fresh-fog": Storm.fresh_fog,
    "disk-full": Storm.disk_full,
    "new-task": Storm.new_task,
}
