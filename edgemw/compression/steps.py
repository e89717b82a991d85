"""Steps that are powers of two: integers on different ones add exactly, on the finest of them.

q on 2^j = (q << (j - i)) on 2^i, i <= j
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edgemw.compression.codec import Codec, is_shifting
from edgemw.core.bundle import Vector
from edgemw.core.errors import WireError

MOST_PLACES = 24  # between steps that add: 127 << 24 still is a symbol
_LEAST_EXPONENT, _MOST_EXPONENT = -100, 127  # of steps that are chosen: there is room below for weighing less
LEAST_STEP = 2.0**_LEAST_EXPONENT


def is_power(step: float) -> bool:
    """Whether a step is a power of two."""
    return step > 0 and math.frexp(step)[0] == 0.5


def nearest_power(step: float) -> float:
    """The power of two that is nearest to a step in the logarithm, from 2^-100 to 2^127; 0 for 0."""
    if step == 0:
        return 0.0
    return math.ldexp(1.0, min(max(round(math.log2(step)), _LEAST_EXPONENT), _MOST_EXPONENT))


def announced(codec: Codec, step: float) -> float:
    """The step that a release announces where `step` is wanted: what the codec's parameters allow."""
    return nearest_power(step) if is_shifting(codec) and codec.dyadic else step


def own_step(vector: Vector, kappa: float) -> float:
    """The power of two nearest to kappa root mean squares of a vector: what different devices choose adds."""
    return nearest_power(kappa * root_mean_square(vector))


def root_mean_square(vector: Vector, size: int | None = None) -> float:
    """Of float32[P], in float64; over `size` coordinates where all others are zero by definition."""
    wide = vector.astype(np.float64)
    return math.sqrt(float(np.dot(wide, wide)) / max(1, wide.size if size is None else size))


def places_between(step: float, finer: float) -> int:
    """By how many places integers move from one power of two to a finer one."""
    return math.frexp(step)[1] - math.frexp(finer)[1]


def finest(steps: Sequence[float]) -> float:
    """The step that a sum is on.

    Raises:
        WireError: the steps differ, and are not powers of two at most 24 places apart.
    """
    least, most = min(steps), max(steps)
    if least == most:
        return least
    if not all(is_power(step) for step in steps):
        raise WireError("step", "payloads of different steps that are not all powers of two")
    if places_between(most, least) > MOST_PLACES:
        raise WireError("step", f"payloads of steps {most} and {least}, more than {MOST_PLACES} places apart")
    return least
