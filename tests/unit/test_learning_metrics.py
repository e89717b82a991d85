"""Metrics: the values that scikit-learn gives, as sums that add up."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, log_loss, mean_absolute_error, mean_squared_error

from edgemw.core.errors import BundleError
from edgemw.core.plan import LOWER_IS_BETTER
from edgemw.learning.metrics import METRICS, accuracy, cross_entropy, mae, metric_named, mse

CLASSES = 5


def value(pair: tuple[float, float]) -> float:
    return pair[0] / pair[1]


def softmax(logits: npt.NDArray[np.float32], axis: int = 1) -> npt.NDArray[np.float64]:
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=axis, keepdims=True))
    return np.asarray(powers / powers.sum(axis=axis, keepdims=True))


@given(count=st.integers(1, 60), seed=st.integers(0, 1000))
def test_classification_agrees_with_scikit_learn(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits, y = rng.normal(0, 3, (count, CLASSES)).astype(np.float32), rng.integers(0, CLASSES, count)
    assert accuracy(logits, y) == (accuracy_score(y, logits.argmax(axis=1), normalize=False), count)
    expected = log_loss(y, softmax(logits), labels=list(range(CLASSES)))
    assert value(cross_entropy(logits, y)) == pytest.approx(expected, rel=1e-6)


@given(count=st.integers(1, 20), steps=st.integers(2, 12), seed=st.integers(0, 1000))
def test_classes_at_every_step_of_a_sequence(count: int, steps: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits, y = rng.normal(0, 3, (count, CLASSES, steps)).astype(np.float32), rng.integers(0, CLASSES, (count, steps))
    flat, labels = np.moveaxis(logits, 1, 2).reshape(-1, CLASSES), y.reshape(-1)
    assert accuracy(logits, y) == accuracy(flat, labels)
    assert cross_entropy(logits, y) == pytest.approx(cross_entropy(flat, labels))
    assert accuracy(logits, y)[1] == count * steps


@pytest.mark.parametrize("shape", [(40,), (40, 1), (40, 3)])
def test_a_logit_for_each_yes_or_no_is_judged_by_its_sign(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    logits, y = rng.normal(0, 1, shape).astype(np.float32), rng.integers(0, 2, shape).astype(np.float32)
    assert accuracy(logits, y) == (accuracy_score(y.reshape(-1), logits.reshape(-1) > 0, normalize=False), y.size)
    assert accuracy(logits, y.reshape(len(y), -1)) == accuracy(logits, y)


@given(
    shape=st.lists(st.integers(1, 6), min_size=1, max_size=3).map(tuple),
    scale=st.sampled_from([1e-3, 1.0, 1e15]),
    seed=st.integers(0, 99),
)
def test_errors_agree_with_scikit_learn(shape: tuple[int, ...], scale: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    outputs, y = rng.normal(0, scale, (2, *shape)).astype(np.float32)
    flat, target = outputs.reshape(-1).astype(np.float64), y.reshape(-1).astype(np.float64)
    assert value(mse(outputs, y)) == pytest.approx(mean_squared_error(target, flat))
    assert value(mae(outputs, y)) == pytest.approx(mean_absolute_error(target, flat))


def test_one_output_for_a_scalar_target_is_compared_value_by_value() -> None:
    outputs, y = np.array([[1.0], [2.0], [4.0]], np.float32), np.array([1, 1, 1], np.float32)
    assert mse(outputs, y) == (10.0, 3.0)
    assert mae(outputs, y) == (4.0, 3.0)


@pytest.mark.parametrize("name", sorted(METRICS))
def test_sums_of_parts_are_the_sum_of_the_whole(name: str) -> None:
    rng = np.random.default_rng(0)
    classes = name in ("accuracy", "cross_entropy")
    outputs = rng.normal(0, 1, (30, CLASSES) if classes else (30,)).astype(np.float32)
    y = rng.integers(0, CLASSES, 30) if classes else rng.normal(0, 1, 30).astype(np.float32)
    parts = [metric_named(name)(outputs[a:b], y[a:b]) for a, b in ((0, 1), (1, 12), (12, 30))]
    whole = metric_named(name)(outputs, y)
    assert tuple(map(sum, zip(*parts, strict=True))) == pytest.approx(whole)


def test_cross_entropy_stays_finite_for_outputs_far_apart() -> None:
    logits = np.array([[1e4, -1e4], [3e38, -3e38]], np.float32)
    assert cross_entropy(logits, np.array([1, 0])) == pytest.approx((2e4, 2.0))


def test_an_unknown_metric_is_refused_with_those_that_exist() -> None:
    with pytest.raises(BundleError, match="no metric 'f1'; known: accuracy, cross_entropy, mse, mae"):
        metric_named("f1")
    assert set(METRICS) > LOWER_IS_BETTER
