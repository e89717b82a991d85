"""`dense`: every parameter as a float, for comparison and for models where nothing may be lost.

    payload = dtype uint8 (4 float32, 2 float16) | scale float32 LE | values, little endian, in units of scale

float16 values are scaled by a power of two into [-1, 1], so that their range never limits. Sums are made in float64 and
written as float32: merging agrees with addition to one rounding of float32 per merge.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

from edgemw.core.bundle import Vector
from edgemw.core.errors import CodecError, WireError

_HEADER = struct.Struct("<Bf")
_DTYPES: dict[int, np.dtype[np.floating]] = {4: np.dtype("<f4"), 2: np.dtype("<f2")}


class Dense:
    """The dense codec in float32 or float16; see the module."""

    name = "dense"
    exact = False
    stepped = False

    def __init__(self, dtype: str = "float32") -> None:
        self._width = np.dtype(dtype).itemsize
        if self._width not in _DTYPES:
            raise CodecError(f"dense knows float32 and float16, not {dtype}")

    def encode(self, vector: Vector, step: float) -> bytes:
        """Write every value; the step is not used."""
        if not np.isfinite(vector).all():
            raise CodecError("the vector holds NaN or infinite values")
        if self._width == 4:
            return _write(vector, 4, 1.0)
        largest = float(np.abs(vector).max(initial=0.0))
        scale = float(np.exp2(np.ceil(np.log2(largest)))) if largest > 0 else 1.0
        return _write(vector / np.float32(scale), 2, scale)

    def decode(self, payload: bytes, size: int) -> Vector:
        """The vector float32[size]."""
        if len(payload) < _HEADER.size:
            raise WireError("truncated", "a dense payload has a header of 5 bytes")
        width, scale = _HEADER.unpack_from(payload)
        if width not in _DTYPES or not np.isfinite(scale):
            raise WireError("dtype", f"width {width}, scale {scale}")
        if len(payload) != _HEADER.size + width * size:
            raise WireError("length", f"{len(payload)} bytes for {size} values of {width}")
        values = np.frombuffer(payload, _DTYPES[width], offset=_HEADER.size).astype(np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            values *= np.float32(scale)
        if not np.isfinite(values).all():
            raise WireError("not-finite", "NaN or infinite values")
        return values

    def merge(self, payloads: Sequence[bytes], size: int) -> bytes:
        """Add values; the sum is float32 whatever the parts are."""
        total = np.zeros(size, np.float64)
        for payload in payloads:
            total += self.decode(payload, size)
        with np.errstate(over="ignore"):
            vector = total.astype(np.float32)
        if not np.isfinite(vector).all():
            raise WireError("not-finite", "the sum exceeds float32")
        return _write(vector, 4, 1.0)

    def check(self, payload: bytes, size: int) -> float:
        """0; raises WireError unless the payload is well formed and finite."""
        self.decode(payload, size)
        return 0.0


def _write(values: Vector, width: int, scale: float) -> bytes:
    return _HEADER.pack(width, scale) + values.astype(_DTYPES[width]).tobytes()
