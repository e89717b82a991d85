"""The gossip codec: a model modulo M on a dithered lattice, read with the receiver's own model as side information.

    sender    z_i = floor(x_i / step + u) ;  sends z_i mod M, M = 2^bits            u: uniform in [0, 1), shared, new every round
    receiver  z^_i = the integer in [y - M/2, y + M/2) that is z_i modulo M ;  y = x_j / step + u - 1/2
              x^_i = step (z^_i + 1/2 - u) ;  x^_j likewise from its own z_j

    mixing    x_j <- x_j + sum over R_j of (x^_i - x^_j) / (1 + |R_j|)

Only differences z^_i - z_j enter, so that nodes of equal models stay equal, whatever the step. z^_i is z_i, and x^_i is within
step / 2 of x_i, wherever |x_i - x_j| < step (M - 1) / 2; a step of 2 theta / (M - 2) so allows differences up to theta and
half a step more. Beyond, z^_i is off by a multiple of M: it wraps.

Wraps are found block by block, 4096 coordinates each, by a sum modulo 2^32 of floor(z / M) c with odd random c, shared as u is.
One wrapped coordinate changes it for certain, more leave it as it was with a probability of 2^-31 for each block (2^(t - 31)
where all are multiples of 2^t M off). A wrapped block says nothing, and mixing leaves it as it is.

    payload = round uint32 LE | step float32 LE | largest, distance float32 LE | bits uint8 | one sum for each block, uint32 LE
            | fixedwidth.pack(z mod M)

`largest` and `distance` are the sender's consensus statistics (`consensus.py`). It is no `Codec`: payloads do not add, and
reading them needs a model. u and c are the upper and the lower half of random words that depend on the round alone.

Source: Lu and De Sa, Moniqua, arXiv:2002.11787, algorithm 1; subtractive dither: Zamir and Feder, IEEE Trans. IT 38 (1992); side
information: Wyner and Ziv, IEEE Trans. IT 22 (1976). The sums are those of Carter and Wegman, JCSS 18 (1979).

>>> import numpy as np
>>> rng = np.random.default_rng(7)
>>> own = rng.standard_normal(1000).astype(np.float32)
>>> other = (own + rng.uniform(-0.1, 0.1, 1000)).astype(np.float32)
>>> payload = encode(other, step=0.2 / 14, bits=4, round_number=3)
>>> len(payload)
521
>>> heard = decode(payload, own)
>>> bool((np.abs(estimated(heard, own) - other) < heard.step * 0.501).all())
True
>>> mixed = mix(own, [heard])
>>> bool(np.linalg.norm(mixed - other) < 0.51 * np.linalg.norm(own - other))
True
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgemw.compression.codec import whole_number
from edgemw.compression.fixedwidth import MOST_BITS, check_packed, pack, unpack
from edgemw.compression.uniform import words
from edgemw.core.bundle import LARGEST, Vector
from edgemw.core.errors import CodecError, WireError

LEAST_BITS = 3  # with M = 4 the rounding alone is as large as theta: the estimate of theta would never fall
BLOCK = 4096
MOST_ROUND = (1 << 32) - 1
LARGEST_STEP = 2.0**110  # times 2^16 it is a float32
_HEADER = struct.Struct("<IfffB")
_KEY = struct.Struct("<14sI")
_MOST_STEPS = 2.0**40  # of a coordinate: a double keeps 12 bits of its fraction

_Integers = npt.NDArray[np.int64]
_Fractions = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a node says of its consensus with others; both finite and not negative.

    Attributes:
        largest: |x_i - x_j| over the coordinates and peers of its last rounds.
        distance: ||x_i - x_j|| relative to ||x_j||, over the peers of its last round.
    """

    largest: float = 0.0
    distance: float = 0.0


NOTHING_SEEN = Statistics()


@dataclass(frozen=True, slots=True, eq=False)
class Heard:
    """A peer's model as one node reads it.

    Attributes:
        round_number: of the dither.
        step: of the lattice.
        bits: of a coordinate.
        statistics: of the sender.
        difference: float32[P], x^_i - x^_j, and 0 in blocks that wrapped.
        wrapped: bool[blocks], whose differences are unknown.
    """

    round_number: int
    step: float
    bits: int
    statistics: Statistics
    difference: Vector
    wrapped: npt.NDArray[np.bool_]

    @property
    def sound(self) -> npt.NDArray[np.bool_]:
        """bool[P], the coordinates whose differences are known."""
        return np.repeat(~self.wrapped, BLOCK)[: self.difference.size]

    @property
    def reach(self) -> float:
        """The difference from which on a coordinate wraps."""
        return self.step * ((1 << self.bits) - 1) / 2


def encode(vector: Vector, step: float, bits: int, round_number: int, statistics: Statistics = NOTHING_SEEN) -> bytes:
    """Write a model, in ceil(P bits / 8) bytes, 17 for the header and 4 for each block.

    Args:
        vector: float32[P].
        step: more than 0, as float32 too, and at most 2^110.
        bits: from 3 to 16.
        round_number: of the dither, from 0 to 2^32 - 1.
        statistics: of this node.

    Raises:
        CodecError: one of them is something else, or the vector holds more than 2^40 steps.
    """
    whole_number("bits", bits, LEAST_BITS, MOST_BITS)
    whole_number("round_number", round_number, 0, MOST_ROUND)
    if not 0 <= step <= LARGEST_STEP or np.float32(step) == 0:
        raise CodecError(f"step {step}")
    if not _is_magnitude(statistics.largest) or not _is_magnitude(statistics.distance):
        raise CodecError(f"{statistics}")
    step32 = float(np.float32(step))
    symbols, _, weights = _on_lattice(vector, step32, round_number)
    header = _HEADER.pack(round_number, step32, statistics.largest, statistics.distance, bits)
    sums = _sums(symbols >> bits, weights)
    return header + sums.tobytes() + pack(symbols, bits)


def decode(payload: bytes, own: Vector) -> Heard:
    """Read a peer's model next to one's own, float32[P].

    Raises:
        WireError: the payload is malformed, of another size, or on a step of which the own model holds more than 2^40.
        CodecError: the own model is not finite.
    """
    if len(payload) < _HEADER.size:
        raise WireError("truncated", f"a gossip payload has a header of {_HEADER.size} bytes")
    round_number, step, largest, distance, bits = _HEADER.unpack_from(payload)
    if not 0 < step <= LARGEST_STEP or not LEAST_BITS <= bits <= MOST_BITS:
        raise WireError("step", f"step {step} on {bits} bits")
    if not _is_magnitude(largest) or not _is_magnitude(distance):
        raise WireError("statistics", f"largest {largest}, distance {distance}")
    rest = memoryview(payload)[_HEADER.size :]
    blocks = -(-own.size // BLOCK)
    if len(rest) < 4 * blocks:
        raise WireError("truncated", f"{len(rest)} bytes for {blocks} blocks")
    check_packed(rest[4 * blocks :], own.size, bits)
    symbols, fractions, weights = _own_on_lattice(own, step, round_number)
    ahead = _ahead(unpack(rest[4 * blocks :], own.size, bits).astype(np.int64), symbols, fractions, bits)
    wrapped = _sums((symbols + ahead) >> bits, weights) != np.frombuffer(rest, "<u4", blocks)
    ahead[np.repeat(wrapped, BLOCK)[: own.size]] = 0
    difference = (ahead * step).astype(np.float32)
    return Heard(round_number, step, bits, Statistics(largest, distance), difference, wrapped)


def quantised(vector: Vector, step: float, round_number: int) -> Vector:
    """A vector as its readers have it: x^ = step (z + 1/2 - u), within step / 2 of float32[P]. Raises CodecError as `encode`."""
    _, fractions, _ = _on_lattice(vector, step, round_number)
    middle = vector.astype(np.float64) + step * (0.5 - fractions)  # z = x / step + u - fraction
    return middle.clip(-LARGEST, LARGEST).astype(np.float32)


def estimated(heard: Heard, own: Vector) -> Vector:
    """The peer's model, x^_i, as float32[P]; one's own, x^_j, in blocks that wrapped."""
    sum_of_both = quantised(own, heard.step, heard.round_number).astype(np.float64) + heard.difference
    return sum_of_both.clip(-LARGEST, LARGEST).astype(np.float32)


def mix(own: Vector, heard: Sequence[Heard]) -> Vector:
    """The model after one round of gossip: x_j + sum (x^_i - x^_j) / (1 + |R_j|), float32[P], and x_j where nothing was heard."""
    total = np.zeros(own.size)
    for peer in heard:
        total += peer.difference
    mixed = own + total / (1 + len(heard))
    return mixed.clip(-LARGEST, LARGEST).astype(np.float32)


def _is_magnitude(value: float) -> bool:
    return 0 <= value <= LARGEST and math.copysign(1, value) > 0


def _on_lattice(vector: Vector, step: float, round_number: int) -> tuple[_Integers, _Fractions, npt.NDArray[np.uint32]]:
    """z, x / step + u - z in [0, 1), and the odd weights of the round's sums."""
    scaled = vector.astype(np.float64) / step
    if not np.abs(scaled).max(initial=0.0) <= _MOST_STEPS:
        raise CodecError(f"the vector is not finite, or holds more than 2^40 steps of {step}")
    raw = words(_KEY.pack(b"edgemw modulo", round_number), vector.size)
    scaled += (raw >> np.uint64(32)) * 2.0**-32
    whole = np.floor(scaled)
    scaled -= whole
    return whole.astype(np.int64), scaled, raw.astype(np.uint32) | np.uint32(1)


def _own_on_lattice(own: Vector, step: float, round_number: int) -> tuple[_Integers, _Fractions, npt.NDArray[np.uint32]]:
    """The same for the receiver, where the step is not its own."""
    largest = float(np.abs(own).max(initial=0.0))
    if math.isfinite(largest) and not largest / step <= _MOST_STEPS:
        raise WireError("step", f"step {step} for a model with values of {largest}")
    return _on_lattice(own, step, round_number)


def _ahead(symbols: _Integers, own: _Integers, fractions: _Fractions, bits: int) -> _Integers:
    """z^_i - z_j: what is sent minus one's own, modulo M, as near 0 as it can be; of M / 2 and -M / 2 what is nearer to y."""
    ahead = (symbols - own) & ((1 << bits) - 1)
    half = 1 << (bits - 1)
    ahead -= (ahead + (fractions <= 0.5) > half).astype(np.int64) << bits
    return ahead


def _sums(values: _Integers, weights: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """The weighted sum of each block modulo 2^32, uint32[blocks]."""
    starts = np.arange(0, values.size, BLOCK)
    return np.add.reduceat(values.astype(np.uint32) * weights, starts, dtype="<u4")
