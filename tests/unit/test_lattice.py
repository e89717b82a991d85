"""The lattice: rounding, range, steps, and the header."""

from __future__ import annotations

import itertools
import struct

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from edgemw.compression.lattice import Lattice
from edgemw.compression.table import codec_named
from edgemw.core.bundle import Vector
from edgemw.core.errors import CodecError, WireError

LARGEST = float(np.finfo(np.float32).max)
NEAREST = Lattice(rounding="nearest")


def vector(*values: float) -> Vector:
    return np.array(values, np.float32)


def symbols(codec: Lattice, payload: bytes, size: int) -> list[float]:
    return [float(value) / codec.check(payload, size) for value in codec.decode(payload, size)]


def test_halves_round_away_from_zero() -> None:
    below = np.nextafter(np.float32(0.5), np.float32(0))
    payload = NEAREST.encode(vector(0.5, -0.5, below, -below, 1.5, -2.5, 1.4), 1.0)
    assert symbols(Lattice(), payload, 7) == [1, -1, 0, 0, 2, -3, 1]


@hypothesis.given(value=st.floats(-126, 126, width=32), step=st.floats(2.0**-100, 2.0**100, width=32), half=st.integers(0, 126))
def test_rounding_is_exact_for_every_float(value: float, step: float, half: int) -> None:
    """Against rational arithmetic, also next to the boundaries."""
    near_boundary = np.float32((half + 0.5) * step)
    for p in (np.float32(value * step), near_boundary, np.nextafter(near_boundary, np.float32(0))):
        ratio = float(p).as_integer_ratio()
        step_ratio = step.as_integer_ratio()
        doubled = 2 * abs(ratio[0]) * step_ratio[1] // (ratio[1] * step_ratio[0])
        expected = min((doubled + 1) // 2, 127) * (1 if p > 0 else -1)
        decoded = Lattice().decode(NEAREST.encode(np.array([p], np.float32), step), 1)
        assert decoded[0] == np.float32(expected * step)


def test_what_exceeds_127_steps_stays_out() -> None:
    assert symbols(Lattice(), NEAREST.encode(vector(1e6, -1e6, 127.4), 1.0), 3) == [127, -127, 127]


@pytest.mark.parametrize("step", [1e37, 2.2e38, LARGEST])
def test_encoding_never_rounds_beyond_float32(step: float) -> None:
    decoded = Lattice().decode(Lattice().encode(vector(LARGEST, -LARGEST), step), 2)
    assert np.isfinite(decoded).all()
    assert decoded[0] > 0 > decoded[1]


@pytest.mark.parametrize("step", [-1.0, float("nan"), float("inf"), 1e39, -1e-45])
def test_a_bad_step_is_our_mistake(step: float) -> None:
    with pytest.raises(CodecError, match="step"):
        Lattice().encode(vector(1), step)


def test_without_a_step_nothing_is_sent() -> None:
    payload = Lattice().encode(vector(1, 2, 3), 0.0)
    assert payload == bytes(8)
    assert Lattice().decode(payload, 3).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (struct.pack("<fI", -1.0, 0), "step"),
        (struct.pack("<fI", -0.0, 0), "step"),
        (struct.pack("<fI", float("nan"), 0), "step"),
        (struct.pack("<fI", float("inf"), 0), "step"),
        (struct.pack("<fI", 0.0, 1) + b"\xe0", "step"),
        (struct.pack("<fI", 0.0, 1 << 31), "step"),
        (bytes(9), "step"),
        (struct.pack("<fI", 1.0, 1 << 31) + b"\0", "trailing"),
        (struct.pack("<fI", 1.0, 4) + b"\xff" * 9, "count"),
        (struct.pack("<fI", 1.0, (1 << 32) - 1), "count"),
        (b"1234567", "truncated"),
        (b"", "truncated"),
    ],
)
def test_headers_that_no_encoder_writes(header: bytes, reason: str) -> None:
    for read in (Lattice().check, Lattice().decode, lambda data, size: Lattice().merge([data], size)):
        with pytest.raises(WireError) as refused:
            read(header, 3)
        assert refused.value.reason == reason


def test_merging_cancels_to_nothing() -> None:
    plus, minus = Lattice().encode(vector(3, 0, -5), 1.0), Lattice().encode(vector(-3, 0, 5), 1.0)
    assert Lattice().merge([plus, minus], 3) == Lattice().encode(vector(0, 0, 0), 1.0)


def test_a_product_beyond_float32_ends_at_its_largest() -> None:
    payload = Lattice().encode(vector(LARGEST), 1e37)
    for _ in range(5):
        payload = Lattice().merge([payload, payload], 1)
    assert Lattice().decode(payload, 1).tolist() == [LARGEST]


# -- coders


def drawn(seed: int, size: int = 3000) -> Vector:
    return np.random.default_rng(seed).laplace(0, 1, size).astype(np.float32)


def test_both_coders_say_the_same_and_any_reader_reads_them() -> None:
    ranged, golomb = (Lattice(coder).encode(drawn(0), 1.5) for coder in ("range", "golomb"))
    assert len(ranged) < len(golomb)
    assert ranged == Lattice().encode(drawn(0), 1.5)
    for codec in (Lattice("range"), Lattice("golomb")):
        assert np.array_equal(codec.decode(ranged, 3000), codec.decode(golomb, 3000))
        assert codec.merge([golomb], 3000) == golomb
        assert codec.merge([ranged], 3000) == ranged


def test_a_sum_is_in_the_range_coder_if_any_part_is_in_any_order_and_grouping() -> None:
    parts = [Lattice(coder).encode(drawn(seed), 1.5) for seed, coder in enumerate(("golomb", "range", "golomb", "golomb"))]
    codec = Lattice("golomb")
    whole = codec.merge(parts, 3000)
    assert whole == codec.merge([Lattice("range").encode(drawn(seed), 1.5) for seed in range(4)], 3000)
    for order in itertools.permutations(parts):
        for cut in range(1, 4):
            assert codec.merge([codec.merge(order[:cut], 3000), codec.merge(order[cut:], 3000)], 3000) == whole


def test_what_cancels_still_says_its_coder() -> None:
    """Or grouping would show: the rest of a sum would be written otherwise."""
    codec = NEAREST
    plus, minus = codec.encode(drawn(1), 2.0), codec.encode(-drawn(1), 2.0)
    other = Lattice("golomb").encode(drawn(2), 2.0)
    nothing = codec.merge([plus, minus], 3000)
    assert nothing == struct.pack("<fI", 2.0, 1 << 31)
    assert codec.merge([nothing, other], 3000) == codec.merge([plus, codec.merge([minus, other], 3000)], 3000)


@pytest.mark.parametrize("coder", ["range", "golomb"])
def test_a_payload_without_a_step_leaves_others_as_they_are(coder: str) -> None:
    payload, nothing = Lattice(coder).encode(drawn(3), 0.7), Lattice(coder).encode(drawn(3), 0.0)
    assert Lattice().merge([nothing, payload, nothing], 3000) == payload
    assert Lattice().merge([nothing, nothing], 3000) == nothing


@pytest.mark.parametrize("coder", ["range", "golomb"])
def test_what_says_nothing_is_all_header(coder: str) -> None:
    assert len(Lattice(coder=coder).encode(np.zeros(10**6, np.float32), 0.5)) <= 24


@pytest.mark.parametrize("coder", ["range", "golomb"])
@pytest.mark.parametrize("scale", [0.01, 0.2, 1.0, 30.0])
def test_beside_its_symbols_a_payload_has_a_header_of_8_bytes(coder: str, scale: float) -> None:
    lattice, size = Lattice(coder, "nearest"), 20_000
    symbols = np.rint(np.random.default_rng(7).laplace(0, scale, size)).clip(-127, 127).astype(np.int32)
    positions = np.flatnonzero(symbols)
    packed = lattice.coders.one(ranged=coder == "range").pack(positions, symbols[positions], size)
    assert len(lattice.encode(symbols.astype(np.float32), 1.0)) == 8 + len(packed)


def test_parameters_that_nobody_knows_are_refused_by_name() -> None:
    with pytest.raises(CodecError, match="coder = 'zip' is none of range, golomb"):
        Lattice("zip")
    with pytest.raises(CodecError, match="its parameters: coder"):
        codec_named("lattice", coders=1)


# -- stochastic rounding


def test_stochastic_rounding_is_unbiased_and_off_by_less_than_a_step() -> None:
    """The mean over vectors that differ in one far value only, against five standard deviations."""
    codec, rounds, step = Lattice(rounding="stochastic"), 600, 0.5
    values = np.concatenate([np.linspace(-3, 3, 61), [1e-3, -1e-3, 63.4, -63.4]]).astype(np.float32)
    total = np.zeros(values.size)
    for number in range(rounds):
        values[0] = -3 - 1e-3 * number
        decoded = codec.decode(codec.encode(values, step), values.size)
        assert (np.abs(decoded - values) <= step).all()
        total += decoded
    share = np.abs(values / step) % 1
    deviation = step * np.sqrt(share * (1 - share) / rounds)
    assert (np.abs(total / rounds - values)[1:] <= 5 * deviation[1:] + 2.0**-20).all()


def test_means_of_many_stochastic_updates_come_to_what_they_are_means_of() -> None:
    """Devices that keep nothing: the error of the mean shrinks as they grow in number, also far below a step."""
    codec, truth = Lattice(rounding="stochastic"), np.random.default_rng(0).normal(0, 0.05, 400).astype(np.float32)
    rng = np.random.default_rng(1)
    errors = []
    for devices in (10, 1000):
        noisy = (truth + rng.normal(0, 1e-3, (devices, 400))).astype(np.float32)
        merged = codec.merge([codec.encode(vector, 1.0) for vector in noisy], 400)
        errors.append(float(np.linalg.norm(codec.decode(merged, 400) / devices - truth) / np.linalg.norm(truth)))
    assert errors[1] < 0.2 * errors[0]


def test_stochastic_rounding_writes_whole_steps_as_they_are() -> None:
    """64 + u is 65 in float32 where u is next to 1, which among three million is the case for a dozen."""
    symbols = np.random.default_rng(0).integers(64, 128, 3_000_000).astype(np.float32)
    codec = Lattice("golomb")
    assert np.array_equal(codec.decode(codec.encode(symbols * 0.5, 0.5), symbols.size), symbols * 0.5)


def test_stochastic_rounding_keeps_nothing_and_is_the_same_every_time() -> None:
    codec = Lattice(rounding="stochastic")
    assert not codec.feedback
    assert not Lattice().feedback
    assert Lattice(rounding="nearest").feedback
    assert codec.encode(drawn(5), 4.0) == codec.encode(drawn(5), 4.0)
    assert symbols(codec, codec.encode(vector(1e6, -1e6), 1.0), 2) == [127, -127]


@hypothesis.given(st.lists(st.integers(-127, 127), min_size=1, max_size=60), st.integers(-40, 40), st.integers(1, 4))
def test_the_energy_of_a_payload_is_its_squared_norm_exactly(found: list[int], exponent: int, times: int) -> None:
    codec, step = Lattice(), 2.0**exponent
    payload = codec.merge([NEAREST.encode(vector(*(step * value for value in found)), step)] * times, len(found))
    assert codec.energy(payload, len(found)) == step * step * sum((times * value) ** 2 for value in found)
    assert codec.energy(codec.encode(np.zeros(3, np.float32), step), 3) == 0.0
