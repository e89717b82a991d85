"""Unsigned integers of a fixed width, packed without gaps.

    integer i stands in bits i b to (i + 1) b - 1 ; bit j of the whole is bit j % 8 of byte j // 8 ; 0 to 7 zero bits at the end

So 8 bits are the bytes themselves, 16 bits are uint16 LE, and of two integers of 4 bits the first is the low half of its byte.
Integers of 8 and 16 bits are read where they lie, without a copy.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemw.core.errors import WireError

MOST_BITS = 16
Words = npt.NDArray[np.unsignedinteger[Any]]
_GROUP = 8  # integers that fill whole bytes, whatever their width


def word_dtype(bits: int) -> np.dtype[np.unsignedinteger[Any]]:
    """What integers of 1 to 16 bits are held in."""
    return np.dtype("<u1") if bits <= 8 else np.dtype("<u2")


def packed_bytes(count: int, bits: int) -> int:
    """How many bytes `count` integers take."""
    return (count * bits + 7) // 8


def pack(values: npt.NDArray[np.integer[Any]], bits: int) -> bytes:
    """Write integers modulo 2^bits; those below zero too."""
    if bits in (8, 16):
        return values.astype(word_dtype(bits), copy=False).tobytes()
    lanes, width = _shape(bits)
    columns = np.zeros((lanes, -(-values.size // lanes)), _wide_dtype(bits))
    for lane, column in enumerate(columns):
        part = values[lane::lanes]
        column[: part.size] = part.astype(column.dtype) & ((1 << bits) - 1)
    out = np.zeros((columns.shape[1], width), np.uint8)
    for lane, column in enumerate(columns):
        first, shift = divmod(lane * bits, 8)
        shifted = column << shift
        for byte in range(first, (lane * bits + bits + 7) // 8):
            out[:, byte] |= (shifted >> 8 * (byte - first)).astype(np.uint8)
    return out.reshape(-1)[: packed_bytes(values.size, bits)].tobytes()


def unpack(data: bytes | memoryview, count: int, bits: int) -> Words:
    """Read what `pack` wrote, uint8[count] or uint16[count]; read only where it is a view of the data.

    Args:
        data: as long as `packed_bytes` says.
        count: of integers.
        bits: from 1 to 16.
    """
    if bits in (8, 16):
        return np.frombuffer(data, word_dtype(bits), count)
    lanes, width = _shape(bits)
    rows = np.zeros((-(-count // lanes), width), np.uint8)
    rows.reshape(-1)[: len(data)] = np.frombuffer(data, np.uint8)
    values = np.empty((rows.shape[0], lanes), word_dtype(bits))
    for lane in range(lanes):
        first, shift = divmod(lane * bits, 8)
        value = rows[:, first].astype(_wide_dtype(bits))
        for byte in range(first + 1, (lane * bits + bits + 7) // 8):
            value |= rows[:, byte].astype(value.dtype) << 8 * (byte - first)
        values[:, lane] = (value >> shift) & ((1 << bits) - 1)
    return values.reshape(-1)[:count]


def check_packed(data: bytes | memoryview, count: int, bits: int) -> None:
    """Raise WireError unless the data are what `pack` writes for `count` integers."""
    if len(data) != packed_bytes(count, bits):
        raise WireError("length", f"{len(data)} bytes for {count} integers of {bits} bits")
    used = count * bits % 8
    if used and data[-1] >> used:
        raise WireError("trailing", "bits after the last integer")


def _wide_dtype(bits: int) -> np.dtype[np.unsignedinteger[Any]]:
    """What holds the two or three bytes that an integer touches."""
    return np.dtype(np.uint16) if bits <= 8 else np.dtype(np.uint32)


def _shape(bits: int) -> tuple[int, int]:
    """The fewest integers that fill whole bytes, and how many bytes those are."""
    shared = math.gcd(bits, _GROUP)
    return _GROUP // shared, bits // shared
