"""A release that is worse on a device's own samples than the one that is served."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgemw.core.bundle import Bundle, Vector, read_bundle
from edgemw.learning.dataset import Samples
from edgemw.serving.guard import Guard
from edgemw.serving.session import InferenceSession, open_inference
from edgemw.serving.store import Choice, ReleaseStore

DIGITS = Path(__file__).parents[2] / "examples" / "quickstart" / "digits.edge"
RNG = np.random.default_rng(1)
X = RNG.random((200, 64), np.float32)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    found = read_bundle(DIGITS.read_bytes())
    return replace(found, manifest=replace(found.manifest, metrics=("accuracy", "cross_entropy")))


@pytest.fixture(scope="module")
def good(bundle: Bundle) -> Vector:
    return (50 * RNG.normal(0, 0.1, bundle.manifest.size)).astype(np.float32)


def session(bundle: Bundle, theta: Vector) -> InferenceSession:
    return open_inference(bundle.infer, theta, size=bundle.manifest.size)


@pytest.fixture(scope="module")
def samples(bundle: Bundle, good: Vector) -> Samples:
    """Of which the good theta knows every class."""
    return Samples(X, session(bundle, good).run(X).argmax(axis=1))


def worse(good: Vector, by: float) -> Vector:
    return (good + by * np.random.default_rng(2).normal(0, 1, good.size)).astype(np.float32)


def accuracy(bundle: Bundle, theta: Vector, samples: Samples) -> float:
    return float((session(bundle, theta).run(samples.x).argmax(axis=1) == samples.y).mean())


def check(
    store: ReleaseStore, bundle: Bundle, theta: Vector, samples: Samples, metric: str = "accuracy", by: float = 0.05
) -> str:
    return Guard(store, metric, by).check(session(bundle, theta).run, bundle.manifest, samples)


def test_what_is_worse_than_is_tolerated_is_not_served(tmp_path: Path, bundle: Bundle, good: Vector, samples: Samples) -> None:
    store = ReleaseStore(tmp_path, 3)
    store.save("digits", bundle, 1, 7, good)
    other = worse(good, 2.0)
    value = accuracy(bundle, other, samples)
    assert 0.3 < value < 0.9
    reason = check(store, bundle, other, samples)
    assert reason == f"its accuracy on this device's samples is {value:.4g}, that of release 7 is 1"
    assert check(store, bundle, other, samples, by=1.001 - value) == ""
    assert "cross_entropy" in check(store, bundle, other, samples, "cross_entropy")
    assert check(store, bundle, good, samples) == check(store, bundle, good, samples, "cross_entropy", 0.0) == ""


def test_it_is_the_served_release_that_counts_also_where_it_was_chosen(
    tmp_path: Path, bundle: Bundle, good: Vector, samples: Samples
) -> None:
    store, bad = ReleaseStore(tmp_path, 3), worse(good, 10.0)
    store.save("digits", bundle, 1, 0, bad)
    store.save("digits", bundle, 1, 1, good)
    assert check(store, bundle, worse(good, 2.0), samples)
    store.choose("digits", Choice(1, None))
    assert check(store, bundle, worse(good, 2.0), samples) == ""


def test_without_anything_to_compare_with_a_release_is_served(
    tmp_path: Path, bundle: Bundle, good: Vector, samples: Samples
) -> None:
    store = ReleaseStore(tmp_path, 3)
    assert check(store, bundle, worse(good, 10.0), samples) == ""
    other = replace(bundle, manifest=replace(bundle.manifest, metrics=("accuracy",)))
    store.save("digits", other, 1, 0, good)
    assert check(store, bundle, worse(good, 10.0), samples) == ""  # another task by now


def test_outputs_that_are_no_numbers_are_worse(tmp_path: Path, bundle: Bundle, good: Vector, samples: Samples) -> None:
    store = ReleaseStore(tmp_path, 3)
    store.save("digits", bundle, 1, 0, good)
    guard = Guard(store, "cross_entropy", 0.5)
    assert "nan" in guard.check(lambda x: np.full((len(x), 10), np.nan, np.float32), bundle.manifest, samples)


def test_a_metric_that_the_task_does_not_have_is_said_once(
    tmp_path: Path, bundle: Bundle, good: Vector, samples: Samples, caplog: pytest.LogCaptureFixture
) -> None:
    guard = Guard(ReleaseStore(tmp_path, 3), "mse", 0.1)
    with caplog.at_level(logging.ERROR):
        for _ in range(2):
            assert guard.check(session(bundle, good).run, bundle.manifest, samples) == ""
    assert [record.getMessage() for record in caplog.records] == [
        "serving.guard: this task measures accuracy, cross_entropy and not mse: its releases are not compared"
    ]
