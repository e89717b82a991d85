"""Side values: float16 on their way up, exact in sums, one spelling, and hostile bytes are refused."""

from __future__ import annotations

import struct
from fractions import Fraction

import hypothesis
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgemw.compression import side
from edgemw.core.errors import CodecError, WireError

Values = npt.NDArray[np.float64]
LARGEST = 65504.0 * 2**24


def vectors(count: int = 300) -> st.SearchStrategy[Values]:
    elements = st.sampled_from([0.0, 1.0, -0.5, 1 / 3, 2.0**-24, 2.0**-30, 65504.0, -65505.0, 1e9, -1e11, LARGEST])
    return hnp.arrays(np.float64, count, elements=elements | st.floats(-1e6, 1e6), fill=st.just(0.0))


def integers(values: Values) -> list[Fraction]:
    return [Fraction(float(value)) * 2**24 for value in values]


@hypothesis.given(vectors())
def test_a_value_is_rounded_towards_zero_to_eleven_bits(values: Values) -> None:
    decoded = side.decode(side.encode(values), values.size)
    unit = 2.0 ** (max(0, int(np.frexp(np.abs(values).max())[1]) - 16) - 24)
    assert (np.abs(decoded) <= np.abs(values)).all()
    assert (decoded * values >= 0).all()
    assert (np.abs(values - decoded) <= np.maximum(2.0**-10 * np.abs(values), unit)).all()


@hypothesis.given(st.lists(vectors(), min_size=1, max_size=5))
def test_sums_are_exact_whatever_the_order_and_grouping(parts: list[Values]) -> None:
    payloads = [side.encode(part) for part in parts]
    whole = side.merge(payloads, 300)
    expected = [sum(column) for column in zip(*(integers(side.decode(p, 300)) for p in payloads), strict=True)]
    assert [Fraction(v) * 2**24 for v in side.decode(whole, 300).tolist()] == [Fraction(float(e)) for e in expected]
    assert side.merge(payloads[::-1], 300) == whole
    for split in range(1, len(payloads)):
        assert side.merge([side.merge(payloads[split:], 300), side.merge(payloads[:split], 300)], 300) == whole


def test_a_sum_of_many_at_the_end_of_the_range_does_not_wrap() -> None:
    payload = side.encode(np.full(3, LARGEST))
    for _ in range(20):
        payload = side.merge([payload, payload], 3)
    assert side.decode(payload, 3).tolist() == [LARGEST * 2**20] * 3


def test_what_is_beyond_the_range_becomes_its_end() -> None:
    assert side.decode(side.encode(np.array([1e30, -1e30, 1.0])), 3).tolist() == [LARGEST, -LARGEST, 1.0]


def test_nothing_is_no_bytes() -> None:
    assert side.encode(np.zeros(1000)) == b""
    assert side.encode(np.full(3, 2.0**-25)) == b""
    assert side.decode(b"", 3).tolist() == [0, 0, 0]
    assert side.merge([b"", b""], 3) == b""
    plus, minus = side.encode(np.array([1.5, 0, 3])), side.encode(np.array([-1.5, 0, -3]))
    assert side.merge([plus, b"", minus], 3) == b""
    side.check(b"", 3)


def test_one_device_takes_two_bytes_a_value_and_blocks_of_zeros_take_none() -> None:
    values = np.zeros(100_000)
    values[512:700] = np.random.default_rng(0).normal(0, 3, 188)
    assert len(side.encode(values)) == 6 + 49 + 2 * 256


def test_a_sum_takes_no_more_bytes_than_its_integers_need() -> None:
    rng = np.random.default_rng(1)
    merged = side.merge([side.encode(rng.normal(0, 3, 256)) for _ in range(10)], 256)
    assert len(merged) == 6 + 1 + 4 * 256


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_not_written(bad: float) -> None:
    with pytest.raises(CodecError, match="NaN or infinite"):
        side.encode(np.array([1.0, bad]))


def test_parts_of_different_lengths_do_not_add() -> None:
    with pytest.raises(WireError, match="4 values where there are 3"):
        side.merge([side.encode(np.ones(3)), side.encode(np.ones(4))], 10)


def written(count: int, form: int, shift: int, blocks: bytes, data: bytes) -> bytes:
    return struct.pack("<IBB", count, form, shift) + blocks + data


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"\x02\0\0\0", "truncated"),
        (written(3, 1, 0, b"\1", b"\1\2\3"), "side"),  # another number of values
        (written(2, 1, 0, b"\1", b"\1"), "length"),
        (written(2, 1, 0, b"\1", b"\1\2\3"), "length"),
        (written(2, 13, 0, b"\1", bytes(26)), "side"),
        (written(2, 1, 1, b"\1", b"\1\2"), "side"),  # integers have no shift
        (written(2, 0, 25, b"\1", b"\0\x3c\0\x3c"), "side"),
        (written(2, 1, 0, b"\3", b"\1\2"), "side"),  # a block that is not there
        (written(2, 1, 0, b"", b""), "side"),
        (written(2, 1, 0, b"\1", b"\0\0"), "side"),  # zeros are not spelled out
        (written(2, 1, 0, b"\0", b""), "side"),
        (written(2, 2, 0, b"\1", b"\1\0\2\0"), "side"),  # one byte is enough
        (written(2, 4, 0, b"\1", struct.pack("<ii", 1 << 24, 3 << 24)), "side"),  # float16 is shorter
        (written(2, 0, 1, b"\1", b"\0\x3c\0\x3c"), "side"),  # a smaller shift says it
        (written(2, 0, 0, b"\1", b"\0\x3c\0\x80"), "side"),  # -0
        (written(2, 0, 0, b"\1", b"\0\x3c\0\x7c"), "not-finite"),
        (written(2, 0, 0, b"\1", b"\0\x3c\1\x7e"), "not-finite"),
    ],
)
def test_other_bytes_are_refused(payload: bytes, why: str) -> None:
    with pytest.raises(WireError) as caught:
        side.check(payload, 2)
    assert caught.value.reason == why


def test_a_length_is_never_trusted() -> None:
    claims = written(0xFFFFFFFF, 1, 0, b"\1", b"\1")
    for act in (lambda: side.check(claims, 2), lambda: side.decode(claims, 2), lambda: side.merge([claims, claims], 1000)):
        with pytest.raises(WireError, match="4294967295 values"):
            act()


@hypothesis.given(st.binary(max_size=40), vectors(8), st.integers(0, 40))
def test_damaged_bytes_are_refused_or_are_values_like_any_other(noise: bytes, values: Values, start: int) -> None:
    sound = side.encode(values)
    suspect = sound[:start] + noise
    try:
        side.check(suspect, 8)
    except WireError:
        return
    assert np.isfinite(side.decode(suspect, 8)).all()
    assert side.merge([suspect], 8) == suspect
    side.check(side.merge([suspect, sound, suspect], 8), 8)
