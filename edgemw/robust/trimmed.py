"""`trimmed`: the mean of what is left at each coordinate without its largest and its smallest values, for dense updates.

    f = share n, rounded down, of n children: the f largest and the f smallest are left out

Withstands f liars; where all are honest it is nearer to the mean than the median is. Of a window with too few children as many
are left out as leave one. Source: Yin et al., Byzantine-robust distributed learning, ICML 2018, algorithm 1, option II.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgemw.compression.codec import Codec
from edgemw.robust.child import Bounded, Chance, Child, Measures
from edgemw.robust.coordinates import Rows, reduced
from edgemw.robust.options import liars


class Trimmed:
    """See the module.

    Args:
        bound: of claims, in medians.
        share: the part of the children that may lie.
    """

    def __init__(self, bound: float, share: float) -> None:
        self._bound, self._share = bound, share

    def bound(self, codec: Codec, children: Sequence[Child], earlier: Measures, chance: Chance) -> Bounded:
        """See Robust."""
        return reduced(codec, children, earlier, self._bound, self._mean, chance)

    def _mean(self, rows: Rows) -> Rows:
        count = len(rows)
        out = min(liars(count, self._share), (count - 1) // 2)
        return np.asarray(np.sort(rows, axis=0)[out : count - out].mean(axis=0))
