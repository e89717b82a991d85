"""Integers made smaller by a factor, at random, so that they stay integers.

    c_i = |q_1| + ... + |q_i| ;  |q'_i| = floor(factor c_i + u) - floor(factor c_(i-1) + u) ;  u uniform in [0, 1)

Every unit of every symbol has the same chance to stay, so that E q' = factor q, and with it E sum q'^2 <= factor sum q^2; where
all symbols are -1, 0 or 1 each stays with that chance. The sum of sizes is not left to chance: sum |q'| is factor sum |q|,
rounded up or down. Source: systematic sampling, W. G. Madow and L. H. Madow, Annals of Mathematical Statistics 15, 1944; see
docs/decisions/0024-robust-merging.md.
"""

from __future__ import annotations

import numpy as np

from edgemw.compression.golomb_numpy import Symbols


def thinned(symbols: Symbols, factor: float, u: float) -> Symbols:
    """The integers q', int32[n], between 0 and q.

    Args:
        symbols: q, int32[n], in the order of their places.
        factor: from 0 to 1.
        u: in [0, 1), unknown to whoever chose the symbols.
    """
    sizes = np.abs(symbols.astype(np.int64))
    reached = np.floor(np.cumsum(sizes) * factor + u).astype(np.int64)
    kept = np.minimum(np.diff(reached, prepend=0), sizes)
    return (np.sign(symbols) * kept).astype(np.int32)
