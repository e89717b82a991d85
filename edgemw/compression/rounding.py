"""From a vector to integers on a step, without a loop over what becomes zero.

At most 127 steps, so that 2^31 / 127 sums fit into 32 bits, and fewer where the product would leave float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemw.compression.golomb_numpy import Positions, Symbols
from edgemw.compression.uniform import uniform
from edgemw.core.bundle import LARGEST, Vector

MOST_STEPS = 127

Rounding = Callable[[Vector, float, int], tuple[Positions, Symbols]]
"""A finite float32[P], a step above 0 that is a float32 and the most steps, to the places and values that are not zero."""


def most_steps(step: float, most: int = MOST_STEPS) -> int:
    """The largest magnitude that is written on a step above 0, where `most` is that of any."""
    return min(most, math.floor(LARGEST / step))


def nearest(vector: Vector, step: float, most: int = MOST_STEPS) -> tuple[Positions, Symbols]:
    """To the nearest step, halves away from zero."""
    near = np.flatnonzero(np.abs(vector) >= np.float32(step) * np.float32(0.49))  # only these can round away from zero
    scaled = vector[near].astype(np.float64) / step
    return _kept(near, np.trunc(scaled + np.copysign(0.5, scaled)), step, most)


def stochastic(vector: Vector, step: float, most: int = MOST_STEPS) -> tuple[Positions, Symbols]:
    """Up as often as the value is above the step below it: |q| = floor(|p| / step + u), u uniform in [0, 1).

    Unbiased over u within the range, but for the rounding of float32: a sum that it lifts to the next integer stays below that
    integer where the value is no larger. So whole steps are always written as they are. u is a function of the vector
    (`uniform.py`), so the same vector gives the same integers.
    """
    scaled = uniform(vector, vector.size)
    with np.errstate(over="ignore"):  # infinitely many steps are out of range, as many are
        scaled += np.abs(vector) / np.float32(step)
        places = np.flatnonzero(scaled >= 1)
        above = np.ceil(np.abs(vector[places]) / np.float32(step))
    return _kept(places, np.copysign(np.minimum(np.floor(scaled[places]), above), vector[places]), step, most)


def _kept(places: Positions, rounded: npt.NDArray[np.floating[Any]], step: float, most: int) -> tuple[Positions, Symbols]:
    """Those that are not zero, within the range."""
    limit = most_steps(step, most)
    symbols = rounded.clip(-limit, limit).astype(np.int32)
    kept = np.flatnonzero(symbols)
    return places[kept], symbols[kept]
