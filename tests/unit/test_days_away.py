"""A device that was cut off for days goes on with what it has, and comes back by one merge, not by a flood."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from edgemw.fog.audit import audit
from edgemw.fog.release import TopOptions
from edgemw.fog.server import ServerOptions
from edgemw.fog.window import WindowOptions
from edgemw.simulation.books import books_of
from edgemw.wire.messages import Frame, Update
from edgemw.wire.topics import Topic
from tests.support.world import World
from tests.unit.test_roles import Learner

DAYS_S = 3 * 24 * 3600.0
DEVICES = ("device-0", "device-1", "device-2", "device-3")


class Slow(World):
    """Every training takes an hour; what is said by devices is counted."""

    def __init__(self, rounding: str) -> None:
        self.said: Counter[str] = Counter()
        super().__init__(Learner())
        window = WindowOptions(deadline_s=2 * 3600.0, children=1)
        self.top("top", TopOptions(window, ServerOptions(), {}, rounds=200, parameters={"rounding": rounding}))
        self.fog("fog-0", "top", replace(window, children=len(DEVICES)))
        for device in DEVICES:
            self.device(device, "fog-0")

    def work_s(self, name: str, work: object) -> float:
        return 3600.0

    def _deliver(self, reader: str, topic: Topic, frame: Frame, size_bytes: int, at: float, writer: str = "") -> None:
        if isinstance(frame.message, Update) and writer:
            self.said[writer] += 1
        super()._deliver(reader, topic, frame, size_bytes, at, writer)


@pytest.mark.parametrize("rounding", ["stochastic", "nearest"])
@pytest.mark.parametrize("restarted", [False, True], ids=["on", "restarted"])
def test_days_away(rounding: str, restarted: bool) -> None:
    world = Slow(rounding)
    world.run(6 * 3600.0)
    away = "device-3"
    world.cut(away)
    served, seen = world.served[away].copy(), world.machines[away].release
    trained = world.disks[away].memory.updates_sent
    world.run(DAYS_S)
    assert world.machines["fog-0"].facts(world.now)["release"] > seen + 30, "nobody waits for it"
    assert world.machines[away].state in ("idle", "working"), "it serves what it has"
    assert (world.served[away] == served).all()
    assert world.disks[away].memory.updates_sent <= trained + 1, "with one release it trains once"
    if restarted:
        world.kill(away)
        world.start(away)
    before = world.said[away]
    world.mend(away)
    world.run(2 * 3600.0)
    assert world.machines[away].release == world.machines["fog-0"].facts(world.now)["release"]
    assert world.said[away] - before <= 6, "what waited, once more, and a few new ones"
    (found,) = audit(books_of(world))
    assert found.faults == ()
    memory = world.disks[away].memory
    assert memory.updates_sent > trained, "it takes part again"
    assert memory.balance.worst < 1e-5
