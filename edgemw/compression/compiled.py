"""What the compiled entropy coders share: arrays belong to numpy, an extension reads and writes the bits, refusals become errors.

An extension refuses with ValueError("reason: detail").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from edgemw.compression.golomb_numpy import Bytes, Positions, Symbols
from edgemw.core.errors import CodecError, WireError


class Extension(Protocol):
    """The functions of `_golomb.c` and `_rangecoder.c`."""

    def unpack(self, data: Bytes, size: int, positions: Positions, values: Symbols, /) -> None:
        """Fill int64[count] and int32[count]."""
        ...

    def pack(self, positions: Positions, values: Symbols, size: int, /) -> bytes:
        """The bytes for int64[count] and int32[count]."""
        ...

    def merge(self, parts: Sequence[tuple[Bytes, int]], size: int, /) -> tuple[int, bytes]:
        """The number of symbols of the sum of (data, count), and the bytes for them."""
        ...


class Compiled:
    """An extension as a coder. The promises are those of `golomb.Golomb`."""

    name = "compiled"

    def __init__(self, extension: Extension) -> None:
        self._extension = extension

    def pack(self, positions: Positions, symbols: Symbols, size: int) -> bytes:
        """See `golomb.Golomb.pack`."""
        try:
            return self._extension.pack(np.ascontiguousarray(positions, np.int64), np.ascontiguousarray(symbols), size)
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
            self._extension.unpack(data, size, positions, symbols)
        except ValueError as error:
            raise _refusal(error) from None
        return positions, symbols

    def merge(self, parts: Sequence[tuple[Bytes, int]], size: int) -> tuple[int, bytes]:
        """See `golomb.Golomb.merge`."""
        try:
            return self._extension.merge(parts, size)
        except ValueError as error:
            for data, count in parts:  # the extension reads them side by side: the first that is malformed gives the reason
                self.unpack(data, count, size)
            raise _refusal(error) from None


def _refusal(error: ValueError) -> WireError:
    reason, _, detail = str(error).partition(": ")
    return WireError(reason, detail)
