"""`median`: the coordinate-wise median of what the children say, for dense updates.

Withstands any minority of children, whatever they send; where all are honest it loses what the mean gains from averaging.
Source: Yin et al., Byzantine-robust distributed learning, ICML 2018, algorithm 1, option I.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgemw.compression.codec import Codec
from edgemw.robust.child import Bounded, Chance, Child, Measures
from edgemw.robust.coordinates import Rows, reduced


class Median:
    """See the module.

    Args:
        bound: of claims, in medians.
    """

    def __init__(self, bound: float) -> None:
        self._bound = bound

    def bound(self, codec: Codec, children: Sequence[Child], earlier: Measures, chance: Chance) -> Bounded:
        """See Robust."""
        return reduced(codec, children, earlier, self._bound, _median, chance)


def _median(rows: Rows) -> Rows:
    return np.asarray(np.median(rows, axis=0))
