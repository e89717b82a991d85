"""`signsgd`: one bit for each value and one scale, for comparison.

    decode = m sign(p), m = mean |p|        (sign(0) = 1)

    payload = 1 uint8 | m float32 LE | one bit for each value, 1 is negative, first value uppermost | 0 to 7 zero bits
    of a sum: a `dense` payload in float32, whose first byte is 4

Error of a round trip: | |p_i| - m | for each value; ||p - decode||^2 = ||p||^2 - ||p||_1^2 / P, so that error feedback contracts.
Without error feedback the sign alone need not converge: see the source.

Merging is not closed: every vector has a scale of its own, and a sum of signs of different scales has up to 2^n values. A sum is
made by decoding, and holds P floats.

Source: Karimireddy et al., Error feedback fixes SignSGD, arXiv:1901.09847, algorithm 1; one scale for the whole vector.

>>> import numpy as np
>>> vector = np.random.default_rng(7).laplace(0, 1, 1000).astype(np.float32)
>>> payload = SignSgd().encode(vector, step=0.0)
>>> decoded = SignSgd().decode(payload, 1000)
>>> len(payload), len(SignSgd().merge([payload, payload], 1000))
(130, 4005)
>>> bool((np.sign(decoded) == np.sign(vector)).all())
True
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edgemw.compression.codec import Bound, Merging
from edgemw.compression.dense import Dense, decoded_sum, is_sum
from edgemw.core.bundle import LARGEST, Vector
from edgemw.core.errors import CodecError, WireError

_HEADER = struct.Struct("<Bf")
_OWN_FORM = 1
_ROUNDING = 2.0**-23


class SignSgd:
    """The EF-signSGD codec; see the module."""

    name = "signsgd"
    merging: Merging = "decodes"
    stepped = False
    feedback = True

    def encode(self, vector: Vector, step: float) -> bytes:
        """Write the signs and the mean magnitude; the step is not used."""
        if not np.isfinite(vector).all():
            raise CodecError("the vector holds NaN or infinite values")
        return _HEADER.pack(_OWN_FORM, _mean(vector)) + np.packbits(vector < 0).tobytes()

    def decode(self, payload: bytes, size: int) -> Vector:
        """The vector float32[size]."""
        if is_sum(payload):
            return Dense().decode(payload, size)
        mean, negative = _read(payload, size)
        return np.where(negative, -mean, mean).astype(np.float32)

    def merge(self, payloads: Sequence[bytes], size: int) -> bytes:
        """Decode and add; the sum is a dense payload."""
        return decoded_sum(self, payloads, size)

    def check(self, payload: bytes, size: int) -> float:
        """0; raises WireError unless the payload is well formed."""
        if is_sum(payload):
            return Dense().check(payload, size)
        _read(payload, size)
        return 0.0

    def bound(self, vector: Vector, step: float) -> Bound:
        """How far each magnitude is from the mean, and rounding to float32."""
        sizes, mean = np.abs(vector.astype(np.float64)), _mean(vector)
        bound: Bound = np.abs(sizes - mean) + _ROUNDING * mean
        return bound


def _mean(vector: Vector) -> float:
    """The mean magnitude as float32."""
    mean = float(np.abs(vector.astype(np.float64)).sum()) / max(1, vector.size)
    return float(np.float32(min(mean, LARGEST)))


def _read(payload: bytes, size: int) -> tuple[float, npt.NDArray[np.bool_]]:
    """The scale, and which values are negative."""
    if len(payload) < _HEADER.size:
        raise WireError("truncated", f"a signsgd payload has a header of {_HEADER.size} bytes")
    form, mean = _HEADER.unpack_from(payload)
    if form != _OWN_FORM or not math.isfinite(mean) or mean < 0:
        raise WireError("scale", f"form {form} with scale {mean}")
    if len(payload) != _HEADER.size + (size + 7) // 8:
        raise WireError("length", f"{len(payload)} bytes for {size} signs")
    bits = np.unpackbits(np.frombuffer(payload, np.uint8, offset=_HEADER.size))
    if bits[size:].any():
        raise WireError("trailing", "bits after the last sign")
    return mean, bits[:size].view(np.bool_)
