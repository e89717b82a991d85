"""Kills in every phase of a group: nothing is lost or counted twice, and nothing plain leaves a device."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgemw.core.bundle import Vector
from edgemw.core.encoded import Section
from edgemw.fog.audit import audit
from edgemw.fog.release import TopOptions
from edgemw.fog.server import ServerOptions
from edgemw.fog.window import WindowOptions
from edgemw.learning.trainer import Trained
from edgemw.simulation.books import books_of
from edgemw.wire.messages import Frame, Group, MaskKeys, Message, Revealed, Shares, Unmask, Update
from tests.support.world import World

DEVICES = [f"device-{n}" for n in range(6)]
LANES = {"bits": 8, "blocks": 2, "members": 8}
DEADLINE_S = 20.0


def learn(node: str, release: int, theta: Vector) -> Trained:
    rng = np.random.default_rng([int(node[-1]), release])
    return Trained(rng.normal(0, 0.1, theta.size).astype(np.float32), 10 + int(node[-1]), 1.0, 5)


def options(threshold: int, *, rounds: int = 6, **window: Any) -> TopOptions:
    made = TopOptions(WindowOptions(**window), ServerOptions(), {}, rounds=rounds, codec="lanes", parameters=dict(LANES))
    return replace(made, kappa=2.0, threshold=threshold)


class Net:
    """A top, one fog node and six devices, in which a node can be killed by what a device says or hears of a release.

    Attributes:
        heard: every message between devices and the fog node.
        kills: who dies, of which message of a device, or to it, about which release.
    """

    def __init__(self, *, threshold: int = 51, rounds: int = 6) -> None:
        self.heard: list[tuple[str, Message]] = []
        self.kills: dict[tuple[str, type[Message], int], tuple[str, float | None]] = {}
        self.world = World(learn)
        self.world.loses = self._sees
        self.world.top("top", options(threshold, rounds=rounds, children=1, deadline_s=200.0))
        self.world.fog("fog-0", "top", WindowOptions(children=len(DEVICES), deadline_s=DEADLINE_S))
        for device in DEVICES:
            self.world.device(device, "fog-0")

    def kill(self, victim: str, at: type[Message], release: int, *, of: str = "", back_s: float | None = 3.0) -> None:
        """Kill a node when a message of a release passes; it starts again after some seconds, or never."""
        self.kills[of or victim, at, release] = victim, back_s

    def _sees(self, reader: str, frame: Frame) -> bool:
        if "fog-0" not in (reader, frame.node) or "top" in (reader, frame.node):
            return False
        message, device = frame.message, frame.node if reader == "fog-0" else reader
        self.heard.append((device, message))
        release = message.report_on if isinstance(message, Update) else getattr(message, "release", -1)
        victim, back_s = self.kills.pop((device, type(message), release), ("", None))
        if not victim:
            return False
        self.world.kill(victim)
        if back_s is not None:
            self.world.call_at(self.world.now + back_s, lambda: self.world.start(victim), ())
        return True

    def run(self) -> None:
        """To the end; what everybody sent was counted or returned, and no update was plain."""
        world = self.world
        top, disks = world.machines["top"], world.disks
        world.run(4000, until=lambda: top.state == "finished" and not any(disk.outbox for disk in disks.values()))
        assert world.machines["top"].state == "finished"
        (found,) = audit(books_of(world))
        assert found.faults == ()
        updates = [message for _, message in self.heard if isinstance(message, Update) and message.sections]
        assert updates
        assert all(update.group for update in updates)

    @property
    def facts(self) -> dict[str, int | float | str]:
        return dict(self.world.machines["fog-0"].facts(self.world.now))


@pytest.mark.parametrize("at", [Group, Shares, Unmask])
@pytest.mark.parametrize("back_s", [3.0, 100.0])
def test_a_device_that_is_killed_in_any_phase_loses_and_doubles_nothing(at: type[Message], back_s: float) -> None:
    net = Net()
    net.kill("device-2", at, 2, back_s=back_s)
    net.run()
    assert not net.kills
    assert net.facts["groups_unmasked"] in (5, 6)


def test_a_device_that_goes_for_good_between_its_shares_and_its_update_is_taken_out_of_the_sum() -> None:
    net = Net(rounds=3)
    net.world.holding["device-2"] = []
    net.world.run(1, until=lambda: any(isinstance(message, Shares) for device, message in net.heard if device == "device-0"))
    net.world.run(2)
    net.world.kill("device-2")
    net.run()
    asked = {message.release: message.survivors for _, message in net.heard if isinstance(message, Unmask)}
    assert asked == {0: b"\x3b", 1: b"\x1f", 2: b"\x1f"}  # of six without device-2, then of five
    assert net.facts["groups_unmasked"] == 3


@pytest.mark.parametrize("at", [MaskKeys, Shares, Update, Revealed])
def test_a_fog_node_that_is_killed_gives_a_group_up_and_its_updates_back(at: type[Message]) -> None:
    net = Net()
    net.kill("fog-0", at, 2, of="device-1")
    net.run()
    assert not net.kills
    assert net.world.releases[-1] == 6


def test_a_plain_update_is_no_part_of_a_masked_sum() -> None:
    """What an earlier release left unsettled, and what a device sends without masks, goes back to it with a reason."""
    net = Net(rounds=2)
    net.run()
    frame = Frame("toy", "device-0", 9, 0, Update(1, "lanes", 64, (Section(0, 1, 1, 0.0, b""),), {}, 0))
    collector = net.world.machines["fog-0"]._collector
    assert isinstance(frame.message, Update)
    assert "no masks" in collector._grouping.refusal(frame, frame.message)
