"""`lanes`: integers of a fixed width on one step and one shared support, the ring that secure aggregation masks.

    q = round_half_away(p / step), |q| <= (2^(bits-1) - 1) // members, for the coordinates of one block
    lane = q mod 2^bits ;  decode = step q, and 0 outside the block ;  merge = addition of the lanes modulo 2^bits

The coordinates are cut by chance into `blocks` blocks of one size, by a seed that everybody knows (`support.py`); an encoding
carries one of them, and a release announces which: its number modulo `blocks`. So no place is sent, and a sum is as long as one
of its parts. What is outside the block, or beyond the range, is left to the residual.

Lanes modulo 2^bits are a group: a merge is exact, associative and commutative, the sum of up to `members` encodings is the true
one, and a mask that is added somewhere and subtracted elsewhere cancels, whatever its lanes are. For that every lane is
allowed, also on step 0, where an encoder writes zeros only: the length tells nothing either. Beyond `members` a sum may wrap. Use
`lanes_of` and `with_lanes` to mask. Masked lanes cannot be compressed: `bits` bits for every coordinate of the block is
what there is to pay.

    payload = step float32 LE | seed uint32 LE | blocks, block, bits, members uint16 LE | fixedwidth.pack(lanes)

Error of a round trip: step / 2 within the block and the range; the whole value outside the block. Payload and residual add up
to the value exactly where both are float32.

Source: integers on a shared step, clipped by the number of those who add: Mishchenko et al., IntSGD, arXiv:2102.08374, which
rounds by chance where error feedback is used here; masks in a ring: Bonawitz et al., Practical secure aggregation for
privacy-preserving machine learning, CCS 2017, section 4.

>>> import numpy as np
>>> vector = np.random.default_rng(7).laplace(0, 1, 1000).astype(np.float32)
>>> payload = Lanes(blocks=4, block=3).encode(vector, step=1.0)
>>> len(payload)
266
>>> sent = Lanes().decode(payload, 1000)
>>> bool((np.abs(sent - vector)[np.flatnonzero(sent)] <= 0.5).all())
True
>>> mask = np.random.default_rng(8).integers(0, 256, 250, np.uint8)
>>> masked = with_lanes(payload, lanes_of(payload, 1000) + mask, 1000)
>>> unmasking = with_lanes(payload, 0 - mask, 1000)
>>> bool((Lanes().decode(Lanes().merge([masked, unmasking], 1000), 1000) == sent).all())
True
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from edgemw.compression.codec import Bound, Merging, whole_number
from edgemw.compression.fixedwidth import MOST_BITS, Words, check_packed, pack, unpack
from edgemw.compression.ring import add
from edgemw.compression.support import support, support_size
from edgemw.core.bundle import LARGEST, Vector
from edgemw.core.errors import CodecError, WireError

_HEADER = struct.Struct("<fIHHHH")
_STEP_BYTES = 4
_LEAST_BITS = 2
_MOST_SEED = (1 << 32) - 1
_MOST_BLOCKS = (1 << 16) - 1
_ROUNDING = 2.0**-23


class Lanes:
    """The lanes codec; see the module.

    Args:
        bits: of a lane, from 2 to 16; 8 and 16 are fastest.
        blocks: how many encodings it takes until every coordinate had its turn; 1 sends all of them every time.
        members: how many encodings add without wrapping, at most 2^(bits-1) - 1.
        seed: of the blocks.
        block: which one an encoding of release 0 carries, from 0 to blocks - 1; in a run the releases take turns (`at`).
    """

    name = "lanes"
    merging: Merging = "exact"
    stepped = True
    feedback = True

    def __init__(self, bits: int = 8, blocks: int = 10, members: int = 16, seed: int = 0, block: int = 0) -> None:
        self._bits = whole_number("bits", bits, _LEAST_BITS, MOST_BITS)
        self._blocks = whole_number("blocks", blocks, 1, _MOST_BLOCKS)
        self._members = whole_number("members", members, 1, _most_members(MOST_BITS))
        if members > _most_members(bits):
            most = _most_members(bits)
            raise CodecError(f"members = {members}: lanes of {bits} bits add {most} at most; give more bits or fewer members")
        self._seed = whole_number("seed", seed, 0, _MOST_SEED)
        self._block = whole_number("block", block, 0, blocks - 1)

    @property
    def bits(self) -> int:
        """Of a lane."""
        return self._bits

    @property
    def members(self) -> int:
        """How many encodings add without wrapping."""
        return self._members

    def encode(self, vector: Vector, step: float) -> bytes:
        """Write the block; what exceeds the range, or float32, is left to the residual."""
        if not 0 <= step <= LARGEST:
            raise CodecError(f"step {step}")
        if not np.isfinite(np.abs(vector).max(initial=0)):
            raise CodecError("the vector holds NaN or infinite values")
        head = self._head(step)
        if head.step == 0.0:
            symbols = np.zeros(head.lanes_in(vector.size), np.int32)
        else:
            scaled = vector[head.places_in(vector.size)].astype(np.float64) / head.step
            scaled += np.copysign(0.5, scaled)
            symbols = np.trunc(scaled).clip(-head.reach, head.reach).astype(np.int32)
        return head.pack() + pack(symbols, head.bits)

    def decode(self, payload: bytes, size: int) -> Vector:
        """The vector step * q, float32[size]; a product beyond float32 becomes its largest value."""
        head = _Head.of(payload, size)
        vector = np.zeros(size, np.float32)
        vector[head.places_in(size)] = np.clip(_signed(head.lanes(payload, size), head.bits) * head.step, -LARGEST, LARGEST)
        return vector

    def merge(self, payloads: Sequence[bytes], size: int) -> bytes:
        """Add the lanes of payloads that are alike in all but their lanes."""
        if not payloads:
            raise CodecError("nothing to merge")
        head = _Head.of(payloads[0], size)
        for payload in payloads[1:]:
            self._require_alike(payload, payloads[0])
            _Head.of(payload, size)
        return add([memoryview(payload)[_HEADER.size :] for payload in payloads], head.bits, payloads[0][: _HEADER.size])

    def check(self, payload: bytes, size: int) -> float:
        """The step; raises WireError unless the payload is well formed."""
        return _Head.of(payload, size).step

    def ring(self, payload: bytes) -> bytes:
        """The header behind the step: which coordinates the lanes stand for, their width, and how many may add."""
        return payload[_STEP_BYTES : _HEADER.size]

    def own_ring(self) -> bytes:
        """See `codec.Ringed`."""
        return self._head(0.0).pack()[_STEP_BYTES:]

    def at(self, release: int) -> Lanes:
        """The codec of a release: each carries the block after that of the release before."""
        block = (self._block + release) % self._blocks
        return Lanes(self._bits, self._blocks, self._members, self._seed, block)

    def bound(self, vector: Vector, step: float) -> Bound:
        """Half a step within the block and the range; what exceeds them stays out."""
        head, sizes = self._head(step), np.abs(vector.astype(np.float64))
        inside = np.zeros(vector.size, np.bool_)
        inside[head.places_in(vector.size)] = True
        near = np.maximum(head.step / 2, sizes - head.reach * head.step) + _ROUNDING * sizes
        bound: Bound = np.where(inside, near, sizes)
        return bound

    def _require_alike(self, payload: bytes, first: bytes) -> None:
        if payload[:_STEP_BYTES] != first[:_STEP_BYTES]:
            raise WireError("step", "payloads of different steps")
        if self.ring(payload) != self.ring(first):
            raise WireError("lanes", "payloads of different lanes")

    def _head(self, step: float) -> _Head:
        return _Head(float(np.float32(step)), self._seed, self._blocks, self._block, self._bits, self._members)


def lanes_of(payload: bytes, size: int) -> Words:
    """The lanes of a payload: uint8 for up to 8 bits, else uint16; read only. Raises WireError on any malformed payload."""
    lanes = _Head.of(payload, size).lanes(payload, size)
    lanes.flags.writeable = False
    return lanes


def with_lanes(payload: bytes, lanes: npt.NDArray[np.integer], size: int) -> bytes:
    """A payload with the header of another and these lanes, which are taken modulo 2^bits.

    Raises:
        CodecError: another number of lanes than the payload has.
        WireError: the payload is malformed.
    """
    head = _Head.of(payload, size)
    if lanes.shape != (head.lanes_in(size),):
        raise CodecError(f"lanes of shape {lanes.shape} for {head.lanes_in(size)} coordinates")
    return head.pack() + pack(lanes, head.bits)


@dataclass(frozen=True, slots=True)
class _Head:
    """What stands before the lanes."""

    step: float
    seed: int
    blocks: int
    block: int
    bits: int
    members: int

    @classmethod
    def of(cls, payload: bytes, size: int) -> Self:
        """The header of a well-formed payload; raises WireError on any other."""
        if len(payload) < _HEADER.size:
            raise WireError("truncated", f"a lanes payload has a header of {_HEADER.size} bytes")
        head = cls(*_HEADER.unpack_from(payload))
        if not 0 <= head.step <= LARGEST or math.copysign(1, head.step) < 0:
            raise WireError("step", f"step {head.step}")
        if not _LEAST_BITS <= head.bits <= MOST_BITS or not 1 <= head.members <= _most_members(head.bits):
            raise WireError("lanes", f"{head.members} members on {head.bits} bits")
        if head.block >= head.blocks:
            raise WireError("block", f"block {head.block} of {head.blocks}")
        rest = len(payload) - _HEADER.size
        if rest:
            check_packed(memoryview(payload)[_HEADER.size :], head.lanes_in(size), head.bits)
        elif head.lanes_in(size):
            raise WireError("length", f"no lanes for {head.lanes_in(size)} coordinates")
        return head

    @property
    def reach(self) -> int:
        """The largest magnitude of a symbol; decoding it stays finite."""
        most = ((1 << (self.bits - 1)) - 1) // self.members
        return min(most, math.floor(LARGEST / self.step)) if self.step else 0

    def lanes_in(self, size: int) -> int:
        """How many lanes there are."""
        return support_size(size, self.blocks, self.block)

    def places_in(self, size: int) -> npt.NDArray[np.int64] | slice:
        """The coordinates that the lanes stand for."""
        return support(size, self.blocks, self.block, self.seed)

    def lanes(self, payload: bytes, size: int) -> Words:
        """The lanes of a payload with this header."""
        return unpack(memoryview(payload)[_HEADER.size :], self.lanes_in(size), self.bits)

    def pack(self) -> bytes:
        """The bytes of the header."""
        return _HEADER.pack(self.step, self.seed, self.blocks, self.block, self.bits, self.members)


def _most_members(bits: int) -> int:
    return (1 << (bits - 1)) - 1


def _signed(lanes: Words, bits: int) -> npt.NDArray[np.int32]:
    """The representatives in [-2^(bits-1), 2^(bits-1))."""
    half = 1 << (bits - 1)
    signed: npt.NDArray[np.int32] = (lanes.astype(np.int32) ^ half) - half
    return signed
