"""`lattice`, the default codec: integers on one step that the release announces.

    q = round_half_away(p / step), |q| <= 127 on a device ;  decode(q) = step q ;  merge = integer addition

A merge never sees a float and does not know the step's value, only that it is the same. The payload is a pure function
of the integers and the step, so merging commutes and associates byte for byte. A release without a step (0) asks for
nothing but the energy: every symbol is zero and the whole vector stays in the residual.

    payload = step float32 LE | number of non-zeros uint32 LE | golomb.pack(...)

Related: IntSGD (arXiv:2102.08374) and THC (arXiv:2302.08545) share a scale; error feedback with a hard threshold: Sahu et
al., NeurIPS 2021.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edgemw.compression import golomb
from edgemw.core.bundle import Vector
from edgemw.core.errors import CodecError, WireError

_HEADER = struct.Struct("<fI")
_DEVICE_MAGNITUDE = 127

Integers = npt.NDArray[np.int64]


class Lattice:
    """The lattice codec; see the module."""

    name = "lattice"
    exact = True
    stepped = True

    def encode(self, vector: Vector, step: float) -> bytes:
        """Write a vector on the lattice; what exceeds 127 steps is left to the residual."""
        if not np.isfinite(vector).all():
            raise CodecError("the vector holds NaN or infinite values")
        step32 = np.float32(step)
        if step32 == 0:
            return _write(step32, np.empty(0, np.int64), np.empty(0, np.int64), vector.size)
        near = np.flatnonzero(np.abs(vector) >= step32 * np.float32(0.49))  # only these can round away from zero
        scaled = vector[near].astype(np.float64) / np.float64(step32)
        symbols = np.trunc(scaled + np.copysign(0.5, scaled)).clip(-_DEVICE_MAGNITUDE, _DEVICE_MAGNITUDE).astype(np.int64)
        kept = symbols != 0
        return _write(step32, near[kept], symbols[kept], vector.size)

    def decode(self, payload: bytes, size: int) -> Vector:
        """The vector step * q, float32[size]."""
        step, positions, symbols = _read(payload, size)
        vector = np.zeros(size, np.float32)
        vector[positions] = symbols.astype(np.float32) * step
        return vector

    def merge(self, payloads: Sequence[bytes], size: int) -> bytes:
        """Add the integers of payloads that share a step."""
        total = np.zeros(size, np.int64)
        steps = set()
        for payload in payloads:
            step, positions, symbols = _read(payload, size)
            steps.add(step)
            total[positions] += symbols
        if len(steps) != 1:
            raise WireError("step", "payloads of different steps")
        positions = np.flatnonzero(total)
        symbols = total[positions]
        if symbols.size and np.abs(symbols).max() > golomb.MAX_MAGNITUDE:
            raise WireError("magnitude", "the sum exceeds 2^31 - 1")
        return _write(steps.pop(), positions, symbols, size)

    def check(self, payload: bytes, size: int) -> float:
        """The step; raises WireError unless the payload is well formed."""
        return float(_read(payload, size)[0])


def next_step(kappa: float, energy: float, count: int, size: int) -> float:
    """The step for the next release: kappa times the root mean square of what a device has to send.

    Args:
        kappa: multiplier; 4 sends about 0.1 bit per parameter.
        energy: sum of the devices' squared norms in the last window.
        count: number of devices in that sum.
        size: P.
    """
    return float(np.float32(kappa * np.sqrt(energy / (count * size))))


def _write(step: np.float32, positions: Integers, symbols: Integers, size: int) -> bytes:
    return _HEADER.pack(step, positions.size) + golomb.pack(positions, symbols, size)


def _read(payload: bytes, size: int) -> tuple[np.float32, Integers, Integers]:
    if len(payload) < _HEADER.size:
        raise WireError("truncated", "a lattice payload has a header of 8 bytes")
    step, count = _HEADER.unpack_from(payload)
    if not (np.isfinite(step) and step >= 0) or (step == 0 and count):
        raise WireError("step", f"step {step} with {count} symbols")
    positions, symbols = golomb.unpack(payload[_HEADER.size :], count, size)
    return np.float32(step), positions, symbols
