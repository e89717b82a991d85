"""The format of `rangecoder.py` in Python: the reference, and what runs where no compiler was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgemw.compression.golomb_numpy import Bytes, Positions, Symbols, rice_parameter
from edgemw.core.errors import CodecError, WireError

_Numbers = npt.NDArray[np.int64]

_DIRECT = 16  # numbers below have a token of their own
_TOKENS = 72
_TOKEN_BITS = 7
_SLOT_BITS = 12
_SLOTS = 1 << _SLOT_BITS
_SEEN = 32  # what one token adds to its count
_LARGEST_TOTAL = 1 << 17  # of counts, after which they are halved
_RUN_PRIOR = 1024
_MAGNITUDE_PRIOR = 64
_FIRST_BLOCK = 8
_BLOCK = 1024
_PAIRED = 1024  # from so many symbols on, runs and magnitudes have a state each
_LEAST = 1 << 16
_LOWEST = 1 << 31  # the magnitude that only a negative symbol may have
_RUNS, _MAGNITUDES = 0, -1  # their states: the last one is also the first where there is no second


class PythonRangeCoder:
    """Arrays where no state is involved, a loop over symbols where one is. The promises are those of `golomb.Golomb`."""

    name = "python"

    def pack(self, positions: Positions, symbols: Symbols, size: int) -> bytes:
        """See `golomb.Golomb.pack`."""
        count = positions.size
        if count == 0:
            return b""
        k = rice_parameter(count, size)
        runs = np.diff(positions, prepend=-1) - 1
        if runs.min() < 0 or positions[-1] >= size or not symbols.all():
            raise CodecError("positions must increase below the size, and values not be zero")
        high = runs >> k
        lower = np.abs(symbols).view(np.uint32).astype(np.int64) - 1  # -2^31 becomes 2^31
        blocks = list(_blocks(count))
        run_table, magnitude_table = _tables(count, size, k)
        shares = [(run_table.follow(high[block]), magnitude_table.follow(lower[block])) for block in blocks]
        writer = _Writer(count >= _PAIRED)
        for block, (run_shares, magnitude_shares) in zip(reversed(blocks), reversed(shares), strict=True):
            for run, magnitude in zip(high[block][::-1].tolist(), lower[block][::-1].tolist(), strict=True):
                writer.put(_MAGNITUDES, magnitude_shares, magnitude)
                writer.put(_RUNS, run_shares, run)
        return _fields(runs, symbols < 0, k) + writer.finish()

    def unpack(self, data: Bytes, count: int, size: int) -> tuple[Positions, Symbols]:
        """See `golomb.Golomb.unpack`."""
        field_bytes = _field_bytes(data, count, size)
        if count == 0:
            return np.empty(0, np.int64), np.empty(0, np.int32)
        k = rice_parameter(count, size)
        remainders, negative = _read_fields(data[:field_bytes], count, k)
        reader = _Reader(data[field_bytes:], count >= _PAIRED)
        high, magnitudes = _read_numbers(reader, remainders, negative, size)
        reader.finish()
        positions = np.cumsum((high << k) + remainders + 1) - 1
        return positions, np.where(negative, -magnitudes, magnitudes).astype(np.int32)

    def merge(self, parts: Sequence[tuple[Bytes, int]], size: int) -> tuple[int, bytes]:
        """See `golomb.Golomb.merge`."""
        total = np.zeros(size, np.int32)
        for data, count in parts:
            positions, symbols = self.unpack(data, count, size)
            total[positions] += symbols
        positions = np.flatnonzero(total)
        return positions.size, self.pack(positions, total[positions], size)


# ---- tables


@dataclass(frozen=True, slots=True)
class _Shares:
    """Which of the 4096 slots belong to which token; `escape` is the last token that has some, and stands for all above."""

    escape: int
    firsts: list[int]
    widths: list[int]

    def tokens(self) -> bytes:
        """The token of each slot."""
        return np.repeat(np.arange(self.escape + 1, dtype=np.uint8), self.widths).tobytes()


class _Table:
    def __init__(self, total: int, ratio: int) -> None:
        self._counts = np.zeros(_TOKENS, np.int64)
        rest = total << 20
        for token in range(_DIRECT):
            after = rest * ratio >> 32
            self._counts[token] = (rest - after) >> 20
            rest = after

    def share(self) -> _Shares:
        """The shares for the next block."""
        escape = int(np.flatnonzero(self._counts)[-1]) + 1
        counts = self._counts[: escape + 1] if escape < _TOKENS else np.append(self._counts, 0)
        total = int(counts.sum())
        widths = 1 + (counts * (((_SLOTS - 1 - escape) << 16) // total) >> 16)
        widths[widths.argmax()] += _SLOTS - widths.sum()
        if total > _LARGEST_TOTAL:
            self._counts >>= 1
        return _Shares(escape, (np.cumsum(widths) - widths).tolist(), widths.tolist())

    def learn(self, numbers: _Numbers) -> None:
        """Count the tokens of a block."""
        lengths = (numbers.astype(np.float64).view(np.int64) >> 52) - 1023  # the exponent is floor(log2)
        longer = _DIRECT + 2 * (lengths - 4) + (numbers >> np.maximum(lengths - 1, 0) & 1)
        self._counts += _SEEN * np.bincount(np.where(numbers < _DIRECT, numbers, longer), minlength=_TOKENS)

    def follow(self, numbers: _Numbers) -> _Shares:
        """The shares for a block of these numbers, which are then learnt."""
        shares = self.share()
        self.learn(numbers)
        return shares


def _tables(count: int, size: int, k: int) -> tuple[_Table, _Table]:
    """For runs and for magnitudes."""
    none = ((size - count) << 32) // size  # that a place holds no symbol; then 2^k of them
    for _ in range(k):
        none = none * none >> 32
    return _Table(_RUN_PRIOR, none), _Table(_MAGNITUDE_PRIOR, 1 << 31)


def _blocks(count: int) -> Iterator[slice]:
    begin, end = 0, _FIRST_BLOCK
    while begin < count:
        yield slice(begin, min(end, count))
        begin, end = end, end + min(end, _BLOCK)


def _token(number: int) -> int:
    if number < _DIRECT:
        return number
    length = number.bit_length() - 1
    return _DIRECT + 2 * (length - 4) + (number >> (length - 1) & 1)


def _bits_below(token: int) -> int:
    return 0 if token < _DIRECT else 3 + (token - _DIRECT) // 2


# ---- fields


def _field_bytes(data: Bytes, count: int, size: int) -> int:
    """How many bytes the fields take, if they are there."""
    if not 0 <= count <= size:
        raise WireError("count", "more symbols than places")
    if count == 0 and len(data):
        raise WireError("trailing", "bytes after the last symbol")
    needed = (count * (rice_parameter(count, size) + 1) + 7) // 8
    if needed > len(data):
        raise WireError("truncated", "the symbols end early")
    return needed


def _fields(runs: Positions, negative: npt.NDArray[np.bool_], k: int) -> bytes:
    fields = ((runs & ((1 << k) - 1)) << 1 | negative).astype(">u4")
    bits = np.unpackbits(fields.view(np.uint8)).reshape(runs.size, 32)
    return np.packbits(bits[:, 31 - k :]).tobytes()


def _read_fields(data: Bytes, count: int, k: int) -> tuple[Positions, npt.NDArray[np.bool_]]:
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    if bits[count * (k + 1) :].any():
        raise WireError("trailing", "bits after the last field")
    padded = np.zeros((count, 32), np.uint8)
    padded[:, 31 - k :] = bits[: count * (k + 1)].reshape(count, k + 1)
    fields = np.packbits(padded).view(">u4").astype(np.int64)
    return fields >> 1, (fields & 1).astype(np.bool_)


# ---- states


class _Writer:
    """Writes backwards, the last symbol first."""

    def __init__(self, paired: bool) -> None:
        self._states = [_LEAST, _LEAST] if paired else [1]
        self._words: list[int] = []

    def put(self, index: int, shares: _Shares, number: int) -> None:
        token = _token(number)
        width = _bits_below(token)
        if width:
            self._put_even(index, number, min(width, 16))
        if width > 16:
            self._put_even(index, number >> 16, width - 16)
        if token >= shares.escape:
            self._put_even(index, token, _TOKEN_BITS)
            token = shares.escape
        slots = shares.widths[token]
        self._spill(index, slots << (32 - _SLOT_BITS))
        quotient, rest = divmod(self._states[index], slots)
        self._states[index] = quotient << _SLOT_BITS | (shares.firsts[token] + rest)

    def finish(self) -> bytes:
        first = self._states[0].to_bytes((self._states[0].bit_length() + 7) // 8, "big")
        second = b"".join(state.to_bytes(4, "big") for state in self._states[1:])
        return second + first + np.array(self._words[::-1], ">u2").tobytes()

    def _put_even(self, index: int, bits: int, width: int) -> None:
        self._spill(index, 1 << (32 - width))
        self._states[index] = self._states[index] << width | (bits & ((1 << width) - 1))

    def _spill(self, index: int, limit: int) -> None:
        if self._states[index] >= limit:
            self._words.append(self._states[index] & 0xFFFF)
            self._states[index] >>= 16


class _Reader:
    def __init__(self, data: Bytes, paired: bool) -> None:
        self._paired = paired
        self._states = []
        seconds = data[: 4 * paired]
        if len(data) < (7 if paired else 1):
            raise WireError("truncated", "the symbols end early")
        if paired:
            self._states.append(int.from_bytes(seconds, "big"))
            data = data[4:]
        if data[0] == 0 or (paired and self._states[0] < _LEAST):
            raise WireError("state", "bytes that no writer ends with")
        length = len(data) if len(data) <= 4 else 4 - (len(data) & 1)
        self._states.insert(0, int.from_bytes(data[:length], "big"))
        self._words = np.frombuffer(data[length:], ">u2").astype(np.uint16).data
        self._at = 0

    def begin(self) -> None:
        """Before each symbol."""
        if self._at > len(self._words):
            raise WireError("truncated", "the symbols end early")

    def number(self, index: int, shares: _Shares, tokens: bytes) -> int:
        state = self._states[index]
        slot = state & (_SLOTS - 1)
        token = tokens[slot]
        self._states[index] = (state >> _SLOT_BITS) * shares.widths[token] + slot - shares.firsts[token]
        self._refill(index)
        if token == shares.escape:
            token = self._even(index, _TOKEN_BITS)
            if not shares.escape <= token < _TOKENS:
                raise WireError("token", "an escape to a token that needs none")
        return token if token < _DIRECT else self._long(index, token)

    def finish(self) -> None:
        self.begin()
        if self._at < len(self._words):
            raise WireError("trailing", "bytes after the last symbol")
        if self._states != ([_LEAST, _LEAST] if self._paired else [1]):
            raise WireError("state", "bytes that no writer ends with")

    def _long(self, index: int, token: int) -> int:
        width = _bits_below(token)
        number = 2 | (token - _DIRECT) & 1
        if width > 16:
            number = number << (width - 16) | self._even(index, width - 16)
            width = 16
        return number << width | self._even(index, width)

    def _even(self, index: int, width: int) -> int:
        bits = self._states[index] & ((1 << width) - 1)
        self._states[index] >>= width
        self._refill(index)
        return bits

    def _refill(self, index: int) -> None:
        there = self._at < len(self._words)
        if self._states[index] < _LEAST and (there or self._paired):
            self._states[index] = self._states[index] << 16 | (self._words[self._at] if there else 0)
            self._at += 1


def _read_numbers(
    reader: _Reader, remainders: Positions, negative: npt.NDArray[np.bool_], size: int
) -> tuple[_Numbers, _Numbers]:
    """The upper parts of the runs, and the magnitudes."""
    count = remainders.size
    k = rice_parameter(count, size)
    tables = _tables(count, size, k)
    high, magnitudes = np.empty(count, np.int64), np.empty(count, np.int64)
    places = 0
    for block in _blocks(count):
        run_shares, magnitude_shares = (table.share() for table in tables)
        run_tokens, magnitude_tokens = run_shares.tokens(), magnitude_shares.tokens()
        runs, lower = [], []
        for remainder, minus in zip(remainders[block].tolist(), negative[block].tolist(), strict=True):
            reader.begin()
            runs.append(reader.number(_RUNS, run_shares, run_tokens))
            places += (runs[-1] << k) + remainder + 1
            if places > size:
                raise WireError("position", "a symbol beyond the size")
            lower.append(reader.number(_MAGNITUDES, magnitude_shares, magnitude_tokens))
            if lower[-1] >= _LOWEST - 1 + minus:
                raise WireError("magnitude", "a symbol outside 32 bits")
        high[block], magnitudes[block] = runs, lower
        for table, numbers in zip(tables, (high, magnitudes), strict=True):
            table.learn(numbers[block])
    return high, magnitudes + 1
