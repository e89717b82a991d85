"""One child's part of a window, and what a robust option makes of a window."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from edgemw.compression.codec import Codec
from edgemw.core.encoded import Encoded

Chance = Callable[[str], float]
"""A number in [0, 1) for a text: the same whenever it is asked, and unknown to whoever wrote the text."""


@dataclass(frozen=True, slots=True)
class Child:
    """All updates of one child in a window: it has one vote and one bound, however many it sends."""

    name: str
    parts: tuple[Encoded, ...]

    @property
    def weight(self) -> int:
        """Training examples that it claims."""
        return sum(part.weight for part in self.parts)

    @property
    def count(self) -> int:
        """Device updates that it claims."""
        return sum(part.count for part in self.parts)

    @property
    def energy(self) -> float:
        """The sum of squared norms that it claims, which sets the next step."""
        return sum(section.energy for part in self.parts for section in part.sections)


@dataclass(frozen=True, slots=True)
class Measure:
    """What a window remembers of a child, for the medians of later ones.

    Attributes:
        weight, count, energy: as claimed.
        length: the sum of the sizes of all values that its payloads stand for.
        square: the sum of their squares.
        statistics: the same of its side values.
    """

    weight: int
    count: int
    energy: float
    length: float = 0.0
    square: float = 0.0
    statistics: float = 0.0


Measures = Mapping[str, Measure]


@dataclass(frozen=True, slots=True)
class Bounded:
    """A window that can be merged.

    Attributes:
        parts: what is to be added.
        cut: what was taken out of lattice payloads: with `parts` it adds up to what came, integer by integer.
        left_out: children whose updates are in none of the parts.
        kept: of each child that brought too much, the factor that it was made smaller by, below 1.
        measures: of the children in the window.
    """

    parts: tuple[Encoded, ...]
    cut: tuple[Encoded, ...] = ()
    left_out: tuple[str, ...] = ()
    kept: Mapping[str, float] = field(default_factory=dict)
    measures: Measures = field(default_factory=dict)


class Robust(Protocol):
    """A way to merge although some children lie."""

    def bound(self, codec: Codec, children: Sequence[Child], earlier: Measures, chance: Chance) -> Bounded:
        """What of a window is to be added, the same for any order of the children.

        Args:
            codec: of all parts, which are well formed.
            children: each with at least one part that has sections.
            earlier: of children that are not in this window.
            chance: for rounding.

        Raises:
            CodecError: the option does not go with the codec.
            WireError: a payload is malformed.
        """
        ...
