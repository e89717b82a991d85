"""How long a release takes to answer on this machine, and whether it pays to answer several requests with one run."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from edgemw.learning.oracle import Array, Predict

FAST_S = 0.001
"""What takes no longer is computed where it was asked for, one request at a time."""
BATCHES = (4, 16, 64)
PAYS = 0.75
"""A larger batch is worth its waiting if a row costs at most this part of what it costs in the batch before."""
_TURNS = 3


@dataclass(frozen=True, slots=True)
class Pace:
    """What was measured; the default is a model that takes no time.

    Attributes:
        one_s: for one row.
        rows: that are computed together at most; 1 where that does not pay.
        row_s: for each row more, up to there.
    """

    one_s: float = 0.0
    rows: int = 1
    row_s: float = 0.0

    def seconds(self, rows: int) -> float:
        """About how long so many rows take."""
        return self.one_s + (rows - 1) * self.row_s


def measured(predict: Predict, sample: Array, most_s: float) -> Pace:
    """The pace of a model that has run before; batches are tried with a slow one only, for they delay its release.

    Args:
        predict: the model.
        sample: one row, [1, *input].
        most_s: that a batch may take: it is the longest that a request waits for others.

    Raises:
        DataError: the model does not take the sample.
    """
    one_s = _fastest(predict, sample)
    if one_s <= FAST_S:
        return Pace(one_s, 1, one_s)
    rows, row_s, batch_s = 1, one_s, one_s
    for more in BATCHES:
        if batch_s * more / rows * PAYS > most_s:
            break
        seconds = _fastest(predict, np.repeat(sample, more, axis=0))
        if seconds > most_s or seconds / more > PAYS * row_s:
            break
        rows, row_s, batch_s = more, seconds / more, seconds
    return Pace(one_s, rows, row_s)


def _fastest(predict: Predict, x: Array) -> float:
    """Other work of the machine can only make it slower."""
    spent = []
    for _ in range(_TURNS):
        started = time.perf_counter()
        predict(x)
        spent.append(time.perf_counter() - started)
    return min(spent)
