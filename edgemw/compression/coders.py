"""The entropy coders that a payload can name, each in one of its implementations."""

from __future__ import annotations

from dataclasses import dataclass

from edgemw.compression import golomb, rangecoder
from edgemw.compression.golomb import Golomb


@dataclass(frozen=True, slots=True)
class Coders:
    """One implementation of each format.

    Attributes:
        golomb: of `golomb.py`.
        range: of `rangecoder.py`.
    """

    golomb: Golomb
    range: Golomb

    def one(self, *, ranged: bool) -> Golomb:
        """The range coder, or else Golomb-Rice."""
        return self.range if ranged else self.golomb


def fastest() -> Coders:
    """The compiled implementations where they were built."""
    return Coders(golomb.fastest(), rangecoder.fastest())
