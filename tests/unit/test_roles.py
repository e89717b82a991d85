"""Devices, fog nodes and the top together: who is counted, what is conserved, what never stalls."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from edgemw.compression.residual import give_back
from edgemw.compression.table import codec_named
from edgemw.core.bundle import Vector
from edgemw.core.encoded import Section
from edgemw.core.events import Stop
from edgemw.device.events import Work
from edgemw.fog.events import BundleGiven
from edgemw.fog.release import TopOptions
from edgemw.fog.server import ServerOptions
from edgemw.fog.window import WindowOptions
from edgemw.learning.trainer import Trained
from edgemw.simulation.links import Links, LinkSpec
from edgemw.wire import topics
from edgemw.wire.chunks import blob_of
from edgemw.wire.messages import Ack, Frame, Outcome, TaskManifest, Update, encoded_of
from edgemw.wire.traffic import Arrived
from tests.support.world import World, toy_bundle

NEAREST: dict[str, int | float | str] = {"rounding": "nearest"}
DEVICES = [f"device-{n}" for n in range(4)]


class Learner:
    """Gives every device a reproducible delta, and remembers the weighted sum of all that was learnt."""

    def __init__(self, size: int = 64) -> None:
        self.size = size
        self.total = np.zeros(size, np.float64)
        self.weight = 0
        self.calls = 0

    def __call__(self, node: str, release: int, theta: Vector) -> Trained:
        rng = np.random.default_rng([int(node[-1]), release, self.calls])
        self.calls += 1
        delta = rng.normal(0, 0.1, self.size).astype(np.float32)
        weight = 10 + int(node[-1])
        self.total += weight * delta.astype(np.float64)
        self.weight += weight
        return Trained(delta, weight, 1.0, 5)


def tree(
    learner: Learner,
    *,
    rounds: int = 6,
    codec: str = "lattice",
    parameters: dict[str, int | float | str] | None = None,
    make: Callable[[Learner], World] = World,
    **window: int | float,
) -> World:
    world = make(learner)
    options = WindowOptions(**{"deadline_s": 10.0, **window})  # type: ignore[arg-type]
    top_window = WindowOptions(deadline_s=20.0, children=2)
    how = TopOptions(top_window, ServerOptions(), {}, rounds=rounds, codec=codec, parameters=parameters or {}, kappa=2.0)
    world.top("top", how)
    for fog in ("fog-0", "fog-1"):
        world.fog(fog, "top", options)
    for index, device in enumerate(DEVICES):
        world.device(device, f"fog-{index % 2}")
    return world


def counted(world: World) -> tuple[int, int]:
    released = world.disks["top"].released
    assert released is not None
    return released.totals.updates, released.totals.weight


def sent(world: World) -> tuple[int, int]:
    """What devices sent and did not get back: updates, weight."""
    memories = [world.disks[device].memory for device in DEVICES]
    return sum(m.updates_sent - m.updates_returned for m in memories), sum(m.weight_sent - m.weight_returned for m in memories)


def carried(world: World) -> Vector:
    """What the residuals hold, plus what is on its way and not in a release."""
    total = np.zeros(64, np.float32)
    codec = codec_named("lattice")
    for name, disk in world.disks.items():
        if name in DEVICES:
            if disk.memory.residual is not None:
                total += disk.memory.residual
            for frame, _, _ in disk.outbox.values():
                if isinstance(frame.message, Update) and frame.message.sections:
                    total = give_back(codec, encoded_of(frame), total)
    return total


def test_a_tree_runs_to_its_end_and_counts_every_update_once() -> None:
    learner = Learner()
    world = tree(learner, children=2)
    world.run(300)
    assert world.machines["top"].state == "finished"
    assert world.releases[-1] == 6
    assert counted(world) == sent(world) == (24, learner.weight)


def test_every_outcome_reaches_its_device() -> None:
    world = tree(Learner(), children=2)
    world.run(300)
    assert all(not world.disks[name].outbox for name in DEVICES)
    assert all(not world.disks[name].forwarded for name in ("fog-0", "fog-1"))


def test_error_feedback_conserves_mass_over_the_tree() -> None:
    learner = Learner()
    world = tree(learner, children=2, parameters=NEAREST)
    world.run(300)
    released = world.disks["top"].released
    assert released is not None
    # theta moved by sum / weight of each window: undo the division, window by window all weights are equal here
    per_window = learner.weight / 6
    moved = released.master.astype(np.float64) * per_window
    np.testing.assert_allclose(moved + carried(world), learner.total, atol=1e-3)


def test_whoever_answers_after_the_end_waits_for_no_quorum() -> None:
    class Late(World):
        """Where device-3 is late with the last release, which is only measured."""

        def work(self, name: str, work: Work) -> None:
            if name == "device-3" and not work.train:
                self.holding.setdefault(name, [])
            super().work(name, work)

    world = tree(Learner(), rounds=3, quorum=2, deadline_s=5.0, make=Late)
    world.device("device-5", "fog-1")
    world.run(600)
    assert world.machines["top"].state == "finished"
    assert world.holding["device-3"]
    world.finish("device-3")
    del world.holding["device-3"]
    world.run(600)
    assert not any(disk.outbox or disk.forwarded or disk.window for disk in world.disks.values())


@pytest.mark.parametrize("codec", ["lattice", "dense"])
def test_a_killed_device_does_not_block_the_others(codec: str) -> None:
    world = tree(Learner(), children=2, codec=codec)
    world.holding["device-3"] = []
    world.settle()
    assert world.machines["top"].facts(world.now)["release"] == 0
    world.kill("device-3")
    world.run(300)
    assert world.machines["top"].state == "finished"


def test_a_slow_device_is_not_waited_for_past_the_deadline_and_its_update_counts_later() -> None:
    learner = Learner()
    world = tree(learner, children=2)
    world.holding["device-3"] = []
    world.run(11)
    assert world.machines["fog-1"].facts(world.now)["release"] >= 1
    assert "device-3" in world.machines["fog-1"].reason(world.now)
    world.finish("device-3")
    del world.holding["device-3"]
    world.run(300)
    assert counted(world) == sent(world)


def test_an_update_that_is_too_stale_goes_back_into_the_residual() -> None:
    learner = Learner()
    world = tree(learner, children=2, parameters=NEAREST, max_staleness=1, deadline_s=1.0)
    world.holding["device-3"] = []
    world.run(2.5)  # device-3 is waited for at every deadline still
    assert world.machines["fog-1"].facts(world.now)["release"] >= 2
    first = world.disks["device-3"].memory
    world.finish("device-3")
    while "returned: stale" not in world.machines["device-3"].reason(world.now):
        world.step()
    after = world.disks["device-3"].memory
    assert first.residual is None
    assert after.residual is not None
    np.testing.assert_allclose(after.residual, learner.total - others(learner, world), atol=1e-4)


def others(learner: Learner, world: World) -> Vector:
    """The sum of what everybody but device-3 learnt: the total before its one late training."""
    again = Learner()
    again.calls = learner.calls - 1
    last = again("device-3", 0, np.zeros(64, np.float32))
    return np.asarray(learner.total - last.weight * last.delta.astype(np.float64), np.float32)


@pytest.mark.parametrize("node", ["device-0", "fog-0", "top"])
def test_kill_and_restart_anywhere_counts_everything_once(node: str) -> None:
    learner = Learner()
    world = tree(learner, rounds=8, children=2)
    steps = 0
    while world.queue and steps < 100_000:
        steps += 1
        name, event = world.queue.popleft()
        machine = world.machines.get(name)
        if machine is None:
            continue
        for action in machine.handle(event, world.now):
            world._act(name, action)
        if steps % 37 == 0 and node in world.machines:
            world.kill(node)
            world.start(node)
    world.run(2000)
    assert world.machines["top"].state == "finished"
    assert counted(world) == sent(world)


def test_duplicates_are_counted_once() -> None:
    world = tree(Learner(), children=2)
    world.copies = lambda target, frame: 3 if isinstance(frame.message, Update) else 1
    world.run(300)
    assert counted(world) == sent(world)
    assert any(fact.name == "duplicate" for _, fact in world.facts)


def test_lost_messages_are_sent_again() -> None:
    rng = np.random.default_rng(0)

    def loses(target: str, frame: Frame) -> bool:
        return isinstance(frame.message, Update | Ack | Outcome) and bool(rng.random() < 0.3)

    world = tree(Learner(), children=2)
    world.loses = loses
    world.run(5000)
    assert world.machines["top"].state == "finished"
    assert counted(world) == sent(world)


def test_a_device_that_cannot_train_answers_and_holds_nobody_up() -> None:
    learner = Learner()

    def learn(node: str, release: int, theta: Vector) -> Trained:
        trained = learner(node, release, theta)
        return Trained(trained.delta * np.float32("nan"), trained.weight, 1.0, 5) if node == "device-1" else trained

    world = World(learn)
    world.top("top", TopOptions(WindowOptions(children=2), ServerOptions(), {}, rounds=4))
    for fog in ("fog-0", "fog-1"):
        world.fog(fog, "top", WindowOptions(children=2))
    for index, device in enumerate(DEVICES):
        world.device(device, f"fog-{index % 2}")
    world.run(25)  # less than one deadline
    assert world.machines["top"].state == "finished"
    assert "NaN" in world.machines["device-1"].reason(world.now)
    assert world.disks["device-1"].memory.updates_sent == 0
    assert counted(world) == sent(world)


def test_a_late_joiner_takes_part_from_the_current_release() -> None:
    world = tree(Learner(), rounds=3)
    world.run(300)
    world.device("device-9", "fog-0")
    world.run(10)
    assert world.machines["device-9"].release == 3


def test_stop_finishes_the_round_measures_and_a_restarted_top_goes_on() -> None:
    world = tree(Learner(), rounds=50, children=2)
    for device in DEVICES:
        world.holding[device] = []
    world.settle()
    world.give("top", Stop())
    world.settle()
    for _ in range(2):
        for device in DEVICES:
            world.finish(device)
        world.settle()
    assert "top" in world.finished
    assert world.machines["top"].state == "finished"
    reached = world.releases[-1]
    world.kill("top")
    world.start("top")
    for device in DEVICES:
        world.finish(device)
        del world.holding[device]
    world.run(5)
    assert world.releases[-1] > reached


# -- the first round


class Steady(Learner):
    """Every device wants to go the same way, in sizes that differ from device to device."""

    def __call__(self, node: str, release: int, theta: Vector) -> Trained:
        trained = super().__call__(node, release, theta)
        direction = np.random.default_rng(0).normal(0, 4.0 ** int(node[-1]), self.size).astype(np.float32)
        return replace(trained, delta=direction)


def theta_after(rounds: int, parameters: dict[str, int | float | str] | None = None) -> tuple[Vector, World]:
    world = tree(Steady(), children=2, rounds=rounds, parameters=parameters)
    world.run(300)
    released = world.disks["top"].released
    assert released is not None
    assert released.manifest.number == rounds
    assert counted(world) == sent(world)
    return released.theta, world


def test_the_first_round_moves_though_no_step_is_announced() -> None:
    """Devices choose powers of two of their own, which add; what a release gets is near what was wanted."""
    theta, world = theta_after(1)
    released = world.disks["top"].released
    assert released is not None
    wanted = np.zeros(64)
    for node in DEVICES:
        weight = 10 + int(node[-1])
        wanted += weight * np.random.default_rng(0).normal(0, 4.0 ** int(node[-1]), 64) / 46
    assert released.manifest.step > 0
    assert np.corrcoef(theta, wanted)[0, 1] > 0.5
    assert not [fact for _, fact in world.facts if fact.name == "update_refused"]


def test_without_kappa_the_first_round_only_measures_energies() -> None:
    theta, world = theta_after(1, {"kappa": 0.0})
    released = world.disks["top"].released
    assert released is not None
    assert not theta.any()
    assert released.manifest.parameters == {"kappa": 0.0}
    assert released.manifest.step > 0


def test_releases_carry_kappa_where_the_codec_is_the_lattice() -> None:
    for codec, expected in (("lattice", {"kappa": 2.0, "coder": "golomb"}), ("dense", {})):
        world = tree(Learner(), codec=codec, parameters={"coder": "golomb"} if expected else {})
        world.settle()
        released = world.disks["top"].released
        assert released is not None
        assert released.manifest.parameters == expected


# -- dyadic steps


def test_with_dyadic_steps_windows_of_several_releases_travel_as_one_section_and_everything_is_counted() -> None:
    learner = Learner()
    sections: list[int] = []

    def watch(target: str, frame: Frame) -> bool:
        if target == "top" and isinstance(frame.message, Update):
            sections.append(len(frame.message.sections))
        return False

    world = tree(learner, children=2, rounds=30, deadline_s=1.0, parameters={"steps": "dyadic"})
    world.loses = watch
    for _ in range(8):
        world.holding["device-3"] = []
        world.run(2.5)
        world.finish("device-3")
        del world.holding["device-3"]
    world.run(600)
    stale = [fact.values["staleness"] for node, fact in world.facts if fact.name == "update_taken" and node == "fog-1"]
    assert max(int(behind) for behind in stale) >= 2
    assert world.machines["top"].state == "finished"
    assert set(sections) <= {0, 1}
    steps = {float(fact.values["step"]) for _, fact in world.facts if fact.name == "release" and "step" in fact.values}
    assert all(math.frexp(step)[0] == 0.5 for step in steps - {0.0})
    assert len(steps) > 1
    assert counted(world) == sent(world)


def test_steps_that_become_dyadic_with_a_restart_are_powers_of_two_at_once() -> None:
    world = tree(Learner(), children=2)
    world.run(300)
    world.kill("top")
    world.options["top"] = replace(world.options["top"], rounds=9, parameters={"steps": "dyadic"})
    world.start("top")
    world.run(600)
    assert world.machines["top"].state == "finished"
    assert counted(world) == sent(world)
    assert not [fact for _, fact in world.facts if fact.name == "update_refused"]


def test_parameters_that_change_with_a_restart_cost_the_updates_of_before_and_no_others() -> None:
    world = tree(Learner(), children=2)
    world.holding["device-2"] = []
    world.run(1)
    world.finish("device-2")  # so that release 1 announces a step
    world.run(1)
    assert world.machines["fog-0"].facts(world.now)["window"] == 1
    for node in ("top", "fog-0", "device-2"):
        world.kill(node)
    del world.holding["device-2"]
    world.options["top"] = replace(world.options["top"], parameters={"steps": "dyadic"})
    world.start("top")
    world.start("fog-0")
    world.run(1)
    world.start("device-2")
    world.run(300)
    assert world.machines["top"].state == "finished"
    assert counted(world) == sent(world)
    assert [world.disks[device].memory.updates_returned for device in ("device-0", "device-2")] == [1, 0]


# -- what a hostile, careless or unlucky neighbour can do


def hostile(world: World, fog: str, update: Update) -> None:
    """A child that is nobody's device sends an update."""
    topic = topics.parse(topics.build("net", fog, "update", node="stranger", task="toy"))
    world.give(fog, Arrived(topic, Frame("toy", "stranger", 1, len(world.facts), update)))


def test_no_update_of_a_child_can_stop_the_tree() -> None:
    world = tree(Learner(), rounds=20, children=2)
    world.settle()
    run = world.disks["top"].released.manifest.run  # type: ignore[union-attr]  # it has released by now
    lattice = codec_named("lattice").encode(np.zeros(64, np.float32), 0.0)
    for target in ("fog-0", "top"):
        for tally in ({"uplink": (1e308, 1.0)}, {"uplink": (-5.0, 1.0)}, {f"n{i}": (1.0, 1.0) for i in range(64)}):
            hostile(world, target, Update(run, "lattice", 64, (), tally, 0))
        for weight, count in ((1 << 62, 1), (1 << 47, 1 << 30)):
            section = Section(0, weight, count, 1e308, lattice)
            hostile(world, target, Update(run, "lattice", 64, (section,), {}, 0))
        hostile(world, target, Update(run, "lattice", 64, (), {"test.mse": (1e9, 1.0)}, 1 << 40))
    world.run(600)
    for node in ("top", "fog-0"):
        world.kill(node)
        world.start(node)
    world.run(600)
    assert world.machines["top"].state == "finished"
    assert all(not world.disks[name].outbox for name in DEVICES)


def test_a_new_bundle_starts_a_new_run_that_waits_for_everybody_and_mixes_nothing() -> None:
    world = tree(Learner(), rounds=6, children=2)
    world.run(300)
    first = world.disks["top"].released
    assert first is not None
    closed = len(world.facts)
    world.bundle = toy_bundle(value=0.5)
    world.give("top", BundleGiven(world.bundle.to_bytes()))
    world.run(300)
    second = world.disks["top"].released
    assert second is not None
    assert second.manifest.run > first.manifest.run
    assert world.machines["top"].state == "finished"
    assert counted(world) == sent(world) == (24, second.totals.weight)
    windows = [fact.values["updates"] for node, fact in world.facts[closed:] if fact.name == "window_closed" and node == "top"]
    assert set(windows) == {2}


def test_a_proposed_bundle_that_was_there_before_is_a_new_run_and_nobody_obeys_the_proposal_itself() -> None:
    world = tree(Learner(), rounds=3, children=2)
    world.run(300)
    old = world.bundle.to_bytes()
    world.bundle = toy_bundle(value=0.5)
    world.give("top", BundleGiven(world.bundle.to_bytes()))
    world.run(300)
    before = world.disks["top"].released
    assert before is not None
    world.bundle = toy_bundle()
    blob = blob_of(old)
    world.blobs["top", blob.label] = old
    topic = topics.build("net", "top", "task", task="toy")
    world._publish(topic, Frame("toy", "console-1", 0, 0, TaskManifest(blob)), retain=True)
    world.run(300)
    after = world.disks["top"].released
    assert after is not None
    assert after.manifest.run > before.manifest.run
    assert after.manifest.bundle == blob.label
    assert world.machines["top"].state == "finished"
    assert world.retained[topic].frame.node == "top"


def test_an_older_run_that_is_heard_again_changes_nothing() -> None:
    world = tree(Learner(), rounds=3, children=2)
    world.run(300)
    topic = topics.build("net", "fog-0", "release", task="toy")
    old = world.retained[topic]
    world.bundle = toy_bundle(value=0.5)
    world.give("top", BundleGiven(world.bundle.to_bytes()))
    world.run(300)
    memory = world.disks["device-0"].memory
    world.give("device-0", Arrived(topics.parse(topic), old.frame))
    world.run(10)
    assert world.disks["device-0"].memory == memory


def test_a_finished_top_that_restarts_is_finished_and_says_so_again() -> None:
    world = tree(Learner(), rounds=3, children=2)
    world.run(300)
    reports = len(world.reports)
    world.kill("top")
    world.start("top")
    world.run(10)
    assert world.machines["top"].state == "finished"
    assert [report.finished for report in world.reports[reports:]] == [True]
    world.give("top", Stop())
    world.settle()
    assert "top" in world.finished


def test_a_device_that_moves_to_another_parent_is_counted_once() -> None:
    world = tree(Learner(), rounds=8, children=2)
    world.loses = lambda target, frame: target == "device-0" and isinstance(frame.message, Ack)
    world.holding["device-2"] = []  # fog-0's window stays open with device-0's update in it
    world.settle()
    assert world.disks["fog-0"].window
    world.kill("device-0")
    world.parents["device-0"] = "fog-1"
    world.loses = lambda target, frame: False
    world.start("device-0")
    world.settle()
    world.finish("device-2")
    del world.holding["device-2"]
    world.run(2000)
    assert world.machines["top"].state == "finished"
    assert counted(world) == sent(world)


def test_stop_does_not_wait_for_ever_for_a_parent_that_is_gone() -> None:
    world = tree(Learner(), children=2)
    world.settle()
    for fog in ("fog-0", "fog-1"):
        world.kill(fog)
    world.holding["device-0"] = []
    world.loses = lambda target, frame: True
    world.give("device-1", Stop())
    world.run(30)
    assert "device-1" in world.finished


def test_a_release_that_cannot_be_taken_is_answered_so_that_nobody_waits() -> None:
    world = tree(Learner(), rounds=4, children=2)
    world.kill("device-1")
    world.refuses = lambda name, blob: name == "device-1" and blob.size == 4 * 64
    world.run(1)
    world.start("device-1")
    world.run(30)
    assert world.machines["top"].state == "finished"
    assert "cannot be taken" in world.machines["device-1"].reason(world.now)


# -- lanes


def test_with_lanes_every_release_asks_for_the_next_block_and_all_mass_arrives() -> None:
    learner = Learner()
    world = tree(learner, children=2, rounds=9, codec="lanes", parameters={"blocks": 3, "members": 4, "bits": 16})
    seen: list[frozenset[int]] = []

    def watch(target: str, frame: Frame) -> bool:
        if target == "fog-0" and isinstance(frame.message, Update) and frame.message.sections:
            decoded = codec_named("lanes").decode(frame.message.sections[0].payload, 64)
            seen.append(frozenset(np.flatnonzero(decoded).tolist()))
        return False

    world.loses = watch
    world.run(600)
    assert world.machines["top"].state == "finished"
    assert counted(world) == sent(world) == (36, learner.weight)
    said = [places for places in seen if places]
    assert len(set().union(*said)) > 50
    assert max(map(len, said)) <= 22
    released = world.disks["top"].released
    assert released is not None
    moved = released.master.astype(np.float64) * learner.weight / 9
    np.testing.assert_allclose(moved + carried(world), learner.total, atol=1e-3)


def test_a_run_that_goes_on_waits_for_everybody_again() -> None:
    learner = Learner()
    world = tree(learner, rounds=3, children=2)
    world.run(100)
    assert counted(world)[0] == 3 * len(DEVICES)
    nodes = ["top", "fog-0", "fog-1", *DEVICES]
    for name in nodes:
        world.kill(name)
    world.options["top"] = replace(world.options["top"], rounds=5)
    world.links = Links(lambda node: LinkSpec(2_000.0 if node == "device-1" else 20_000.0, 0.05))  # one takes its time
    for name in nodes:
        world.start(name)
    world.run(100)
    assert world.machines["top"].state == "finished"
    assert counted(world)[0] == 5 * len(DEVICES)
    assert sum(disk.memory.updates_returned for disk in world.disks.values()) == 0
