"""`lattice`, the default codec: integers on one step that the release announces.

    q = round(p / step), |q| <= 127 on a device ;  decode(q) = step q ;  merge = integer addition modulo 2^32

A merge never sees a float, and multiplies by no step. The payload is a pure function of the integers, the step and the coder,
so merging commutes and associates byte for byte, and no well-formed payloads of one step can make it fail; 2^31 / 127, about 17
million, device updates add before a sum can wrap. Who adds what others wrote looks at `measure` first (`fog/steps.py`).

A release without a step (0) asks for nothing but the energy: every symbol is zero and the whole vector stays in the residual.
With a `kappa` above 0 each device then takes its own step, the power of two nearest to kappa root mean squares of its vector.

    payload = step float32 LE | number of non-zeros uint32 LE, and in its bit 31 the coder | the symbols in that coder

The coder is 1 for `rangecoder.py`, 0 for `golomb.py`. A sum is in the range coder if any part is. The step is finite and not
negative; eight zero bytes are the only payload on step 0, and adding them to another leaves that as it is.

Stochastic rounding, the default: |q| = floor(|p| / step + u), u uniform in [0, 1), is off by less than a step and unbiased up to
127 steps. A device keeps nothing of it, and the noise of many devices averages out.

Nearest rounding, halves away from zero, is off by step / 2 at most, and for a value up to 127 steps payload and residual add up
to the value exactly: nothing is lost but time, which costs more than noise does (docs/decisions/0010-step-rule.md).

Payloads on different steps add where these are powers of two (`steps.py`): the sum is on the finest, and integers of the others
move up, modulo 2^32 as all sums. They are at most 24 places apart; one without symbols adds from any coarser step.

Related: IntSGD (arXiv:2102.08374) and THC (arXiv:2302.08545) share a scale; error feedback with a hard threshold: Sahu et
al., NeurIPS 2021.
"""

from __future__ import annotations

import copy
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgemw.compression.codec import Bound, Merging, known_name
from edgemw.compression.coders import Coders, fastest
from edgemw.compression.golomb_numpy import Bytes, Positions, Symbols
from edgemw.compression.rounding import MOST_STEPS, Rounding, most_steps, nearest, stochastic
from edgemw.compression.steps import MOST_PLACES, finest, is_power, own_step, places_between
from edgemw.core.bundle import LARGEST, Vector
from edgemw.core.errors import CodecError, WireError

_HEADER = struct.Struct("<fI")
_RANGED = 1 << 31
_NOTHING = bytes(_HEADER.size)
_FLOAT_ERROR = 2.0**-23
LARGEST_MOST = 1 << 24
"""Of |q|: what float32 can say to the last integer."""
_ROUNDINGS: dict[str, Rounding] = {"nearest": nearest, "stochastic": stochastic}


class Lattice:
    """The lattice codec; see the module. What is read says how it was written, whatever the parameters.

    Args:
        coder: "range" for the fewest bytes, "golomb" for the least work without a compiler.
        rounding: "stochastic", without error feedback, or "nearest", with it.
        steps: "free", or "dyadic" for releases that announce powers of two.
        kappa: root mean squares in a step where the release announces none; 0 sends nothing then.
        most: the largest |q| of a device, from 127 to 2^24; more where updates are sums over samples.

    Attributes:
        coders: the implementations that read and write symbols.
    """

    name = "lattice"
    merging: Merging = "exact"
    stepped = True

    def __init__(
        self, coder: str = "range", rounding: str = "stochastic", steps: str = "free", kappa: float = 0.0, most: int = MOST_STEPS
    ) -> None:
        if not isinstance(kappa, int | float) or not 0 <= kappa < math.inf:
            raise CodecError(f"kappa = {kappa!r} is not a number of 0 or more")
        if isinstance(most, bool) or not isinstance(most, int) or not MOST_STEPS <= most <= LARGEST_MOST:
            raise CodecError(f"most = {most!r} is not a whole number from {MOST_STEPS} to {LARGEST_MOST}")
        self.most = most
        self._kappa = float(kappa)
        self._ranged = known_name("coder", coder, ("range", "golomb")) == "range"
        self._round = _ROUNDINGS[known_name("rounding", rounding, tuple(_ROUNDINGS))]
        self.feedback = rounding == "nearest"
        self.dyadic = known_name("steps", steps, ("free", "dyadic")) == "dyadic"
        self.coders = fastest()

    def using(self, coders: Coders) -> Lattice:
        """The same codec with these implementations of the coders."""
        other = copy.copy(self)
        other.coders = coders
        return other

    def to_nearest(self) -> Lattice:
        """The same codec with nearest rounding."""
        coder, steps = "range" if self._ranged else "golomb", "dyadic" if self.dyadic else "free"
        return Lattice(coder, "nearest", steps, self._kappa, self.most).using(self.coders)

    def encode(self, vector: Vector, step: float) -> bytes:
        """Write a vector on the lattice; what exceeds `most` steps, or float32, is left out."""
        if not 0 <= step <= LARGEST:
            raise CodecError(f"step {step}")
        if not np.isfinite(np.abs(vector).max(initial=0)):
            raise CodecError("the vector holds NaN or infinite values")
        step32 = self._step_for(vector, step)
        if step32 == 0:
            return _NOTHING
        places, symbols = self._round(vector, step32, self.most)
        return _written(step32, self._ranged, places.size, self._pack(self._ranged, places, symbols, vector.size))

    def decode(self, payload: bytes, size: int) -> Vector:
        """The vector step * q, float32[size]; a product beyond float32 becomes its largest value."""
        opened = _opened(payload)
        places, symbols = self._unpack(opened, size)
        vector = np.zeros(size, np.float32)
        vector[places] = np.clip(symbols * opened.step, -LARGEST, LARGEST)
        return vector

    def exact(self, payload: bytes, size: int) -> npt.NDArray[np.float64]:
        """The same, float64[size]: where the step is a power of two, all of a sum's bits, of which float32 keeps 24."""
        opened = _opened(payload)
        places, symbols = self._unpack(opened, size)
        vector = np.zeros(size)
        vector[places] = symbols * float(opened.step)
        return vector

    def merge(self, payloads: Sequence[bytes], size: int) -> bytes:
        """Add the integers of payloads that share a step, or whose steps are powers of two."""
        if not payloads:
            raise CodecError("nothing to merge")
        parts = [opened for opened in map(_opened, payloads) if opened.step > 0]
        if not parts:
            return _NOTHING
        ranged = any(part.ranged for part in parts)
        parts = _adding(parts)
        step = finest([part.step for part in parts])
        rewritten = [self._rewritten(part, step, ranged, size) for part in parts]
        count, packed = self.coders.one(ranged=ranged).merge(rewritten, size)
        return _written(step, ranged, count, packed)

    def shifted(self, payload: bytes, places: int) -> bytes:
        """The same integers on a step that is finer by 2^places."""
        opened = _opened(payload)
        step = math.ldexp(opened.step, -places)
        if places < 0:
            raise CodecError(f"a step cannot become coarser, by {-places} places")
        if float(np.float32(step)) != step:
            raise WireError("step", f"step {opened.step} cannot become finer by {places} places")
        return _written(step, opened.ranged, opened.count, bytes(opened.data))

    def split(self, payload: bytes, places: int, size: int) -> tuple[bytes, bytes]:
        """The nearest integers on a step that is coarser by 2^places, and what they leave: the two add up to the payload.

        Halves are rounded towards zero: away from it, a remainder of one half would be sent as a whole and come back as the
        opposite half, window after window, for ever. The step is to be a power of two, so that what is left adds to anything
        later.
        """
        opened = _opened(payload)
        step = math.ldexp(opened.step, places)
        if not 0 <= places <= MOST_PLACES or step > LARGEST:
            raise WireError("step", f"step {opened.step} cannot become coarser by {places} places")
        at, symbols = self._unpack(opened, size)
        wide = symbols.astype(np.int64)
        coarse = np.sign(wide) * ((np.abs(wide) + max(0, ((1 << places) >> 1) - 1)) >> places)
        parts = ((step, coarse), (opened.step, wide - (coarse << places)))
        one, rest = (self._sparse(step, opened.ranged, at, values.astype(np.int32), size) for step, values in parts)
        return one, rest

    def negative(self, payload: bytes, size: int) -> bytes:
        """The payload that adds up to nothing with this one."""
        opened = _opened(payload)
        at, symbols = self._unpack(opened, size)
        return self._sparse(opened.step, opened.ranged, at, np.negative(symbols), size)

    def check(self, payload: bytes, size: int) -> float:
        """The step; raises WireError unless the payload is well formed."""
        return self.measure(payload, size)[0]

    def measure(self, payload: bytes, size: int) -> tuple[float, int]:
        """The step and the largest |q|; raises WireError unless the payload is well formed."""
        opened = _opened(payload)
        _, symbols = self._unpack(opened, size)
        return opened.step, max(int(symbols.max(initial=0)), -int(symbols.min(initial=0)))

    def symbols(self, payload: bytes, size: int) -> tuple[float, Positions, Symbols]:
        """The step, the places of what is not zero, and the integers there. Raises as `check`."""
        opened = _opened(payload)
        return opened.step, *self._unpack(opened, size)

    def with_symbols(self, payload: bytes, places: Positions, symbols: Symbols, size: int) -> bytes:
        """A payload of other integers, of which some may be zero, on the same step and in the same coder."""
        opened = _opened(payload)
        return self._sparse(opened.step, opened.ranged, places, symbols, size)

    def mass(self, payload: bytes, size: int) -> tuple[float, float]:
        """The sum over all coordinates of what the payload stands for, and the sum of their sizes. Raises as `check`."""
        opened = _opened(payload)
        symbols = self._unpack(opened, size)[1].astype(np.int64)
        return opened.step * int(symbols.sum()), opened.step * int(np.abs(symbols).sum())

    def energy(self, payload: bytes, size: int) -> float:
        """The squared 2-norm of what the payload stands for: a sum of integers, times the squared step. Raises as `check`."""
        opened = _opened(payload)
        symbols = self._unpack(opened, size)[1].astype(np.int64)
        return opened.step * opened.step * int(np.dot(symbols, symbols))

    def bound(self, vector: Vector, step: float) -> Bound:
        """Half a step within the range, a whole one where rounding is stochastic; what exceeds the range stays out."""
        step32, sizes = self._step_for(vector, step), np.abs(vector.astype(np.float64))
        reach = most_steps(step32, self.most) * step32 if step32 else 0.0
        off = step32 / 2 if self.feedback else step32
        bound: Bound = np.maximum(off, sizes - reach) + _FLOAT_ERROR * sizes
        return bound

    def _step_for(self, vector: Vector, step: float) -> float:
        """The announced step as float32, or else the device's own."""
        return float(np.float32(step)) or (own_step(vector, self._kappa) if self._kappa else 0.0)

    def _sparse(self, step: float, ranged: bool, places: Positions, symbols: Symbols, size: int) -> bytes:
        """The payload of symbols of which some may be zero."""
        if step == 0:
            return _NOTHING
        kept = np.flatnonzero(symbols)
        return _written(step, ranged, kept.size, self._pack(ranged, places[kept], symbols[kept], size))

    def _pack(self, ranged: bool, places: Positions, symbols: Symbols, size: int) -> bytes:
        return self.coders.one(ranged=ranged).pack(places, symbols, size)

    def _unpack(self, opened: _Opened, size: int) -> tuple[Positions, Symbols]:
        return self.coders.one(ranged=opened.ranged).unpack(opened.data, opened.count, size)

    def _rewritten(self, opened: _Opened, step: float, ranged: bool, size: int) -> tuple[Bytes, int]:
        """The bytes of the same vector on a step and in a coder, and how many symbols they are."""
        if (opened.step, opened.ranged) == (step, ranged):
            return opened.data, opened.count
        places, symbols = self._unpack(opened, size)
        moved = (symbols.view(np.uint32) << np.uint32(places_between(opened.step, step))).view(np.int32)
        kept = np.flatnonzero(moved)  # a peer's symbol may have moved out of 32 bits
        return self._pack(ranged, places[kept], moved[kept], size), kept.size


@dataclass(frozen=True, slots=True)
class _Opened:
    """The header of a payload, and the bytes of its symbols."""

    step: float
    ranged: bool
    count: int
    data: Bytes


def _adding(parts: list[_Opened]) -> list[_Opened]:
    """The parts without those that hold nothing on a coarser power of two, however far away it is."""
    least = min(part.step for part in parts)
    return [part for part in parts if part.count or part.step == least or not (is_power(part.step) and is_power(least))]


def _written(step: float, ranged: bool, count: int, packed: bytes) -> bytes:
    return _HEADER.pack(step, count | ranged * _RANGED) + packed


def _opened(payload: bytes) -> _Opened:
    if len(payload) < _HEADER.size:
        raise WireError("truncated", "a lattice payload has a header of 8 bytes")
    step, word = _HEADER.unpack_from(payload)
    if not 0 <= step <= LARGEST or (step == 0 and payload != _NOTHING):
        raise WireError("step", f"step {step} with {word & ~_RANGED} symbols and {len(payload)} bytes")
    return _Opened(step, word >= _RANGED, word & ~_RANGED, memoryview(payload)[_HEADER.size :])
