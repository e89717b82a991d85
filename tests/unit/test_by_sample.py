"""Privacy of single samples: what one adds to an update is bounded in integers, and a net that learns a sketch so is right."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgemw.app.private import privacy_of
from edgemw.app.settings import Deployment, DeviceFile, load_file
from edgemw.app.wiring import open_oracle
from edgemw.cli.oddities import drowned, unused, unused_unit
from edgemw.compile.export import compile_task
from edgemw.compile.sketch import ClassMeans, own_class
from edgemw.compile.task import Task
from edgemw.compression.bounded import Bound, bounded_step, encode_summed
from edgemw.compression.lattice import LARGEST_MOST, Lattice
from edgemw.compression.residual import Contribution
from edgemw.core.accountant import epsilon_of
from edgemw.core.bundle import Bundle, Vector, read_bundle
from edgemw.core.errors import CodecError, ConfigError, DataError
from edgemw.core.ids import UpdateId
from edgemw.core.noise import Integers, unit_of
from edgemw.core.plan import Plan
from edgemw.core.ranges import Ranges
from edgemw.device.events import Work, Worked
from edgemw.fog.privacy import CENTRAL, LOCAL, SAMPLE, Privacy, Promise, Spent, begun, check_bounded, check_promise, spent_of
from edgemw.fog.release import TopOptions, first_release
from edgemw.fog.server import ServerOptions
from edgemw.fog.window import WindowOptions
from edgemw.learning.dataset import Samples
from edgemw.learning.oracle import Array, Oracle, Step
from edgemw.learning.trainer import Trained, train
from edgemw.simulation.rounds import Run, run_rounds
from edgemw.simulation.tree import Tree

CLASSES, FEATURES, CLIP = 3, 5, 2.0
BOUND = math.sqrt(2) * CLIP
UNIT = unit_of(BOUND)
DEVICES = [f"device-{n}" for n in range(4)]


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    target, training = ((), "int64"), {"lr": 1.0}
    made = Task("means", lambda: ClassMeans(FEATURES, CLASSES, CLIP), own_class, (FEATURES,), target, ("accuracy",), training)
    return compile_task(replace(made, classes=CLASSES))


@pytest.fixture(scope="module")
def oracle(bundle: Bundle) -> Oracle:
    return open_oracle(bundle, 1)


def drawn(seed: int, rows: int, scale: float = 1.0) -> Samples:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, rows)
    x = (scale * (rng.standard_normal((rows, FEATURES)) * 0.3 + np.eye(CLASSES, FEATURES)[labels])).astype(np.float32)
    return Samples(x, labels)


def summed(oracle: Oracle, samples: Samples, plan: Plan, theta: float = 0.0) -> Integers:
    start = np.full(oracle.manifest.size, theta, np.float32)
    made = train(oracle, start, samples, plan, 1, lambda: False)
    assert made.sums is not None
    assert made.sums.tobytes() == train(oracle, start, samples, plan, 1, lambda: False).sums.tobytes()  # type: ignore[union-attr]
    return made.sums


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**31),
    st.integers(0, 5),
    st.floats(1e-6, 1e6),
    st.floats(1e-3, 1e3),
    st.floats(1e-3, 1e3),
    st.sampled_from([0.0, 3.0]),
)
def test_a_sample_changes_an_update_by_at_most_its_bound(
    oracle: Oracle, seed: int, row: int, scale: float, clip: float, lr: float, theta: float
) -> None:
    """In integers: whatever the others are, and whatever the loss, the change has a norm of at most the clip."""
    samples, plan = drawn(seed, 6, scale), Plan(lr=lr, update_clip=clip, by_sample=1)
    without = samples.take(np.array([each for each in range(6) if each != row]))
    change = summed(oracle, samples, plan, theta) - summed(oracle, without, plan, theta)
    assert sum(int(value) ** 2 for value in change) * unit_of(clip) ** 2 <= clip**2


@pytest.fixture(scope="module")
def dropping() -> Oracle:
    def module() -> nn.Module:
        return nn.Sequential(nn.Linear(FEATURES, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, CLASSES))

    made = Task("drop", module, nn.functional.cross_entropy, (FEATURES,), ((), "int64"), ("accuracy",), {"lr": 1.0})
    return open_oracle(compile_task(replace(made, classes=CLASSES)), 1)


@pytest.mark.parametrize("row", [0, 7, 19])
def test_a_sample_decides_on_the_dropout_mask_of_no_other(dropping: Oracle, row: int) -> None:
    samples, plan = drawn(5, 20), Plan(lr=1.0, update_clip=0.3, by_sample=1)
    without = samples.take(np.delete(np.arange(20), row))
    whole, alone = summed(dropping, samples, plan, 0.3), summed(dropping, samples.take(np.array([row])), plan, 0.3)
    assert np.array_equal(whole - alone, summed(dropping, without, plan, 0.3))
    other = train(dropping, np.full(dropping.manifest.size, 0.3, np.float32), samples, plan, 2, lambda: False)
    assert other.sums is not None
    assert not np.array_equal(whole, other.sums)  # masks are of a release, too


def test_a_sample_whose_gradient_is_not_finite_adds_nothing_and_takes_nothing_away(oracle: Oracle) -> None:
    class Overflowing:
        """The oracle, but for samples that begin with 9, as of a task that overflows."""

        manifest = oracle.manifest
        predictor = oracle.predictor

        def loss_and_grad(self, theta: Vector, x: Array, y: Array, seed: int) -> Step:
            step = oracle.loss_and_grad(theta, x, y, seed)
            return replace(step, grad=np.full_like(step.grad, np.inf)) if x[0, 0] == 9 else step

    samples, plan = drawn(4, 6), Plan(lr=1.0, update_clip=BOUND, by_sample=1)
    samples.x[2, 0] = 9
    without = samples.take(np.array([0, 1, 3, 4, 5]))
    assert np.array_equal(summed(Overflowing(), samples, plan), summed(oracle, without, plan))
    assert not summed(Overflowing(), samples.take(np.array([2])), plan).any()


def test_training_that_is_stopped_says_nothing_of_the_samples_it_has_seen(oracle: Oracle) -> None:
    asked = iter([False, False, True])
    start, plan = np.zeros(oracle.manifest.size, np.float32), Plan(lr=1.0, update_clip=BOUND, by_sample=1)
    with pytest.raises(DataError, match="stopped"):
        train(oracle, start, drawn(4, 6), plan, 1, lambda: next(asked))


@given(st.floats(1e-30, 1e30))
def test_the_unit_is_a_power_of_two_of_which_a_bound_has_thousands(clip: float) -> None:
    mantissa, _ = math.frexp(unit_of(clip))
    assert mantissa == 0.5
    assert 2**12 <= clip / unit_of(clip) < 2**13


@pytest.mark.parametrize("clip", [5e-324, 1e-290, 1e-40, 1e40, math.inf])
def test_a_bound_for_which_float64_holds_nothing_is_refused_by_a_device(oracle: Oracle, clip: float) -> None:
    """At 1e-290 norms of 1e-200, of a learning rate, would be 0, and nothing would be cut."""
    start, plan = np.zeros(oracle.manifest.size, np.float32), Plan(lr=1e-200, update_clip=clip, update_noise=1.0, by_sample=1)
    with pytest.raises(CodecError, match="not between"):
        train(oracle, start, drawn(4, 6), plan, 1, lambda: False)


def test_an_update_of_class_means_is_the_sketch_wherever_it_began(oracle: Oracle) -> None:
    samples, plan = drawn(3, 40), Plan(lr=1.0, update_clip=BOUND, by_sample=1)
    x = samples.x * np.minimum(1.0, CLIP / np.linalg.norm(samples.x, axis=1, keepdims=True))
    expected = np.zeros((CLASSES, FEATURES + 1))
    np.add.at(expected, samples.y, np.concatenate([x, np.full((40, 1), CLIP)], 1))
    for theta in (0.0, 5.0):
        found = summed(oracle, samples, plan, theta).reshape(expected.shape) * UNIT
        np.testing.assert_allclose(found, expected, atol=40 * UNIT)


def test_a_class_that_nobody_has_is_never_predicted_and_noise_makes_no_score_that_is_not_finite() -> None:
    """With a mean at 0 it would be nearest to whatever is far from all others."""
    model, x = ClassMeans(FEATURES, CLASSES, CLIP).eval(), torch.tensor(drawn(6, 200).x) * 0.1
    with torch.no_grad():
        model.sums[:2, :-1], model.sums[:2, -1] = torch.eye(2, FEATURES) * 10 * CLIP, 10 * CLIP
        assert 2 not in model(x).argmax(1)
        for sums in (torch.zeros(CLASSES, FEATURES + 1), torch.randn(CLASSES, FEATURES + 1) * 100 - 50):
            model.sums[:] = sums
            assert torch.isfinite(model(x)).all()


def test_means_are_of_the_features_that_are_predicted_from() -> None:
    """Not of those that dropout left, or that one sample would be after it is normalised by itself."""

    def module() -> nn.Module:
        torch.manual_seed(1)
        return ClassMeans(8, CLASSES, CLIP, nn.Sequential(nn.Linear(FEATURES, 8), nn.BatchNorm1d(8), nn.Dropout(0.5)))

    made = Task("e", module, own_class, (FEATURES,), ((), "int64"), ("accuracy",), {"lr": 1.0, "frozen": "embed.*"})
    bundle = compile_task(replace(made, classes=CLASSES))
    samples, plan = drawn(3, 40), Plan(lr=1.0, update_clip=BOUND, by_sample=1, frozen="embed.*")
    found = train(open_oracle(bundle, 1), bundle.theta0.copy(), samples, plan, 1, lambda: False).sums
    assert found is not None
    model = module().eval()
    with torch.no_grad():
        phi = model.embed(torch.tensor(samples.x))  # type: ignore[operator]
        phi = (phi * (CLIP / phi.norm(dim=1, keepdim=True)).clamp_max(1.0)).numpy()
    expected = np.stack([phi[samples.y == c].sum(0) for c in range(CLASSES)])
    (slot,) = (slot for slot in bundle.manifest.layout if slot.name == "sums")
    sums = found[slot.offset : slot.offset + slot.size].reshape(CLASSES, -1)[:, :-1] * UNIT
    np.testing.assert_allclose(sums, expected, atol=40 * UNIT)


@pytest.mark.parametrize("noise", [0.0, 0.8, 5.0])
def test_what_is_sent_is_the_sum_with_noise_on_the_announced_step(noise: float) -> None:
    bound, size = Bound(BOUND, noise, by_sample=True), 4000
    step, drawn_with = bounded_step(bound, 0.5, size), list[float]()

    def draw(count: int, scale: float) -> Integers:
        drawn_with.append(scale)
        return np.random.default_rng(1).normal(0, scale, count).round().astype(np.int64)

    sums = np.random.default_rng(2).integers(-50_000, 50_000, size)
    contribution = Contribution(UpdateId("d", 1, 1), 0, 7, (sums * UNIT).astype(np.float32))
    codec = Lattice(most=LARGEST_MOST)
    encoded = encode_summed(codec, contribution, sums, bound, step, draw, Ranges(size), None)
    (section,) = encoded.sections
    assert (section.weight, section.count, section.energy) == (1, 1, bound.clip**2)
    said = codec.decode(section.payload, size).astype(np.float64)
    if not noise:
        assert step == UNIT
        assert np.array_equal(said, sums * UNIT)
        return
    assert drawn_with == [noise * BOUND / UNIT]
    assert np.std(said - sums * UNIT) == pytest.approx(noise * BOUND, rel=0.1)


def test_a_sum_needs_its_step_and_integers_of_its_own() -> None:
    contribution = Contribution(UpdateId("d", 1, 1), 0, 1, np.zeros(4, np.float32))
    nothing, bound = np.zeros(4, np.int64), Bound(BOUND, by_sample=True)
    for codec, step in ((Lattice(), UNIT / 2), (Lattice(), 2.0**60), (Lattice(), 0.3), (Lattice(rounding="nearest"), UNIT)):
        with pytest.raises(CodecError, match="a sum over samples needs"):
            encode_summed(codec, contribution, nothing, bound, step, lambda size, scale: nothing, Ranges(4), None)


# -- nets


def run(bundle: Bundle, oracle: Oracle, mode: str, noise: float, seed: int = 0) -> Run:
    shares = {device: drawn(n, 10 + 20 * n) for n, device in enumerate(DEVICES)}
    privacy = Privacy(Promise(mode, BOUND, noise, SAMPLE), 1e-5)
    window, server = WindowOptions(0, 10.0, 1, 4, 0), ServerOptions()
    options = TopOptions(window, server, {}, rounds=1, release_codec="dense", privacy=privacy)

    def do(node: str, work: Work) -> Worked:
        trained: Trained | None = None
        if work.train:
            assert work.release.plan is not None
            trained = train(oracle, work.theta, shares[node], work.release.plan, 1, lambda: False)
        loss = {"train_loss": (1.0, 1.0)} if work.train else {}
        return Worked(work.release.number, trained, loss)

    tree = Tree({"fog-0": "top"} | {device: "fog-0" if n % 2 else "top" for n, device in enumerate(DEVICES)})
    return run_rounds(tree, bundle.to_bytes(), options, do, seed=seed)


def means(theta: np.ndarray) -> np.ndarray:
    sums = theta.reshape(CLASSES, FEATURES + 1).astype(np.float64)
    quotient: np.ndarray = CLIP * sums[:, :-1] / sums[:, -1:]
    return quotient


@pytest.mark.parametrize("mode", [CENTRAL, LOCAL])
def test_a_net_learns_the_means_of_all_samples_whatever_a_device_has_of_them(bundle: Bundle, oracle: Oracle, mode: str) -> None:
    done = run(bundle, oracle, mode, 1e-5)
    assert done.accounts.conserved
    assert done.accounts.weight_counted == len(DEVICES)  # and nobody says how many samples it has
    everybody = [drawn(n, 10 + 20 * n) for n in range(len(DEVICES))]
    x, y = np.concatenate([each.x for each in everybody]), np.concatenate([each.y for each in everybody])
    x = x * np.minimum(1.0, CLIP / np.linalg.norm(x, axis=1, keepdims=True))
    expected = np.stack([x[y == c].mean(0) for c in range(CLASSES)])
    np.testing.assert_allclose(means(done.theta), expected, atol=2e-3)


@pytest.mark.parametrize(("mode", "adders"), [(CENTRAL, 1), (LOCAL, len(DEVICES))])
def test_the_noise_of_a_release_is_that_of_the_promise_and_so_is_epsilon(
    bundle: Bundle, oracle: Oracle, mode: str, adders: int
) -> None:
    noise, calm = 3.0, run(bundle, oracle, mode, 1e-6).theta
    noisy = [run(bundle, oracle, mode, noise, seed) for seed in range(20)]
    said = np.stack([each.theta - calm for each in noisy]) * len(DEVICES)  # releases are means over devices
    assert np.std(said) == pytest.approx(noise * BOUND * math.sqrt(adders), rel=0.15)
    assert noisy[0].rounds[-1].metrics["epsilon"] == pytest.approx(epsilon_of([(noise, 1)], 1e-5), abs=1e-6)
    assert str(noisy[0].rounds[-1].metrics["privacy"]).endswith(f"{mode}, of single samples")


def test_what_is_promised_to_samples_is_on_the_disk_and_older_promises_are_of_devices() -> None:
    old = '{"promise": {"mode": "local", "clip": 1.0, "noise": 2.0}, "earlier": []}'
    spent = spent_of(old)
    assert spent is not None
    assert spent.promise.mechanisms(3, train=False) == (1.0, 3)
    assert replace(spent.promise, unit=SAMPLE).mechanisms(3, train=True) == (2.0, 4)


@pytest.mark.parametrize(
    ("first", "then", "counted"),
    [
        (Promise(CENTRAL, 1.0, 2.0, SAMPLE), Promise(LOCAL, 1.0, 3.0, SAMPLE), 2.0),
        (Promise(LOCAL, 1.0, 2.0, SAMPLE), Promise(CENTRAL, 1.0, 3.0, SAMPLE), 2.0),
        (Promise(CENTRAL, 1.0, 2.0), Promise(CENTRAL, 1.0, 3.0, SAMPLE), 1.0),  # from one update to zeros and to the other
        (Promise(CENTRAL, 1.0, 2.0), Promise(LOCAL, 1.0, 3.0), 1.0),
        (Promise(LOCAL, 1.0, 2.0), Promise(CENTRAL, 1.0, 3.0, SAMPLE), 1.0),
        (Promise(LOCAL, 1.0, 2.0), Promise(CENTRAL, 1.0, 3.0), 1.0),
        (Promise(CENTRAL, 1.0, 2.0), Promise(CENTRAL, 1.0, 3.0), 2.0),
        (Promise(CENTRAL, 1.0, 2.0, SAMPLE), Promise(CENTRAL, 1.0, 3.0), 0.0),  # a device may have any number of samples
        (Promise(LOCAL, 1.0, 2.0, SAMPLE), Promise(LOCAL, 1.0, 3.0), 0.0),
    ],
)
def test_what_an_earlier_run_has_cost_is_counted_for_whom_the_next_one_protects(
    bundle: Bundle, first: Promise, then: Promise, counted: float
) -> None:
    window = WindowOptions(0, 10.0, 1, 4, 0)
    options = TopOptions(window, ServerOptions(), {}, privacy=Privacy(then, 1e-5))
    last = replace(first_release(bundle, bytes(16), 1, options), number=4, train=False)
    spent = begun(Privacy(then, 1e-5), Spent(first), last)
    assert spent == Spent(then, ((counted, 4),))
    own = then.mechanisms(1, train=False)
    assert spent.epsilon(replace(last, number=1), 1e-5) == epsilon_of([(counted, 4), own], 1e-5)
    said = check_promise(Privacy(then, 1e-5), Spent(first), ended=True)
    assert ("epsilon is infinite" in said) == (counted == 0.0)
    if counted == 0.0:  # nor is it forgotten in a third one
        third = begun(Privacy(first, 1e-5), spent, last)
        assert third is not None
        assert third.earlier[0] == (0.0, 4)


def test_personal_tensors_are_no_part_of_a_sum(bundle: Bundle) -> None:
    privacy = Privacy(Promise(CENTRAL, 1.0, 1.0, SAMPLE), 1e-5)
    (slot,) = bundle.manifest.layout
    with pytest.raises(ConfigError, match="personal"):
        check_bounded(privacy, Ranges(slot.size, personal=(slot,)))


def test_the_example_compiles_and_its_file_is_right() -> None:
    from edgemw.compile.load import load_task

    example = Path(__file__).parents[2] / "examples" / "means"
    made = compile_task(load_task(str(example / "task.py")))
    assert made.manifest.size == 650
    assert read_bundle((example / "means.edge").read_bytes()).manifest.layout == made.manifest.layout
    settings = load_file(Deployment, example / "edgemw.toml", env={}).value
    privacy = privacy_of(settings.privacy)
    assert privacy is not None
    assert privacy.promise.unit == SAMPLE
    assert epsilon_of([privacy.promise.mechanisms(1, train=False)], privacy.delta) < privacy.budget < 2.1


@pytest.mark.parametrize(
    ("override", "key"),
    [("plan.personal=['a']", "plan.personal"), ("codec.parameters={most=128}", "codec.parameters"), ("privacy.mode=", "privacy")],
)
def test_what_does_not_go_with_it_is_refused_with_its_key(override: str, key: str) -> None:
    example = Path(__file__).parents[2] / "examples" / "means" / "edgemw.toml"
    with pytest.raises(ConfigError) as refused:
        load_file(Deployment, example, env={}, overrides=[override])
    assert refused.value.key == key


def test_noise_in_which_nothing_can_be_heard_is_warned_of() -> None:
    quickstart = Path(__file__).parents[2] / "examples" / "quickstart" / "edgemw.toml"
    manifest = read_bundle((quickstart.parent / "digits.edge").read_bytes()).manifest

    def said(*overrides: str) -> list[str]:
        return list(drowned(load_file(Deployment, quickstart, env={}, overrides=overrides).value, manifest))

    (warning,) = said("privacy.mode=central", "privacy.noise=8")
    assert "225 times as long as the most that 8 devices can agree on" in warning
    assert said("privacy.mode=central", "privacy.noise=1") == []  # 28 times
    (warning,) = said("privacy.mode=local", "privacy.noise=1")
    assert " 80 times " in warning
    assert said("privacy.mode=local", "privacy.noise=1", "privacy.unit=sample") == []
    assert said() == []


def test_what_a_plan_says_of_steps_is_said_not_to_be_used() -> None:
    example = Path(__file__).parents[2] / "examples" / "means" / "edgemw.toml"
    given = load_file(Deployment, example, env={}, overrides=["plan.epochs=3", "plan.lr=0.5", "plan.momentum=0.9"]).value
    said = [text for text in unused(given) if "privacy.unit" in text]
    assert [text.split(":")[0] for text in said] == ["plan.momentum", "plan.epochs"]
    for mode, used in ((CENTRAL, False), (LOCAL, True)):
        given = load_file(Deployment, example, env={}, overrides=["privacy.kappa=0.25", f"privacy.mode={mode}"]).value
        assert any(text.startswith("privacy.kappa") for text in unused(given)) != used


def test_a_device_that_insists_on_nothing_is_told_so() -> None:
    device = Path(__file__).parents[2] / "examples" / "quickstart" / "device.toml"
    for overrides, said in (
        (["privacy.unit=sample"], True),
        (["privacy.unit=sample", "privacy.least_noise=1"], False),
        ([], False),
    ):
        given = load_file(DeviceFile, device, env={}, overrides=overrides).value
        assert bool(list(unused_unit(given))) == said
