"""An update with a bound: whatever was trained, what is sent is within it, weighs 1, and its noise is that of the plan."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemw.compression.bounded import Bound, bounded_step, encode_bounded, is_within
from edgemw.compression.codec import Codec
from edgemw.compression.lattice import Lattice
from edgemw.compression.merge import merge
from edgemw.compression.residual import Contribution
from edgemw.compression.steps import is_power
from edgemw.compression.table import codec_named
from edgemw.core.bundle import Slot, Vector
from edgemw.core.encoded import Encoded
from edgemw.core.errors import CodecError, TooLargeError
from edgemw.core.ids import UpdateId
from edgemw.core.noise import Integers, gaussian_integers
from edgemw.core.ranges import Ranges

SECRET = bytes(range(32))


def drawn(size: int, scale: float) -> Integers:
    return gaussian_integers(SECRET, "test", size, scale)


def encoded(
    delta: Vector, bound: Bound, kappa: float = 0.5, codec: Codec | None = None, ranges: Ranges | None = None, **more: Any
) -> Encoded:
    ranges = ranges or Ranges(delta.size)
    step = bounded_step(bound, kappa, ranges.coded(0))
    contribution = Contribution(UpdateId("device-0", 1, more.pop("seq", 0)), 3, 40, delta, owed=7)
    return encode_bounded(codec or Lattice(), contribution, bound, step, drawn, ranges, more.pop("limit_bytes", None))


def symbols(update: Encoded, step: float) -> Integers:
    decoded = Lattice().decode(update.sections[0].payload, update.size).astype(np.float64)
    return np.rint(decoded / step).astype(np.int64)


vectors = st.builds(
    lambda size, seed, log, density, tail: (
        np.random.default_rng(seed).standard_normal(size) ** tail
        * 10.0**log
        * (np.random.default_rng(seed + 1).random(size) < density)
    ).astype(np.float32),
    st.integers(1, 400),
    st.integers(0, 2**31),
    st.floats(-30, 30),
    st.sampled_from([0.0, 0.01, 0.3, 1.0]),
    st.sampled_from([1, 3, 9]),
)
clips = st.floats(1e-3, 1e3)


@settings(deadline=None, max_examples=300)
@given(vectors, clips, st.sampled_from([0.1, 0.5, 1.0, 2.0, 16.0]), st.sampled_from(["range", "golomb"]))
def test_what_is_sent_is_never_above_the_bound(delta: Vector, clip: float, kappa: float, coder: str) -> None:
    """In integers: the sum of the squared symbols is at most (clip / step)^2, to one rounding of float64."""
    if not np.isfinite(delta).all():
        return
    bound = Bound(clip)
    step = bounded_step(bound, kappa, delta.size)
    update = encoded(delta, bound, kappa, Lattice(coder))
    found = symbols(update, step)
    assert int(np.dot(found, found)) <= (clip / step) ** 2 * (1 + 2**-50)
    (section,) = update.sections
    assert (section.weight, section.count, section.energy) == (1, 1, clip**2)  # nothing else of it tells devices apart
    assert is_within(Lattice(), section, delta.size, bound)


@settings(deadline=None, max_examples=50)
@given(st.integers(50, 400), st.integers(0, 2**31), clips)
def test_a_delta_within_the_bound_is_said_right_on_average(size: int, seed: int, clip: float) -> None:
    delta = np.random.default_rng(seed).standard_normal(size).astype(np.float32)
    delta *= np.float32(0.5 * clip / np.linalg.norm(delta))
    said = np.mean([_decoded(delta + np.float32(k * 1e-9 * clip), Bound(clip)) for k in range(200)], axis=0)
    assert float(np.linalg.norm(said - delta)) < 0.25 * float(np.linalg.norm(delta))


def _decoded(delta: Vector, bound: Bound) -> Vector:
    return Lattice().decode(encoded(delta, bound).sections[0].payload, delta.size)


def test_a_delta_above_the_bound_keeps_its_direction() -> None:
    delta = np.random.default_rng(1).standard_normal(5000).astype(np.float32)
    said = _decoded(delta, Bound(0.1))
    cosine = float(np.dot(said, delta) / np.linalg.norm(said) / np.linalg.norm(delta))
    assert cosine > 0.9
    assert 0.8 * 0.1 < float(np.linalg.norm(said)) <= 0.1 * (1 + 1e-6)


@pytest.mark.parametrize("noise", [0.05, 1.0, 20.0])
def test_noise_of_a_device_is_that_of_the_plan(noise: float) -> None:
    """Its deviation is noise * clip in every coordinate, whatever the delta: a zero and one at the bound differ by the delta."""
    size, bound = 20_000, Bound(0.7, noise)
    rng = np.random.default_rng(3)
    for delta in (np.zeros(size, np.float32), rng.standard_normal(size).astype(np.float32)):
        update = encoded(delta, bound)
        said = Lattice().decode(update.sections[0].payload, size).astype(np.float64)
        clipped = delta.astype(np.float64) * min(1.0, bound.clip / max(1e-30, float(np.linalg.norm(delta))))
        step = bounded_step(bound, 0.5, size)
        expected = math.hypot(noise * bound.clip, step / math.sqrt(12))
        assert np.std(said - clipped) == pytest.approx(expected, rel=0.03)
        assert abs(np.mean(said - clipped)) < 5 * expected / math.sqrt(size)


@settings(deadline=None, max_examples=60)
@given(vectors, clips, st.sampled_from([0.1, 1.0, 10.0]))
def test_under_noise_the_bound_holds_before_it_is_added(delta: Vector, clip: float, noise: float) -> None:
    """Twice the same noise: what differs between a delta and zeros is the delta within its bound, and rounding."""
    if not np.isfinite(delta).all():
        return
    bound, size = Bound(clip, noise), delta.size
    step = bounded_step(bound, 0.5, size)
    apart = symbols(encoded(delta, bound), step) - symbols(encoded(np.zeros(size, np.float32), bound), step)
    assert float(np.abs(apart).max(initial=0)) * step <= clip + step
    most = clip + step * math.sqrt(np.count_nonzero(apart))
    assert float(np.linalg.norm(apart)) * step <= most * (1 + 1e-9)


def test_what_stays_at_home_gets_no_noise() -> None:
    layout = (Slot("head", (40,), 0), Slot("body", (60,), 40))
    ranges = Ranges(100, personal=(layout[0],))
    delta = np.ones(100, np.float32)
    for bound in (Bound(1.0), Bound(1.0, 5.0)):
        said = Lattice().decode(encoded(delta, bound, ranges=ranges).sections[0].payload, 100)
        assert not said[:40].any()
        assert said[40:].any()


@pytest.mark.parametrize("name", ["dense", "topk", "qsgd", "signsgd", "powersgd", "lanes"])
def test_a_codec_without_integers_of_its_own_is_refused(name: str) -> None:
    with pytest.raises(CodecError, match="lattice"):
        encoded(np.ones(10, np.float32), Bound(1.0), codec=codec_named(name))


@pytest.mark.parametrize(
    ("codec", "ranges", "delta"),
    [
        (Lattice(rounding="nearest"), Ranges(4), 1.0),  # it says later what the bound has cut off
        (Lattice(), Ranges(4, statistics=(Slot("mean", (2,), 0, trainable=False),)), 1.0),
        (Lattice(), Ranges(4, rare=(Slot("w", (2,), 0),), rare_every=2), 1.0),
        (Lattice(), Ranges(4), math.nan),
        (Lattice(), Ranges(4), math.inf),
    ],
)
def test_what_has_no_bound_is_refused(codec: Codec, ranges: Ranges, delta: float) -> None:
    with pytest.raises(CodecError):
        encoded(np.full(4, delta, np.float32), Bound(1.0), codec=codec, ranges=ranges)


def test_an_update_above_what_may_be_sent_is_refused_and_not_made_coarser() -> None:
    with pytest.raises(TooLargeError, match=r"privacy\.kappa"):
        encoded(np.ones(1000, np.float32), Bound(1.0), kappa=0.1, limit_bytes=40)


@settings(deadline=None, max_examples=60)
@given(st.lists(vectors, min_size=2, max_size=4), clips)
def test_sums_of_bounded_updates_are_within_the_sum_of_their_bounds(deltas: list[Vector], clip: float) -> None:
    size, bound = min(delta.size for delta in deltas), Bound(clip)
    parts = [encoded(np.nan_to_num(delta[:size], posinf=0, neginf=0), bound, seq=seq) for seq, delta in enumerate(deltas)]
    (section,) = merge(Lattice(), parts).sections
    assert is_within(Lattice(), section, size, bound)


def test_a_payload_above_the_bound_and_a_weight_of_its_own_are_seen() -> None:
    step, bound = bounded_step(Bound(1.0), 0.5, 100), Bound(1.0)
    (section,) = encoded(np.ones(100, np.float32), bound).sections
    assert is_within(Lattice(), section, 100, bound)
    for wrong in ({"weight": 2}, {"payload": Lattice().encode(np.full(100, 0.2, np.float32), step)}):
        assert not is_within(Lattice(), type(section)(**{**_places(section), **wrong}), 100, bound)


def _places(section: Any) -> dict[str, Any]:
    return {name: getattr(section, name) for name in section.__slots__}


@given(clips, st.floats(0, 100), st.floats(0.01, 16), st.integers(1, 10**8))
def test_the_step_is_a_power_of_two_of_the_size_of_an_update(clip: float, noise: float, kappa: float, size: int) -> None:
    step = bounded_step(Bound(clip, noise), kappa, size)
    assert is_power(step)
    assert 0.7 < step / (kappa * clip * math.sqrt(1 / size + noise**2)) < 1.42


# -- the noise itself


def test_noise_is_gaussian_and_its_draws_do_not_depend_on_each_other() -> None:
    from scipy import stats  # type: ignore[import-untyped]

    found = drawn(200_000, 1000.0) / 1000.0
    assert stats.kstest(found, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(found[:-1], found[1:])[0, 1]) < 0.01
    assert abs(np.corrcoef(found[:100_000], found[100_000:])[0, 1]) < 0.01  # the two halves of Box and Muller


def test_noise_of_a_small_scale_is_a_rounded_gaussian() -> None:
    from scipy import stats

    found = drawn(100_000, 0.8)
    for value in range(-2, 3):
        share = stats.norm.cdf((value + 0.5) / 0.8) - stats.norm.cdf((value - 0.5) / 0.8)
        assert np.mean(found == value) == pytest.approx(share, abs=0.006)


def test_noise_depends_on_secret_and_purpose_alone() -> None:
    one = gaussian_integers(SECRET, "a", 1000, 50.0)
    assert np.array_equal(one, gaussian_integers(SECRET, "a", 1000, 50.0))
    for other in (gaussian_integers(SECRET, "b", 1000, 50.0), gaussian_integers(SECRET[::-1], "a", 1000, 50.0)):
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.15


@pytest.mark.parametrize(("secret", "scale"), [(b"", 1.0), (bytes(15), 1.0), (SECRET, 2.0**57), (SECRET, math.nan)])
def test_a_secret_that_is_none_and_a_scale_without_end_are_refused(secret: bytes, scale: float) -> None:
    with pytest.raises(CodecError):
        gaussian_integers(secret, "a", 10, scale)
