"""One side of a low-rank matrix, on a basis that everybody has who follows the releases: such payloads add as they are.

    D = what the last release changed, a matrix for each layer
    B = the dominant `rank` directions of D: of its columns in even releases, of its rows in odd ones
    F = M B  or  M^T B ;  decode = F B^T  or  B F^T ;  merge = F + F'

A layer is a matrix of its first dimension times the rest. One that is no larger than its factors stands as it is, one that is
zero takes no bytes. What is missing to `rank` directions is filled with random ones, the same for all.

    payload = 2 uint8 | side uint8 | bytes of a value uint8 | exponent int16 LE | number of pieces uint16 LE
              | rows uint32 LE, columns uint32 LE, rank uint8 of each piece | bases, float16 LE by rows | factors LE by rows

Side 0 is a basis of columns, 1 of rows. Rank 0 is values as they are, 255 is zeros. Factors are float16 in units of 2^exponent
from a device, float64 of exponent 0 in a sum, whose errors then stay below those of float32. Payloads on different bases add by
decoding. The basis goes along, twice the bytes of a factor alone, so that a payload can be read, added and given back by whoever
has not got the two releases.

Error of a round trip: at most ||p|| in the 2-norm, to float16: I - B B^T takes nothing more than there is.

Source: Vogels et al., PowerSGD, arXiv:1905.13727, algorithm 1, one side of it in each round, as its authors' library has it; the
factor of the round before is found again in the release (Halko, Martinsson and Tropp, arXiv:0909.4061, algorithm 4.4).
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edgemw.compression.codec import Past
from edgemw.compression.uniform import words
from edgemw.core.bundle import LARGEST, Vector
from edgemw.core.errors import WireError

_FORM = 2
MOST_RANK = 64  # bounds the work that a payload can ask for
MOST_PIECES = 4096

_HEADER = struct.Struct("<BBBhH")
_PIECE = struct.Struct("<IIB")
_RAW, _ZERO = 0, 255
_MOST_EXPONENT = 512  # products of float16 and this stay in float64
_MOST_VALUE = 2.0**600  # of a sum; so do they, and many of them
_DEPENDENT = 2.0**-30  # of a column, below which the rest of it is rounding
_TURNS = 2  # of subspace iteration

Matrix = npt.NDArray[np.float64]


class Piece(NamedTuple):
    """A matrix that stands for the next coordinates, by rows."""

    rows: int
    columns: int
    rank: int

    @property
    def cells(self) -> int:
        """How many coordinates."""
        return self.rows * self.columns

    @property
    def is_low_rank(self) -> bool:
        """Whether it has a basis."""
        return self.rank not in (_RAW, _ZERO)

    def lengths(self, side: int) -> tuple[int, int]:
        """Values of the basis and of the factor."""
        if not self.is_low_rank:
            return 0, self.cells if self.rank == _RAW else 0
        return self.rank * self._length(side), self.rank * self._length(1 - side)

    def _length(self, side: int) -> int:
        return self.rows if side else self.columns


@dataclass(frozen=True, slots=True)
class Shared:
    """A payload's contents; factors of all pieces in one float64 array, to be multiplied by 2^exponent."""

    side: int
    exponent: int
    pieces: tuple[Piece, ...]
    bases: bytes
    factors: Matrix


def encode_shared(vector: Vector, past: Past, rank: int, columns: int) -> bytes:
    """Project float32[P], which is finite, on what the last release changed.

    Args:
        vector: to say.
        past: the release that it was trained from.
        rank: directions of each matrix.
        columns: row length of one matrix for all; 0 takes the layers.
    """
    largest = float(np.abs(vector).max(initial=0.0))
    exponent = math.frexp(largest)[1]
    scaled = np.ldexp(vector.astype(np.float64), -exponent)
    change = past.change.astype(np.float64)
    change /= np.abs(change).max(initial=0.0) or 1.0
    side = past.release % 2
    pieces, bases, factors = [], [], []
    key = hashlib.blake2b(past.change.astype("<f4", copy=False).tobytes(), digest_size=16).digest()
    for number, (piece, said, moved) in enumerate(_cut(_pieces(vector.size, past, rank, columns), scaled, change)):
        kept = piece if said.any() else piece._replace(rank=_ZERO)
        pieces.append(kept)
        if kept.is_low_rank:
            basis = _directions(moved.T if side else moved, piece.rank, key + number.to_bytes(4, "little")).astype("<f2")
            bases.append(basis.tobytes())
            factors.append(((said.T if side else said) @ basis.astype(np.float64)).ravel())
        elif kept.rank == _RAW:
            factors.append(said.ravel())
    values = np.concatenate([*factors, np.zeros(0)])
    unit = math.frexp(float(np.abs(values).max(initial=0.0)))[1]
    return _written(Shared(side, exponent + unit, tuple(pieces), b"".join(bases), np.ldexp(values, -unit)), "<f2")


def is_shared(payload: bytes) -> bool:
    """Whether a payload is in this form, by its first byte."""
    return payload[:1] == bytes([_FORM])


def read_shared(payload: bytes, size: int) -> Shared:
    """The contents. Raises WireError unless the payload is well formed and finite."""
    if len(payload) < _HEADER.size:
        raise WireError("truncated", f"a payload on a shared basis has a header of {_HEADER.size} bytes")
    _, side, width, exponent, number = _HEADER.unpack_from(payload)
    if side > 1 or width not in (2, 8) or abs(exponent) > _MOST_EXPONENT or (width == 8 and exponent):
        raise WireError("exponent", f"side {side}, values of {width} bytes with exponent {exponent}")
    begin = _HEADER.size + number * _PIECE.size
    if not 1 <= number <= MOST_PIECES or len(payload) < begin:
        raise WireError("shape", f"{number} pieces in {len(payload)} bytes")
    pieces = tuple(Piece(*fields) for fields in _PIECE.iter_unpack(payload[_HEADER.size : begin]))
    cells = sum(piece.cells for piece in pieces)
    last = pieces[0].columns if number == 1 else 1  # the last row of the only matrix may be cut
    if not all(_is_sound(piece) for piece in pieces) or last > size or not size <= cells < size + last:
        raise WireError("shape", f"{number} pieces of {cells} values for {size}")
    lengths = [piece.lengths(side) for piece in pieces]
    middle = begin + 2 * sum(length for length, _ in lengths)
    if len(payload) != middle + width * sum(length for _, length in lengths):
        raise WireError("length", f"{len(payload)} bytes for {number} pieces")
    bases = payload[begin:middle]
    factors = np.frombuffer(payload, f"<f{width}", offset=middle).astype(np.float64)
    if not np.isfinite(np.frombuffer(bases, "<f2")).all() or not (np.abs(factors) <= _MOST_VALUE).all():
        raise WireError("not-finite", "NaN, infinite or too large values")
    return Shared(side, exponent, pieces, bases, factors)


def decode_shared(payload: bytes, size: int) -> Vector:
    """The vector float32[size]; a product beyond float32 becomes its largest value."""
    shared = read_shared(payload, size)
    parts, bases, factors = [], np.frombuffer(shared.bases, "<f2").astype(np.float64), shared.factors
    for piece in shared.pieces:
        one, other = piece.lengths(shared.side)
        basis, bases = bases[:one].reshape(-1, piece.rank or 1), bases[one:]
        factor, factors = factors[:other].reshape(-1, piece.rank or 1), factors[other:]
        if piece.is_low_rank:
            parts.append((basis @ factor.T if shared.side else factor @ basis.T).ravel())
        else:
            parts.append(factor.ravel() if piece.rank == _RAW else np.zeros(piece.cells))
    product = np.ldexp(np.concatenate(parts)[:size], shared.exponent)
    return product.clip(-LARGEST, LARGEST).astype(np.float32)


def merge_shared(payloads: Sequence[bytes], size: int) -> bytes | None:
    """The sum, or None where the payloads are on different bases. Raises WireError on a malformed one."""
    if not all(map(is_shared, payloads)):
        return None
    parts = [read_shared(payload, size) for payload in payloads]
    if any((a.side, a.pieces, a.bases) != (b.side, b.pieces, b.bases) for a, b in pairwise(parts)):
        return None
    total = np.sum([np.ldexp(part.factors, part.exponent) for part in parts], axis=0)
    return _written(replace(parts[0], exponent=0, factors=total.clip(-_MOST_VALUE, _MOST_VALUE)), "<f8")


def orthonormal(matrix: Matrix) -> Matrix:
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


def _pieces(size: int, past: Past, rank: int, columns: int) -> list[Piece]:
    if columns:
        row = min(columns, size)
        return [_piece(-(-size // row), row, rank)]
    return [_piece(slot.shape[0] if slot.shape else 1, slot.size // (slot.shape or (1,))[0], rank) for slot in past.layout]


def _piece(rows: int, columns: int, rank: int) -> Piece:
    most = min(rank, rows, columns)
    return Piece(rows, columns, most if most * (rows + columns) < rows * columns else _RAW)


def _cut(pieces: list[Piece], *vectors: Matrix) -> Iterator[tuple[Piece, Matrix, Matrix]]:
    begin = 0
    for piece in pieces:
        one, other = (_filled(vector[begin : begin + piece.cells], piece) for vector in vectors)
        yield piece, one, other
        begin += piece.cells


def _filled(values: Matrix, piece: Piece) -> Matrix:
    return np.pad(values, (0, piece.cells - values.size)).reshape(piece.rows, piece.columns)


def _directions(matrix: Matrix, rank: int, key: bytes) -> Matrix:
    """The dominant right singular directions, float64[columns, rank], orthonormal; random ones where there are not as many."""
    drawn = words(key, matrix.shape[1] * rank) >> np.uint64(11)
    start = drawn.astype(np.float64).reshape(-1, rank) * 2.0**-52 - 1
    found = start
    for _ in range(_TURNS):
        found = orthonormal(matrix.T @ (matrix @ found))
    basis = orthonormal(np.hstack([found, start]))
    return basis[:, basis.any(axis=0)][:, :rank]


def _is_sound(piece: Piece) -> bool:
    return min(piece) >= 0 and piece.cells > 0 and (not piece.is_low_rank or piece.rank <= min(MOST_RANK, *piece[:2]))


def _written(shared: Shared, dtype: str) -> bytes:
    width = np.dtype(dtype).itemsize
    head = _HEADER.pack(_FORM, shared.side, width, shared.exponent, len(shared.pieces))
    return head + b"".join(_PIECE.pack(*piece) for piece in shared.pieces) + shared.bases + shared.factors.astype(dtype).tobytes()
