"""`dense`: every parameter as a float, for comparison and for models where nothing may be lost.

    payload = dtype uint8 (4 float32, 2 float16) | scale float32 LE | values, little endian, in units of scale

float16 values are scaled by a power of two into [-1, 1] ([-2, 2] at the very end of float32), so that their range never
limits; the scale of float32 values is 1. Other scales are refused.

Error of a round trip: none in float32; in float16 2^-11 of the value, or 2^-24 of the largest where that is more.

Sums are made in float64 and written as float32: a merge agrees with addition to one rounding of float32. What rounding or
a sum puts beyond float32 becomes its largest value, so that no well-formed payload can make a merge fail. Codecs that add
only by decoding write their sums in this form too (`decoded_sum`).

>>> import numpy as np
>>> vector = np.random.default_rng(7).laplace(0, 1, 1000).astype(np.float32)
>>> payload = Dense("float16").encode(vector, step=0.0)
>>> len(payload)
2005
>>> error = Dense().decode(payload, 1000) - vector
>>> bool(np.linalg.norm(error) < 2**-11 * np.linalg.norm(vector))
True
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edgemw.compression.codec import Bound, Codec, Merging
from edgemw.core.bundle import LARGEST, Vector
from edgemw.core.errors import CodecError, WireError

_HEADER = struct.Struct("<Bf")
_DTYPES: dict[int, np.dtype[np.floating]] = {4: np.dtype("<f4"), 2: np.dtype("<f2")}
_WIDTHS = {"float32": 4, "float16": 2}
_LARGEST_EXPONENT = 127


class Dense:
    """The dense codec in float32 or float16; see the module."""

    name = "dense"
    merging: Merging = "decodes"
    stepped = False
    feedback = True

    def __init__(self, dtype: str = "float32") -> None:
        if dtype not in _WIDTHS:
            raise CodecError(f"dense knows float32 and float16, not {dtype}")
        self._width = _WIDTHS[dtype]

    def encode(self, vector: Vector, step: float) -> bytes:
        """Write every value; the step is not used."""
        largest = float(np.abs(vector).max(initial=0.0))
        if not math.isfinite(largest):
            raise CodecError("the vector holds NaN or infinite values")
        if self._width == 4:
            return _write(vector, 4, 1.0)
        scale = math.ldexp(1.0, min(math.frexp(largest)[1], _LARGEST_EXPONENT)) if largest else 1.0
        return _write(vector / np.float32(scale), 2, scale)

    def decode(self, payload: bytes, size: int) -> Vector:
        """The vector float32[size]."""
        values, scale = _read(payload, size)
        if scale == 1.0:
            return values.astype(np.float32)
        return np.clip(values.astype(np.float64) * scale, -LARGEST, LARGEST).astype(np.float32)

    def merge(self, payloads: Sequence[bytes], size: int) -> bytes:
        """Add values; the sum is float32 whatever the parts are."""
        return decoded_sum(self, payloads, size)

    def check(self, payload: bytes, size: int) -> float:
        """0; raises WireError unless the payload is well formed and finite."""
        _read(payload, size)
        return 0.0

    @staticmethod
    def payload_bytes(width: int, count: int) -> int:
        """How long a payload of `count` values is whose first byte is `width`."""
        return _HEADER.size + width * count

    def bound(self, vector: Vector, step: float) -> Bound:
        """Nothing in float32; half a place of float16, whose range ends at 2^-24 of the largest value."""
        sizes = np.abs(vector.astype(np.float64))
        if self._width == 4:
            return np.zeros(vector.size)
        bound: Bound = np.maximum(2.0**-11 * sizes, 2.0**-24 * sizes.max(initial=0.0))
        return bound


def decoded_sum(codec: Codec, payloads: Sequence[bytes], size: int) -> bytes:
    """The sum for codecs that add only by decoding: a dense payload in float32.

    Raises:
        CodecError: no payloads.
        WireError: a payload is malformed.
    """
    if not payloads:
        raise CodecError("nothing to merge")
    total = np.zeros(size, np.float64)
    for payload in payloads:
        total += codec.decode(payload, size)
    return _write(total.clip(-LARGEST, LARGEST), 4, 1.0)


def is_sum(payload: bytes) -> bool:
    """Whether a payload is in the form of `decoded_sum`, by its first byte; other forms begin with another."""
    return payload[:1] == b"\x04"


def _write(values: npt.NDArray[np.floating], width: int, scale: float) -> bytes:
    return _HEADER.pack(width, scale) + values.astype(_DTYPES[width]).tobytes()


def _read(payload: bytes, size: int) -> tuple[npt.NDArray[np.floating], float]:
    """The finite values, and the scale that is their unit."""
    if len(payload) < _HEADER.size:
        raise WireError("truncated", "a dense payload has a header of 5 bytes")
    width, scale = _HEADER.unpack_from(payload)
    if width not in _DTYPES or not _is_scale(width, scale):
        raise WireError("dtype", f"width {width}, scale {scale}")
    if len(payload) != Dense.payload_bytes(width, size):
        raise WireError("length", f"{len(payload)} bytes for {size} values of {width}")
    values = np.frombuffer(payload, _DTYPES[width], offset=_HEADER.size)
    if not np.isfinite(values).all():
        raise WireError("not-finite", "NaN or infinite values")
    return values, scale


def _is_scale(width: int, scale: float) -> bool:
    """float32 values have 1; float16 values have a power of two."""
    return scale == 1.0 if width == 4 else scale > 0 and math.isfinite(scale) and math.frexp(scale)[0] == 0.5
