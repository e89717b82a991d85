"""A lattice update of at most so many bytes: only symbols that are multiples of 2^m survive.

    c = 2^m step ;  q = 2^m round(p / c)

The payload stays on the step that the release announced, so merging is untouched. Rounding to the nearest on the coarser step is
a hard threshold at c / 2 with fewer values above it; what it cuts off is left to error feedback: p - decode(payload), also where
the codec rounds by chance and needs none otherwise. Above m = 7 only the largest symbol of a device is left, for ever fewer
values. m is the smallest with a payload that fits, found in five tries; where none fits, nothing is sent.

Source: hard threshold as the sparsifier of least total error under a budget: Sahu et al., NeurIPS 2021, section 4.
"""

from __future__ import annotations

import math
from typing import TypeGuard

import numpy as np

from edgemw.compression.codec import Codec
from edgemw.compression.lattice import Lattice
from edgemw.core.bundle import LARGEST, Vector
from edgemw.core.errors import TooLargeError

_SHIFTS = range(1, 32)


def can_coarsen(codec: Codec) -> TypeGuard[Lattice]:
    """Whether the codec's updates can be made smaller on the step that they have."""
    return isinstance(codec, Lattice)


def encode_within(codec: Codec, vector: Vector, step: float, limit_bytes: int) -> tuple[bytes, bool]:
    """Encode a vector, float32[P], on the announced step, coarser where the payload would have more than `limit_bytes`.

    Where even the coarsest is too large it is the payload of the zero vector, the smallest there is. Also says whether it is
    coarser than the codec would have it.

    Raises:
        CodecError: as `encode`.
        TooLargeError: the payload is larger than that and this codec has no coarser one.
    """
    payload = codec.encode(vector, step)
    if len(payload) <= limit_bytes:
        return payload, False
    if not can_coarsen(codec):
        reason = f"more than the {limit_bytes} that may be sent at once (uplink.burst), and it cannot be made coarser"
        raise TooLargeError(f"an update takes {len(payload)} bytes in {codec.name}, {reason}")
    codec, step = codec.to_nearest(), codec.check(payload, vector.size)  # where none was announced it is the device's own
    found = codec.encode(np.zeros_like(vector), step)
    lowest, highest = _SHIFTS.start, _SHIFTS.stop
    while lowest < highest:
        middle = (lowest + highest) // 2
        payload = _coarse(codec, vector, step, middle)
        if len(payload) <= limit_bytes:
            found, highest = payload, middle
        else:
            lowest = middle + 1
    return found, True


def _coarse(codec: Lattice, vector: Vector, step: float, shift: int) -> bytes:
    coarse_step = math.ldexp(float(np.float32(step)), shift)
    if coarse_step > LARGEST:  # as good as nothing survives
        return codec.encode(np.zeros_like(vector), step)
    return codec.encode(codec.decode(codec.encode(vector, coarse_step), vector.size), step)
