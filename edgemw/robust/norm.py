"""`norm`: no child brings more than a multiple of what the median child brings; what is above is thinned out.

    a = sum |q| / weight ;  b = sum q^2 / (weight max(weight, median weight))          of every child, q in real units
    weight'  = min(weight, bound median weight)
    longest  = bound median(a) weight' ;  squarest = bound^2 median(b) weight' max(weight', median weight)
    factor   = min(weight' / weight, min(1, longest / sum |q|)^2, min(1, squarest / sum q^2))
    q'       = thinned(q, factor)

so that sum |q'| <= longest, to one symbol, and E sum q'^2 <= squarest. What is k times too long is left with a k-th of what it
might have: a liar does best where it just fits, and one that shouts is hardly heard.

The norm alone would bound little: where most symbols are 0 it is mostly the noise of rounding and grows with the square root
of what is said. Rounding by chance leaves the mean of the sum of sizes as it is. The squares are bounded beside it because a
liar could put its whole length into one place. They grow with the weight where they are noise and with its square where
they are not; the larger of both is allowed.

One symbol is always allowed, so that a window in which most children say nothing does not silence the others.

Source: norm clipping, Sun et al., arXiv:1911.07963, section 3; the median of the window as its threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from edgemw.compression.codec import Codec
from edgemw.core.encoded import Encoded
from edgemw.robust.child import Bounded, Chance, Child, Measures
from edgemw.robust.limits import by_name, limits_of, measure, numbers_of, shrunk, voting, weight_factor


class Norm:
    """See the module.

    Args:
        bound: how many times as much as the median child one may bring.
    """

    def __init__(self, bound: float) -> None:
        self._bound = bound

    def bound(self, codec: Codec, children: Sequence[Child], earlier: Measures, chance: Chance) -> Bounded:
        """See Robust."""
        children = by_name(children)
        numbers = {child.name: numbers_of(codec, child) for child in children}
        measures = {child.name: measure(child, numbers[child.name]) for child in children}
        votes = voting(measures, earlier)
        if not votes:
            return Bounded(tuple(part for child in children for part in child.parts), measures=measures)
        limits = limits_of(votes, self._bound)
        typical = limits.median_weight
        length = median(vote.length / vote.weight for vote in votes)
        square = median(vote.square / (vote.weight * max(vote.weight, typical)) for vote in votes)
        parts: list[Encoded] = []
        cut: list[Encoded] = []
        kept: dict[str, float] = {}
        for child in children:
            weight, own = min(child.weight, limits.weight), measures[child.name]
            unit = max((one.unit for one in numbers[child.name] if one.values.size and one.places is not None), default=0.0)
            longest = max(self._bound * length * weight, unit)
            squarest = max(self._bound**2 * square * weight * max(weight, typical), unit**2)
            factor = min(weight_factor(child, limits), _share(longest, own.length) ** 2, _share(squarest, own.square))
            left = shrunk(codec, child, limits, factor, chance)
            parts += left.parts
            cut += left.cut
            if left.parts != child.parts:
                kept[child.name] = factor
        return Bounded(tuple(parts), tuple(cut), kept=kept, measures=measures)


def _share(most: float, found: float) -> float:
    return most / found if found > most else 1.0
