"""Side values: running statistics, which travel beside the codec's payload and add exactly.

    value = trunc_to_float16(weight delta / 2^shift) 2^shift = q / 2^24 ,  q an integer of at most 64 bits
    a sum is the sum of the integers q, modulo 2^96: 2^31 devices add before it can wrap

    payload = count uint32 LE | form uint8 | shift uint8 | blocks | values        or nothing at all where every value is 0
    blocks  = one bit for each BLOCK values, lowest first: whether any of them is not 0; values are those of such blocks
    form    = 0: float16, times 2^shift ;  n = 1 to 12: q in n bytes, two's complement ;  both little endian

A payload is a pure function of its integers (the narrowest n, or float16 where that is shorter and exact, with the least
shift), so merging commutes and associates byte for byte. Any other spelling of the same values is refused.

Rounding is towards zero, and what it loses is forgotten: a statistic is measured anew from every release, so what was lost
is measured again, and error feedback would say it twice. So a mean of deltas never goes past the devices' own values: no
variance becomes negative. See decision 0011.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edgemw.core.errors import CodecError, WireError

BLOCK = 256
_HEADER = struct.Struct("<IBB")
_UNIT_BITS = 24
_MAX_SHIFT = 24
_LARGEST = 65504.0 * 2**_MAX_SHIFT
_WIDTH = 12  # bytes of an integer: 4 low ones and 8 high ones
_LOW = 32

Values = npt.NDArray[np.float64]
_Bytes = npt.NDArray[np.uint8]
_Integers = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
"""high and low: q = high 2^32 + low, with 0 <= low < 2^32."""


def encode(values: Values) -> bytes:
    """Write float64[Q] on the grid, towards zero; what is beyond 1.09e12 becomes that.

    Raises:
        CodecError: a value is not finite.
    """
    if not np.isfinite(values).all():
        raise CodecError("statistics hold NaN or infinite values")
    clipped = values.clip(-_LARGEST, _LARGEST)
    shift = max(0, math.frexp(float(np.abs(clipped).max(initial=0.0)))[1] - 16)
    return _written(_of_floats(_towards_zero(clipped * 2.0**-shift), shift))


def decode(payload: bytes, count: int) -> Values:
    """The values float64[count]. Raises WireError on any malformed payload."""
    return np.zeros(count) if not payload else _approximate(_exactly(payload, count)) * 2.0**-_UNIT_BITS


def values(payload: bytes) -> Values:
    """All values float64[Q], as many as the payload says it has; none of an empty one. Raises WireError as `decode`."""
    return decode(payload, _count(payload)) if payload else np.zeros(0)


def check(payload: bytes, count: int) -> None:
    """Raise WireError unless `decode` would take it and it is spelled as `encode` and `merge` spell it."""
    if payload and _written(_exactly(payload, count)) != payload:
        raise WireError("side", "not the shortest form")


def merge(payloads: Sequence[bytes], most: int) -> bytes:
    """The payload of the sum; one without bytes adds nothing.

    Args:
        payloads: any number.
        most: P; no payload can have more values.

    Raises:
        WireError: a payload is malformed, or they have different numbers of values.
    """
    parts = [payload for payload in payloads if payload]
    if not parts:
        return b""
    count = _count(parts[0])
    if count > most:
        raise WireError("side", f"{count} values beside {most}")
    high, low = np.zeros(count, np.int64), np.zeros(count, np.int64)
    for part in parts:
        more_high, more_low = _exactly(part, count)
        high, low = high + more_high, low + more_low
        high, low = high + (low >> _LOW), low & 0xFFFFFFFF
    return _written((high, low))


# -- integers


def _towards_zero(values: Values) -> npt.NDArray[np.float16]:
    with np.errstate(over="ignore"):  # the step back from infinity is the largest float16
        near = values.astype(np.float16)
    beyond = np.abs(near.astype(np.float64)) > np.abs(values)
    return np.where(beyond, np.nextafter(near, np.float16(0)), near).astype(np.float16)


def _of_floats(floats: npt.NDArray[np.float16], shift: int) -> _Integers:
    whole = floats.astype(np.float64) * 2.0 ** (_UNIT_BITS + shift)
    high = np.floor(whole * 2.0**-_LOW)
    return high.astype(np.int64), (whole - high * 2.0**_LOW).astype(np.int64)


def _approximate(integers: _Integers) -> Values:
    high, low = integers
    whole: Values = high.astype(np.float64) * 2.0**_LOW + low
    return whole


def _as_float16(integers: _Integers) -> tuple[npt.NDArray[np.float16], int] | None:
    """The same values as float16 with the least shift; None where some of them are no float16."""
    whole = _approximate(integers)
    shift = max(0, math.frexp(float(np.abs(whole).max(initial=0.0)))[1] - 16 - _UNIT_BITS)
    if shift > _MAX_SHIFT:
        return None
    floats = _towards_zero(whole * 2.0 ** -(_UNIT_BITS + shift))
    again = _of_floats(floats, shift)
    exact = all(np.array_equal(one, other) for one, other in zip(again, integers, strict=True))
    return (floats, shift) if exact else None


def _as_bytes(integers: _Integers) -> _Bytes:
    """uint8[Q, 12], two's complement, little endian."""
    high, low = integers
    parts = low.astype("<u4").view(np.uint8).reshape(-1, 4), high.astype("<i8").view(np.uint8).reshape(-1, 8)
    return np.concatenate(parts, axis=1)


def _of_bytes(narrow: _Bytes) -> _Integers:
    """The integers of uint8[Q, n]."""
    width = narrow.shape[1]
    wide = np.repeat((narrow[:, -1:] >> 7) * np.uint8(255), _WIDTH, axis=1)
    wide[:, :width] = narrow
    low, high = np.ascontiguousarray(wide[:, :4]).view("<u4"), np.ascontiguousarray(wide[:, 4:]).view("<i8")
    return high.reshape(-1).astype(np.int64), low.reshape(-1).astype(np.int64)


def _narrowest(wide: _Bytes) -> int:
    """The fewest bytes that hold every integer."""
    width = _WIDTH
    while width > 1 and (wide[:, width - 1] == (wide[:, width - 2] >> 7) * np.uint8(255)).all():
        width -= 1
    return width


# -- bytes


def _written(integers: _Integers) -> bytes:
    high, low = integers
    present = _blocks((high | low) != 0)
    if not present.any():
        return b""
    kept = np.repeat(present, BLOCK)[: high.size]
    inside = high[kept], low[kept]
    wide = _as_bytes(inside)
    form, shift = _narrowest(wide), 0
    data = wide[:, :form].tobytes()
    floats = _as_float16(inside) if form > 2 else None
    if floats is not None:
        form, shift, data = 0, floats[1], floats[0].astype("<f2").tobytes()
    return _HEADER.pack(high.size, form, shift) + np.packbits(present, bitorder="little").tobytes() + data


def _blocks(nonzero: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    padded = np.zeros(-(-nonzero.size // BLOCK) * BLOCK, bool)
    padded[: nonzero.size] = nonzero
    return np.asarray(padded.reshape(-1, BLOCK).any(axis=1))


def _count(payload: bytes) -> int:
    if len(payload) < _HEADER.size:
        raise WireError("truncated", "side values have a header of 6 bytes")
    return int(_HEADER.unpack_from(payload)[0])


def _exactly(payload: bytes, count: int) -> _Integers:
    """The integers of a payload that is not empty; nothing is made before its length is known to fit."""
    if _count(payload) != count:
        raise WireError("side", f"{_count(payload)} values where there are {count}")
    _, form, shift = _HEADER.unpack_from(payload)
    if form > _WIDTH or shift > (0 if form else _MAX_SHIFT):
        raise WireError("side", f"form {form}, shift {shift}")
    blocks = -(-count // BLOCK)
    start = _HEADER.size + -(-blocks // 8)
    bits = np.unpackbits(np.frombuffer(payload[_HEADER.size : start], np.uint8), bitorder="little")
    if bits.size < blocks or bits[blocks:].any():
        raise WireError("side", "its blocks")
    kept = np.repeat(bits[:blocks].astype(bool), BLOCK)[:count]
    width, data = form or 2, payload[start:]
    if len(data) != width * int(kept.sum()):
        raise WireError("length", f"{len(data)} bytes for {int(kept.sum())} side values of {width}")
    high, low = np.zeros(count, np.int64), np.zeros(count, np.int64)
    high[kept], low[kept] = _read(data, form, shift)
    return high, low


def _read(data: bytes, form: int, shift: int) -> _Integers:
    if form:
        return _of_bytes(np.frombuffer(data, np.uint8).reshape(-1, form))
    floats = np.frombuffer(data, "<f2").astype(np.float16)
    if not np.isfinite(floats).all():
        raise WireError("not-finite", "NaN or infinite side values")
    return _of_floats(floats, shift)
