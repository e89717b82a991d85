"""The consensus monitor: what it makes of what was heard, alone and in a small gossip."""

from __future__ import annotations

import doctest
import functools
import math
from dataclasses import dataclass

import numpy as np
import pytest

from edgemw.compression import consensus
from edgemw.compression.consensus import MOST_BITS, Monitor
from edgemw.compression.modulo import NOTHING_SEEN, Heard, Statistics, decode, encode, mix
from edgemw.core.bundle import Vector
from edgemw.core.errors import CodecError

SIZE = 500


def normal(seed: int = 0, size: int = SIZE) -> Vector:
    return np.random.default_rng(seed).standard_normal(size).astype(np.float32)


def heard(own: Vector, apart: float, step: float, bits: int = 4, statistics: Statistics = NOTHING_SEEN) -> Heard:
    """A peer all of whose values are `apart` from one's own, read exactly."""
    return Heard(0, step, bits, statistics, np.full_like(own, apart), np.zeros(1, np.bool_))


def test_the_example_in_the_documentation_runs() -> None:
    results = doctest.testmod(consensus)
    assert results.attempted > 1
    assert results.failed == 0


# -- theta


def test_theta_is_the_largest_difference_of_the_last_rounds_and_a_margin() -> None:
    own, monitor = normal(), Monitor(theta=1.0)
    thetas = []
    for apart in (0.5, 0.1, 0.1, 0.1, 0.1, 0.1):
        monitor = monitor.after(own, [heard(own, -apart, 0.01), heard(own, apart / 2, 0.01)])
        thetas.append(monitor.theta)
    assert thetas == pytest.approx([1.3 * 0.5] * 4 + [1.3 * 0.1] * 2)
    assert monitor.step == pytest.approx(2 * 0.13 / 14)
    assert monitor.statistics.largest == pytest.approx(0.1)


def test_what_a_peer_announces_counts_but_only_so_much() -> None:
    own, monitor = normal(), Monitor(theta=1.0)
    assert monitor.after(own, [heard(own, 0.1, 0.01, statistics=Statistics(largest=2.0))]).theta == pytest.approx(2.6)
    assert monitor.after(own, [heard(own, 0.1, 0.01, statistics=Statistics(largest=1e30))]).theta == pytest.approx(8 * 1.3)
    assert monitor.after(own, [heard(own, 1e30, 1e30)]).theta == pytest.approx(8 * 1.3)


def test_nodes_that_are_equal_keep_a_step_that_float32_can_tell() -> None:
    own, monitor = normal(), Monitor(theta=1.0)
    for number in range(20):
        monitor = monitor.after(own, [decode(encode(own, monitor.step, monitor.bits, number), own)])
    assert monitor.theta == pytest.approx(2.0**-20 * float(np.abs(own).max()))
    zero = np.zeros(SIZE, np.float32)
    for number in range(60):
        monitor = monitor.after(zero, [decode(encode(zero, monitor.step, monitor.bits, number), zero)])
    assert monitor.step > 0
    assert monitor.statistics == Statistics(0.0, 0.0)


def test_nothing_heard_changes_nothing() -> None:
    monitor = Monitor(theta=1.0, seen=(1.0,), distances=(0.5,))
    assert monitor.after(normal(), []) == monitor


@pytest.mark.parametrize("bits", [3, 4, 8])
@pytest.mark.parametrize("factor", [1e-5, 1e-3, 0.1])
def test_a_theta_that_is_far_too_small_is_put_right(factor: float, bits: int) -> None:
    own, apart = normal(), np.random.default_rng(5).uniform(-1, 1, SIZE)
    other, monitor, rounds = (own + apart).astype(np.float32), Monitor(theta=factor, bits=bits), 0
    while (read := decode(encode(other, monitor.step, bits, rounds), own)).wrapped.any():
        monitor, rounds = monitor.after(own, [read]), rounds + 1
        assert monitor.theta > 1.9 * factor
    assert 1 <= rounds <= 1 + math.log(1 / factor) / math.log(8)
    for number in range(5):
        monitor = monitor.after(own, [decode(encode(other, monitor.step, bits, rounds + number), own)])
    assert 1.3 < monitor.theta < {3: 13, 4: 4, 8: 1.5}[bits]


# -- bits


def after_distances(monitor: Monitor, relative: list[float], step: float) -> Monitor:
    own = np.ones(SIZE, np.float32)
    for apart in relative:
        monitor = monitor.after(own, [heard(own, apart, step, monitor.bits)])
    return monitor


GROWING = [0.01 * 1.1**number for number in range(10)]


def test_a_distance_that_grows_with_the_rounding_asks_for_more_bits() -> None:
    coarse, fine = 0.05, 0.005
    assert after_distances(Monitor(1.0, bits=3), GROWING[:9], coarse).bits == 3
    wider = after_distances(Monitor(1.0, bits=3), GROWING, coarse)
    assert (wider.bits, len(wider.distances)) == (4, 1)  # and the history of these bits begins
    assert after_distances(Monitor(1.0, bits=3), GROWING, fine).bits == 3  # nodes train apart
    assert after_distances(Monitor(1.0, bits=3), [0.01] * 30, coarse).bits == 3
    assert after_distances(Monitor(1.0, bits=3), GROWING[::-1], coarse).bits == 3


def test_bits_end_at_eight_and_the_monitor_still_says_that_they_are_too_few() -> None:
    last = after_distances(Monitor(1.0, bits=MOST_BITS), GROWING, 0.05)
    assert (last.bits, last.diverges) == (MOST_BITS, True)


def test_distance_is_relative_to_the_model_and_leaves_out_what_wrapped() -> None:
    own = 2 * np.ones(SIZE, np.float32)
    assert Monitor(1.0).after(own, [heard(own, 0.5, 0.1)]).statistics.distance == pytest.approx(0.25)
    both = np.concatenate([np.ones(4096, np.float32), 2 * np.ones(100, np.float32)])
    difference = np.concatenate([np.zeros(4096, np.float32), np.ones(100, np.float32)])
    read = Heard(0, 0.1, 4, Statistics(), difference, np.array([True, False]))
    assert Monitor(1.0).after(both, [read]).statistics.distance == pytest.approx(0.5)


@pytest.mark.parametrize(("theta", "bits"), [(0.0, 4), (math.nan, 4), (math.inf, 4), (1.0, 2), (1.0, 9)])
def test_monitors_that_make_no_step(theta: float, bits: int) -> None:
    with pytest.raises(CodecError):
        Monitor(theta, bits)


# -- a gossip of 12 nodes


@dataclass(frozen=True)
class Outcome:
    consensus: float
    error: float
    wrapped: list[int]
    monitors: list[Monitor]
    apart: float


@functools.cache
def gossip(bits: int, theta: float = 10.0, nodes: int = 12, peers: int = 3, rounds: int = 60, size: int = 300) -> Outcome:
    """Gradient descent on quadratics with different minima, then epidemic mixing; bits 0 mixes float32."""
    rng, choice = np.random.default_rng(0), np.random.default_rng(1)
    minima = rng.standard_normal(size) + 0.3 * rng.standard_normal((nodes, size))
    models = [(3 * rng.standard_normal(size)).astype(np.float32) for _ in range(nodes)]
    monitors, wrapped = [Monitor(theta, bits or 4)] * nodes, []
    for number in range(rounds):
        models = [(x - 0.2 * (x - minimum)).astype(np.float32) for x, minimum in zip(models, minima, strict=True)]
        sent = [encode(x, m.step, m.bits, number, m.statistics) for x, m in zip(models, monitors, strict=True)] if bits else []
        mixed, after, wraps = [], [], 0
        for node in range(nodes):
            others = choice.permutation([other for other in range(nodes) if other != node])[:peers]
            read = [decode(sent[other], models[node]) for other in others] if bits else []
            mean = np.mean([models[node], *(models[other] for other in others)], axis=0).astype(np.float32)
            mixed.append(mix(models[node], read) if bits else mean)
            after.append(monitors[node].after(models[node], read))
            wraps += sum(int(peer.wrapped.sum()) for peer in read)
        models, monitors = mixed, after
        wrapped.append(wraps)
    stack = np.array(models, np.float64)
    mean = stack.mean(axis=0)
    consensus_of = float(np.sqrt(np.square(stack - mean).mean()))
    error = float(np.sqrt(np.square(mean - minima.mean(axis=0)).mean()))
    return Outcome(consensus_of, error, wrapped, monitors, float(np.ptp(stack, axis=0).max()))


def test_four_bits_reach_the_consensus_of_float32_within_a_factor_of_one_and_a_half() -> None:
    full, four = gossip(0), gossip(4)
    assert four.consensus < 1.5 * full.consensus
    assert four.error < 2 * full.error
    assert not any(four.wrapped[10:])
    assert all(four.apart / 2 < monitor.theta < 8 * four.apart for monitor in four.monitors)
    assert all(monitor.bits == 4 for monitor in four.monitors)


def test_eight_bits_are_as_good_as_float32() -> None:
    full, eight = gossip(0), gossip(8)
    assert eight.consensus == pytest.approx(full.consensus, rel=0.02)


def test_three_bits_are_the_aggressive_mode() -> None:
    """The mean still is near the minimum; the nodes are further apart."""
    full, three = gossip(0), gossip(3)
    assert full.consensus < three.consensus < 10 * full.consensus
    assert three.error < 0.1


def test_a_gossip_recovers_from_a_theta_that_is_far_too_small() -> None:
    full, tiny = gossip(0), gossip(4, theta=1e-5)
    assert tiny.wrapped[0] == 36  # every block of every peer
    assert not any(tiny.wrapped[12:])
    assert tiny.consensus < 1.5 * full.consensus
    assert tiny.error < 2 * full.error
