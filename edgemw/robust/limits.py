"""How much one child may bring, from what all of them bring.

    weight, count           at most bound times the median child
    energy, for weight 1    at most bound^2 times the median child; it decides on the next step

A claim of more examples, or of more devices, buys nothing: what is above the limit is cut off, and the payload is made smaller in
proportion, so that the mean of what the child says stays what it was. One child has one vote, however many updates it sends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np

from edgemw.compression import side
from edgemw.compression.codec import Codec
from edgemw.core.encoded import Encoded, Section
from edgemw.robust.child import Chance, Child, Measure, Measures
from edgemw.robust.numbers import Numbers, read, smaller
from edgemw.robust.options import FEWEST


@dataclass(frozen=True, slots=True)
class Limits:
    """What one child may bring, and the medians that this is from.

    Attributes:
        weight, count: at most.
        energy: at most, for weight 1.
        statistics: largest sum of the sizes of side values, for weight 1.
        median_weight: see above.
    """

    weight: int
    count: int
    energy: float
    statistics: float
    median_weight: float


@dataclass(frozen=True, slots=True)
class Shrunk:
    """What is left of a child's updates, and what was taken out of them."""

    parts: tuple[Encoded, ...]
    cut: tuple[Encoded, ...]


def numbers_of(codec: Codec, child: Child) -> list[Numbers]:
    """The numbers of all sections of a child, in order. Raises CodecError, WireError."""
    return [read(codec, section.payload, part.size) for part in child.parts for section in part.sections]


def measure(child: Child, numbers: Sequence[Numbers] = ()) -> Measure:
    """What a child claims, and how large its numbers are."""
    return Measure(
        child.weight,
        child.count,
        child.energy,
        sum(one.length for one in numbers),
        sum(one.square for one in numbers),
        sum(float(np.abs(side.values(section.side)).sum()) for part in child.parts for section in part.sections),
    )


def voting(now: Measures, earlier: Measures) -> list[Measure]:
    """One vote of each child; none where they are too few for a median to mean anything."""
    votes = [*{**earlier, **now}.values()]
    return votes if len(votes) >= FEWEST else []


def limits_of(votes: Sequence[Measure], bound: float) -> Limits:
    """What one child may bring."""
    weight = median(vote.weight for vote in votes)
    return Limits(
        max(1, int(bound * weight)),
        max(1, int(bound * median(vote.count for vote in votes))),
        bound * bound * median(vote.energy / vote.weight**2 for vote in votes),
        bound * median(vote.statistics / vote.weight for vote in votes),
        weight,
    )


def shrunk(codec: Codec, child: Child, limits: Limits, factor: float, chance: Chance) -> Shrunk:
    """A child's updates within its limits; those that are within them anyway are not touched.

    Args:
        codec: of the payloads.
        child: whose they are.
        limits: for its claims.
        factor: for its payloads, at most what the limit of its weight asks for; 1 leaves them as they are.
        chance: for rounding.

    Raises:
        CodecError, WireError: see `smaller`.
    """
    claimed = measure(child)
    weight = min(claimed.weight, limits.weight)
    shares = _Shares(
        (weight, claimed.weight),
        (min(claimed.count, limits.count), claimed.count),
        min(1.0, limits.energy * weight**2 / claimed.energy) if claimed.energy else 1.0,
        keeps_statistics=claimed.statistics <= limits.statistics * claimed.weight,
    )
    pairs = [_part(codec, part, shares, factor, chance) for part in child.parts]
    return Shrunk(tuple(part for part, _ in pairs), tuple(cut for _, cut in pairs if cut.sections))


def weight_factor(child: Child, limits: Limits) -> float:
    """What the limit of its weight leaves of a child."""
    return min(1.0, limits.weight / child.weight)


@dataclass(frozen=True, slots=True)
class _Shares:
    """What is left of what is claimed: of two whole numbers as (left, claimed), of the energy as a factor."""

    weight: tuple[int, int]
    count: tuple[int, int]
    energy: float
    keeps_statistics: bool


def _part(codec: Codec, part: Encoded, shares: _Shares, factor: float, chance: Chance) -> tuple[Encoded, Encoded]:
    """A part within the limits, and what was cut out of its payloads."""
    name = ",".join(sorted(map(str, part.contributions)))
    kept, cut = [], []
    for section in part.sections:
        payload, rest = section.payload, b""
        if factor < 1:
            payload, rest = smaller(codec, payload, part.size, factor, chance(f"{name} {section.base}"))
        kept.append(_claims(section, payload, shares))
        if rest:
            cut.append(replace(section, payload=rest, side=b""))
    return replace(part, sections=tuple(kept)), replace(part, sections=tuple(cut))


def _claims(section: Section, payload: bytes, shares: _Shares) -> Section:
    (weight, weight_claimed), (count, count_claimed) = shares.weight, shares.count
    return replace(
        section,
        payload=payload,
        weight=max(1, section.weight * weight // weight_claimed),
        count=max(1, section.count * count // count_claimed),
        energy=section.energy * shares.energy,
        side=_statistics(section.side, weight / weight_claimed) if shares.keeps_statistics else b"",
    )


def _statistics(payload: bytes, factor: float) -> bytes:
    """Statistics that count for less; whole ones are not written anew, which could lose a bit."""
    return payload if factor == 1 else side.encode(side.values(payload) * factor)


def by_name(children: Sequence[Child]) -> list[Child]:
    """The children in an order that does not depend on who came first."""
    return sorted(children, key=lambda child: child.name)
