"""Sketches add exactly, one sample changes one by no more than is said, and what is learned from them is right."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from edgemw.core.accountant import noise_for
from edgemw.core.errors import DataError
from edgemw.learning.sketch import Sketch, sketch_of

GRID = 2.0**-20


def drawn(seed: int, rows: int, features: int, scale: float) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    return scale * rng.standard_normal((rows, features)), rng.integers(0, 3, rows)


@given(st.integers(0, 2**31), st.integers(0, 20), st.integers(0, 20), st.floats(1e-6, 1e6), st.floats(1e-3, 1e3))
def test_sketches_of_parts_add_up_to_that_of_the_whole(seed: int, one: int, other: int, scale: float, clip: float) -> None:
    x, y = drawn(seed, one + other, 5, scale)
    parts = sketch_of(x[:one], y[:one], 3, clip) + sketch_of(x[one:], y[one:], 3, clip)
    assert np.array_equal(parts.sums, sketch_of(x, y, 3, clip).sums)
    order = np.random.default_rng(seed).permutation(one + other)
    assert np.array_equal(parts.sums, sketch_of(x[order], y[order], 3, clip).sums)


@settings(max_examples=200)
@given(st.integers(0, 2**31), st.floats(1e-12, 1e12), st.floats(1e-3, 1e3), st.integers(1, 80))
def test_one_sample_changes_a_sketch_by_at_most_what_its_noise_is_for(
    seed: int, scale: float, clip: float, features: int
) -> None:
    """In integers: the squared norm of the change is at most 2 clip^2."""
    x, y = drawn(seed, 4, features, scale)
    change = sketch_of(x, y, 3, clip).sums - sketch_of(x[:-1], y[:-1], 3, clip).sums
    assert sum(int(value) ** 2 for value in change.ravel()) <= 2 * (1 << 20) ** 2


def test_means_and_scores_are_those_of_the_samples() -> None:
    x, y = drawn(0, 60, 4, 0.1)
    sketch = sketch_of(x, y, 3, 10.0)
    means = np.stack([x[y == c].mean(0) for c in range(3)])
    np.testing.assert_allclose(sketch.means(), means, atol=1e-4)
    nearest = ((x[:, None] - means) ** 2).sum(-1).argmin(1)
    assert (sketch.scores(x).argmax(1) == nearest).mean() > 0.98


def test_noise_is_that_of_an_epsilon() -> None:
    noise = noise_for(2.0, 1e-5)
    empty = Sketch(np.zeros((200, 101), np.int64), 3.0)
    found = empty.noised(bytes(32), "sum", noise).sums * GRID * 3.0
    assert np.std(found) == pytest.approx(noise * math.sqrt(2) * 3.0, rel=0.02)
    assert empty.noised(b"", "sum", 0.0) is empty


def test_digits_are_learned_from_a_sketch_and_its_noise_costs_little_at_a_fair_epsilon() -> None:
    digits = load_digits()
    x, y, test = digits.data / 16 - 0.3, digits.target, np.arange(len(digits.target)) % 5 == 0
    sketch = sketch_of(x[~test], y[~test], 10, 3.0)

    def accuracy(said: Sketch) -> float:
        return float((said.scores(x[test]).argmax(1) == y[test]).mean())

    assert accuracy(sketch) > 0.88
    assert accuracy(sketch.noised(bytes(32), "sum", noise_for(2.0, 1e-5))) > 0.85
    assert accuracy(sketch.noised(bytes(32), "sum", noise_for(0.01, 1e-5))) < 0.6


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (np.zeros(3), np.zeros(3, np.int64)),
        (np.zeros((3, 2)), np.zeros(2, np.int64)),
        (np.full((3, 2), np.nan), np.zeros(3, np.int64)),
        (np.zeros((3, 2)), np.full(3, 3)),
        (np.zeros((3, 2)), np.full(3, -1)),
    ],
)
def test_samples_that_are_none_are_refused(x: Any, y: Any) -> None:
    with pytest.raises(DataError):
        sketch_of(x, y, 3, 1.0)


def test_sketches_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(DataError):
        _ = Sketch(np.zeros((2, 3), np.int64), 1.0) + Sketch(np.zeros((2, 3), np.int64), 2.0)
