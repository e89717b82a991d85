"""The format of `rangecoder.py` in C, by way of `_rangecoder.c`. Importing this fails where the extension was not built."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgemw.compression import _rangecoder
from edgemw.compression.golomb_numpy import Bytes, Positions, Symbols
from edgemw.core.errors import CodecError, WireError


class CompiledRangeCoder:
    """Bits are read and written by the extension; arrays belong to numpy. The promises are those of `golomb.Golomb`."""

    name = "compiled"

    def pack(self, positions: Positions, symbols: Symbols, size: int) -> bytes:
        """See `golomb.Golomb.pack`."""
        try:
            return _rangecoder.pack(np.ascontiguousarray(positions, np.int64), np.ascontiguousarray(symbols), size)
        except ValueError as error:
            raise CodecError(str(error)) from None

    def unpack(self, data: Bytes, count: int, size: int) -> tuple[Positions, Symbols]:
        """See `golomb.Golomb.unpack`."""
        if not 0 <= count <= size:
            raise WireError("count", "more symbols than places")
        if count > 8 * len(data):  # before anything is reserved for a claimed number
            raise WireError("truncated", "the symbols end early")
        positions, symbols = np.empty(count, np.int64), np.empty(count, np.int32)
        try:
            _rangecoder.unpack(data, size, positions, symbols)
        except ValueError as error:
            raise _refusal(error) from None
        return positions, symbols

    def merge(self, parts: Sequence[tuple[Bytes, int]], size: int) -> tuple[int, bytes]:
        """See `golomb.Golomb.merge`."""
        try:
            return _rangecoder.merge(parts, size)
        except ValueError as error:
            raise _refusal(error) from None


def _refusal(error: ValueError) -> WireError:
    reason, _, detail = str(error).partition(": ")
    return WireError(reason, detail)
