"""Random numbers that depend on a seed, a stream and how often the stream was asked, and on no other stream.

Source: counter-based generators, Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011; here BLAKE2b is the mixer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from math import log
from typing import TypeVar

T = TypeVar("T")
_SIZE = 1 << 64


def secret_of(node: str, boot: int) -> bytes:
    """What a node of a simulation draws its noise from, in one life: the same in every run, and no secret."""
    return hashlib.blake2b(f"{node} {boot}".encode()).digest()


class Chance:
    """See the module; a stream is named by words, such as a node and what the numbers are for."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._asked: dict[tuple[str, ...], int] = {}

    def number(self, *stream: str) -> float:
        """The next number of a stream, in [0, 1)."""
        asked = self._asked[stream] = self._asked.get(stream, 0) + 1
        return self.nth(asked, *stream)

    def nth(self, which: int, *stream: str) -> float:
        """A number of a stream, the first is 1; nothing is kept, so that whoever asks has to count."""
        text = f"{self._seed} {' '.join(stream)} {which}"
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") / _SIZE

    def happens(self, chance: float, *stream: str) -> bool:
        """Whether something of this chance happens; nothing is drawn where it is certain."""
        return chance > 0 and (chance >= 1 or self.number(*stream) < chance)

    def between(self, low: float, high: float, *stream: str) -> float:
        """A number in [low, high)."""
        return low + (high - low) * self.number(*stream)

    def whole(self, low: int, high: int, *stream: str) -> int:
        """A whole number from low to high, both included."""
        return low + int((high - low + 1) * self.number(*stream))

    def one_of(self, things: Sequence[T], *stream: str) -> T:
        """One of several."""
        return things[int(len(things) * self.number(*stream))]

    def waiting(self, mean: float, *stream: str) -> float:
        """How long until something happens that happens every `mean` seconds: exponentially distributed."""
        return -mean * log(1.0 - self.number(*stream))
