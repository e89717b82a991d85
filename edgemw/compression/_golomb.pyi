"""The compiled hot loops; present only where a C compiler was at installation."""

from collections.abc import Buffer

def add(data: Buffer, count: int, total: Buffer, /) -> None:
    """Add the symbols of a payload to int32[size], modulo 2^32. Raises ValueError("reason: detail") if it is malformed."""

def unpack(data: Buffer, size: int, positions: Buffer, values: Buffer, /) -> None:
    """Fill int64[count] and int32[count]. Raises ValueError("reason: detail") if the payload is malformed."""

def pack(positions: Buffer, values: Buffer, size: int, /) -> bytes:
    """The bytes for int64[count] and int32[count]. Raises ValueError unless positions increase and no value is 0."""

def pack_sum(total: Buffer, /) -> tuple[int, bytes]:
    """The number of non-zeros of int32[size], and the bytes for them."""
