"""Sparse integers to bytes and back: zero-run Golomb-Rice, with magnitudes in Elias gamma.

The parts of all symbols stand together instead of interleaved, which costs no bit and lets numpy read them without a
loop over symbols:

    runs         for each non-zero: (zeros before it) >> k in unary, as that many 0 and a 1
    remainders   for each non-zero: the low k bits of the run, most significant first
    signs        one bit each, 1 is negative
    lengths      for each non-zero: floor(log2 |q|) in unary
    mantissas    for each non-zero with |q| > 1: the bits of |q| below the leading one
    padding      0 to 7 zero bits

Symbols are integers modulo 2^32, written as their representative in [-2^31, 2^31): a sum of any payloads is again a
payload, so nothing that a peer sends can make a later merge fail. A vector has exactly one encoding: k follows from the
number of symbols and places in integer arithmetic, and bytes that `pack` would not write are refused.

Reading needs memory in proportion to the bytes that are there, whatever number of symbols they claim.

Two implementations give the same bytes and the same refusals: numpy, and C where a compiler was at installation.

Sources: Golomb, IEEE Trans. IT 12 (1966); Rice 1979; the choice of k: Gallager and van Voorhis, IEEE Trans. IT 21
(1975), in the form of Kiely, IPN Progress Report 42-159 (2004).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from edgemw.compression.golomb_numpy import Bytes, NumpyGolomb, Positions, Symbols

try:
    from edgemw.compression.golomb_compiled import CompiledGolomb
except ImportError:  # installed without a compiler
    _COMPILED = False
else:
    _COMPILED = True


class Golomb(Protocol):
    """One implementation of the format.

    Attributes:
        name: "numpy" or "compiled".
    """

    name: str

    def pack(self, positions: Positions, symbols: Symbols, size: int) -> bytes:
        """Write non-zero symbols (int32[n]) at strictly increasing positions (int64[n]) below `size` (at most 2^31).

        Raises:
            CodecError: they are not that.
        """
        ...

    def unpack(self, data: Bytes, count: int, size: int) -> tuple[Positions, Symbols]:
        """The inverse of `pack` for `count` symbols: positions int64[count], symbols int32[count].

        Raises:
            WireError: the bytes are not what `pack` writes for these numbers.
        """
        ...

    def merge(self, parts: Sequence[tuple[Bytes, int]], size: int) -> tuple[int, bytes]:
        """The number of symbols of the sum modulo 2^32, and what `pack` writes for it, from (data, count) of each part.

        Raises:
            WireError: as `unpack`.
        """
        ...


def fastest() -> Golomb:
    """The compiled implementation where it was built, else numpy."""
    return CompiledGolomb() if _COMPILED else NumpyGolomb()
