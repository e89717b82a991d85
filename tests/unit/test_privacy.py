"""What a promise of privacy costs and how it is kept: the account, the noise of releases, and what a restart knows of both."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import dp_accounting
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemw.app.private import privacy_of
from edgemw.app.sections import Privacy as Section
from edgemw.app.settings import Deployment, FogFile
from edgemw.compression.bounded import encode_bounded
from edgemw.compression.lattice import Lattice
from edgemw.compression.residual import Contribution
from edgemw.core.accountant import epsilon_of, noise_for
from edgemw.core.bundle import Bundle, Manifest, Slot, Spec, Vector
from edgemw.core.config.loader import load
from edgemw.core.encoded import Encoded
from edgemw.core.encoded import Section as Sum
from edgemw.core.errors import CodecError, ConfigError
from edgemw.core.events import LinkUp
from edgemw.core.ids import Place, UpdateId
from edgemw.core.noise import Integers
from edgemw.core.ranges import Ranges
from edgemw.fog.agent import FogRole
from edgemw.fog.events import BundleGiven, FogMemory, SaveRelease
from edgemw.fog.privacy import LOCAL, Privacy, Promise, Spent, begun, check_promise, section_noise, spent_of, spent_text
from edgemw.fog.release import TopOptions, first_release
from edgemw.fog.server import ServerOptions, mean_update
from edgemw.fog.top import Top
from edgemw.fog.window import WindowOptions
from edgemw.learning.trainer import Trained
from edgemw.storage.database import Database
from edgemw.wire import topics
from edgemw.wire.messages import Frame, RoundReport, Update
from edgemw.wire.traffic import Arrived, PublishBlob, Send
from tests.support.world import TASK, World, toy_bundle

SIZE = 400
CENTRAL = Privacy(Promise("central", 1.0, 2.0), 1e-5)
DEVICES = ("device-0", "device-1", "device-2")


def options(privacy: Privacy | None = CENTRAL, rounds: int = 6, staleness: int = 4) -> TopOptions:
    return TopOptions(WindowOptions(0, 10.0, 1, staleness, 0), ServerOptions(), {}, rounds=rounds, privacy=privacy)


def learn(name: str, release: int, theta: Vector) -> Trained:
    """Everybody goes half the way to ones; weights differ."""
    return Trained(np.float32(0.5) * (1 - theta), 10 + 3 * int(name[-1]), 0.5, 1)


def net(privacy: Privacy | None = CENTRAL, rounds: int = 6) -> World:
    world = World(learn, size=SIZE)
    world.top("top", options(privacy, rounds))
    for name in DEVICES:
        world.device(name, "top")
    return world


# -- the account


@given(st.floats(0.3, 50), st.integers(1, 500), st.sampled_from([1e-3, 1e-5, 1e-8]))
def test_epsilon_is_that_of_one_gaussian_and_never_above_renyi(noise: float, times: int, delta: float) -> None:
    """Composing by Renyi differential privacy, as the library does for any mechanism, is a bound on it."""
    epsilon = epsilon_of([(noise, times)], delta)
    assert epsilon == pytest.approx(dp_accounting.get_epsilon_gaussian(noise / math.sqrt(times), delta))
    accountant = dp_accounting.rdp.RdpAccountant()
    accountant.compose(dp_accounting.GaussianDpEvent(noise), times)
    assert epsilon <= accountant.get_epsilon(delta) * (1 + 1e-9) + 1e-9


@pytest.mark.parametrize(("noise", "times"), [(1.0, 1), (4.0, 30), (20.0, 500)])
def test_epsilon_is_what_the_library_finds_by_its_distributions_of_privacy_loss(noise: float, times: int) -> None:
    accountant = dp_accounting.pld.PLDAccountant()
    accountant.compose(dp_accounting.GaussianDpEvent(noise), times)
    assert epsilon_of([(noise, times)], 1e-5) == pytest.approx(accountant.get_epsilon(1e-5), rel=2e-3)


@given(st.floats(0.5, 20), st.floats(1.01, 3), st.integers(1, 100), st.sampled_from([1e-4, 1e-6]))
def test_more_noise_costs_less_and_more_releases_cost_more(noise: float, more: float, times: int, delta: float) -> None:
    epsilon = epsilon_of([(noise, times)], delta)
    assert epsilon_of([(noise * more, times)], delta) <= epsilon <= epsilon_of([(noise, times + 1)], delta)
    assert epsilon <= epsilon_of([(noise, times)], delta / 10)
    assert epsilon_of([(noise, times), (noise, 0)], delta) == epsilon == epsilon_of([(2 * noise, 4 * times)], delta)


@given(st.floats(0.1, 20), st.integers(1, 100))
def test_the_noise_for_an_epsilon_costs_it(epsilon: float, times: int) -> None:
    assert epsilon_of([(noise_for(epsilon, 1e-5, times), times)], 1e-5) == pytest.approx(epsilon, rel=1e-4)


def test_nothing_costs_nothing_and_no_noise_everything() -> None:
    assert epsilon_of([], 1e-5) == 0.0
    assert epsilon_of([(1.0, 0)], 1e-5) == 0.0
    assert epsilon_of([(0.0, 1)], 1e-5) == math.inf


def test_devices_that_add_noise_pay_for_any_other_samples_and_when_they_are_asked() -> None:
    local = Promise(LOCAL, 1.0, 4.0)
    assert local.mechanisms(5, train=True) == (2.0, 6)
    assert local.mechanisms(5, train=False) == (2.0, 5)
    assert replace(local, mode="central").mechanisms(5, train=True) == (4.0, 5)
    assert (local.bound.noise, replace(local, mode="central").bound.noise) == (4.0, 0.0)


def test_runs_on_one_disk_add(tmp_path: Path) -> None:
    world = net(rounds=4)
    world.run(600.0)
    released = world.disks["top"].released
    assert released is not None
    assert released.spent == Spent(CENTRAL.promise)
    louder = replace(CENTRAL, promise=replace(CENTRAL.promise, noise=3.0))
    for privacy, mechanisms in ((CENTRAL, ((2.0, 4),)), (louder, ((2.0, 4),))):
        spent = begun(privacy, released.spent, released.manifest)
        assert spent is not None
        assert spent.earlier == mechanisms
        third = begun(privacy, spent, replace(released.manifest, number=5))
        assert third is not None
        assert sum(times for _, times in third.earlier) == 9
        assert spent_of(spent_text(third)) == third
    unprotected = begun(CENTRAL, None, released.manifest)
    assert unprotected is not None
    assert unprotected.epsilon(replace(released.manifest, number=0), 1e-5) == math.inf
    assert begun(CENTRAL, None, None) == begun(CENTRAL, None, replace(released.manifest, number=0)) == Spent(CENTRAL.promise)
    assert begun(None, released.spent, released.manifest) is None
    assert spent_of(None) is None
    assert spent_text(None) is None


# -- a net


def test_devices_weigh_the_same_and_tell_nothing_else_of_their_training_samples() -> None:
    world, said = net(), list[Any]()
    publish = world._publish

    def noted(text: str, frame: Frame, *, retain: bool) -> None:
        said.append(frame.message)
        publish(text, frame, retain=retain)

    world._publish = noted  # type: ignore[method-assign]
    world.run(600.0)
    trained = [message for message in said if isinstance(message, Update) and message.sections]
    assert len(trained) == 3 * 6
    for update in trained:
        (section,) = update.sections
        assert (section.weight, section.count, section.energy, section.side) == (1, 1, 1.0, b"")
        assert set(update.tally) <= {"uplink", "downlink", "test.mse"}
    sizes = {world.machines[name].facts(0.0)["weight_sent"] for name in DEVICES}
    assert sizes == {6}


@pytest.mark.parametrize("personal", ["", "head"])
def test_measures_under_personal_values_are_not_sent(personal: str) -> None:
    """A release under values that were learned from training samples is measured: that tells of these samples, without noise."""
    layout = (Slot("head", (1,), 0), Slot("w", (SIZE,), 1))
    manifest = Manifest(TASK, layout, Spec((1,), "float32"), Spec((), "int64"), Spec((1,), "float32"), "mse", ("mse",))
    world, said = World(learn, bundle=Bundle(manifest, b"i", b"t", np.zeros(SIZE + 1, np.float32))), list[Update]()
    publish = world._publish

    def noted(text: str, frame: Frame, *, retain: bool) -> None:
        if isinstance(frame.message, Update):
            said.append(frame.message)
        publish(text, frame, retain=retain)

    world._publish = noted  # type: ignore[method-assign]
    world.top("top", replace(options(rounds=3), plan={"personal": personal} if personal else {}))
    world.device("device-0", "top")
    world.run(600.0)
    assert [len(update.sections) for update in said] == [1, 1, 1, 0]
    assert [set(update.tally) for update in said] == [{"uplink"} if personal else {"uplink", "test.mse"}] * 4
    assert world.machines["top"].state == "finished"
    assert ["mse" in report.facts for report in world.reports] == [not personal] * 4


def test_releases_get_the_noise_of_the_promise() -> None:
    """The same net without noise differs by it: deviation noise * clip / devices in every coordinate, another one each time."""
    quiet = replace(CENTRAL, promise=replace(CENTRAL.promise, noise=1e-9))
    thetas = []
    for privacy in (CENTRAL, quiet):
        world = net(privacy, rounds=1)
        world.run(600.0)
        released = world.disks["top"].released
        assert released is not None
        thetas.append(released.master.astype(np.float64))
    assert np.std(thetas[0] - thetas[1]) == pytest.approx(2.0 / 3, rel=0.12)


def test_the_step_is_announced_at_once_and_stays_whatever_devices_say() -> None:
    world = net()
    world.run(600.0)
    steps = [report.facts.get("kappa") for report in world.reports]
    assert steps == [None] * len(steps)
    released = world.disks["top"].released
    assert released is not None
    assert released.manifest.step == CENTRAL.step(Ranges(SIZE))


def test_epsilon_is_said_and_survives_a_restart() -> None:
    world = net(rounds=5)
    world.run(600.0)
    before = world.machines["top"].facts(0.0)
    assert before["epsilon"] == pytest.approx(epsilon_of([(2.0, 5)], 1e-5), abs=1e-6)
    assert before["privacy"] == f"epsilon {before['epsilon']:.3g} at delta 1e-05 after 5 releases, central"
    assert [report.facts["epsilon"] for report in world.reports][:2] == [
        0.0, pytest.approx(epsilon_of([(2.0, 1)], 1e-5), abs=1e-6)
    ]  # fmt: skip
    world.kill("top")
    world.start("top")
    world.run(600.0)
    assert world.machines["top"].facts(0.0)["epsilon"] == before["epsilon"]


def test_training_that_was_asked_for_once_is_paid_for_whatever_a_restart_asks() -> None:
    """Devices have answered release 2, which comes to nothing: the top ends there, and starts with fewer rounds."""
    local = replace(CENTRAL, promise=replace(CENTRAL.promise, mode=LOCAL))
    world, sent = net(local, rounds=6), set[int]()

    def loses(reader: str, frame: Frame) -> bool:
        if not isinstance(frame.message, Update) or not frame.message.sections or reader != "top":
            return False
        sent.add(frame.message.sections[0].base)
        return frame.message.sections[0].base == 2

    world.loses = loses
    world.run(60.0)
    assert sent == {0, 1, 2}
    world.loses = lambda reader, frame: False
    for rounds in (2, 2):  # it is not forgotten later either
        world.kill("top")
        world.options["top"] = options(local, rounds=rounds)
        world.start("top")
        world.run(600.0)
        facts = world.machines["top"].facts(0.0)
        assert (facts["release"], world.machines["top"].state) == (2, "finished")
        assert facts["epsilon"] == pytest.approx(epsilon_of([(1.0, 3)], 1e-5), abs=1e-6)
    released = world.disks["top"].released
    assert released is not None
    assert begun(local, released.spent, released.manifest) == Spent(local.promise, ((1.0, 3),))


def test_a_finished_run_that_asks_again_says_so_on_the_disk_first() -> None:
    local = replace(CENTRAL, promise=replace(CENTRAL.promise, mode=LOCAL))
    world = net(local, rounds=2)
    world.run(600.0)
    top = Top(Place("net", "top", "", 9, bytes(32)), TASK, options(local, rounds=4), world.disks["top"].fog_memory, 0.0)
    actions = top.handle(LinkUp(), 0.0)
    saved = next(place for place, action in enumerate(actions) if isinstance(action, SaveRelease))
    said = next(place for place, action in enumerate(actions) if isinstance(action, Send | PublishBlob))
    assert saved < said
    action = actions[saved]
    assert isinstance(action, SaveRelease)
    assert action.released.spent == Spent(local.promise, asked=3)


LOUDER = replace(CENTRAL, promise=Promise("central", 0.5, 4.0))


@pytest.mark.parametrize(("first", "second"), [(CENTRAL, None), (None, CENTRAL), (CENTRAL, LOUDER)])
def test_a_run_does_not_go_on_under_another_promise(first: Privacy | None, second: Privacy | None) -> None:
    world = net(first, rounds=20)
    world.loses = lambda reader, frame: world.machines["top"].facts(0.0).get("release") == 2
    world.run(60.0)
    world.kill("top")
    world.options["top"] = options(second)
    with pytest.raises(ConfigError, match=r"node\.state") as caught:
        world.start("top")
    assert ("the costs of both are added" in str(caught.value)) == bool(first and second)


@pytest.mark.parametrize(("first", "second"), [(CENTRAL, None), (None, CENTRAL)])
def test_privacy_neither_comes_nor_goes_on_one_disk(first: Privacy | None, second: Privacy | None) -> None:
    """Else an account would begin anew after a run without a promise."""
    world = net(first, rounds=2)
    world.run(600.0)
    world.kill("top")
    world.options["top"] = options(second)
    with pytest.raises(ConfigError, match=r"node\.state"):
        world.start("top")


def test_a_run_after_one_that_has_ended_may_promise_something_else_and_costs_add() -> None:
    world = net(rounds=3)
    world.run(600.0)
    old = world.disks["top"].released
    world.kill("top")
    world.options["top"] = options(LOUDER, rounds=2)
    for _ in range(2):  # nothing is lost while it waits for a bundle
        world.start("top")
        world.run(600.0)
        assert world.machines["top"].state == "waiting"
        assert "a new bundle begins one" in world.machines["top"].reason(0.0)
        assert world.disks["top"].released == old
        top = world.machines["top"]
        assert isinstance(top, Top)
        with pytest.raises(ConfigError, match="a new bundle begins one"):
            top.check_given(world.bundle.to_bytes())
        world.kill("top")
    world.start("top")
    data = replace(world.bundle, manifest=replace(world.bundle.manifest, training={"steps": 2})).to_bytes()
    top = world.machines["top"]
    assert isinstance(top, Top)
    top.check_given(data)
    world.give("top", BundleGiven(data))
    world.run(600.0)
    released = world.disks["top"].released
    assert released is not None
    assert old is not None
    assert released.manifest.run > old.manifest.run
    assert released.spent == Spent(LOUDER.promise, ((2.0, 3),))
    assert (top.state, top.facts(0.0)["release"]) == ("finished", 2)
    assert top.facts(0.0)["epsilon"] == pytest.approx(epsilon_of([(2.0, 3), (4.0, 2)], 1e-5), abs=1e-6)
    assert "new bundle" not in top.reason(0.0)


def test_what_is_no_part_of_a_promise_may_change() -> None:
    check_promise(replace(CENTRAL, delta=1e-7, budget=3.0, kappa=1.0), Spent(CENTRAL.promise))
    check_promise(None, None)


def test_training_ends_before_the_budget_is_exceeded() -> None:
    budget = (epsilon_of([(2.0, 3)], 1e-5) + epsilon_of([(2.0, 4)], 1e-5)) / 2
    for mode, made in (("central", 3), ("local", 0)):
        privacy = replace(CENTRAL, promise=replace(CENTRAL.promise, mode=mode), budget=budget)
        world = net(privacy, rounds=20)
        world.run(600.0)
        facts = world.machines["top"].facts(0.0)
        assert facts["release"] == made
        assert world.machines["top"].state == "finished"
        assert float(facts["epsilon"]) <= budget
        assert "one more would exceed" in str(facts["privacy"])


def test_an_update_without_a_bound_is_refused_by_the_node_above() -> None:
    """What a device of a version sends that does not know of bounds."""
    world = net(rounds=2)
    frames: list[Any] = []
    act = world._act

    def altered(name: str, action: Any) -> None:
        message = getattr(getattr(action, "frame", None), "message", None)
        if name == "device-1" and isinstance(message, Update) and message.sections:
            (section,) = message.sections
            frame = replace(action.frame, message=replace(message, sections=(replace(section, weight=13),)))
            action = replace(action, frame=frame)
            frames.append(frame)
        act(name, action)

    world._act = altered  # type: ignore[method-assign]
    world.run(600.0)
    assert frames
    facts = world.machines["top"].facts(0.0)
    assert int(facts["updates_refused"]) > 0
    assert facts["updates_counted"] == 2 * 2


def test_what_was_returned_is_not_said_again_and_the_books_balance() -> None:
    world = net(rounds=8)
    lost = {"left": 3}

    def loses(reader: str, frame: Any) -> bool:
        if isinstance(frame.message, Update) and frame.message.sections and frame.node == "device-2" and lost["left"]:
            lost["left"] -= 1
            return True
        return False

    world.loses = loses
    world.run(600.0)
    for name in DEVICES:
        facts = world.machines[name].facts(0.0)
        assert float(facts["mass_imbalance"]) < 1e-6
        memory = world.disks[name].memory
        assert memory.weight_owed == 0 or memory.residual is not None
    assert world.machines["top"].facts(0.0)["weight_counted"] == world.machines["top"].facts(0.0)["updates_counted"]


def test_a_resent_update_is_the_same_bytes_and_a_new_life_draws_other_noise() -> None:
    local = replace(CENTRAL, promise=replace(CENTRAL.promise, mode=LOCAL))
    world, payloads = net(local, rounds=3), dict[Any, set[bytes]]()
    world.loses = lambda reader, frame: bool(_noted(payloads, frame)) and len(payloads[frame.id]) > 0 and _first(world, frame)
    world.run(600.0)
    assert payloads
    assert all(len(found) == 1 for found in payloads.values())
    assert len({next(iter(found)) for found in payloads.values()}) == len(payloads)


_seen: set[Any] = set()


def _noted(payloads: dict[Any, set[bytes]], frame: Any) -> bool:
    if not isinstance(frame.message, Update) or not frame.message.sections:
        return False
    payloads.setdefault(frame.id, set()).add(frame.message.sections[0].payload)
    return True


def _first(world: World, frame: Any) -> bool:
    """Every update is lost once."""
    key = id(world), frame.id
    is_new = key not in _seen
    _seen.add(key)
    return is_new


# -- the disk, and bundles


def test_the_disk_has_it_in_the_row_of_the_release(tmp_path: Path) -> None:
    place = Place("net", "top", "", 1, bytes(32))
    db = Database(tmp_path)
    role = FogRole(place, db, options(), lambda task, fact: None)
    top = role.machine(TASK, 0.0)
    assert top is not None
    actions = top.handle(BundleGiven(toy_bundle(SIZE).to_bytes()), 0.0)
    role.act([(TASK, action) for action in actions if type(action).__name__.startswith("Save")])
    db.close()
    again = FogRole(place, Database(tmp_path), options(), lambda task, fact: None).machine(TASK, 0.0)
    assert isinstance(again, Top)
    again.handle(LinkUp(), 0.0)
    assert again.facts(0.0)["privacy"] == "epsilon 0 at delta 1e-05 after 0 releases, central"


def test_a_bundle_with_running_statistics_is_refused_unless_they_stay_at_home() -> None:
    layout = (Slot("norm.mean", (4,), 0, trainable=False), Slot("w", (SIZE,), 4))
    manifest = Manifest(TASK, layout, Spec((1,), "float32"), Spec((), "int64"), Spec((1,), "float32"), "mse", ("mse",))
    bundle = Bundle(manifest, b"infer", b"train", np.zeros(SIZE + 4, np.float32))
    for plan, state in (({}, "waiting"), ({"personal": "norm.*"}, "collecting"), ({"frozen": "norm.*"}, "collecting")):
        top = Top(Place("net", "top", "", 1, bytes(32)), TASK, replace(options(), plan=dict(plan)), FogMemory(), 0.0)
        top.handle(BundleGiven(bundle.to_bytes()), 0.0)
        assert top.state == state
        if state == "waiting":
            assert "'norm.mean' holds running statistics" in top.reason(0.0)


def test_a_top_without_a_secret_draws_no_noise() -> None:
    manifest = first_release(toy_bundle(SIZE), bytes(16), 1, options())
    noise = section_noise(CENTRAL, Place("net", "top", "", 1), TASK, manifest, Ranges(SIZE))
    assert noise is not None
    with pytest.raises(CodecError, match="secret"):
        noise(Sum(0, 1, 1, 1.0, b""))


def test_what_is_added_is_another_draw_for_every_base_and_release() -> None:
    manifest = first_release(toy_bundle(SIZE), bytes(16), 1, options())
    drawn = []
    for number in (4, 5):
        place = Place("net", "top", "", 1, bytes(32))
        noise = section_noise(CENTRAL, place, TASK, replace(manifest, number=number), Ranges(SIZE))
        assert noise is not None
        drawn += [noise(Sum(base, 1, 1, 1.0, b"")) for base in (3, 4)]
    apart = np.corrcoef(drawn) - np.eye(4)
    assert np.abs(apart).max() < 0.25
    assert np.std(drawn) == pytest.approx(2.0, rel=0.1)


def test_tasks_of_one_top_get_independent_noise() -> None:
    """They share its secret, and their runs begin with one number: the same noise twice would fall out of the difference."""
    place, moved = Place("net", "top", "", 1, bytes(range(32))), []
    for task in ("digits", "probe"):
        bundle = toy_bundle(SIZE)
        bundle = replace(bundle, manifest=replace(bundle.manifest, name=task))
        top_options = replace(options(), window=WindowOptions(1, 10.0, 1, 4, 0))
        top = Top(place, task, top_options, FogMemory(), 0.0)
        top.handle(BundleGiven(bundle.to_bytes()), 0.0)
        released = top._released
        assert released is not None
        update_id, step, nothing = UpdateId("device-0", 1, 0), released.manifest.step, np.zeros(SIZE, np.float32)
        contribution = Contribution(update_id, 0, 1, nothing)
        encoded = encode_bounded(Lattice(), contribution, CENTRAL.promise.bound, step, _none, Ranges(SIZE), None)
        update = Update(released.manifest.run, "lattice", SIZE, encoded.sections, {}, 0)
        topic = topics.parse(topics.build("net", "top", "update", node="device-0", task=task))
        top.handle(Arrived(topic, Frame(task, *update_id, update)), 1.0)
        assert top._released is not None
        assert top._released.manifest.number == 1
        moved.append(top._released.theta.astype(np.float64) - bundle.theta0)
    assert np.std(moved) > 1.5
    assert abs(float(np.dot(*moved))) < 0.25 * 2.0**2 * SIZE


def test_the_noise_of_two_bundles_differs_too() -> None:
    manifest, place = first_release(toy_bundle(SIZE), bytes(16), 1, options()), Place("net", "top", "", 1, bytes(32))
    drawn = []
    for label in (bytes(16), bytes(15) + b"\x01"):
        noise = section_noise(CENTRAL, place, TASK, replace(manifest, bundle=label), Ranges(SIZE))
        assert noise is not None
        drawn.append(noise(Sum(0, 1, 1, 1.0, b"")))
    assert abs(float(np.dot(*drawn))) < 0.25 * 2.0**2 * SIZE


def test_noise_is_added_before_anything_is_rounded() -> None:
    """Noise that takes the sum away leaves nothing of it, however old it is."""
    codec, values = Lattice(), np.random.default_rng(1).normal(size=SIZE).astype(np.float32)
    section = Sum(0, 1, 1, 1.0, codec.encode(values, 2.0**-8))
    said = codec.decode(section.payload, SIZE).astype(np.float64)
    assert said.any()
    merged = Encoded("lattice", SIZE, (section,), frozenset())
    assert not mean_update(codec, merged, 2, "sqrt", lambda section: -said).any()


def test_sums_that_are_a_bound_apart_are_no_further_apart_where_noise_is_added() -> None:
    """Of a sum of more than 2^24 steps float32 would keep multiples of a few, and two sums could be on different ones."""
    codec, step, many = Lattice(most=1 << 24), 2.0**-12, 40

    def summed(last: int) -> Vector:
        symbols = [*[(1 << 24) - 1] * many, last]
        payload = codec.merge([codec.encode(np.full(SIZE, symbol * step, np.float32), step) for symbol in symbols], SIZE)
        merged = Encoded("lattice", SIZE, (Sum(0, many + 1, many + 1, 1.0, payload),), frozenset())
        return mean_update(codec, merged, 0, "sqrt", lambda section: np.full(SIZE, -many * (1 << 24) * step)) * (many + 1)

    said = np.stack([summed(last) for last in range(64)])
    np.testing.assert_allclose(np.diff(said, axis=0), step, rtol=1e-3)


def _none(size: int, scale: float) -> Integers:
    return np.zeros(size, np.int64)


# -- settings

DEPLOYMENT = """name = "t"
[data]
source = "digits"
[privacy]
mode = "central"
[tiers.top]
role = "fog"
[tiers.device]
role = "device"
parent = "top"
count = 3
"""


def loaded(*overrides: str) -> Deployment:
    return load(Deployment, DEPLOYMENT, "t.toml", cwd=Path.cwd(), env={}, overrides=overrides).value


def test_a_file_says_what_is_promised() -> None:
    given = privacy_of(loaded("privacy.clip=0.3", "privacy.noise=4", "privacy.epsilon=8").privacy)
    assert given == Privacy(Promise("central", 0.3, 4.0), 1e-5, 8.0)
    assert privacy_of(Section()) is None


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("codec.use=topk", "codec.use"),
        ("codec.use=dense", "codec.use"),
        ("codec.use=lanes", "codec.use"),
        ('codec.parameters={ rounding = "nearest" }', "codec.parameters"),
        ('codec.parameters={ steps = "dyadic" }', "codec.parameters"),
        ("codec.budget_round=2kB", "codec.budget_round"),
        ('plan.rare=["a.*"]', "plan.rare"),
        ("uplink.max_upload=1s", "tiers.device.uplink.max_upload"),
        ("privacy.mode=", "privacy"),
        ("privacy.noise=0", "privacy.noise"),
        ("privacy.clip=0", "privacy.clip"),
        ("privacy.clip=1e-300", "privacy.clip"),
        ("privacy.noise=1e-200", "privacy.noise"),
        ("privacy.delta=1", "privacy.delta"),
    ],
)
def test_what_would_break_a_promise_is_refused_with_its_key(override: str, key: str) -> None:
    more = ["privacy.clip=2"] if override == "privacy.mode=" else []
    with pytest.raises(ConfigError) as caught:
        loaded(override, *more)
    assert caught.value.key == key


def test_only_the_top_promises() -> None:
    text = 'net = "t"\n[node]\nid = "fog-0"\nparent = "top"\n[privacy]\nmode = "local"\n'
    with pytest.raises(ConfigError, match="decided by the top"):
        load(FogFile, text, "fog.toml", cwd=Path.cwd(), env={})


def test_reports_are_in_the_round_reports() -> None:
    world = net(rounds=2)
    world.run(600.0)
    assert all(isinstance(report, RoundReport) for report in world.reports)
    assert [report.facts["privacy"] for report in world.reports][-1].endswith("after 2 releases, central")  # type: ignore[union-attr]
