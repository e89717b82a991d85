"""The compiled hot loops; present only where a C compiler was at installation."""

from collections.abc import Sequence

from edgemw.compression.golomb_numpy import Bytes, Positions, Symbols

def unpack(data: Bytes, size: int, positions: Positions, values: Symbols, /) -> None:
    """Fill int64[count] and int32[count]. Raises ValueError("reason: detail") if the payload is malformed."""

def pack(positions: Positions, values: Symbols, size: int, /) -> bytes:
    """The bytes for int64[count] and int32[count]. Raises ValueError unless positions increase and no value is 0."""

def merge(parts: Sequence[tuple[Bytes, int]], size: int, /) -> tuple[int, bytes]:
    """The number of symbols of the sum of (data, count), and the bytes for them. Raises ValueError as `unpack` does."""
