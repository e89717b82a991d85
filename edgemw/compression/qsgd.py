"""`qsgd`: stochastic rounding on s levels of the vector's own 2-norm, for comparison.

    q_i = sign(p_i) floor(s |p_i| / ||p|| + u_i), u_i uniform in [0, 1) ;  decode(q) = (||p|| / s) q

    payload = 1 uint8 | ||p|| float64 LE | s uint32 LE | number of non-zeros uint32 LE | golomb.pack(q)
    of a sum: a `dense` payload in float32, whose first byte is 4

Levels are written in Golomb and Elias codes, as lattice symbols are. u is a function of the vector (`uniform.py`): the same
vector gives the same bytes, and no state is kept.

Error of a round trip: less than ||p|| / s for each value, unbiased over u. By default s is the square root of P, rounded up, the
dense regime of the paper: what is left out then never exceeds ||p||, and is half of it or less on average, so that error
feedback contracts. With few levels what is left out exceeds ||p||, and error feedback, which edgemw always applies, diverges: s
below half the square root of P promises nothing.

Merging is not closed: every vector has a scale of its own. A sum is made by decoding, and holds P floats.

Source: Alistarh et al., QSGD, arXiv:1610.02132, section 3; without its buckets.

>>> import numpy as np
>>> vector = np.random.default_rng(7).laplace(0, 1, 1000).astype(np.float32)
>>> payload = Qsgd().encode(vector, step=0.0)
>>> len(payload), payload == Qsgd().encode(vector, step=0.0)
(318, True)
>>> error = Qsgd().decode(payload, 1000) - vector
>>> bool((np.abs(error) < np.linalg.norm(vector) / 31).all())
True
>>> len(Qsgd().merge([payload, payload], 1000))
4005
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

import numpy as np

from edgemw.compression.codec import Bound, Merging, whole_number
from edgemw.compression.dense import Dense, decoded_sum, is_sum
from edgemw.compression.golomb import fastest
from edgemw.compression.golomb_numpy import Positions, Symbols
from edgemw.compression.uniform import uniform
from edgemw.core.bundle import LARGEST, Vector
from edgemw.core.errors import CodecError, WireError

_HEADER = struct.Struct("<BdII")
_OWN_FORM = 1
_MOST_LEVELS = 1 << 24
_LARGEST_NORM = LARGEST * 2.0**16  # of 2^31 values, with room for rounding
_ROUNDING = 2.0**-23


class Qsgd:
    """The QSGD codec; see the module.

    Args:
        levels: s, from 1 to 2^24; 0 takes the square root of P. Fewer than half of that let error feedback diverge.
    """

    name = "qsgd"
    merging: Merging = "decodes"
    stepped = False
    feedback = True

    def __init__(self, levels: int = 0) -> None:
        self._levels = whole_number("levels", levels, 0, _MOST_LEVELS)
        self._golomb = fastest()

    def encode(self, vector: Vector, step: float) -> bytes:
        """Write the levels; the step is not used."""
        if not np.isfinite(vector).all():
            raise CodecError("the vector holds NaN or infinite values")
        norm, levels = _norm(vector), self._levels_of(vector.size)
        if norm == 0.0:
            return _HEADER.pack(_OWN_FORM, 0.0, levels, 0)
        scaled = np.abs(vector.astype(np.float64)) * (levels / norm)
        sizes = np.minimum(np.floor(scaled + uniform(vector, vector.size)), levels)
        kept = np.flatnonzero(sizes)
        symbols = np.copysign(sizes[kept], vector[kept]).astype(np.int32)
        return _HEADER.pack(_OWN_FORM, norm, levels, kept.size) + self._golomb.pack(kept, symbols, vector.size)

    def decode(self, payload: bytes, size: int) -> Vector:
        """The vector float32[size]; a product beyond float32 becomes its largest value."""
        if is_sum(payload):
            return Dense().decode(payload, size)
        scale, places, symbols = self._read(payload, size)
        vector = np.zeros(size, np.float32)
        vector[places] = np.clip(symbols * scale, -LARGEST, LARGEST)
        return vector

    def merge(self, payloads: Sequence[bytes], size: int) -> bytes:
        """Decode and add; the sum is a dense payload."""
        return decoded_sum(self, payloads, size)

    def check(self, payload: bytes, size: int) -> float:
        """0; raises WireError unless the payload is well formed."""
        if is_sum(payload):
            return Dense().check(payload, size)
        self._read(payload, size)
        return 0.0

    def bound(self, vector: Vector, step: float) -> Bound:
        """One level, and rounding to float32."""
        sizes = np.abs(vector.astype(np.float64))
        level = _norm(vector) / self._levels_of(vector.size)
        bound: Bound = level * (1 + _ROUNDING) + _ROUNDING * sizes
        return bound

    def _levels_of(self, size: int) -> int:
        return self._levels or math.isqrt(max(size, 1) - 1) + 1

    def _read(self, payload: bytes, size: int) -> tuple[float, Positions, Symbols]:
        """What one level is, and the levels."""
        if len(payload) < _HEADER.size:
            raise WireError("truncated", f"a qsgd payload has a header of {_HEADER.size} bytes")
        form, norm, levels, count = _HEADER.unpack_from(payload)
        if form != _OWN_FORM or not 1 <= levels <= _MOST_LEVELS:
            raise WireError("levels", f"form {form} with {levels} levels")
        if not 0 <= norm <= _LARGEST_NORM or (norm == 0 and count):
            raise WireError("norm", f"norm {norm} with {count} symbols")
        places, symbols = self._golomb.unpack(memoryview(payload)[_HEADER.size :], count, size)
        if symbols.size and not -levels <= int(symbols.min()) <= int(symbols.max()) <= levels:
            raise WireError("magnitude", "a symbol beyond the levels")
        return norm / levels, places, symbols


def _norm(vector: Vector) -> float:
    """The 2-norm in float64, which no float32 vector leaves."""
    return math.sqrt(float(np.square(vector.astype(np.float64)).sum()))
