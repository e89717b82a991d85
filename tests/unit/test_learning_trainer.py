"""Local training: what of the plan is carried out, what is reproducible, what is left alone; and evaluation as sums."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemw.app.wiring import open_oracle
from edgemw.core.bundle import Manifest, Slot, Spec, Vector, read_bundle
from edgemw.core.errors import ConfigError, DataError
from edgemw.core.plan import Plan, Tally, add_tallies
from edgemw.learning.dataset import Samples
from edgemw.learning.oracle import Array, Predict, Step
from edgemw.learning.trainer import EVALUATION_BATCH, Trained, batches, evaluate, train

DIGITS = Path(__file__).parents[2] / "examples" / "quickstart" / "digits.edge"
FEATURES = 3


@dataclass
class Linear:
    """Least squares, y = w x, with the mean of the last batch's inputs as running statistics behind w; notes what it is asked."""

    statistics: bool = False
    seen: list[Array] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)
    spoil_at: int = -1
    spoil: str = "grad"

    @property
    def manifest(self) -> Manifest:
        layout: tuple[Slot, ...] = (Slot("w", (FEATURES,), 0),)
        if self.statistics:
            layout = (Slot("mean", (2,), 0, trainable=False), Slot("w", (FEATURES,), 2), Slot("last", (), 5, trainable=False))
        return Manifest(
            name="line",
            layout=layout,
            input=Spec((FEATURES,), "float32"),
            target=Spec((), "float32"),
            output=Spec((), "float32"),
            loss="mse",
            metrics=("mse", "mae"),
        )

    def loss_and_grad(self, theta: Vector, x: Array, y: Array, seed: int) -> Step:
        self.seen.append(y.copy())
        self.seeds.append(seed)
        start = 2 if self.statistics else 0
        error = x @ theta[start : start + FEATURES] - y
        grad = np.zeros_like(theta)
        grad[start : start + FEATURES] = 2 * (error @ x) / len(x)
        loss = float(np.mean(error * error))
        if len(self.seen) - 1 == self.spoil_at:
            spoilt = {"grad": math.nan, "large": 1e30}  # whose square is none of float32
            grad[-1], loss = (spoilt[self.spoil], loss) if self.spoil in spoilt else (grad[-1], float("inf"))
        buffers = np.array([x[:, 0].mean(), x[:, 1].mean(), len(self.seen)], np.float32) if self.statistics else None
        return Step(loss, grad, buffers)

    def predictor(self, theta: Vector) -> Predict:
        weights = theta.copy()
        return lambda x: np.asarray(x @ weights, np.float32)


def line(count: int = 50, seed: int = 0) -> Samples:
    """Targets are all different, so that a batch tells which samples are in it."""
    x = np.random.default_rng(seed).normal(0, 1, (count, FEATURES)).astype(np.float32)
    return Samples(x, (x @ np.array([1, -2, 0.5], np.float32)).astype(np.float32))


def never() -> bool:
    return False


def run(plan: Plan, *, oracle: Linear | None = None, seed: int = 1, samples: Samples | None = None) -> Trained:
    oracle = oracle or Linear()
    theta = np.zeros(oracle.manifest.size, np.float32)
    return train(oracle, theta, samples or line(), plan, seed, never)


# -- batches


@given(count=st.integers(1, 100), size=st.integers(1, 40), epochs=st.integers(1, 4), seed=st.integers(0, 9))
def test_every_sample_comes_once_in_each_epoch(count: int, size: int, epochs: int, seed: int) -> None:
    made = list(batches(count, Plan(epochs=epochs, batch_size=size), np.random.default_rng(seed)))
    per_epoch = -(-count // size)
    assert len(made) == epochs * per_epoch
    for epoch in range(epochs):
        rows = np.concatenate(made[epoch * per_epoch : (epoch + 1) * per_epoch])
        assert sorted(rows) == list(range(count))


@given(count=st.integers(1, 60), size=st.integers(1, 70), steps=st.integers(1, 50))
def test_steps_replace_epochs(count: int, size: int, steps: int) -> None:
    plan = Plan(epochs=7, steps=steps, batch_size=size)
    made = list(batches(count, plan, np.random.default_rng(0)))
    assert len(made) == steps
    assert all(0 < len(rows) <= size for rows in made)


def test_epochs_are_shuffled_differently() -> None:
    first, second = batches(30, Plan(epochs=2, batch_size=30), np.random.default_rng(0))
    assert first.tolist() != second.tolist()


def test_a_plan_from_the_network_of_a_billion_steps_costs_nothing_ahead() -> None:
    steps = batches(10, Plan(steps=10**9, batch_size=4), np.random.default_rng(0))
    assert len(next(steps)) == 4


# -- training


def test_training_learns_and_reports() -> None:
    trained = run(Plan(lr=0.1, epochs=20, batch_size=10))
    np.testing.assert_allclose(trained.delta, [1, -2, 0.5], atol=0.02)
    assert (trained.weight, trained.steps) == (50, 100)
    assert trained.delta.dtype == np.float32
    assert 0 < trained.loss < 6


def test_the_loss_is_the_mean_over_the_steps() -> None:
    oracle = Linear()
    trained = run(Plan(lr=0.0, epochs=1, batch_size=25), oracle=oracle)
    expected = np.mean([np.mean(y.astype(np.float64) ** 2) for y in oracle.seen])  # theta stays zero
    assert trained.loss == pytest.approx(expected, rel=1e-6)


def test_the_seed_decides_every_byte() -> None:
    plan = Plan(lr=0.1, momentum=0.5, epochs=3, batch_size=7)
    first, again, other = Linear(), Linear(), Linear()
    one, two, three = run(plan, oracle=first), run(plan, oracle=again), run(plan, oracle=other, seed=2)
    assert one.delta.tobytes() == two.delta.tobytes()
    assert first.seeds == again.seeds
    assert one.delta.tobytes() != three.delta.tobytes()
    assert len(set(first.seeds)) > len(first.seeds) // 2  # dropout masks differ from step to step


def test_the_theta_given_stays_as_it_is() -> None:
    oracle = Linear(statistics=True)
    theta = np.arange(6, dtype=np.float32)
    theta.flags.writeable = False
    samples = line()
    samples.x.flags.writeable = samples.y.flags.writeable = False
    trained = train(oracle, theta, samples, Plan(lr=0.1, momentum=0.9, weight_decay=0.1, prox_mu=0.1, clip=1), 0, never)
    np.testing.assert_array_equal(theta, np.arange(6))
    assert np.abs(trained.delta).min() > 0


def test_stopped_is_asked_before_every_step_and_keeps_what_was_done() -> None:
    full, cut = Linear(), Linear()
    answers = iter([False, False, False, True])
    plan = Plan(lr=0.1, epochs=5, batch_size=10)
    theta = np.zeros(FEATURES, np.float32)
    trained = train(cut, theta, line(), plan, 1, lambda: next(answers))
    assert (trained.steps, len(cut.seen)) == (3, 3)
    expected = train(full, theta, line(), replace(plan, steps=3), 1, never)
    assert trained.delta.tobytes() == expected.delta.tobytes()


def test_stopped_before_the_first_step_changes_nothing() -> None:
    trained = train(Linear(), np.ones(FEATURES, np.float32), line(), Plan(), 0, lambda: True)
    assert (trained.steps, trained.loss) == (0, 0.0)
    np.testing.assert_array_equal(trained.delta, 0)


def test_clip_limits_the_norm_of_every_step() -> None:
    plan = Plan(lr=1.0, steps=1, batch_size=50)
    free, clipped = run(plan), run(replace(plan, clip=0.5))
    assert np.linalg.norm(free.delta) > 0.5
    assert np.linalg.norm(clipped.delta) == pytest.approx(0.5, rel=1e-6)
    np.testing.assert_allclose(clipped.delta / 0.5, free.delta / np.linalg.norm(free.delta), rtol=1e-5)


def test_a_gradient_under_the_clip_is_left_alone() -> None:
    plan = Plan(lr=0.1, epochs=2)
    assert run(plan).delta.tobytes() == run(replace(plan, clip=1e6)).delta.tobytes()


@pytest.mark.parametrize("spoil", ["grad", "large", "loss"])
def test_a_loss_or_gradient_that_is_not_finite_is_an_error_with_its_step(spoil: str) -> None:
    with pytest.raises(DataError, match="not finite after 2 steps"):
        run(Plan(batch_size=10), oracle=Linear(spoil_at=2, spoil=spoil))


def test_no_samples_are_an_error_whatever_the_plan() -> None:
    nothing = Samples(np.empty((0, FEATURES), np.float32), np.empty(0, np.float32))
    for plan in (Plan(), Plan(steps=5)):
        with pytest.raises(DataError, match="no samples to train on"):
            train(Linear(), np.zeros(FEATURES, np.float32), nothing, plan, 0, never)


def test_running_statistics_are_written_and_travel_in_the_delta() -> None:
    oracle, samples = Linear(statistics=True), line()
    theta = np.full(6, 10, np.float32)
    plan = Plan(lr=0.1, weight_decay=0.1, prox_mu=5.0, steps=4, batch_size=50)
    trained = train(oracle, theta, samples, plan, 0, never)
    after = theta + trained.delta
    np.testing.assert_allclose(after[:2], samples.x[:, :2].mean(axis=0), atol=1e-5)
    assert after[5] == 4


class Split(Linear):
    """The same with its weights in two tensors."""

    @property
    def manifest(self) -> Manifest:
        mean, w, last = super().manifest.layout
        parts = Slot("w.first", (1,), w.offset), Slot("w.rest", (FEATURES - 1,), w.offset + 1)
        return replace(super().manifest, layout=(mean, *parts, last))


@pytest.mark.parametrize("frozen", ["w.first", "mean", "w.rest last"])
def test_frozen_tensors_keep_their_values_whatever_moves_them(frozen: str) -> None:
    oracle, theta = Split(statistics=True), np.arange(1, 7, dtype=np.float32)
    plan = Plan("adam", lr=0.1, weight_decay=0.1, prox_mu=1.0, epochs=3, batch_size=10, frozen=frozen)
    trained = train(oracle, theta, line(), plan, 0, never)
    for slot in oracle.manifest.layout:
        delta = trained.delta[slot.offset : slot.offset + slot.size]
        assert delta.any() != (slot.name in frozen.split())


def test_frozen_tensors_do_not_count_in_the_norm_that_is_clipped() -> None:
    plan = Plan(lr=1.0, steps=1, batch_size=50, clip=1e-3, frozen="w.first")
    trained = train(Split(statistics=True), np.ones(6, np.float32), line(), plan, 0, never)
    assert np.linalg.norm(trained.delta[3:5]) == pytest.approx(1e-3, rel=1e-3)


def test_a_pattern_that_matches_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="'v' matches no tensor"):
        run(Plan(frozen="v"))


def test_the_proximal_pull_keeps_theta_near_the_release() -> None:
    plan = Plan(lr=0.1, epochs=10)
    free, held = run(plan), run(replace(plan, prox_mu=50.0))
    assert 0 < np.linalg.norm(held.delta) < 0.2 * np.linalg.norm(free.delta)


def test_the_proximal_pull_is_towards_the_theta_given_step_by_step() -> None:
    oracle, samples = Linear(), line()
    theta = np.array([1, 2, 3], np.float32)
    trained = train(oracle, theta, samples, Plan(lr=0.1, prox_mu=2.0, steps=3, batch_size=50), 0, never)
    expected = theta.astype(np.float64)
    for _ in range(3):
        error = samples.x @ expected - samples.y
        expected = expected - 0.1 * 2 * (error @ samples.x) / 50
        expected = (expected + 0.2 * theta) / 1.2
    np.testing.assert_allclose(theta + trained.delta, expected, atol=1e-5)


# -- evaluation


@given(count=st.integers(1, 60), size=st.integers(1, 70))
def test_sums_do_not_depend_on_the_batches(count: int, size: int) -> None:
    oracle, samples = Linear(), line(count)
    predict = oracle.predictor(np.array([1, 1, 1], np.float32))
    whole = evaluate(predict, oracle.manifest, samples)
    parts: list[Tally] = []
    for start in range(0, count, size):
        rows = np.arange(start, min(start + size, count))
        parts.append(evaluate(predict, oracle.manifest, samples.take(rows)))
    summed = add_tallies(parts)
    error = samples.x.astype(np.float64) @ np.ones(3) - samples.y
    assert whole["mse"] == pytest.approx((float(error @ error), count), rel=1e-5)
    assert whole["mae"] == pytest.approx((float(np.abs(error).sum()), count), rel=1e-5)
    assert summed["mse"] == pytest.approx(whole["mse"], rel=1e-5)


def test_more_samples_than_a_batch_are_all_measured() -> None:
    oracle, samples = Linear(), line(2 * EVALUATION_BATCH + 1)
    sizes: list[int] = []

    def predict(x: Array) -> Vector:
        sizes.append(len(x))
        return np.zeros(len(x), np.float32)

    tally = evaluate(predict, oracle.manifest, samples)
    assert sizes == [EVALUATION_BATCH, EVALUATION_BATCH, 1]
    assert tally["mse"] == pytest.approx((float(samples.y.astype(np.float64) @ samples.y), float(len(samples))))


def test_without_samples_there_are_no_sums() -> None:
    nothing = Samples(np.empty((0, FEATURES), np.float32), np.empty(0, np.float32))
    assert evaluate(Linear().predictor(np.zeros(3, np.float32)), Linear().manifest, nothing) == {}


# -- the real thing


def test_the_quickstart_bundle_trains_and_measures() -> None:
    bundle = read_bundle(DIGITS.read_bytes())
    oracle = open_oracle(bundle, 1)
    rng = np.random.default_rng(0)
    y = rng.integers(0, 10, 600)
    x = np.zeros((600, *bundle.manifest.input.shape), np.float32)
    x.reshape(600, -1)[np.arange(600), y * 3] = 1  # a class is one pixel
    samples = Samples(x, y)
    plan = Plan(lr=0.5, epochs=6, batch_size=32)
    before = evaluate(oracle.predictor(bundle.theta0), bundle.manifest, samples)["accuracy"]
    trained = train(oracle, bundle.theta0, samples, plan, 0, never)
    again = train(oracle, bundle.theta0, samples, plan, 0, never)
    after = evaluate(oracle.predictor(bundle.theta0 + trained.delta), bundle.manifest, samples)["accuracy"]
    assert trained.delta.tobytes() == again.delta.tobytes()
    assert before[0] < 300
    assert after == (600.0, 600.0)
    assert trained.steps == 6 * 19
