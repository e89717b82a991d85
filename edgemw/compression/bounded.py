"""An update whose norm has a bound, and that a device may add noise to: what differential privacy asks of one.

    p = delta min(1, S / |delta|) ,  weight 1 ,  energy S^2 ,  no residual        S: clip, z: noise, both of the plan

    z = 0   q = round(c p / step), rounded by chance; c is as near to 1 as |q| step <= S allows
    z > 0   x = trunc(p / g) ; y = x + round(N(0, (z S / g)^2)) ; q = y to the nearest step, g = step / 2^16

Where single samples are protected, the bound is of each of them and p is their sum, already in integers x of a unit
(`learning/summing.py`): what is sent is x, or where z > 0 y = x + round(N(0, (z S / unit)^2)) to the nearest step.

The step is a power of two, the same for all releases of a run, so that every product here is exact. The bound is one of
integers: it holds of what is sent, not only of what was rounded. Sizes of updates tell nothing but what their symbols do:
weight and energy are the same for all devices.

Source: clipping of whole updates: McMahan et al., ICLR 2018, section 2.2; rounding until the norm is within the bound: Kairouz,
Liu and Steinke, ICML 2021, section 4.1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgemw.compression.codec import Codec
from edgemw.compression.lattice import Lattice
from edgemw.compression.residual import Contribution
from edgemw.compression.rounding import most_steps
from edgemw.compression.steps import is_power, nearest_power
from edgemw.core.bundle import Vector
from edgemw.core.encoded import Encoded, Section
from edgemw.core.errors import CodecError, TooLargeError
from edgemw.core.noise import Integers, unit_of
from edgemw.core.ranges import Ranges, blank

_FINER = 16  # places, of the grid that noise is added on
_COARSEST = 60  # places, of a step above the unit of a sum: int64 holds that and the noise
_TRIES, _SAFELY = 40, 0.99
_WITHIN = 1 - 1e-9  # what float64 may make of a norm

Wide = npt.NDArray[np.float64]
Noise = Callable[[int, float], Integers]
"""So many rounded Gaussians of this deviation, other ones whenever it is asked."""


@dataclass(frozen=True, slots=True)
class Bound:
    """What a plan asks of an update.

    Attributes:
        clip: largest norm of what it says.
        noise: deviation of the noise of every coordinate, as a multiple of `clip`; 0 is none.
        by_sample: whether `clip` is of what one sample adds, and the update is a sum.
    """

    clip: float
    noise: float = 0.0
    by_sample: bool = False


def bounded_step(bound: Bound, kappa: float, coordinates: int) -> float:
    """The step for updates at the bound, in `kappa` root mean squares of one with its noise; a power of two.

    That of a sum over samples is its unit, or where noise is on it already a step on which the noise takes few bytes.
    """
    if bound.by_sample:
        unit = unit_of(bound.clip)
        return max(unit, nearest_power(kappa * bound.clip * bound.noise)) if bound.noise else unit
    return nearest_power(kappa * bound.clip * math.sqrt(1 / max(1, coordinates) + bound.noise**2))


def encode_bounded(
    codec: Codec, contribution: Contribution, bound: Bound, step: float, noise: Noise, ranges: Ranges, limit_bytes: int | None
) -> Encoded:
    """Encode a delta of weight 1 within a bound; what is cut off is forgotten.

    Raises:
        CodecError: the codec is not lattice, the step no power of two, the delta not finite, or statistics would be sent.
        TooLargeError: the payload has more bytes than the limit.
    """
    if not isinstance(codec, Lattice) or codec.feedback or not is_power(step):
        raise CodecError("a bounded update needs codec lattice with rounding by chance, on a step that is a power of two")
    if [slot for slot in ranges.statistics if slot not in ranges.local] or ranges.rare:
        raise CodecError("running statistics, and rare tensors, have no bound: make them personal or frozen")
    p = contribution.delta.astype(np.float64)
    blank(p, ranges.apart)
    norm = math.sqrt(float(np.dot(p, p)))
    if not math.isfinite(norm):
        raise CodecError("the delta holds NaN or infinite values")
    if norm > bound.clip * _WITHIN:
        p *= bound.clip * _WITHIN / norm
    payload = _noised(codec, p, bound, step, noise, ranges) if bound.noise else _rounded(codec, p, bound.clip, step)
    return _encoded(codec, contribution, bound, payload, limit_bytes)


def encode_summed(
    codec: Codec,
    contribution: Contribution,
    sums: Integers,
    bound: Bound,
    step: float,
    noise: Noise,
    ranges: Ranges,
    limit_bytes: int | None,
) -> Encoded:
    """Encode a sum over samples, int64[P] in `unit_of(bound.clip)`, with weight 1; its symbols end at the codec's `most`.

    Raises:
        CodecError: the codec is not lattice, or the step not that of such updates.
        TooLargeError: the payload has more bytes than the limit.
    """
    unit = unit_of(bound.clip)
    most = math.ldexp(unit, _COARSEST)
    if not isinstance(codec, Lattice) or codec.feedback or not is_power(step) or not unit <= step <= most:
        raise CodecError(
            f"a sum over samples needs codec lattice with rounding by chance, on a power of two from {unit:g} to {most:g}"
        )
    noised = sums + noise(sums.size, bound.noise * bound.clip / unit) if bound.noise else sums
    return _encoded(codec, contribution, bound, _nearest(codec, noised, unit, step, ranges), limit_bytes)


def _encoded(codec: Codec, contribution: Contribution, bound: Bound, payload: bytes, limit_bytes: int | None) -> Encoded:
    if limit_bytes is not None and len(payload) > limit_bytes:
        hint = "allow more (uplink.burst), or make privacy.kappa larger"
        raise TooLargeError(f"a bounded update takes {len(payload)} bytes, more than the {limit_bytes} that may be sent: {hint}")
    section = Section(contribution.base, 1, 1, bound.clip**2, payload)
    return Encoded(codec.name, contribution.delta.size, (section,), frozenset({contribution.id}))


def is_within(codec: Codec, section: Section, size: int, bound: Bound) -> bool:
    """Whether a sum of updates can be one of bounded ones: all weigh 1, and without noise their norms add up at most.

    Raises:
        WireError: the payload is malformed.
    """
    if section.weight != section.count:
        return False
    if bound.by_sample:
        return True  # whoever looks does not know how many samples there were
    most = bound.clip * section.count * (1 + 1e-6)
    return bool(bound.noise) or (isinstance(codec, Lattice) and math.sqrt(codec.energy(section.payload, size)) <= most)


def _rounded(codec: Lattice, p: Wide, clip: float, step: float) -> bytes:
    """The largest multiple c of p that was found whose symbols are within the bound.

    Rounding by chance makes a norm longer: |q step|^2 is about c^2 |p|^2 + c B, and B is what the last try says.
    """
    size2, allowed, c = float(np.dot(p, p)), clip * clip, 1.0
    for _ in range(_TRIES):
        payload = codec.encode((p * c).astype(np.float32), step)
        energy = codec.energy(payload, p.size)
        if energy <= allowed:
            return payload
        longer = max(0.0, energy / c - c * size2)
        c = min(_SAFELY * c, 2 * _SAFELY * allowed / (longer + math.sqrt(longer**2 + 4 * size2 * _SAFELY * allowed)))
    return codec.encode(np.zeros(p.size, np.float32), step)


def _noised(codec: Lattice, p: Wide, bound: Bound, step: float, noise: Noise, ranges: Ranges) -> bytes:
    fine = math.ldexp(step, -_FINER)
    total = np.trunc(p / fine).astype(np.int64) + noise(p.size, bound.noise * bound.clip / fine)
    return _nearest(codec, total, fine, step, ranges)


def _nearest(codec: Lattice, total: Integers, fine: float, step: float, ranges: Ranges) -> bytes:
    """Integers of a fine unit on the step, which is 2^n of it."""
    places = round(math.log2(step / fine))
    most = most_steps(step, codec.most)
    symbols = ((total + ((1 << places) >> 1)) >> places).clip(-most, most)
    said: Vector = (symbols * step).astype(np.float32)
    blank(said, ranges.apart)
    return codec.to_nearest().encode(said, step)
