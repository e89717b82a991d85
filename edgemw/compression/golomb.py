"""Sparse integers to bytes and back: zero-run Golomb-Rice, with magnitudes in Elias gamma.

The parts of all symbols stand together instead of interleaved, which costs no bit and lets numpy read them without a
loop over symbols:

    runs         for each non-zero: (zeros before it) >> k in unary, as that many 0 and a 1
    remainders   for each non-zero: the low k bits of the run, most significant first
    signs        one bit each, 1 is negative
    lengths      for each non-zero: floor(log2 |q|) in unary
    mantissas    for each non-zero with |q| > 1: the bits of |q| below the leading one
    padding      0 to 7 zero bits

Sources: Golomb, IEEE Trans. IT 12 (1966); Rice 1979; the choice of k from p = n / size: Gallager and van Voorhis,
IEEE Trans. IT 21 (1975), in the form used by Sattler et al., arXiv:1903.02891.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from edgemw.core.errors import WireError

Integers = npt.NDArray[np.int64]
Bits = npt.NDArray[np.uint8]

MAX_MAGNITUDE = (1 << 31) - 1
_MAX_LENGTH = 30  # floor(log2(MAX_MAGNITUDE))


def rice_parameter(count: int, size: int) -> int:
    """The k that minimises the expected length of runs when `count` of `size` symbols are not zero."""
    if count == 0 or count >= size:
        return 0
    ratio = math.log((math.sqrt(5) - 1) / 2) / math.log1p(-count / size)
    return max(0, 1 + math.floor(math.log2(ratio)))


def pack(positions: Integers, values: Integers, size: int) -> bytes:
    """Write the non-zero `values` at strictly increasing `positions` below `size`; |value| <= MAX_MAGNITUDE."""
    count = positions.size
    if count == 0:
        return b""
    k = rice_parameter(count, size)
    runs = np.diff(positions, prepend=-1) - 1
    magnitudes = np.abs(values)
    lengths = np.frexp(magnitudes.astype(np.float64))[1].astype(np.int64) - 1
    parts = [
        _unary(runs >> k),
        _fixed(runs, k),
        (values < 0).astype(np.uint8),
        _unary(lengths),
        _mantissas(magnitudes, lengths),
    ]
    return np.packbits(np.concatenate(parts)).tobytes()


def unpack(data: bytes, count: int, size: int) -> tuple[Integers, Integers]:
    """The inverse of `pack` for `count` non-zeros: positions and values.

    Raises:
        WireError: the bytes are not what `pack` writes for these numbers.
    """
    if not 0 <= count <= size:
        raise WireError("count", f"{count} symbols in {size} places")
    if count == 0:
        if data:
            raise WireError("trailing", "bytes after an empty set of symbols")
        return np.empty(0, np.int64), np.empty(0, np.int64)
    k = rice_parameter(count, size)
    reader = _Reader(np.unpackbits(np.frombuffer(data, np.uint8)))
    high = reader.unary(count)
    runs = (high << k) | reader.fixed(count, k)
    positions = np.cumsum(runs + 1) - 1
    if positions[-1] >= size:
        raise WireError("position", f"a symbol at {positions[-1]} of {size}")
    negative = reader.take(count)
    lengths = reader.unary(count)
    if lengths.max() > _MAX_LENGTH:
        raise WireError("magnitude", "a symbol above 2^31 - 1")
    magnitudes = reader.mantissas(lengths)
    reader.finish()
    return positions, np.where(negative, -magnitudes, magnitudes)


def _unary(numbers: Integers) -> Bits:
    ends = np.cumsum(numbers + 1)
    bits = np.zeros(int(ends[-1]), np.uint8)
    bits[ends - 1] = 1
    return bits


def _fixed(numbers: Integers, width: int) -> Bits:
    shifts = np.arange(width - 1, -1, -1)
    return ((numbers[:, None] >> shifts) & 1).astype(np.uint8).ravel()


def _mantissas(magnitudes: Integers, lengths: Integers) -> Bits:
    starts = np.cumsum(lengths) - lengths
    bits = np.zeros(int(lengths.sum()), np.uint8)
    for bit in range(int(lengths.max())):
        long = np.flatnonzero(lengths > bit)
        bits[starts[long] + bit] = (magnitudes[long] >> (lengths[long] - 1 - bit)) & 1
    return bits


class _Reader:
    """Takes the parts from a bit array in order; every length is checked against what is there."""

    def __init__(self, bits: Bits) -> None:
        self._bits = bits
        self._at = 0

    def take(self, count: int) -> Bits:
        if self._at + count > self._bits.size:
            raise WireError("truncated", "the symbols end early")
        part = self._bits[self._at : self._at + count]
        self._at += count
        return part

    def unary(self, count: int) -> Integers:
        ends = np.flatnonzero(self._bits[self._at :])[:count]
        if ends.size < count:
            raise WireError("truncated", "a unary part ends early")
        self._at += int(ends[-1]) + 1
        return np.diff(ends, prepend=-1) - 1

    def fixed(self, count: int, width: int) -> Integers:
        numbers = np.zeros(count, np.int64)
        bits = self.take(count * width).reshape(count, width)
        for column in range(width):
            numbers = (numbers << 1) | bits[:, column]
        return numbers

    def mantissas(self, lengths: Integers) -> Integers:
        bits = self.take(int(lengths.sum()))
        starts = np.cumsum(lengths) - lengths
        numbers = np.ones(lengths.size, np.int64)
        for bit in range(int(lengths.max())):
            long = np.flatnonzero(lengths > bit)
            numbers[long] = (numbers[long] << 1) | bits[starts[long] + bit]
        return numbers

    def finish(self) -> None:
        rest = self._bits[self._at :]
        if rest.size >= 8 or rest.any():
            raise WireError("trailing", "bytes after the last symbol")
