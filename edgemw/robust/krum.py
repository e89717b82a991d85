"""`krum`: the updates that are nearest to the others are merged, those that are farthest from them are not.

    v_i      = what child i sends / the weight that it claims
    score_i  = sum of the n - f - 2 smallest |v_i - v_j|^2, j other than i
    chosen   = the n - f children with the smallest scores ;  f = share n, and at most (n - 3) / 2

|v_i - v_j|^2 is made of dot products of integers, times the steps that these are on: n^2 / 2 times the symbols of an update are
looked at. Whoever is not chosen gets its update back and says it again with its next one; so an honest child that was unlucky
loses nothing but time, and the mean of two rounds is nearer to the others than either. What is claimed is bounded as by `norm`,
for a weight that is too large makes an update look near to all others.

Source: multi-Krum, Blanchard et al., Machine learning with adversaries, NeurIPS 2017, sections 4 and 5, with m = n - f.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np

from edgemw.compression.codec import Codec
from edgemw.core.encoded import Encoded
from edgemw.robust.child import Bounded, Chance, Child, Measures
from edgemw.robust.limits import by_name, limits_of, measure, numbers_of, shrunk, voting, weight_factor
from edgemw.robust.numbers import Numbers
from edgemw.robust.options import liars


class Krum:
    """See the module.

    Args:
        bound: of claims, in medians.
        share: the part of the children that may lie.
    """

    def __init__(self, bound: float, share: float) -> None:
        self._bound, self._share = bound, share

    def bound(self, codec: Codec, children: Sequence[Child], earlier: Measures, chance: Chance) -> Bounded:
        """See Robust."""
        children = by_name(children)
        numbers = [numbers_of(codec, child) for child in children]
        measures = {child.name: measure(child, own) for child, own in zip(children, numbers, strict=True)}
        chosen = self._chosen(children, numbers)
        votes = voting(measures, earlier)
        parts: list[Encoded] = []
        cut: list[Encoded] = []
        kept: dict[str, float] = {}
        for child in chosen:
            if not votes:
                parts += child.parts
                continue
            limits = limits_of(votes, self._bound)
            factor = weight_factor(child, limits)
            left = shrunk(codec, child, limits, factor, chance)
            parts += left.parts
            cut += left.cut
            if left.parts != child.parts:
                kept[child.name] = factor
        names = {child.name for child in chosen}
        left_out = tuple(child.name for child in children if child.name not in names)
        return Bounded(tuple(parts), tuple(cut), left_out, kept, measures)

    def _chosen(self, children: Sequence[Child], numbers: Sequence[Sequence[Numbers]]) -> list[Child]:
        count = len(children)
        lying = min(liars(count, self._share), (count - 3) // 2)
        if lying <= 0:
            return list(children)
        size = children[0].parts[0].size
        distances = squared_distances(numbers, [child.weight for child in children], size)
        distances.sort(axis=1)  # the first of each row is the distance to itself
        scores = distances[:, 1 : count - lying - 1].sum(axis=1)
        best = sorted(range(count), key=lambda at: (scores[at], children[at].name))[: count - lying]
        return [children[at] for at in sorted(best)]


def squared_distances(numbers: Sequence[Sequence[Numbers]], weights: Sequence[int], size: int) -> np.ndarray:
    """|v_i - v_j|^2 of vectors that are sums of numbers over a weight, float64[n, n], never below 0."""
    count = len(numbers)
    dots = np.zeros((count, count))
    for i in range(count):
        dots[i, i] = sum(_dot(one, other, size) for one in numbers[i] for other in numbers[i])
    for i, j in combinations(range(count), 2):
        dots[i, j] = dots[j, i] = sum(_dot(one, other, size) for one in numbers[i] for other in numbers[j])
    wide = np.array(weights, np.float64)  # the product of two claims may be beyond 64 bits
    over = dots / np.outer(wide, wide)
    squares = np.diag(over)
    distances: np.ndarray = np.maximum(squares[:, None] + squares[None, :] - 2 * over, 0.0)
    np.fill_diagonal(distances, -1.0)  # first when sorted, whoever else is at the same place
    return distances


def _dot(one: Numbers, other: Numbers, size: int) -> float:
    """The dot product; of integers an integer, times both steps."""
    if one.places is None or other.places is None:
        return float(np.dot(one.values.astype(np.float64), other.values.astype(np.float64)))
    _, here, there = np.intersect1d(one.places, other.places, assume_unique=True, return_indices=True)
    reach = math.isqrt((1 << 62) // max(1, size))  # what is beyond is no honest symbol, and must not wrap
    a, b = (values.astype(np.int64).clip(-reach, reach) for values in (one.values[here], other.values[there]))
    return one.unit * other.unit * int(np.dot(a, b))
