"""`lattice`, the default codec: integers on one step that the release announces.

    q = round_half_away(p / step), |q| <= 127 on a device ;  decode(q) = step q ;  merge = integer addition modulo 2^32

A merge never sees a float and does not know the step's value, only that it is the same. The payload is a pure function
of the integers and the step, so merging commutes and associates byte for byte, and no well-formed payload can make it
fail; 2^31 / 127, about 17 million, device updates add before a sum can wrap. A release without a step (0) asks for nothing
but the energy: every symbol is zero and the whole vector stays in the residual.

    payload = step float32 LE | number of non-zeros uint32 LE | golomb.pack(...)

The step is finite and not negative, and 0 has one spelling.

Error of a round trip: step / 2 for every value up to 127 steps; what exceeds that is left to the residual. For a value in
that range, payload and residual add up to the value exactly.

Related: IntSGD (arXiv:2102.08374) and THC (arXiv:2302.08545) share a scale; error feedback with a hard threshold: Sahu et
al., NeurIPS 2021.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

import numpy as np

from edgemw.compression.codec import Bound, Merging
from edgemw.compression.golomb import Golomb, fastest
from edgemw.compression.golomb_numpy import Bytes
from edgemw.core.bundle import Vector
from edgemw.core.errors import CodecError, WireError

_HEADER = struct.Struct("<fI")
_STEP_BYTES = 4
_DEVICE_MAGNITUDE = 127
_LARGEST = float(np.finfo(np.float32).max)
_ROUNDING = 2.0**-23


class Lattice:
    """The lattice codec; see the module.

    Args:
        golomb: the implementation that reads and writes symbols; None takes the fastest that is installed.
    """

    name = "lattice"
    merging: Merging = "exact"
    stepped = True
    feedback = True

    def __init__(self, golomb: Golomb | None = None) -> None:
        self._golomb = golomb or fastest()

    def encode(self, vector: Vector, step: float) -> bytes:
        """Write a vector on the lattice; what exceeds 127 steps, or float32, is left to the residual."""
        if not 0 <= step <= _LARGEST:
            raise CodecError(f"step {step}")
        step32 = np.float32(step)
        sizes = np.abs(vector)
        if not np.isfinite(sizes.max(initial=0)):
            raise CodecError("the vector holds NaN or infinite values")
        if step32 == 0:
            return _HEADER.pack(0.0, 0)
        near = np.flatnonzero(sizes >= step32 * np.float32(0.49))  # only these can round away from zero
        scaled = vector[near].astype(np.float64) / np.float64(step32)
        limit = min(_DEVICE_MAGNITUDE, math.floor(_LARGEST / float(step32)))  # decoding stays finite
        symbols = np.trunc(scaled + np.copysign(0.5, scaled)).clip(-limit, limit).astype(np.int32)
        kept = np.flatnonzero(symbols)
        return _HEADER.pack(step32, kept.size) + self._golomb.pack(near[kept], symbols[kept], vector.size)

    def decode(self, payload: bytes, size: int) -> Vector:
        """The vector step * q, float32[size]; a product beyond float32 becomes its largest value."""
        step, count, data = _opened(payload)
        positions, symbols = self._golomb.unpack(data, count, size)
        vector = np.zeros(size, np.float32)
        vector[positions] = np.clip(symbols * step, -_LARGEST, _LARGEST)
        return vector

    def merge(self, payloads: Sequence[bytes], size: int) -> bytes:
        """Add the integers of payloads that share a step."""
        if not payloads:
            raise CodecError("nothing to merge")
        if any(payload[:_STEP_BYTES] != payloads[0][:_STEP_BYTES] for payload in payloads):
            raise WireError("step", "payloads of different steps")
        opened = [_opened(payload) for payload in payloads]
        count, packed = self._golomb.merge([(data, claimed) for _, claimed, data in opened], size)
        return _HEADER.pack(opened[0][0], count) + packed

    def check(self, payload: bytes, size: int) -> float:
        """The step; raises WireError unless the payload is well formed."""
        step, count, data = _opened(payload)
        self._golomb.unpack(data, count, size)
        return step

    def bound(self, vector: Vector, step: float) -> Bound:
        """Half a step within the range; what exceeds the range stays out."""
        step32, sizes = float(np.float32(step)), np.abs(vector.astype(np.float64))
        reach = min(_DEVICE_MAGNITUDE, math.floor(_LARGEST / step32)) * step32 if step32 else 0.0
        bound: Bound = np.maximum(step32 / 2, sizes - reach) + _ROUNDING * sizes
        return bound


def next_step(kappa: float, energy: float, count: int, size: int) -> float:
    """The step for the next release: kappa times the root mean square of what a device has to send.

    It is a finite float32 whatever energy peers claim: a step that is too large sends nothing for one release, and the
    energies of that release correct it.

    Args:
        kappa: multiplier; 4 sends about 0.1 bit per parameter.
        energy: sum of the devices' squared norms in the last window.
        count: number of devices in that sum, at least 1.
        size: P.
    """
    return float(np.float32(min(kappa * math.sqrt(energy / (count * size)), _LARGEST)))


def _opened(payload: bytes) -> tuple[float, int, Bytes]:
    """The step, the number of symbols, and their bytes."""
    if len(payload) < _HEADER.size:
        raise WireError("truncated", "a lattice payload has a header of 8 bytes")
    step, count = _HEADER.unpack_from(payload)
    if not 0 <= step <= _LARGEST or math.copysign(1, step) < 0 or (step == 0 and count):
        raise WireError("step", f"step {step} with {count} symbols")
    return step, count, memoryview(payload)[_HEADER.size :]
