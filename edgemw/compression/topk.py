"""`topk`: the largest values and where they stand, for comparison.

    keep i where |p_i| is among the ceil(k P) largest, the first of equals ;  merge = union of the places, sum of the values

    payload = number of values uint32 LE | their `dense` payload | places, as golomb.pack of ones

A device writes float16, a sum float32. The places cost the two bits each that Golomb coding keeps for a sign and a length.

Error of a round trip: for the values that are kept 2^-11 of the value, or 2^-24 of the largest where that is more; the others
are left out whole and belong to the residual. ||p - decode||^2 <= (1 - k) ||p||^2 before rounding to float16.

Merging is addition of floats at the places that any part names: it agrees with addition to one rounding of float32, and a sum
of n parts names up to n times as many places. Zero sums are dropped.

Sources: Aji and Heafield, Sparse communication for distributed gradient descent, arXiv:1704.05021; with error feedback Lin et
al., Deep gradient compression, arXiv:1712.01887 (without its momentum correction and warm-up, which belong to the optimiser).

>>> import numpy as np
>>> vector = np.random.default_rng(7).laplace(0, 1, 1000).astype(np.float32)
>>> payload = TopK(k=0.01).encode(vector, step=0.0)
>>> decoded = TopK().decode(payload, 1000)
>>> len(payload), int(np.count_nonzero(decoded))
(42, 10)
>>> other = TopK(k=0.02).encode(-vector[::-1], step=0.0)
>>> int(np.count_nonzero(TopK().decode(TopK().merge([payload, other], 1000), 1000)))
30
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

import numpy as np

from edgemw.compression.codec import Bound, Merging
from edgemw.compression.dense import Dense
from edgemw.compression.golomb import fastest
from edgemw.compression.golomb_numpy import Positions
from edgemw.core.bundle import LARGEST, Vector
from edgemw.core.errors import CodecError, WireError

_COUNT = struct.Struct("<I")


class TopK:
    """The top-k codec; see the module.

    Args:
        k: the share of the values that is kept, above 0 and at most 1.
    """

    name = "topk"
    merging: Merging = "growth"
    stepped = False
    feedback = True

    def __init__(self, k: float = 0.01) -> None:
        if not isinstance(k, int | float) or not 0 < k <= 1:
            raise CodecError(f"k = {k!r} is not a share above 0 and at most 1")
        self._k = k
        self._golomb = fastest()
        self._dense = Dense()

    def encode(self, vector: Vector, step: float) -> bytes:
        """Write the largest values; the step is not used."""
        if not np.isfinite(vector).all():
            raise CodecError("the vector holds NaN or infinite values")
        places = self._largest(np.abs(vector))
        return self._write(places, vector[places], "float16", vector.size)

    def decode(self, payload: bytes, size: int) -> Vector:
        """The vector float32[size], 0 where no value was sent."""
        places, values = self._read(payload, size)
        vector = np.zeros(size, np.float32)
        vector[places] = values
        return vector

    def merge(self, payloads: Sequence[bytes], size: int) -> bytes:
        """Add values place by place; costs what was sent, not P."""
        if not payloads:
            raise CodecError("nothing to merge")
        parts = [self._read(payload, size) for payload in payloads]
        places, members = np.unique(np.concatenate([part[0] for part in parts]), return_inverse=True)
        values = np.concatenate([part[1] for part in parts]).astype(np.float64)
        total = np.bincount(members, values, places.size).clip(-LARGEST, LARGEST).astype(np.float32)
        kept = np.flatnonzero(total)
        return self._write(places[kept], total[kept], "float32", size)

    def check(self, payload: bytes, size: int) -> float:
        """0; raises WireError unless the payload is well formed and finite."""
        self._read(payload, size)
        return 0.0

    def bound(self, vector: Vector, step: float) -> Bound:
        """float16 above the k-th largest magnitude, everything up to it."""
        kept = self._largest(np.abs(vector))
        smallest = np.abs(vector[kept]).min(initial=np.inf) if kept.size else np.inf
        sizes = np.abs(vector.astype(np.float64))
        bound: Bound = np.where(sizes > smallest, Dense("float16").bound(vector, step), sizes)
        return bound

    def _largest(self, sizes: Vector) -> Positions:
        """Where the k largest magnitudes stand, in order; a function of the values alone, whatever the sorting does with ties."""
        count = min(math.ceil(self._k * sizes.size), int(np.count_nonzero(sizes)))
        if count == 0:
            return np.empty(0, np.int64)
        smallest = np.partition(sizes, sizes.size - count)[sizes.size - count]
        above = np.flatnonzero(sizes > smallest)
        equal = np.flatnonzero(sizes == smallest)[: count - above.size]
        return np.sort(np.concatenate([above, equal]))

    def _write(self, places: Positions, values: Vector, dtype: str, size: int) -> bytes:
        packed = self._golomb.pack(places, np.ones(places.size, np.int32), size)
        return _COUNT.pack(places.size) + Dense(dtype).encode(values, 0.0) + packed

    def _read(self, payload: bytes, size: int) -> tuple[Positions, Vector]:
        """Where the values stand, and the values."""
        if len(payload) < _COUNT.size + 1:
            raise WireError("truncated", "a topk payload has a count and values")
        (count,) = _COUNT.unpack_from(payload)
        end = _COUNT.size + Dense.payload_bytes(payload[_COUNT.size], count)
        if count > size or end > len(payload):
            raise WireError("count", f"{count} values of {size} in {len(payload)} bytes")
        values = self._dense.decode(payload[_COUNT.size : end], count)
        places, ones = self._golomb.unpack(memoryview(payload)[end:], count, size)
        if (ones != 1).any():
            raise WireError("position", "places are ones")
        return places, values
