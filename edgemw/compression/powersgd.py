"""`powersgd`: the vector as a matrix of low rank, for comparison.

    M = p as rows of `columns` values, the last row filled with zeros ;  S = random, columns x rank
    L = orthonormal(M S) ;  R = M^T L ;  decode = L R^T                       (one step of subspace iteration)

    payload = 1 uint8 | rank uint16 LE | columns uint32 LE | exponent int16 LE | L, then R, float16 LE by rows
    of a sum: a `dense` payload in float32, whose first byte is 4

R is in units of 2^exponent. Error of a round trip: at most ||p|| in the 2-norm, to float16, because L L^T is a projection; for a
matrix of that rank or less only float16.

A codec knows neither the layers nor the step before. So all layers are one matrix: `columns` may be set to the row length of the
layer that dominates, whose rows then stay whole; 0 takes the square root of P. And there is no warm start: instead S is a new one
for every vector (`uniform.py`), which no reader needs. With the same S every time, error feedback would meet what it misses again
and again.

Merging is not closed: every vector has an L of its own. A sum is made by decoding, and holds P floats. Why there is no basis that
all share, one side per round: docs/decisions/0014-powersgd-without-a-shared-basis.md.

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
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edgemw.compression.codec import Bound, Merging, whole_number
from edgemw.compression.dense import Dense, decoded_sum, is_sum
from edgemw.compression.uniform import uniform
from edgemw.core.bundle import LARGEST, Vector
from edgemw.core.errors import CodecError, WireError

_HEADER = struct.Struct("<BHIh")
_OWN_FORM = 1
_MOST_RANK = 64  # bounds the work that a payload can ask for
_MOST_COLUMNS = (1 << 31) - 1
_MOST_EXPONENT = 512  # products of float16 and this stay in float64
_DEPENDENT = 2.0**-30  # of a column, below which the rest of it is rounding
_NOTHING = 2.0**-100  # of the largest value, below which nothing was found

_Matrix = npt.NDArray[np.float64]


class PowerSgd:
    """The PowerSGD codec; see the module.

    Args:
        rank: of the approximation, from 1 to 64; never more than the matrix has.
        columns: the length of a row, never more than P; 0 takes the square root of P.
    """

    name = "powersgd"
    merging: Merging = "decodes"
    stepped = False
    feedback = True

    def __init__(self, rank: int = 2, columns: int = 0) -> None:
        self._rank = whole_number("rank", rank, 1, _MOST_RANK)
        self._columns = whole_number("columns", columns, 0, _MOST_COLUMNS)

    def encode(self, vector: Vector, step: float) -> bytes:
        """Write both factors; the step is not used."""
        largest = float(np.abs(vector).max(initial=0.0))
        if not math.isfinite(largest):
            raise CodecError("the vector holds NaN or infinite values")
        columns = min(self._columns or _square(vector.size), vector.size)
        rows = _rows(vector.size, columns)
        exponent = math.frexp(largest)[1]
        matrix = np.zeros((rows, columns))
        matrix.reshape(-1)[: vector.size] = np.ldexp(vector.astype(np.float64), -exponent)  # a view
        rank = min(self._rank, rows, columns)
        start = 2 * uniform(vector, columns * rank).reshape(columns, rank) - 1
        left = _orthonormal(matrix @ start).astype("<f2")
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
        left, right, exponent = _read(payload, size)
        product = np.ldexp(left @ right.T, exponent).ravel()[:size]
        return product.clip(-LARGEST, LARGEST).astype(np.float32)

    def merge(self, payloads: Sequence[bytes], size: int) -> bytes:
        """Decode and add; the sum is a dense payload."""
        return decoded_sum(self, payloads, size)

    def check(self, payload: bytes, size: int) -> float:
        """0; raises WireError unless the payload is well formed and finite."""
        if is_sum(payload):
            return Dense().check(payload, size)
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


def _orthonormal(matrix: _Matrix) -> _Matrix:
    """Gram-Schmidt on the columns, twice against rounding; a column that depends on those before it becomes zero."""
    basis = np.zeros_like(matrix)
    for number, column in enumerate(matrix.T):
        before, rest = basis[:, :number], column.copy()
        for _ in range(2):
            rest -= before @ (before.T @ rest)
        norm = float(np.sqrt(np.square(rest).sum()))
        if norm > _DEPENDENT * float(np.sqrt(np.square(column).sum())):
            basis[:, number] = rest / norm
    return basis


def _read(payload: bytes, size: int) -> tuple[_Matrix, _Matrix, int]:
    """The factors, and the exponent of their product."""
    if len(payload) < _HEADER.size:
        raise WireError("truncated", f"a powersgd payload has a header of {_HEADER.size} bytes")
    form, rank, columns, exponent = _HEADER.unpack_from(payload)
    if form != _OWN_FORM or abs(exponent) > _MOST_EXPONENT:
        raise WireError("exponent", f"form {form} with exponent {exponent}")
    if not 1 <= columns <= size or not 1 <= rank <= min(_MOST_RANK, columns, _rows(size, columns)):
        raise WireError("shape", f"rank {rank} of {size} values in {columns} columns")
    rows = _rows(size, columns)
    if len(payload) != _HEADER.size + 2 * rank * (rows + columns):
        raise WireError("length", f"{len(payload)} bytes for {rows} rows and {columns} columns of rank {rank}")
    factors = np.frombuffer(payload, "<f2", offset=_HEADER.size).astype(np.float64)
    if not np.isfinite(factors).all():
        raise WireError("not-finite", "NaN or infinite values")
    return factors[: rank * rows].reshape(rows, rank), factors[rank * rows :].reshape(columns, rank), exponent
