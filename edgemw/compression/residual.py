"""Error feedback: what a codec could not say this time is said next time.

    p = w delta + e ;  sent = decode(encode(p)) ;  e <- p - sent

Source: Seide et al., 1-bit SGD, Interspeech 2014; Karimireddy et al., arXiv:1901.09847, algorithm 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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


def encode_update(codec: Codec, contribution: Contribution, residual: Vector, step: float) -> tuple[Encoded, Vector]:
    """Encode a weighted delta plus the residual; returns the encoding and the new residual (float32[P]).

    Raises:
        CodecError: the delta is not finite. The residual given stays valid.
    """
    if not np.isfinite(contribution.delta).all():
        raise CodecError("the update holds NaN or infinite values")
    p = contribution.delta * np.float32(contribution.weight) + residual
    payload = codec.encode(p, step)
    energy = _rounded(float(np.dot(p.astype(np.float64), p)))
    section = Section(contribution.base, contribution.weight, 1, energy, payload)
    encoded = Encoded(codec.name, p.size, (section,), frozenset({contribution.id}))
    return encoded, p - codec.decode(payload, p.size)


def give_back(codec: Codec, encoded: Encoded, residual: Vector) -> Vector:
    """The residual after a contribution that no release counted has been returned to it."""
    total = residual.copy()
    for section in encoded.sections:
        total += codec.decode(section.payload, encoded.size)
    return total


def _rounded(energy: float) -> float:
    """Keep 12 significant bits, so that sums in float64 are exact and do not depend on the order of merging."""
    mantissa, exponent = np.frexp(energy)
    return float(np.ldexp(np.round(np.ldexp(mantissa, _ENERGY_BITS)), exponent - _ENERGY_BITS))
