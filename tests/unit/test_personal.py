"""Tensors that stay on a device, stay as they are, or are sent seldom, over devices, a fog node and the top."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from edgemw.compression.lattice import Lattice
from edgemw.compression.qsgd import Qsgd
from edgemw.compression.residual import Contribution, encode_update
from edgemw.compression.table import CODECS, codec_named
from edgemw.core.bundle import Bundle, Slot, Vector
from edgemw.core.errors import CodecError
from edgemw.core.events import Stop
from edgemw.core.ids import UpdateId
from edgemw.core.plan import Plan
from edgemw.core.ranges import Ranges, cut, ranges_of
from edgemw.device.events import Memory
from edgemw.fog.events import BundleGiven, Released
from edgemw.fog.release import TopOptions
from edgemw.fog.server import ServerOptions
from edgemw.fog.window import WindowOptions
from edgemw.learning.trainer import Trained
from edgemw.wire import topics
from edgemw.wire.messages import Frame, Update
from edgemw.wire.traffic import Arrived
from tests.support.world import NET, TASK, World, toy_bundle

BODY, HEAD = Slot("body.w", (48,), 0), Slot("head.w", (16,), 48)
Changes = dict[str, int | float | str]
DEVICES = [f"device-{n}" for n in range(3)]
PERSONAL: Changes = {"personal": "head.*"}


def bundle_of(value: float = 0.0, training: Mapping[str, int | float | str] | None = None) -> Bundle:
    toy = toy_bundle(64, value)
    return replace(toy, manifest=replace(toy.manifest, layout=(BODY, HEAD), training=dict(training or {})))


class Halfway:
    """Every device goes half of the way to an optimum of its own."""

    def __init__(self) -> None:
        self.thetas: dict[tuple[str, int], Vector] = {}

    def __call__(self, node: str, release: int, theta: Vector) -> Trained:
        self.thetas[node, release] = theta.copy()
        optimum = np.float32(1 + int(node[-1]))
        return Trained(((optimum - theta) / 2).astype(np.float32), 10, 1.0, 5)


def options(plan: Changes, rounds: int = 4, **more: str) -> TopOptions:
    window = WindowOptions(deadline_s=20.0, children=1)
    return TopOptions(window, ServerOptions(more.pop("optimizer", "average")), plan, rounds=rounds, kappa=0.1, **more)  # type: ignore[arg-type]


def net(plan: Changes, rounds: int = 4, bundle: Bundle | None = None, **more: str) -> tuple[World, Halfway]:
    learner = Halfway()
    world = World(learner, bundle=bundle or bundle_of())
    world.top("top", options(plan, rounds, **more))
    world.fog("fog-0", "top", WindowOptions(deadline_s=10.0, children=3))
    for device in DEVICES:
        world.device(device, "fog-0")
    return world, learner


def released(world: World) -> Released:
    found = world.disks["top"].released
    assert found is not None
    return found


def memory(world: World, device: str) -> Memory:
    found: Memory = world.disks[device].memory
    return found


# -- personal


@pytest.mark.parametrize("codec", CODECS)
def test_personal_tensors_are_trained_at_home_and_never_sent(codec: str) -> None:
    world, _ = net(PERSONAL, rounds=5, codec=codec, optimizer="adam")
    world.run(300)
    theta = released(world).theta
    assert released(world).manifest.number == 5
    assert cut(theta, (BODY,)).any()
    assert not cut(theta, (HEAD,)).any()
    for number, device in enumerate(DEVICES):
        own = memory(world, device).personal["head.w"]
        np.testing.assert_array_equal(own, np.float32((1 + number) * (1 - 2**-5)))
        np.testing.assert_array_equal(cut(world.served[device], (HEAD,)), own)
        np.testing.assert_array_equal(cut(world.served[device], (BODY,)), cut(theta, (BODY,)))
        residual = memory(world, device).residual
        assert residual is None or not cut(residual, (HEAD,)).any()
        assert memory(world, device).balance.worst < 1e-6


def test_the_author_may_say_it_and_the_operator_otherwise() -> None:
    says = bundle_of(training=PERSONAL)
    cases: list[tuple[Changes, bool]] = [({}, True), ({"personal": ""}, False)]
    for plan, kept in cases:
        world, _ = net(plan, bundle=says)
        world.run(300)
        assert bool(memory(world, DEVICES[0]).personal) is kept
        assert bool(cut(released(world).theta, (HEAD,)).any()) is not kept


def test_a_restarted_device_goes_on_with_its_own_values() -> None:
    world, learner = net(PERSONAL, rounds=6)
    world.holding[DEVICES[1]] = []
    world.run(1)
    world.finish(DEVICES[1])  # of release 0
    world.run(1)
    own = memory(world, DEVICES[1]).personal["head.w"]
    world.kill(DEVICES[1])
    world.served.clear()
    del world.holding[DEVICES[1]]
    world.start(DEVICES[1])
    world.settle()
    np.testing.assert_array_equal(cut(learner.thetas[DEVICES[1], 1], (HEAD,)), own)
    world.run(300)
    assert memory(world, DEVICES[1]).personal["head.w"][0] == 2 * (1 - 2**-6)


def test_a_new_run_begins_without_personal_values() -> None:
    world, learner = net(PERSONAL)
    world.run(300)
    world.bundle = bundle_of(8.0)
    world.give("top", BundleGiven(world.bundle.to_bytes()))
    world.run(300)
    assert cut(learner.thetas[DEVICES[0], 0], (HEAD,)).tolist() == [8.0] * 16
    assert memory(world, DEVICES[0]).personal["head.w"][0] == 1 + 7 * 2**-4


def test_a_release_that_comes_during_training_is_served_under_what_was_learned() -> None:
    world, _ = net(PERSONAL, rounds=3)
    world.options["fog-0"] = WindowOptions(deadline_s=1.0, children=3)
    world.kill("fog-0")
    world.start("fog-0")
    world.holding[DEVICES[0]] = []
    world.run(60)
    assert world.machines[DEVICES[0]].release > 0
    assert not cut(world.served[DEVICES[0]], (HEAD,)).any()
    world.finish(DEVICES[0])
    world.settle()
    assert cut(world.served[DEVICES[0]], (HEAD,)).tolist() == [0.5] * 16
    assert [work.theta[-1] for work in world.holding[DEVICES[0]]] == [0.5]


def test_returned_updates_change_no_personal_value() -> None:
    world, _ = net(PERSONAL, rounds=8)
    world.options["fog-0"] = WindowOptions(deadline_s=1.0, children=3, max_staleness=0)
    world.kill("fog-0")
    world.start("fog-0")
    world.holding[DEVICES[0]] = []
    world.run(60)
    world.finish(DEVICES[0])
    world.run(2)
    assert memory(world, DEVICES[0]).updates_returned == 1
    assert memory(world, DEVICES[0]).personal["head.w"].tolist() == [0.5] * 16
    residual = memory(world, DEVICES[0]).residual
    assert residual is not None
    assert cut(residual, (BODY,)).all()
    assert not cut(residual, (HEAD,)).any()
    assert memory(world, DEVICES[0]).balance.worst < 1e-6


def test_another_plan_for_the_same_release_is_followed() -> None:
    world, _ = net({}, rounds=3)
    for device in DEVICES:
        world.holding[device] = []
    world.run(1)
    world.kill("top")
    world.options["top"] = options(PERSONAL, 3)
    world.start("top")
    world.run(1)
    for device in DEVICES:
        world.finish(device)  # begun under the old plan
        del world.holding[device]
    world.run(300)
    assert released(world).manifest.number == 3
    assert all(memory(world, device).personal for device in DEVICES)
    assert all(memory(world, device).balance.worst < 1e-6 for device in DEVICES)  # the head's residual is written off


# -- frozen


def test_a_device_that_trains_frozen_tensors_all_the_same_is_not_heard() -> None:
    world, _ = net({"frozen": "body.*"}, optimizer="momentum")
    world.run(300)
    assert not cut(released(world).theta, (BODY,)).any()
    assert cut(released(world).theta, (HEAD,)).all()


# -- rare


@pytest.mark.parametrize("codec", ["lattice", "dense"])
def test_rare_tensors_move_with_every_nth_release_only(codec: str) -> None:
    world, learner = net({"rare": "head.*", "rare_every": 3}, rounds=8, codec=codec, release_codec="dense")
    world.run(300)
    heads = [float(cut(learner.thetas[DEVICES[0], n], (HEAD,)).mean()) for n in range(8)]
    bodies = [float(cut(learner.thetas[DEVICES[0], n], (BODY,)).mean()) for n in range(8)]
    assert [n for n in range(7) if heads[n + 1] != heads[n]] == [0, 3, 6]
    assert bodies[2] != bodies[1]


@pytest.mark.parametrize("codec", [Lattice(), codec_named("topk"), Qsgd(), codec_named("powersgd")], ids=lambda codec: codec.name)
def test_what_waits_is_in_the_residual_to_the_last_bit(codec: Lattice | Qsgd) -> None:
    ranges = ranges_of((BODY, HEAD), Plan(rare="head.*", rare_every=4))
    residual, total = np.zeros(64, np.float32), np.zeros(16, np.float32)
    for base in range(1, 4):
        delta = np.random.default_rng(base).normal(0, 1, 64).astype(np.float32)
        encoded, residual = encode_update(codec, contribution(delta, base), residual, 0.5, ranges=ranges)
        said = codec.decode(encoded.sections[0].payload, 64)
        total += np.float32(10) * delta[48:]
        if codec.name != "powersgd":  # which says a little everywhere
            assert not cut(said, (HEAD,)).any()
            np.testing.assert_array_equal(cut(residual, (HEAD,)), total)
    encoded, residual = encode_update(codec, contribution(np.zeros(64, np.float32), 4), residual, 0.5, ranges=ranges)
    assert cut(codec.decode(encoded.sections[0].payload, 64), (HEAD,)).any()


# -- encoding


def contribution(delta: Vector, base: int = 1, weight: int = 10) -> Contribution:
    return Contribution(UpdateId("device", 1, base), base, weight, delta)


def test_the_energy_is_of_what_is_sent() -> None:
    ranges = ranges_of((BODY, HEAD), Plan(personal="head.*"))
    encoded, _ = encode_update(Lattice(), contribution(np.ones(64, np.float32)), np.zeros(64, np.float32), 0.5, ranges=ranges)
    assert encoded.sections[0].energy == 48 * 10**2
    assert ranges.coded(1) == 48


def test_the_step_is_about_what_is_sent() -> None:
    """The same updates of the body make the same step, whether or not a head stays at home."""
    small = replace(bundle_of(), theta0=np.zeros(48, np.float32))
    small = replace(small, manifest=replace(small.manifest, layout=(BODY,)))
    steps = []
    for plan, bundle in (PERSONAL, bundle_of()), ({}, small):
        world, _ = net(dict(plan), rounds=1, bundle=bundle)
        world.run(300)
        steps.append(released(world).manifest.step)
    assert steps[0] == steps[1] > 0


@pytest.mark.parametrize("place", [0, 63])
def test_a_delta_that_is_not_finite_is_refused_wherever_it_is(place: int) -> None:
    delta = np.ones(64, np.float32)
    delta[place] = np.nan
    ranges = Ranges(64, personal=(HEAD,))
    with pytest.raises(CodecError, match="NaN"):
        encode_update(Lattice(), contribution(delta), np.zeros(64, np.float32), 0.5, ranges=ranges)


# -- refusals


def test_the_top_refuses_a_bundle_that_its_plan_does_not_fit() -> None:
    world, _ = net({"personal": "haed.*"})
    world.run(10)
    assert "'haed.*' matches no tensor" in world.machines["top"].reason(world.now)
    assert world.disks["top"].released is None


def test_a_restarted_top_whose_settings_do_not_fit_goes_on_as_before() -> None:
    world, _ = net(PERSONAL, rounds=3)
    world.run(300)
    world.kill("top")
    world.options["top"] = options({"frozen": "tail"}, rounds=5)
    world.start("top")
    assert "'tail' matches no tensor" in world.machines["top"].reason(world.now)
    world.run(100)
    assert world.machines["top"].state == "finished"
    plan = released(world).manifest.plan
    assert plan is not None
    assert plan.personal == "head.*"
    assert not cut(released(world).theta, (HEAD,)).any()


def test_a_device_refuses_a_release_whose_plan_does_not_fit_and_answers_it() -> None:
    world, _ = net({}, rounds=3)
    world.holding |= {device: [] for device in DEVICES}
    world.run(1)
    world.kill("fog-0")  # what is answered stays on the device's disk
    manifest = replace(released(world).manifest, number=1, plan=Plan(frozen="tail"))
    world.give(
        DEVICES[0], Arrived(topics.parse(topics.build(NET, "fog-0", "release", task=TASK)), Frame(TASK, "fog-0", 1, 0, manifest))
    )
    world.run(1)
    assert "'tail' matches no tensor" in world.machines[DEVICES[0]].reason(world.now)
    assert world.machines[DEVICES[0]].release == 0
    (answer,) = [frame.message for frame, _, _ in world.disks[DEVICES[0]].outbox.values()]
    assert isinstance(answer, Update)
    assert (answer.sections, answer.report_on, answer.tally) == ((), 1, {"refused": (1.0, 1.0)})


def test_a_device_stops_between_rounds_with_its_values_on_disk() -> None:
    world, _ = net(PERSONAL, rounds=4)
    world.run(1)
    world.give(DEVICES[0], Stop())
    world.run(100)
    assert DEVICES[0] in world.finished
    assert memory(world, DEVICES[0]).personal["head.w"].any()
