"""The format of `golomb.py` in numpy: the reference, and what runs where no compiler was."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edgemw.core.errors import CodecError, WireError

Bytes = bytes | memoryview
Positions = npt.NDArray[np.int64]
Symbols = npt.NDArray[np.int32]

_Bits = npt.NDArray[np.uint8]
_MAX_LENGTH = 31


def rice_parameter(count: int, size: int) -> int:
    """The k that minimises the expected length of runs when `count` of `size` places hold a symbol.

    k = max(0, 1 + floor(log2(ln(phi) (mean run + 1/2)))), with ln(phi) as 77/160, in integers: the same everywhere.
    """
    return ((2 * size - count) * 77 // (320 * count)).bit_length() if count else 0


class NumpyGolomb:
    """No loop over symbols, only over bit places. The promises are those of `golomb.Golomb`."""

    name = "numpy"

    def pack(self, positions: Positions, symbols: Symbols, size: int) -> bytes:
        """See `golomb.Golomb.pack`."""
        if positions.size == 0:
            return b""
        k = rice_parameter(positions.size, size)
        runs = np.diff(positions, prepend=-1) - 1
        if runs.min() < 0 or positions[-1] >= size or not symbols.all():
            raise CodecError("positions must increase below the size, and values not be zero")
        magnitudes = np.abs(symbols).view(np.uint32)  # -2^31 becomes 2^31
        lengths = (magnitudes.astype(np.float64).view(np.int64) >> 52) - 1023  # the exponent is floor(log2)
        parts = [
            _unary(runs >> k),
            _fixed(runs, k),
            (symbols < 0).view(np.uint8),
            _unary(lengths),
            _mantissas(magnitudes, lengths),
        ]
        return np.packbits(np.concatenate(parts)).tobytes()

    def unpack(self, data: Bytes, count: int, size: int) -> tuple[Positions, Symbols]:
        """See `golomb.Golomb.unpack`."""
        k = _sound_claim(data, count, size)
        if count == 0:
            return np.empty(0, np.int64), np.empty(0, np.int32)
        reader = _Reader(data)
        high = reader.unary(count)
        if int(high.sum()) > size >> k:  # so that no run below can overflow
            raise WireError("position", "a symbol beyond the size")
        remainders = reader.take(count * k)
        negative = reader.take(count).view(np.bool_)
        lengths = reader.unary(count)
        mantissas = reader.take(int(lengths.sum()))
        reader.finish()
        positions = np.cumsum((high << k) + _numbers(remainders, count, k) + 1) - 1
        if positions[-1] >= size:
            raise WireError("position", "a symbol beyond the size")
        return positions, _signed(_magnitudes(mantissas, lengths), negative)

    def merge(self, parts: Sequence[tuple[Bytes, int]], size: int) -> tuple[int, bytes]:
        """See `golomb.Golomb.merge`."""
        total = np.zeros(size, np.int32)
        for data, count in parts:
            positions, symbols = self.unpack(data, count, size)
            total[positions] += symbols
        positions = np.flatnonzero(total != 0)
        return positions.size, self.pack(positions, total[positions], size)


def _sound_claim(data: Bytes, count: int, size: int) -> int:
    """The k of this many symbols, if the bytes can hold them at all."""
    if not 0 <= count <= size:
        raise WireError("count", "more symbols than places")
    if count == 0 and len(data):
        raise WireError("trailing", "bytes after an empty set of symbols")
    k = rice_parameter(count, size)
    if count * (k + 3) > 8 * len(data):
        raise WireError("truncated", "the symbols end early")
    return k


def _unary(numbers: Positions) -> _Bits:
    ends = np.cumsum(numbers + 1)
    bits = np.zeros(int(ends[-1]), np.uint8)
    bits[ends - 1] = 1
    return bits


def _fixed(numbers: Positions, width: int) -> _Bits:
    """The low `width` bits of each, by way of the smallest big-endian integers that hold them."""
    lane = _lane(width)
    bits = np.unpackbits(numbers.astype(lane).view(np.uint8)).reshape(numbers.size, 8 * lane.itemsize)
    return bits[:, bits.shape[1] - width :].ravel()


def _numbers(bits: _Bits, count: int, width: int) -> Positions:
    """The inverse of `_fixed`."""
    lane = _lane(width)
    padded = np.zeros((count, 8 * lane.itemsize), np.uint8)
    padded[:, padded.shape[1] - width :] = bits.reshape(count, width)
    return np.packbits(padded).view(lane).astype(np.int64)


def _lane(width: int) -> np.dtype[np.unsignedinteger]:
    return np.dtype(">u1" if width <= 8 else ">u2" if width <= 16 else ">u4")


def _mantissas(magnitudes: npt.NDArray[np.uint32], lengths: Positions) -> _Bits:
    starts = np.cumsum(lengths) - lengths
    bits = np.zeros(int(lengths.sum()), np.uint8)
    longer = np.flatnonzero(lengths)
    for bit in range(int(lengths.max())):
        longer = longer[lengths[longer] > bit]
        bits[starts[longer] + bit] = (magnitudes[longer] >> (lengths[longer] - 1 - bit).astype(np.uint32)) & 1
    return bits


def _magnitudes(bits: _Bits, lengths: Positions) -> Positions:
    """The inverse of `_mantissas`."""
    longest = int(lengths.max())
    if longest > _MAX_LENGTH:
        raise WireError("magnitude", "a symbol outside 32 bits")
    starts = np.cumsum(lengths) - lengths
    numbers = np.ones(lengths.size, np.int64)
    longer = np.flatnonzero(lengths)
    for bit in range(longest):
        longer = longer[lengths[longer] > bit]
        numbers[longer] = (numbers[longer] << 1) | bits[starts[longer] + bit]
    return numbers


def _signed(magnitudes: Positions, negative: npt.NDArray[np.bool_]) -> Symbols:
    symbols = np.where(negative, -magnitudes, magnitudes)
    narrow = symbols.astype(np.int32)
    if (narrow != symbols).any():
        raise WireError("magnitude", "a symbol outside 32 bits")
    return narrow


class _Reader:
    """Takes the streams in order. Only the bytes of the stream that is read are spread into bits."""

    def __init__(self, data: Bytes) -> None:
        self._bytes = np.frombuffer(data, np.uint8)
        self._ones = np.cumsum(np.bitwise_count(self._bytes), dtype=np.int64)  # up to and with each byte
        self._at = 0  # in bits

    def take(self, count: int) -> _Bits:
        end = self._at + count
        if end > 8 * self._bytes.size:
            raise WireError("truncated", "the symbols end early")
        bits = np.unpackbits(self._bytes[self._at >> 3 : (end + 7) >> 3])
        first = self._at & 7
        self._at = end
        return bits[first : first + count]

    def unary(self, count: int) -> Positions:
        """The next `count` numbers, at least one."""
        first, offset = self._at >> 3, self._at & 7
        taken = int(self._ones[first - 1]) if first else 0
        if offset:
            taken += (int(self._bytes[first]) >> (8 - offset)).bit_count()
        last = int(np.searchsorted(self._ones, taken + count))
        if last == self._bytes.size:
            raise WireError("truncated", "the symbols end early")
        bits = np.unpackbits(self._bytes[first : last + 1])[offset:]
        ends = np.flatnonzero(bits.view(np.bool_))[:count]
        self._at += int(ends[-1]) + 1
        return np.diff(ends, prepend=-1) - 1

    def finish(self) -> None:
        rest = 8 * self._bytes.size - self._at
        if rest >= 8 or self.take(rest).any():
            raise WireError("trailing", "bytes after the last symbol")
