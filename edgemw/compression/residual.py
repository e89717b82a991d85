"""Error feedback: what a codec could not say this time is said next time.

    p = w delta + e ;  sent = decode(encode(p)) ;  e <- p - sent

A codec that rounds by chance (`Codec.feedback` is false) leaves e empty, unless a limit, or the codec's range, cut a step or
more off.

A returned update is added to e, and its weight to that of the next update: the mean stays sum(w delta) / sum(w).
What the plan keeps at home is in neither; a tensor that waits for its release is in e alone. Running statistics go beside the
codec and are not fed back (`side.py`).

sent + e is p exactly wherever |sent| is between |p| / 2 and 2 |p| (Sterbenz), or 0; elsewhere to one rounding of float32.

Source: Seide et al., 1-bit SGD, Interspeech 2014; Karimireddy et al., arXiv:1901.09847, algorithm 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgemw.compression import side
from edgemw.compression.coarse import encode_within
from edgemw.compression.codec import Codec, Past, codec_at
from edgemw.core.bundle import Vector
from edgemw.core.encoded import Encoded, Section
from edgemw.core.errors import CodecError, TooLargeError
from edgemw.core.ids import UpdateId
from edgemw.core.ranges import Ranges, Slots, blank, cut

_ENERGY_BITS = 12
_A_STEP = 1.001  # and what float32 rounds of 127 of them


@dataclass(frozen=True, slots=True)
class Contribution:
    """One finished local training.

    Attributes:
        id: the update's identity.
        base: the release it started from.
        weight: training examples.
        delta: float32[P], theta after training minus theta of the release.
        owed: training examples of updates that were returned: what they said is in the residual again, and goes with this one.
        past: of the release it started from, for a codec that asks for it.
    """

    id: UpdateId
    base: int
    weight: int
    delta: Vector
    owed: int = 0
    past: Past | None = None

    @property
    def said_weight(self) -> int:
        """The training examples that the update stands for."""
        return self.weight + self.owed


def encode_update(
    codec: Codec,
    contribution: Contribution,
    residual: Vector,
    step: float,
    limit_bytes: int | None = None,
    ranges: Ranges | None = None,
) -> tuple[Encoded, Vector]:
    """Encode a weighted delta plus the residual; returns the encoding and the new residual, float32[P].

    Args:
        codec: the release's.
        contribution: what was trained.
        residual: float32[P], what is still to be said.
        step: the release's.
        limit_bytes: the most that payload and statistics may take; None is no limit. A codec that can be made coarser meets it,
            see `coarse.py`.
        ranges: what is not for the codec; None is nothing.

    Raises:
        CodecError: the weighted delta is not finite, or is of another size than the residual.
        TooLargeError: the payload is larger than the limit.
    """
    if contribution.delta.shape != residual.shape:
        raise CodecError(f"a delta of {contribution.delta.shape} and a residual of {residual.shape}")
    ranges = ranges or Ranges(residual.size)
    with np.errstate(over="ignore", invalid="ignore"):  # what comes of it is refused
        moved = contribution.delta * np.float32(contribution.weight)
        p = moved + residual
    if ranges.apart and not np.isfinite(p).all():  # a codec looks at what it is given only
        raise CodecError("the weighted delta holds NaN or infinite values")
    blank(p, ranges.apart)
    waiting = ranges.waiting(contribution.base)
    said = p.copy() if waiting else p
    blank(said, waiting)
    blank(moved, ranges.apart + waiting)
    codec = codec_at(codec, contribution.base, contribution.past)
    statistics = _statistics(contribution, ranges)
    payload, coarser = _within(codec, said, step, limit_bytes, len(statistics))
    wide = moved.astype(np.float64)
    energy = _rounded(float(np.dot(wide, wide)))
    section = Section(contribution.base, contribution.said_weight, 1, energy, payload, statistics)
    encoded = Encoded(codec.name, p.size, (section,), frozenset({contribution.id}))
    left = p - codec.decode(payload, p.size)
    if not (codec.feedback or coarser or _beyond_rounding(codec, payload, left, waiting)):
        left = p - said
    blank(left, ranges.apart)  # some codecs say a little where they were given zeros
    return encoded, left


def _beyond_rounding(codec: Codec, payload: bytes, left: Vector, waiting: Slots) -> bool:
    """Whether a value is off by more than the step that rounding by chance may take: it was out of range."""
    off = left.copy()
    blank(off, waiting)
    return codec.stepped and float(np.abs(off).max(initial=0)) > codec.check(payload, left.size) * _A_STEP


def _statistics(contribution: Contribution, ranges: Ranges) -> bytes:
    """The side values of the statistics, for all that the update stands for; those that stay at home or wait are zero."""
    if not ranges.statistics:
        return b""
    delta = contribution.delta.copy()
    blank(delta, ranges.local + ranges.waiting(contribution.base))
    return side.encode(cut(delta, ranges.statistics).astype(np.float64) * contribution.said_weight)


def _within(codec: Codec, said: Vector, step: float, limit_bytes: int | None, beside_bytes: int) -> tuple[bytes, bool]:
    """The payload, in what statistics leave of the limit, and whether that made it coarser."""
    if limit_bytes is None:
        return codec.encode(said, step), False
    if beside_bytes > limit_bytes:
        hint = "allow more (uplink.burst, uplink.max_upload), or make statistics personal or frozen"
        raise TooLargeError(
            f"running statistics take {beside_bytes} bytes, more than the {limit_bytes} that may be sent at once: {hint}"
        )
    return encode_within(codec, said, step, limit_bytes - beside_bytes)


def give_back(codec: Codec, encoded: Encoded, residual: Vector, ranges: Ranges | None = None) -> Vector:
    """The residual after a contribution that no release counted has been returned to it.

    Its statistics are not: they are measured anew from the next release. Nor is what is apart in `ranges`.
    """
    total = residual.copy()
    for section in encoded.sections:
        said = codec.decode(section.payload, encoded.size)
        blank(said, ranges.apart if ranges is not None else ())
        total += said
    return total


def _rounded(energy: float) -> float:
    """Keep 12 significant bits, so that sums in float64 are exact and do not depend on the order of merging.

    That holds while the sum is below 2^41 times its smallest part; beyond, the last bit of the step may differ.
    """
    mantissa, exponent = np.frexp(energy)
    return float(np.ldexp(np.round(np.ldexp(mantissa, _ENERGY_BITS)), exponent - _ENERGY_BITS))
