"""Fog nodes with a budget: they send what fits, keep the rest in integers, and lose nothing of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgemw.compression.lattice import Lattice
from edgemw.core.bundle import Vector
from edgemw.wire import topics
from edgemw.wire.messages import Frame, Outcome, Update
from tests.support.world import NET, TASK, World
from tests.unit.test_roles import Learner, carried, counted, sent, tree

BUDGET_BYTES = 20
FOGS = ("fog-0", "fog-1")
DYADIC: dict[str, int | float | str] = {"steps": "dyadic", "rounding": "nearest"}


def nested(learner: Learner, *, budget_bytes: int = BUDGET_BYTES, rounds: int = 6) -> World:
    return tree(learner, rounds=rounds, children=2, parameters=DYADIC, budget_bytes=budget_bytes)


def forwarded_bytes(world: World) -> list[int]:
    """The payloads that fog nodes send up; filled while the world runs."""
    sizes: list[int] = []

    def watch(target: str, frame: Frame) -> bool:
        if target == "top" and isinstance(frame.message, Update):
            sizes.extend(len(section.payload) for section in frame.message.sections)
        return False

    world.loses = watch
    return sizes


def remainders(world: World) -> Vector:
    """What waits at fog nodes."""
    total = np.zeros(64, np.float32)
    for fog in FOGS:
        remainder = world.disks[fog].remainder
        if remainder is not None and remainder.payload:
            total += Lattice().decode(remainder.payload, 64)
    return total


def conserved(world: World, learner: Learner) -> bool:
    """Whether what was trained is in theta, in residuals of devices, and in remainders of fog nodes.

    Every release here counts the same weight, so that theta is the sum of the means.
    """
    released = world.disks["top"].released
    assert released is not None
    weight = learner.weight / released.totals.updates * 4
    counted_mass = released.master * weight
    return bool(np.allclose(counted_mass + carried(world) + remainders(world), learner.total, atol=1e-3))


def test_a_budget_is_kept_by_every_window_and_nothing_is_lost() -> None:
    learner = Learner()
    world = nested(learner)
    sizes = forwarded_bytes(world)
    world.run(300)
    plain = nested(Learner(), budget_bytes=0)
    plain_sizes = forwarded_bytes(plain)
    plain.run(300)
    assert max(sizes) <= BUDGET_BYTES < max(plain_sizes)
    assert world.machines["top"].state == plain.machines["top"].state == "finished"
    assert counted(world) == sent(world) == (24, learner.weight)
    assert remainders(world).any()
    assert not remainders(plain).any()
    assert all(world.machines[fog].facts(world.now)["remainder_bytes"] > 8 for fog in FOGS)
    assert all(plain.machines[fog].facts(plain.now)["remainder_bytes"] == 0 for fog in FOGS)
    assert conserved(world, learner)


@pytest.mark.parametrize("fog", FOGS)
def test_a_killed_fog_goes_on_with_its_remainder(fog: str) -> None:
    learner = Learner()
    world = nested(learner)
    for _ in range(6):
        world.run(0.5)
        before = world.disks[fog].remainder
        world.kill(fog)
        world.start(fog)
        assert world.disks[fog].remainder == before
    world.run(600)
    assert world.machines["top"].state == "finished"
    assert counted(world) == sent(world)
    assert conserved(world, learner)


def test_a_window_that_is_returned_leaves_the_remainder_as_if_it_had_not_been_sent() -> None:
    learner = Learner()
    world = nested(learner, rounds=30)
    held: list[Frame] = []

    def lose(target: str, frame: Frame) -> bool:
        said = target == "top" and isinstance(frame.message, Update) and len(frame.message.sections[0].payload) > 8
        if said:
            held.append(frame)
        return said

    world.loses = lose
    world.run(2)
    frame = held[0]
    disk = world.disks[frame.node]
    before = disk.remainder
    assert before is not None
    assert Lattice().decode(before.payload, 64).any()
    outcome = Outcome(frame.boot, frame.seq, False, 0, "not wanted")
    members = disk.forwarded[frame.id].members
    answer = Frame(TASK, "top", world.disks["top"].boots, 0, outcome)
    world._publish(topics.build(NET, "top", "reply", node=frame.node, task=TASK), answer, retain=False)
    world.settle()
    assert disk.remainder is not None
    assert not Lattice().decode(disk.remainder.payload, 64).any()  # the first window that said anything: nothing waited before it
    assert len(members) == 2
    assert all(world.disks[member.node].memory.updates_returned == 1 for member in members)


def test_a_budget_without_dyadic_steps_is_said_and_not_kept() -> None:
    learner = Learner()
    world = tree(learner, children=2, rounds=4, budget_bytes=BUDGET_BYTES)
    world.run(300)
    assert "window.budget needs codec lattice" in world.machines["fog-0"].reason(world.now)
    assert world.machines["top"].state == "finished"
    assert counted(world) == sent(world)


def test_what_a_budget_left_goes_up_when_a_restart_takes_the_budget_away() -> None:
    learner = Learner()
    world = nested(learner)
    world.run(300)
    assert remainders(world).any()
    for node in (*FOGS, "top"):
        world.kill(node)
    for fog in FOGS:
        world.options[fog] = replace(world.options[fog], budget_bytes=0)
    world.options["top"] = replace(world.options["top"], rounds=8)
    for node in ("top", *FOGS):
        world.start(node)
    world.run(300)
    assert world.machines["top"].state == "finished"
    assert not remainders(world).any()
    assert conserved(world, learner)
    for fog in FOGS:  # what went up is not found once more
        world.kill(fog)
        world.start(fog)
    world.options["top"] = replace(world.options["top"], rounds=9)
    world.kill("top")
    world.start("top")
    world.run(300)
    assert not remainders(world).any()
    assert conserved(world, learner)
