"""Addition of packed integers modulo 2^bits, on the packed bytes.

Integers of 8 and 16 bits are added as such. Those of another width are added 64 bits at a time, with the uppermost bit of each
integer set apart so that no carry leaves it:

    t = the uppermost bit of every integer ;  s = (a & ~t) + (b & ~t) ;  a + b = s ^ ((a ^ b) & t)

where an integer lies across two words, the carry out of the first word is added to the second: it goes no further, because the
integer ends there below its own uppermost bit. The work is cut into pieces whose running sum stays in a cache, so that every
input is read once.

Source: additions inside a word: Lamport, Multiple byte processing with full-word instructions, CACM 18 (1975).
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edgemw.compression.fixedwidth import word_dtype

_Words = npt.NDArray[np.uint64]
_DIRECT_BYTES = 1 << 18
_PIECE_WORDS = 1 << 12  # times the width; there are four arrays of that length


def add(parts: Sequence[memoryview], bits: int, head: bytes) -> bytes:
    """A head, and behind it the sum of integers that are packed by `fixedwidth.pack`.

    Args:
        parts: one or more, of the same length.
        bits: of each integer, 1 to 16.
        head: what the result begins with.
    """
    if len(parts) == 1 or not parts[0]:
        return head + parts[0]
    out = io.BytesIO()
    out.write(head)
    if bits in (8, 16):
        _add_direct(parts, bits, out)
    else:
        _add_inside_words(parts, bits, out)
    return out.getvalue()


def _add_direct(parts: Sequence[memoryview], bits: int, out: io.BytesIO) -> None:
    arrays = [np.frombuffer(part, word_dtype(bits)) for part in parts]
    length = _DIRECT_BYTES * 8 // bits
    total = np.empty(min(length, arrays[0].size), arrays[0].dtype)
    for start in range(0, arrays[0].size, length):
        pieces = [array[start : start + length] for array in arrays]
        piece = total[: pieces[0].size]
        np.add(pieces[0], pieces[1], out=piece)
        for other in pieces[2:]:
            np.add(piece, other, out=piece)
        out.write(piece.data)


def _add_inside_words(parts: Sequence[memoryview], bits: int, out: io.BytesIO) -> None:
    length = 8 * min(_PIECE_WORDS * bits, -(-len(parts[0]) // 8))
    tops = _tops(length // 8, bits)
    lows = ~tops
    for start in range(0, len(parts[0]), length):
        pieces = [part[start : start + length] for part in parts]
        total, other = np.zeros_like(tops), np.zeros_like(tops)
        for piece in pieces:
            other.view(np.uint8)[: len(piece)] = np.frombuffer(piece, np.uint8)
            _add_words(total, other, tops, lows)
        out.write(total.view(np.uint8)[: len(pieces[0])].data)


def _add_words(total: _Words, other: _Words, tops: _Words, lows: _Words) -> None:
    """Add to a total in place; `other` is used up. `lows` are the bits that `tops` are not."""
    differing = total ^ other
    differing &= tops
    total &= lows
    other &= lows
    total += other
    total[1:] += total[:-1] < other[:-1]
    total ^= differing


def _tops(count: int, bits: int) -> _Words:
    """Words in which the uppermost bit of every packed integer is set: they repeat after `bits` words."""
    period = sum(1 << bit for bit in range(bits - 1, 64 * bits, bits)).to_bytes(8 * bits, "little")
    return np.resize(np.frombuffer(period, "<u8"), count)
