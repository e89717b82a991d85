"""Integers of a fixed width: packing, and addition on the packed bytes, against the plain definition."""

from __future__ import annotations

import numpy as np
import pytest

from edgemw.compression.fixedwidth import Words, check_packed, pack, packed_bytes, unpack, word_dtype
from edgemw.compression.ring import add
from edgemw.core.errors import WireError

COUNTS = (0, 1, 2, 3, 7, 8, 63, 64, 65, 1000)


def random(rng: np.random.Generator, count: int, bits: int) -> Words:
    words: Words = rng.integers(0, 1 << bits, count).astype(word_dtype(bits))
    return words


def definition(values: Words, bits: int) -> bytes:
    """One long integer, little endian."""
    whole = sum(int(value) << (place * bits) for place, value in enumerate(values))
    return whole.to_bytes(packed_bytes(values.size, bits), "little")


@pytest.mark.parametrize("bits", range(1, 17))
def test_packing_is_one_long_integer_and_comes_back(bits: int) -> None:
    rng = np.random.default_rng(bits)
    for count in COUNTS:
        values = random(rng, count, bits)
        packed = pack(values, bits)
        assert packed == definition(values, bits)
        check_packed(packed, count, bits)
        assert np.array_equal(unpack(packed, count, bits), values)


@pytest.mark.parametrize("bits", range(1, 17))
def test_sums_of_packed_integers(bits: int) -> None:
    rng = np.random.default_rng(bits)
    for count in COUNTS:
        parts = [random(rng, count, bits) for _ in range(4)]
        parts.append(np.full(count, (1 << bits) - 1, word_dtype(bits)))  # carries everywhere
        total = np.sum([part.astype(np.int64) for part in parts], axis=0) % (1 << bits)
        assert add([memoryview(pack(part, bits)) for part in parts], bits, b"head") == b"head" + definition(total, bits)
        assert add([memoryview(pack(parts[0], bits))], bits, b"") == pack(parts[0], bits)


@pytest.mark.parametrize("bits", [3, 8, 12, 16])
def test_sums_of_more_than_one_piece(bits: int) -> None:
    rng = np.random.default_rng(bits)
    count = 1_100_003
    one, other = random(rng, count, bits), random(rng, count, bits)
    total = ((one.astype(np.int64) + other) % (1 << bits)).astype(word_dtype(bits))
    assert add([memoryview(pack(one, bits)), memoryview(pack(other, bits))], bits, b"") == pack(total, bits)


NOT_PACKED = [(b"", "length"), (bytes(1), "length"), (bytes(3), "length"), (b"\0\x10", "trailing"), (b"\0\x80", "trailing")]


@pytest.mark.parametrize(("data", "reason"), NOT_PACKED)
def test_what_is_not_three_integers_of_four_bits(data: bytes, reason: str) -> None:
    with pytest.raises(WireError) as refused:
        check_packed(data, 3, 4)
    assert refused.value.reason == reason
