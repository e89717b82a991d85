"""Error feedback: what a codec could not say this time is said next time.

    p = w delta + e ;  sent = decode(encode(p)) ;  e <- p - sent

sent + e is p exactly wherever |sent| is between |p| / 2 and 2 |p| (Sterbenz), or 0; elsewhere to one rounding of float32.

Source: Seide et al., 1-bit SGD, Interspeech 2014; Karimireddy et al., arXiv:1901.09847, algorithm 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgemw.compression.coarse import encode_within
from edgemw.compression.codec import Codec
from edgemw.core.bundle import Vector
from edgemw.core.encoded import Encoded, Section
from edgemw.core.errors import CodecError
from edgemw.core.ids import UpdateId

_ENERGY_BITS = 12


@dataclass(frozen=True, slots=True)
class Contribution:
    """One finished local training.

    Attributes:
        id: the update's identity.
        base: the release it started from.
        weight: training examples.
        delta: float32[P], theta after training minus theta of the release.
    """

    id: UpdateId
    base: int
    weight: int
    delta: Vector


def encode_update(
    codec: Codec, contribution: Contribution, residual: Vector, step: float, limit_bytes: int | None = None
) -> tuple[Encoded, Vector]:
    """Encode a weighted delta plus the residual; returns the encoding and the new residual (float32[P], zero without feedback).

    Args:
        limit_bytes: the largest payload; None is no limit. A codec that can be made coarser meets it, see `coarse.py`.

    Raises:
        CodecError: the weighted delta is not finite, or is of another size than the residual, or the payload is larger than
            the limit. The residual given stays valid.
    """
    if contribution.delta.shape != residual.shape:
        raise CodecError(f"a delta of {contribution.delta.shape} and a residual of {residual.shape}")
    with np.errstate(over="ignore", invalid="ignore"):  # the codec refuses what comes of it
        p = contribution.delta * np.float32(contribution.weight) + residual
    payload = codec.encode(p, step) if limit_bytes is None else encode_within(codec, p, step, limit_bytes)
    wide = p.astype(np.float64)
    energy = _rounded(float(np.dot(wide, wide)))
    section = Section(contribution.base, contribution.weight, 1, energy, payload)
    encoded = Encoded(codec.name, p.size, (section,), frozenset({contribution.id}))
    return encoded, p - codec.decode(payload, p.size) if codec.feedback else np.zeros_like(p)


def give_back(codec: Codec, encoded: Encoded, residual: Vector) -> Vector:
    """The residual after a contribution that no release counted has been returned to it."""
    total = residual.copy()
    for section in encoded.sections:
        total += codec.decode(section.payload, encoded.size)
    return total


def _rounded(energy: float) -> float:
    """Keep 12 significant bits, so that sums in float64 are exact and do not depend on the order of merging.

    That holds while the sum is below 2^41 times its smallest part; beyond, the last bit of the step may differ.
    """
    mantissa, exponent = np.frexp(energy)
    return float(np.ldexp(np.round(np.ldexp(mantissa, _ENERGY_BITS)), exponent - _ENERGY_BITS))
