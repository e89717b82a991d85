"""Windows merged coordinate by coordinate: a function of all children's values there takes the place of their mean.

    v_i    = sum over the sections of child i of s(tau) decode / sum of their weights
    merged = weight of all children * reduce(v_1, ..., v_n)

One section of the newest base comes out, so that a child cannot have a section to itself by being late. It is written as weight
times value: whatever merges it above takes the mean by the weight. Side values are reduced in the same way; those of late
sections count as no difference. Only for dense updates: where most values are 0, so is the middle of them.

s(tau) = 1 / sqrt(1 + tau), FedBuff, arXiv:2106.06639, section 5; tau = newest base - base of the section.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from edgemw.compression import side
from edgemw.compression.codec import Codec
from edgemw.compression.dense import Dense
from edgemw.core.bundle import LARGEST
from edgemw.core.encoded import Encoded, Section
from edgemw.core.errors import CodecError
from edgemw.robust.child import Bounded, Chance, Child, Measures
from edgemw.robust.limits import by_name, limits_of, measure, shrunk, voting

Rows = npt.NDArray[np.float64]
Reduce = Callable[[Rows], Rows]
"""From float64[n, P], whose rows are children, to float64[P]."""
_BLOCK = 1 << 16  # coordinates that are looked at at once


def reduced(codec: Codec, children: Sequence[Child], earlier: Measures, bound: float, reduce: Reduce, chance: Chance) -> Bounded:
    """The window as one encoding.

    Args:
        codec: of the payloads; dense.
        children, earlier, chance: see Robust.
        bound: of claims, in medians.
        reduce: of the values of one coordinate.

    Raises:
        CodecError: another codec.
        WireError: a payload is malformed.
    """
    if not isinstance(codec, Dense):
        raise CodecError(f"codec {codec.name} is not dense")
    children = by_name(children)
    measures = {child.name: measure(child) for child in children}
    votes = voting(measures, earlier)
    parts, kept = [part for child in children for part in child.parts], {}
    if votes:
        limits = limits_of(votes, bound)
        within = {child.name: shrunk(codec, child, limits, 1.0, chance).parts for child in children}
        kept = {child.name: limits.weight / child.weight for child in children if within[child.name] != child.parts}
        parts = [part for child in children for part in within[child.name]]
    sections = [section for part in parts for section in part.sections]
    base = max(section.base for section in sections)
    weight = sum(section.weight for section in sections)
    merged = Section(
        base,
        weight,
        sum(section.count for section in sections),
        min(sum(section.energy for section in sections), np.finfo(np.float64).max),
        codec.merge([Dense().encode(_values(codec, children, base, reduce, weight), 0.0)], parts[0].size),
        _statistics(children, base, reduce, weight),
    )
    contributions = frozenset(one for part in parts for one in part.contributions)
    whole = Encoded(codec.name, parts[0].size, (merged,), contributions)
    return Bounded((whole,), kept={name: min(1.0, factor) for name, factor in kept.items()}, measures=measures)


def _values(codec: Codec, children: Sequence[Child], base: int, reduce: Reduce, weight: int) -> npt.NDArray[np.float32]:
    size = children[0].parts[0].size
    rows = np.zeros((len(children), size), np.float32)
    for row, child in zip(rows, children, strict=True):
        total = np.zeros(size)
        for part in child.parts:
            for section in part.sections:
                total += codec.decode(section.payload, size) / math.sqrt(1 + base - section.base)
        row[:] = (total / child.weight).astype(np.float32)
    values = np.zeros(size)
    for first in range(0, size, _BLOCK):
        values[first : first + _BLOCK] = reduce(rows[:, first : first + _BLOCK].astype(np.float64))
    return (weight * values).clip(-LARGEST, LARGEST).astype(np.float32)


def _statistics(children: Sequence[Child], base: int, reduce: Reduce, weight: int) -> bytes:
    own = [_own_statistics(child, base) for child in children]
    count = max(values.size for values in own)
    if not count:
        return b""
    rows = np.stack([values if values.size else np.zeros(count) for values in own])
    return side.encode(weight * reduce(rows))


def _own_statistics(child: Child, base: int) -> Rows:
    """What a child says of the newest release, for weight 1."""
    newest = [section for part in child.parts for section in part.sections if section.base == base and section.side]
    if not newest:
        return np.zeros(0)
    total: Rows = np.sum([side.values(section.side) for section in newest], axis=0)
    return total / child.weight
