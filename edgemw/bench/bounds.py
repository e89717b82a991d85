"""What an update would cost at least: bounds that stand beside measured bytes.

Sources: Shannon, A mathematical theory of communication, 1948, section 7; Cover and Thomas, Elements of information theory,
example 11.1.3 (log2 C(n, k) <= n H2(k / n)).
"""

from __future__ import annotations

import math

import numpy as np

from edgemw.core.bundle import Vector

_CHOSEN = 0.5
_SAMPLES_PER_VALUE = 8  # fewer, and the frequencies of a vector say nothing about its source


def index_set_bits(count: int, size: int) -> float | None:
    """H2(count / size): bits per parameter to say which `count` of `size` parameters are named.

    None from half of them on: who names so many does not choose.
    """
    share = count / size
    if share >= _CHOSEN:
        return None
    if share == 0:
        return 0.0
    return -(share * math.log2(share) + (1 - share) * math.log2(1 - share))


def entropy_bits(vector: Vector) -> float | None:
    """Entropy of the values of a vector, in bits per parameter, as if each were drawn alone; None where too few repeat.

    Args:
        vector: float32[P], decoded.
    """
    named = vector[vector != 0]
    counts = np.unique(named, return_counts=True)[1]
    zeros = vector.size - named.size
    if counts.size * _SAMPLES_PER_VALUE > vector.size:
        return None
    shares = np.append(counts, zeros)[np.append(counts, zeros) > 0] / vector.size
    return float(-(shares * np.log2(shares)).sum())
