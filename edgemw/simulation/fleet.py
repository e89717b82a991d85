"""A fleet in virtual time: a tree whose devices work at their own speeds, over links, and come and go.

Everything random comes from the seed, by streams, so that the same call gives the same run: the same events at the same
times, and the same model, however many processes train.
"""

from __future__ import annotations

import gc
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from edgemw.core.bundle import Vector, read_bundle, theta_bytes
from edgemw.core.events import Fact
from edgemw.device.events import Work, Worked
from edgemw.device.uplink import Uplink
from edgemw.fog.events import BundleGiven, SaveRelease
from edgemw.fog.release import TopOptions
from edgemw.fog.window import WindowOptions
from edgemw.simulation.broker import MOSQUITTO, BrokerSpec
from edgemw.simulation.chance import Chance
from edgemw.simulation.disk import Disk
from edgemw.simulation.links import DIRECT, Links, LinkSpec
from edgemw.simulation.tree import Tree
from edgemw.simulation.world import World
from edgemw.wire.messages import Frame, RoundReport
from edgemw.wire.traffic import Arrived

_TICK = 4096  # events

Begin = Callable[[str, Work], Callable[[], Worked]]
"""Begins the work of a device, perhaps in another process; what it returns waits for its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What a fleet is like.

    Attributes:
        link: of every node that has none of its own in `links`.
        links: of nodes with another one.
        work_s: mean time of one training, or measurement, of every device that has none of its own in `works_s`.
        works_s: of devices with another one.
        spread: how much slower the slowest device is than the fastest.
        online_s, offline_s: mean times for which a device is connected, and is not; 0 keeps all connected.
        join_s: devices connect for the first time within this time.
        broker: every one.
        uplink: what a device may send about updates, from the beginning of its life on; None is no limit.
    """

    link: LinkSpec = DIRECT
    links: Mapping[str, LinkSpec] = field(default_factory=dict)
    work_s: float = 0.0
    works_s: Mapping[str, float] = field(default_factory=dict)
    spread: float = 4.0
    online_s: float = 0.0
    offline_s: float = 0.0
    join_s: float = 0.0
    broker: BrokerSpec = MOSQUITTO
    uplink: Callable[[str, float], Uplink | None] = lambda device, now: None


@dataclass(frozen=True, slots=True)
class Round:
    """A release that was reported on.

    Attributes:
        report: of the top.
        at_s: when.
        up_bytes, down_bytes: of all devices so far.
    """

    report: RoundReport
    at_s: float
    up_bytes: int
    down_bytes: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to.

    Attributes:
        finished: whether the training run came to its end.
        at_s: virtual seconds.
        theta: of the last release; None where there was none.
        events: how many there were.
        events_digest: sha256 of them, in hex.
    """

    finished: bool
    at_s: float
    theta: Vector | None = field(repr=False)
    events: int
    events_digest: str

    @property
    def model_digest(self) -> str:
        """The sha256 of the last release, in hex; empty where there was none."""
        return "" if self.theta is None else hashlib.sha256(theta_bytes(self.theta)).hexdigest()


@dataclass(slots=True)
class Record:
    """What a device has done.

    Attributes:
        speed: how much longer than the mean it works.
        busy_s: how long it has worked.
        answers: how many releases it has measured or trained from.
        told_up, told_down: bytes that it has reported.
    """

    speed: float
    busy_s: float = 0.0
    answers: int = 0
    told_up: int = 0
    told_down: int = 0


class Fleet(World):
    """See the module.

    Attributes:
        records: what devices have done.
    """

    def __init__(
        self,
        tree: Tree,
        bundle: bytes,
        options: Mapping[str, TopOptions | WindowOptions],
        begin: Begin,
        conditions: Conditions | None = None,
        *,
        seed: int = 0,
        on_round: Callable[[Round], None] = lambda done: None,
        tick: Callable[[float, int], None] = lambda at_s, events: None,
    ) -> None:
        """Build the fleet.

        Args:
            tree: who is below whom.
            bundle: the task, as its file holds it.
            options: of the top and of every fog node.
            begin: the work of a device.
            conditions: links, speeds, comings and goings.
            seed: of everything random.
            on_round: told of every report of the top.
            tick: told now and then what time it is, and how many events there were.
        """
        self.conditions, self.chance = conditions or Conditions(), Chance(seed)
        link, own = self.conditions.link, self.conditions.links
        links = Links((lambda node: own.get(node, link)) if own else (lambda node: link), self.chance)
        super().__init__(read_bundle(bundle), lambda name, work: begin(name, work)(), links, self.conditions.broker)
        self._tree, self._begin, self._on_round, self._tick = tree, begin, on_round, tick
        self._events, self._seen, self._stopped = 0, hashlib.sha256(), False
        self._said: list[str] = []  # not hashed yet
        self._waiting: set[str] = set()  # nodes without all outcomes; asked for after every event, of a large fleet
        self.records: dict[str, Record] = {}
        for name in (tree.top, *tree.parents):
            if name in options:
                self.add(name, tree.parents.get(name, ""), options[name])
            else:
                self._add_device(name, tree.parents[name])
        self.give(tree.top, BundleGiven(bundle))

    def run_for(self, seconds: float = math.inf) -> Outcome:
        """Let time pass until the training run is over and nothing waits any more, or until so many seconds have passed."""
        with _seldom_collected():
            self.run(seconds, self._is_over)
        return self.outcome()

    def stop(self) -> None:
        """Let `run_for` end where it is; for a signal's handler."""
        self._stopped = True

    def outcome(self) -> Outcome:
        """What the run has come to by now."""
        released = self.disks[self._tree.top].released
        theta = None if released is None else released.theta
        self._write_down()
        return Outcome(self._is_finished(), self.now, theta, self._events, self._seen.hexdigest())

    @property
    def dropped(self) -> Mapping[str, int]:
        """Messages that the broker dropped, by why."""
        return self.sessions.dropped if self.sessions is not None else {}

    def _is_finished(self) -> bool:
        return bool(self.machines[self._tree.top].state == "finished")

    def _is_over(self) -> bool:
        return self._stopped or (not self._waiting and self._is_finished())

    # -- devices

    def _add_device(self, name: str, parent: str) -> None:
        """Put a device below its parent, when its time has come."""
        spread = self.conditions.spread
        self.records[name] = Record(spread ** (self.chance.nth(1, name, "speed") - 0.5) if spread > 1 else 1.0)
        self.parents[name], self.disks[name] = parent, Disk()
        if self.conditions.join_s == 0:
            self._joins(name)
        else:
            self.call_at(self.conditions.join_s * self.chance.nth(1, name, "joins"), partial(self._joins, name), ())

    def _joins(self, name: str) -> None:
        uplink = self.conditions.uplink(name, self.now)
        if uplink is not None:
            self.uplinks[name] = uplink
        self.start(name)
        if self.conditions.online_s:
            self._goes_later(name)

    def _goes_later(self, name: str) -> None:
        self.call_at(self.now + self.chance.waiting(self.conditions.online_s, name, "online"), partial(self._goes, name), ())

    def _goes(self, name: str) -> None:
        if self._is_finished():
            return
        self.cut(name)
        self.call_at(self.now + self.chance.waiting(self.conditions.offline_s, name, "offline"), partial(self._comes, name), ())

    def _comes(self, name: str) -> None:
        self.mend(name)
        self._goes_later(name)

    def work_s(self, name: str, work: Work) -> float:
        """The mean, by the device's own speed and by chance from half to one and a half of it."""
        mean_s = self.conditions.works_s.get(name, self.conditions.work_s)
        if mean_s == 0:
            return 0.0
        return mean_s * self.records[name].speed * self.chance.between(0.5, 1.5, name, "work")

    def work(self, name: str, work: Work) -> None:
        """Begin it now, so that others may do it meanwhile; what comes of it is asked for when its time has come."""
        ends, seconds = self._begin(name, work), self.work_s(name, work)
        self.records[name].busy_s += seconds
        self.records[name].answers += 1
        self.put_off(self.now + seconds, "", partial(self._worked, name, ends), self.in_this_life(name))

    def _worked(self, name: str, ends: Callable[[], Worked]) -> None:
        worked = ends()
        device, up, down = self.records[name], self.links.sent_bytes(name, "up"), self.links.sent_bytes(name, "down")
        sums = {"uplink": (float(up - device.told_up), 1.0), "downlink": (float(down - device.told_down), 1.0)}
        device.told_up, device.told_down = up, down
        self.give(name, replace(worked, tally=worked.tally | sums))

    # -- what is looked at

    def step(self) -> None:
        """Deliver the next event that is due, and remember it."""
        name, event = self.queue[0]
        said = f"{self.now:.6f} {name} {type(event).__name__}"
        if isinstance(event, Arrived):
            frame = event.frame
            said += f" {event.topic.channel} {frame.node}/{frame.boot}/{frame.seq} {type(frame.message).__name__}"
        self._said.append(said)
        self._events += 1
        if self._events % _TICK == 0:
            self._write_down()
            self._tick(self.now, self._events)
        super().step()

    def _write_down(self) -> None:
        self._seen.update("".join(self._said).encode())
        self._said.clear()

    def note(self, name: str, fact: Fact) -> None:
        """Facts are for who watches; a large fleet says too many to keep."""

    def _publish(self, text: str, frame: Frame, *, retain: bool) -> None:
        if isinstance(frame.message, RoundReport):
            devices = self._tree.devices
            up, down = (sum(self.links.sent_bytes(device, way) for device in devices) for way in ("up", "down"))
            self._on_round(Round(frame.message, self.now, up, down))
        super()._publish(text, frame, retain=retain)

    def _read(self, frame: Frame, data: bytes) -> Frame:
        """The same one: whatever is written is read as it was, and of a large fleet that is a tenth of the time."""
        return frame

    def _save(self, name: str, disk: Disk, action: Any) -> None:
        super()._save(name, disk, action)
        if disk.outbox or disk.forwarded:
            self._waiting.add(name)
        else:
            self._waiting.discard(name)
        if isinstance(action, SaveRelease):
            self._write_down()
            self._seen.update(theta_bytes(action.released.theta))


@contextmanager
def _seldom_collected() -> Iterator[None]:
    """A fleet is millions of objects that stay, and makes no cycles to speak of: looking for some took half of a run."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(1_000_000, 50, 50)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
