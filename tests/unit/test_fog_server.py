"""The server step against the papers, written out in float64."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from edgemw.compression.dense import Dense
from edgemw.compression.lattice import Lattice
from edgemw.compression.merge import merge
from edgemw.compression.residual import Contribution, encode_update
from edgemw.core.bundle import Vector
from edgemw.core.encoded import Encoded, Section
from edgemw.core.ids import UpdateId
from edgemw.fog.server import ServerOptions, ServerState, mean_update, server_step

SIZE = 300
ROUNDS = 6
Wide = npt.NDArray[np.float64]


def vectors(count: int, seed: int = 0, scale: float = 0.05) -> list[Vector]:
    return [v.astype(np.float32) for v in np.random.default_rng(seed).normal(0, scale, (count, SIZE))]


def encoded(delta: Vector, weight: int, base: int, seq: int) -> Encoded:
    contribution = Contribution(UpdateId("device-0", 1, seq), base, weight, delta)
    return encode_update(Dense(), contribution, np.zeros(SIZE, np.float32), 0.0)[0]


def run(options: ServerOptions) -> Vector:
    state = ServerState(vectors(1, seed=9, scale=1.0)[0])
    for mean in vectors(ROUNDS):
        state = server_step(state, mean, options)
    return state.theta


def start() -> tuple[Wide, list[Wide]]:
    return vectors(1, seed=9, scale=1.0)[0].astype(np.float64), [v.astype(np.float64) for v in vectors(ROUNDS)]


# -- the mean


def test_one_release_is_averaged_by_examples_as_fedavg_does() -> None:
    deltas, weights = vectors(4), [1, 10, 200, 33]
    parts = [encoded(delta, weight, 3, seq) for seq, (delta, weight) in enumerate(zip(deltas, weights, strict=True))]
    mean = mean_update(Dense(), merge(Dense(), parts), 3, "sqrt")
    expected = sum(w * d.astype(np.float64) for w, d in zip(weights, deltas, strict=True)) / sum(weights)
    assert mean.dtype == np.float32
    np.testing.assert_allclose(mean, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("staleness", ["sqrt", "none"])
def test_older_bases_weigh_less_and_the_weights_still_sum_to_one(staleness: str) -> None:
    deltas, weights, bases = vectors(3), [10, 20, 30], [7, 6, 3]
    parts = [encoded(d, w, b, seq) for seq, (d, w, b) in enumerate(zip(deltas, weights, bases, strict=True))]
    mean = mean_update(Dense(), merge(Dense(), parts), 7, staleness)
    factors = [w / math.sqrt(1 + 7 - b) if staleness == "sqrt" else w for w, b in zip(weights, bases, strict=True)]
    expected = sum(f * d.astype(np.float64) for f, d in zip(factors, deltas, strict=True)) / sum(factors)
    np.testing.assert_allclose(mean, expected, rtol=1e-5, atol=1e-7)


def test_updates_that_are_all_late_alike_are_averaged_as_if_fresh() -> None:
    parts = [encoded(delta, 10, 2, seq) for seq, delta in enumerate(vectors(3))]
    merged = merge(Dense(), parts)
    np.testing.assert_allclose(mean_update(Dense(), merged, 6, "sqrt"), mean_update(Dense(), merged, 2, "none"), rtol=1e-6)


def test_the_order_of_arrival_makes_no_difference_on_the_lattice() -> None:
    codec = Lattice()
    parts = []
    for seq, delta in enumerate(vectors(5)):
        contribution = Contribution(UpdateId("device-0", 1, seq), 1, 10 + seq, delta)
        parts.append(encode_update(codec, contribution, np.zeros(SIZE, np.float32), 0.01)[0])
    one = mean_update(codec, merge(codec, parts), 1, "sqrt")
    two = mean_update(codec, merge(codec, [merge(codec, parts[3:]), *parts[:3][::-1]]), 1, "sqrt")
    assert one.tobytes() == two.tobytes()


def test_an_encoding_with_one_section_is_its_own_mean() -> None:
    delta = vectors(1)[0]
    payload = Dense().encode(np.float32(20) * delta, 0.0)
    part = Encoded("dense", SIZE, (Section(0, 20, 1, 0.0, payload),), frozenset())
    np.testing.assert_allclose(mean_update(Dense(), part, 0, "none"), delta, rtol=1e-6)


# -- the step


@pytest.mark.parametrize("lr", [1.0, 0.3])
def test_average_adds_the_mean(lr: float) -> None:
    theta, means = start()
    np.testing.assert_allclose(run(ServerOptions("average", lr)), theta + lr * sum(means), atol=1e-5)


@pytest.mark.parametrize(("lr", "beta"), [(1.0, 0.9), (0.5, 0.0), (0.1, 0.99)])
def test_momentum_is_fedavgm(lr: float, beta: float) -> None:
    theta, means = start()
    v = np.zeros(SIZE)
    for mean in means:  # v <- beta v + dw ; w <- w - v, where dw = -mean
        v = beta * v - mean
        theta = theta - lr * v
    np.testing.assert_allclose(run(ServerOptions("momentum", lr, momentum=beta)), theta, atol=1e-5)


@pytest.mark.parametrize(("lr", "tau"), [(0.1, 1e-3), (0.01, 1e-1), (1.0, 1e-9)])
def test_adam_is_fedadam(lr: float, tau: float) -> None:
    theta, means = start()
    m, v = np.zeros(SIZE), np.full(SIZE, tau**2)  # algorithm 2: v_{-1} >= tau^2
    for mean in means:
        m = 0.9 * m + 0.1 * mean
        v = 0.99 * v + 0.01 * mean**2
        theta = theta + lr * m / (np.sqrt(v) + tau)
    options = ServerOptions("adam", lr, beta1=0.9, beta2=0.99, tau=tau)
    np.testing.assert_allclose(run(options), theta, rtol=1e-4, atol=1e-4 * lr)


@pytest.mark.parametrize("name", ["average", "momentum", "adam"])
def test_the_state_given_stays_as_it_is(name: str) -> None:
    first = server_step(ServerState(vectors(1)[0]), vectors(1, seed=1)[0], ServerOptions(name))
    kept = [None if v is None else v.copy() for v in (first.theta, first.first, first.second)]
    mean = vectors(1, seed=2)[0]
    given_mean = mean.copy()
    for vector in (first.theta, first.first, first.second, mean):
        if vector is not None:
            vector.flags.writeable = False
    second = server_step(first, mean, ServerOptions(name))
    np.testing.assert_array_equal(mean, given_mean)
    for now, before in zip((first.theta, first.first, first.second), kept, strict=True):
        assert (now is None) == (before is None)
        if now is not None and before is not None:
            np.testing.assert_array_equal(now, before)
    assert second.theta.dtype == np.float32
    assert not np.array_equal(second.theta, first.theta)


def test_which_moments_are_kept() -> None:
    theta, mean = vectors(2)
    kept = {}
    for name in ("average", "momentum", "adam"):
        state = server_step(ServerState(theta), mean, ServerOptions(name))
        kept[name] = state.first is not None, state.second is not None
    assert kept == {"average": (False, False), "momentum": (True, False), "adam": (True, True)}
