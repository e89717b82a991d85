"""The gossip codec: what it reads exactly, which wraps it finds, and what it refuses."""

from __future__ import annotations

import contextlib
import doctest
import math
import struct

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from edgemw.compression import modulo
from edgemw.compression.modulo import BLOCK, Statistics, decode, encode, estimated, mix, quantised
from edgemw.core.bundle import Vector
from edgemw.core.errors import CodecError, WireError

SIZE = 2 * BLOCK + 500
STEP, BITS = 0.125, 4
REACH = STEP * 7.5


def normal(size: int = SIZE, seed: int = 0) -> Vector:
    return np.random.default_rng(seed).standard_normal(size).astype(np.float32)


def near(own: Vector, most: float, seed: int = 1) -> Vector:
    """A model whose values differ by up to `most`, and at both ends by as much."""
    apart = np.random.default_rng(seed).uniform(-most, most, own.size)
    apart[:2] = most, -most
    return (own + apart).astype(np.float32)


def test_the_example_in_the_documentation_runs() -> None:
    results = doctest.testmod(modulo)
    assert results.attempted > 5
    assert results.failed == 0


# -- what is read exactly


@pytest.mark.parametrize("bits", range(3, 17))
def test_models_within_theta_are_read_to_half_a_step(bits: int) -> None:
    own, theta = normal(), 0.4
    step = 2 * theta / ((1 << bits) - 2)
    other = near(own, theta)
    heard = decode(encode(other, step, bits, round_number=bits), own)
    assert not heard.wrapped.any()
    assert np.abs(estimated(heard, own) - other).max() <= 0.5001 * heard.step + 1e-6
    assert np.abs(heard.difference - (other - own)).max() <= 1.0001 * heard.step + 1e-6


@hypothesis.settings(deadline=None)
@hypothesis.given(
    st.floats(-0.99, 0.99), st.floats(-100, 100, width=32), st.integers(3, 16), st.integers(0, 2**32 - 1), st.floats(1e-3, 10)
)
def test_any_difference_below_the_reach_is_read(share: float, value: float, bits: int, round_number: int, step: float) -> None:
    reach = step * ((1 << bits) - 1) / 2
    own, other = np.full(5, value, np.float32), np.full(5, value + share * reach, np.float32)
    heard = decode(encode(other, step, bits, round_number), own)
    assert not heard.wrapped.any()
    assert np.abs(estimated(heard, own) - other).max() <= 0.501 * step + 1e-6 * (reach + 100)


def test_reach_ends_where_it_is_said_to() -> None:
    own = np.zeros(SIZE, np.float32)
    for apart, wraps in ((0.999 * REACH, False), (1.13 * REACH, True), (-0.999 * REACH, False), (-1.14 * REACH, True)):
        heard = decode(encode(np.full(SIZE, apart, np.float32), STEP, BITS, 3), own)
        assert heard.reach == REACH
        assert heard.wrapped.all() == heard.wrapped.any() == wraps


def test_equal_models_stay_equal_on_any_step() -> None:
    own = normal()
    for step in (1e-9, 0.3, 1e9):
        heard = [decode(encode(own, step, 3, number), own) for number in range(3)]
        assert not any(peer.difference.any() for peer in heard)
        assert mix(own, heard).tobytes() == own.tobytes()
    assert mix(own, []).tobytes() == own.tobytes()


def test_mixing_is_the_mean_of_models_as_their_readers_have_them() -> None:
    own = normal()
    heard = [decode(encode(near(own, 0.4, seed), STEP, BITS, 10 + seed), own) for seed in range(3)]
    expected = own.astype(np.float64)
    for peer in heard:
        expected += (estimated(peer, own).astype(np.float64) - quantised(own, peer.step, peer.round_number)) / 4
    assert np.abs(mix(own, heard) - expected).max() < 1e-6


def test_rounding_is_unbiased_over_rounds() -> None:
    """The mean over rounds, against five standard deviations of a uniform error."""
    vector, rounds = normal(200), 400
    total = sum(quantised(vector, 1.0, number).astype(np.float64) for number in range(rounds))
    assert np.abs(total / rounds - vector).max() < 5 * math.sqrt(1 / 12 / rounds)


# -- wraps


@pytest.mark.parametrize("turns", [1, -1, 2, -8])
def test_one_wrapped_coordinate_is_found_wherever_it_is(turns: int) -> None:
    """For certain: its weight is odd, and 2^32 divides no odd number times a few turns."""
    own, rng = normal(), np.random.default_rng(4)
    for number in range(100):
        other, place = near(own, 0.4), int(rng.integers(SIZE))
        other[place] = own[place] + turns * 16 * STEP
        heard = decode(encode(other, STEP, BITS, number), own)
        assert np.flatnonzero(heard.wrapped).tolist() == [place // BLOCK]
        assert not heard.difference[~heard.sound].any()
        assert np.abs(heard.difference - (other - own))[heard.sound].max() <= 1.001 * STEP
        assert np.count_nonzero(~heard.sound) in (BLOCK, 500)


@pytest.mark.parametrize("wraps", [2, 3, 50, 4000])
def test_wraps_that_cancel_in_a_plain_sum_are_found(wraps: int) -> None:
    """As many turns up as down: one of these 100 rounds is missed with a probability of 100 * 2^-31."""
    own = normal(BLOCK)
    for number in range(100):
        places = np.random.default_rng(number).permutation(BLOCK)[:wraps]
        other = near(own, 0.4)
        other[places] = own[places] + 16 * STEP * np.where(np.arange(wraps) % 2, 1, -1)
        assert decode(encode(other, STEP, BITS, number), own).wrapped.tolist() == [True]


def test_a_wrapped_block_stays_as_it_is_and_the_others_mix() -> None:
    own, other = normal(), near(normal(), 0.4)
    other[BLOCK + 7] += 100
    mixed = mix(own, [decode(encode(other, STEP, BITS, 1), own)])
    assert np.array_equal(mixed[BLOCK : 2 * BLOCK], own[BLOCK : 2 * BLOCK])
    for part in (slice(0, BLOCK), slice(2 * BLOCK, None)):
        assert np.linalg.norm((mixed - other)[part]) < 0.6 * np.linalg.norm((own - other)[part])


# -- the format


@pytest.mark.parametrize(("bits", "size"), [(3, 1), (3, 1000), (4, SIZE), (5, 4097), (16, 4096)])
def test_a_payload_takes_its_bits_a_header_and_a_sum_for_each_block(bits: int, size: int) -> None:
    assert len(encode(normal(size), STEP, bits, 0)) == math.ceil(size * bits / 8) + 17 + 4 * math.ceil(size / BLOCK)


def test_the_format_is_still_the_one_that_was_written_down() -> None:
    vector = np.array([0, 1, -1, 0.3, -0.3, 100, -100], np.float32)
    payload = encode(vector, 0.25, 4, 7, Statistics(0.5, 2.0))
    assert payload.hex() == "070000000000803e0000003f0000004004ccfe8c68401c0e00"
    assert decode(payload, vector).statistics == Statistics(0.5, 2.0)


def test_the_same_model_gives_the_same_bytes_and_another_round_gives_others() -> None:
    vector = normal()
    assert encode(vector, STEP, BITS, 5) == encode(vector.copy(), STEP, BITS, 5)
    assert encode(vector, STEP, BITS, 5)[4:] != encode(vector, STEP, BITS, 6)[4:]


# -- what is refused


@pytest.mark.parametrize(
    ("step", "bits", "round_number", "statistics"),
    [
        (0.0, 4, 0, Statistics()),
        (1e-50, 4, 0, Statistics()),  # 0 as float32
        (-1.0, 4, 0, Statistics()),
        (math.nan, 4, 0, Statistics()),
        (math.inf, 4, 0, Statistics()),
        (1e34, 4, 0, Statistics()),
        (1e-20, 4, 0, Statistics()),  # more than 2^40 of it
        (1.0, 2, 0, Statistics()),
        (1.0, 17, 0, Statistics()),
        (1.0, 4, -1, Statistics()),
        (1.0, 4, 1 << 32, Statistics()),
        (1.0, 4, 0, Statistics(largest=math.inf)),
        (1.0, 4, 0, Statistics(distance=-1.0)),
    ],
)
def test_arguments_that_are_refused(step: float, bits: int, round_number: int, statistics: Statistics) -> None:
    with pytest.raises(CodecError):
        encode(normal(10), step, bits, round_number, statistics)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_models_that_are_not_finite_are_refused(bad: float) -> None:
    sound, broken = normal(10), normal(10)
    broken[3] = bad
    payload = encode(sound, STEP, BITS, 0)
    for misuse in (lambda: encode(broken, STEP, BITS, 0), lambda: decode(payload, broken), lambda: quantised(broken, STEP, 0)):
        with pytest.raises(CodecError):
            misuse()


def header(step: float = 1.0, largest: float = 0.0, distance: float = 0.0, bits: int = 4) -> bytes:
    return struct.pack("<IfffB", 0, step, largest, distance, bits)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "truncated"),
        (bytes(16), "truncated"),
        (header(step=0.0) + bytes(6), "step"),
        (header(step=-1.0) + bytes(6), "step"),
        (header(step=math.nan) + bytes(6), "step"),
        (header(step=1e34) + bytes(6), "step"),
        (header(step=1e-30) + bytes(6), "step"),  # more than 2^40 of it in the receiver's model
        (header(bits=2) + bytes(5), "step"),
        (header(bits=17) + bytes(11), "step"),
        (header(largest=math.inf) + bytes(6), "statistics"),
        (header(distance=-0.0) + bytes(6), "statistics"),
        (header() + bytes(3), "truncated"),
        (header() + bytes(5), "length"),
        (header() + bytes(7), "length"),
        (header() + bytes(5) + b"\x10", "trailing"),
    ],
)
def test_payloads_that_no_encoder_writes(payload: bytes, reason: str) -> None:
    with pytest.raises(WireError) as refused:
        decode(payload, np.ones(3, np.float32))
    assert refused.value.reason == reason


@hypothesis.settings(max_examples=300, deadline=None)
@hypothesis.given(
    st.binary(max_size=120) | st.binary(min_size=41, max_size=41).map(lambda data: header() + data), st.integers(1, 80)
)
def test_random_bytes_raise_only_wire_errors(payload: bytes, size: int) -> None:
    own = normal(size)
    with contextlib.suppress(WireError):
        assert np.isfinite(mix(own, [decode(payload, own)])).all()


@hypothesis.settings(max_examples=300, deadline=None)
@hypothesis.given(st.integers(0, 8 * 61 - 1))
def test_a_flipped_bit_is_refused_or_read_as_a_finite_model(bit: int) -> None:
    own = normal(80)
    payload = bytearray(encode(near(own, 0.4), STEP, BITS, 2))
    payload[bit // 8] ^= 1 << bit % 8
    with contextlib.suppress(WireError):
        heard = decode(bytes(payload), own)
        assert np.isfinite(estimated(heard, own)).all()
        assert np.isfinite(mix(own, [heard])).all()
