"""`powersgd`: matrices of low rank, for comparison.

From the second release on, everybody projects on what the last release changed, layer by layer, one side per round in turn: see
`sharedbasis.py`. Such payloads add without being decoded, as long as they are on one basis.

Who does not have the two releases (at the first one, after a restart, having missed some) says both factors:

    M = p as rows of `columns` values, the last row filled with zeros ;  S = random, columns x rank
    L = orthonormal(M S) ;  R = M^T L ;  decode = L R^T                       (one step of subspace iteration)

    payload = 1 uint8 | rank uint16 LE | columns uint32 LE | exponent int16 LE | L, then R, float16 LE by rows
    of a sum of different bases: a `dense` payload in float32, whose first byte is 4

R is in units of 2^exponent. S is a new one for every vector (`uniform.py`), which no reader needs: with the same S every time,
error feedback would meet what it misses again and again. Such sums are made by decoding, and hold P floats.

Error of a round trip: at most ||p|| in the 2-norm, to float16, because L L^T is a projection; for a matrix of that rank or less
only float16.

Source: Vogels et al., PowerSGD, arXiv:1905.13727, algorithm 1; a random start: Halko, Martinsson and Tropp, arXiv:0909.4061.

>>> import numpy as np
>>> rng = np.random.default_rng(7)
>>> low_rank = (rng.standard_normal((40, 2)) @ rng.standard_normal((2, 25))).astype(np.float32).ravel()
>>> payload = PowerSgd(rank=2, columns=25).encode(low_rank, step=0.0)
>>> len(payload)
269
>>> error = PowerSgd().decode(payload, 1000) - low_rank
>>> bool(np.linalg.norm(error) < 2**-9 * np.linalg.norm(low_rank))
True
>>> vector = rng.laplace(0, 1, 1000).astype(np.float32)
>>> error = PowerSgd().decode(PowerSgd().encode(vector, step=0.0), 1000) - vector
>>> round(float(np.linalg.norm(error) / np.linalg.norm(vector)), 2)
0.94
>>> from edgemw.core.bundle import Slot
>>> layout = (Slot("weight", (40, 25), 0),)
>>> shared = PowerSgd(rank=2).along(Past(1, low_rank, layout))
>>> total = shared.merge([shared.encode(low_rank, 0.0), shared.encode(3 * low_rank, 0.0)], 1000)
>>> bool(np.linalg.norm(shared.decode(total, 1000) - 4 * low_rank) < 2**-9 * np.linalg.norm(4 * low_rank))
True
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

import numpy as np

from edgemw.compression.codec import Bound, Merging, Past, whole_number
from edgemw.compression.dense import Dense, decoded_sum, is_sum
from edgemw.compression.sharedbasis import (
    MOST_PIECES,
    MOST_RANK,
    Matrix,
    decode_shared,
    encode_shared,
    is_shared,
    merge_shared,
    orthonormal,
    read_shared,
)
from edgemw.compression.uniform import uniform
from edgemw.core.bundle import LARGEST, Vector
from edgemw.core.errors import CodecError, WireError

_HEADER = struct.Struct("<BHIh")
_OWN_FORM = 1
_MOST_COLUMNS = (1 << 31) - 1
_MOST_EXPONENT = 512  # products of float16 and this stay in float64
_NOTHING = 2.0**-100  # of the largest value, below which nothing was found


class PowerSgd:
    """The PowerSGD codec; see the module.

    Args:
        rank: of the approximation, from 1 to 64; never more than the matrix has.
        columns: the length of a row, never more than P; 0 takes the layers, or the square root of P where they are not known.
    """

    name = "powersgd"
    merging: Merging = "decodes"
    stepped = False
    feedback = True

    def __init__(self, rank: int = 2, columns: int = 0) -> None:
        self._rank = whole_number("rank", rank, 1, MOST_RANK)
        self._columns = whole_number("columns", columns, 0, _MOST_COLUMNS)
        self._past: Past | None = None

    def along(self, past: Past) -> PowerSgd:
        """The codec that projects on what a release changed; where that says nothing, on a basis of each vector's own."""
        other = PowerSgd(self._rank, self._columns)
        tells = past.change.any() and np.isfinite(past.change).all()
        other._past = past if tells and len(past.layout) <= MOST_PIECES else None
        return other

    def encode(self, vector: Vector, step: float) -> bytes:
        """Write both factors; the step is not used."""
        largest = float(np.abs(vector).max(initial=0.0))
        if not math.isfinite(largest):
            raise CodecError("the vector holds NaN or infinite values")
        if self._past is not None:
            return encode_shared(vector, self._past, self._rank, self._columns)
        columns = min(self._columns or _square(vector.size), vector.size)
        rows = _rows(vector.size, columns)
        exponent = math.frexp(largest)[1]
        matrix = np.zeros((rows, columns))
        matrix.reshape(-1)[: vector.size] = np.ldexp(vector.astype(np.float64), -exponent)  # a view
        rank = min(self._rank, rows, columns)
        start = 2 * uniform(vector, columns * rank).reshape(columns, rank) - 1
        left = orthonormal(matrix @ start).astype("<f2")
        right = matrix.T @ left.astype(np.float64)
        found = float(np.abs(right).max(initial=0.0))
        found_exponent = math.frexp(found)[1]
        if found < _NOTHING:
            right, found_exponent, exponent = np.zeros_like(right), 0, 0
        packed = np.ldexp(right, -found_exponent).astype("<f2")
        header = _HEADER.pack(_OWN_FORM, rank, columns, exponent + found_exponent)
        return header + left.tobytes() + packed.tobytes()

    def decode(self, payload: bytes, size: int) -> Vector:
        """The vector float32[size]; a product beyond float32 becomes its largest value."""
        if is_sum(payload):
            return Dense().decode(payload, size)
        if is_shared(payload):
            return decode_shared(payload, size)
        left, right, exponent = _read(payload, size)
        product = np.ldexp(left @ right.T, exponent).ravel()[:size]
        return product.clip(-LARGEST, LARGEST).astype(np.float32)

    def merge(self, payloads: Sequence[bytes], size: int) -> bytes:
        """Add the factors of payloads on one basis; else decode and add, to a dense payload."""
        return (merge_shared(payloads, size) if payloads else None) or decoded_sum(self, payloads, size)

    def check(self, payload: bytes, size: int) -> float:
        """0; raises WireError unless the payload is well formed and finite."""
        if is_sum(payload):
            return Dense().check(payload, size)
        if is_shared(payload):
            read_shared(payload, size)
        else:
            _read(payload, size)
        return 0.0

    def bound(self, vector: Vector, step: float) -> Bound:
        """The 2-norm of the vector for every value: what a projection leaves out, and float16."""
        norm = math.sqrt(float(np.square(vector.astype(np.float64)).sum()))
        return np.full(vector.size, norm * (1 + 2.0**-9))


def _square(size: int) -> int:
    return math.isqrt(max(size, 1) - 1) + 1


def _rows(size: int, columns: int) -> int:
    return -(-size // columns)


def _read(payload: bytes, size: int) -> tuple[Matrix, Matrix, int]:
    """The factors, and the exponent of their product."""
    if len(payload) < _HEADER.size:
        raise WireError("truncated", f"a powersgd payload has a header of {_HEADER.size} bytes")
    form, rank, columns, exponent = _HEADER.unpack_from(payload)
    if form != _OWN_FORM or abs(exponent) > _MOST_EXPONENT:
        raise WireError("exponent", f"form {form} with exponent {exponent}")
    if not 1 <= columns <= size or not 1 <= rank <= min(MOST_RANK, columns, _rows(size, columns)):
        raise WireError("shape", f"rank {rank} of {size} values in {columns} columns")
    rows = _rows(size, columns)
    if len(payload) != _HEADER.size + 2 * rank * (rows + columns):
        raise WireError("length", f"{len(payload)} bytes for {rows} rows and {columns} columns of rank {rank}")
    factors = np.frombuffer(payload, "<f2", offset=_HEADER.size).astype(np.float64)
    if not np.isfinite(factors).all():
        raise WireError("not-finite", "NaN or infinite values")
    return factors[: rank * rows].reshape(rows, rank), factors[rank * rows :].reshape(columns, rank), exponent
