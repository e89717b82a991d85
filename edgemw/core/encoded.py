"""An update in its compressed form: the element of a commutative monoid that devices make and fog nodes add.

An encoding is a sum of sections, one for each release that its members trained from. Sections of the same base share one
step, or have powers of two, so their payloads add inside the codec; sections of different bases stand side by side until the
top decodes them, and only there does staleness weigh. With dyadic steps every fog node weighs, and makes one section of all
(`compression/merge.py`). Weight and count are integers and therefore conserved exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgemw.core.ids import UpdateId


@dataclass(frozen=True, slots=True)
class Section:
    """The sum of the updates that were trained from one release.

    Attributes:
        base: number of that release.
        weight: number of training examples behind the sum.
        count: number of device updates in the sum.
        energy: sum of the squared norms of the devices' weighted deltas, without residuals; it sets the next step.
        payload: the codec's bytes.
        side: the running statistics beside it, as `compression/side.py` writes them; empty is zero.
    """

    base: int
    weight: int
    count: int
    energy: float
    payload: bytes
    side: bytes = b""

    @property
    def size_bytes(self) -> int:
        """What the codec and the statistics take."""
        return len(self.payload) + len(self.side)


@dataclass(frozen=True, slots=True)
class Encoded:
    """An update in the codec named `codec` for a model of `size` parameters.

    `contributions` are the identities, one level deep, whose sum this is. Addition is not idempotent: two encodings that
    share a contribution are never merged.
    """

    codec: str
    size: int
    sections: tuple[Section, ...]
    contributions: frozenset[UpdateId]

    @property
    def weight(self) -> int:
        """Training examples behind this encoding."""
        return sum(section.weight for section in self.sections)

    @property
    def count(self) -> int:
        """Device updates inside this encoding."""
        return sum(section.count for section in self.sections)
