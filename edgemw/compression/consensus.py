"""How far peers are apart, as one node of a gossip knows it: the step of its next round, and how many bits that takes.

    theta = 1.3 * the largest difference seen ;  step = 2 theta / (M - 2), M = 2^bits

A node sees differences to the peers of its last rounds only, so it also believes what those announced. A block that wrapped
tells only that theta was too small: it counts as a difference of 1.5 to 8 of what was allowed for, the more the more blocks
wrapped, so that a theta that is too small by a factor of 1000 is put right in three to four rounds. No round makes theta
more than 8 * 1.3 times what it was, whatever a peer says.

theta is never below 2^-20 of the model's largest value, where float32 itself ends: nodes that start equal have to begin
somewhere.

One more bit is taken where the distance to peers, relative to the model's norm, grew by half from the older half of the
last rounds to the newer, and rounding makes up a quarter of its square or more: there more rounding would feed it further.
Distances that grow because nodes train apart call for more peers, not for more bits.

Source: theta bounds the difference: Lu and De Sa, Moniqua, arXiv:2002.11787, which derives it; here it is measured instead.

>>> monitor = Monitor(theta=0.7)
>>> round(monitor.step, 6), monitor.bits
(0.1, 4)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgemw.compression.codec import whole_number
from edgemw.compression.modulo import LARGEST_STEP, LEAST_BITS, Heard, Statistics
from edgemw.core.bundle import Vector
from edgemw.core.errors import CodecError

AGGRESSIVE_BITS = 3
DEFAULT_BITS = 4
MOST_BITS = 8
_MARGIN = 1.3
_REMEMBERED = 4  # rounds that a large difference counts
_HISTORY = 10  # rounds whose newer half is held against the older
_GREW = 1.5
_ROUNDING_SHARE = 0.25
_LEAST_GROWTH, _MOST_GROWTH = 1.5, 8.0
_FLOOR = 2.0**-20
_SMALLEST = 2.0**-100  # where the model is zero


@dataclass(frozen=True, slots=True)
class Monitor:
    """What one node remembers of its consensus.

    Attributes:
        theta: the largest difference that its next round allows for; the first is a guess, which may be far off.
        bits: of a coordinate in its next round, from 3 (the aggressive mode) to 8.
        seen: the largest difference of each of the last rounds, newest last.
        distances: the relative distance of each of the last rounds on these bits, newest last.
        rounding: the part of the newest distance that the step would make alone.
    """

    theta: float
    bits: int = DEFAULT_BITS
    seen: tuple[float, ...] = ()
    distances: tuple[float, ...] = ()
    rounding: float = 0.0

    def __post_init__(self) -> None:
        whole_number("bits", self.bits, LEAST_BITS, MOST_BITS)
        if not _SMALLEST <= self.theta <= LARGEST_STEP:
            raise CodecError(f"theta {self.theta}")

    @property
    def step(self) -> float:
        """The step of the next round, a float32."""
        return float(np.float32(2 * self.theta / ((1 << self.bits) - 2)))

    @property
    def statistics(self) -> Statistics:
        """What to announce in the next round."""
        distance = self.distances[-1] if self.distances else 0.0
        return Statistics(max(self.seen, default=0.0), min(distance, LARGEST_STEP))

    @property
    def diverges(self) -> bool:
        """Whether more bits are called for."""
        older, newer = self.distances[: -_HISTORY // 2], self.distances[-_HISTORY // 2 :]
        grew = len(self.distances) == _HISTORY and sum(newer) > _GREW * sum(older)
        return grew and self.rounding**2 > _ROUNDING_SHARE * self.distances[-1] ** 2

    def after(self, own: Vector, heard: Sequence[Heard]) -> Monitor:
        """The monitor after a round: the same where nothing was heard.

        Args:
            own: float32[P], the model that those of the peers were read next to.
            heard: what was read.
        """
        if not heard:
            return self
        most = _MOST_GROWTH * self.theta
        seen = (*self.seen, min(most, max(map(_largest, heard))))[-_REMEMBERED:]
        announced = min(most, max(peer.statistics.largest for peer in heard))
        floor = max(_FLOOR * float(np.abs(own).max(initial=0.0)), _SMALLEST)
        theta = min(max(_MARGIN * max(*seen, announced), floor), LARGEST_STEP)
        distances = (*self.distances, *_distance(own, heard))[-_HISTORY:]
        following = Monitor(theta, self.bits, seen, distances, _rounding(own, heard))
        if following.diverges and self.bits < MOST_BITS:
            return replace(following, bits=self.bits + 1, distances=distances[-1:])
        return following


def _largest(heard: Heard) -> float:
    """The largest difference to one peer; blocks that wrapped count as more than the step allowed for."""
    seen = float(np.abs(heard.difference).max(initial=0.0))
    if not heard.wrapped.any():
        return seen
    growth = _LEAST_GROWTH + (_MOST_GROWTH - _LEAST_GROWTH) * float(heard.wrapped.mean())
    return max(seen, growth * heard.reach)


def _distance(own: Vector, heard: Sequence[Heard]) -> tuple[float, ...]:
    """||x_i - x_j|| / ||x_j|| over all peers together, from the blocks that were read; none where those are zero."""
    apart, norm = 0.0, 0.0
    for peer in heard:
        apart += _energy(peer.difference)
        norm += _energy(own[peer.sound])
    return (math.sqrt(apart / norm),) if norm else ()


def _rounding(own: Vector, heard: Sequence[Heard]) -> float:
    """The distance that rounding makes of models that are spread over a step or more: step^2 / 6 in each coordinate."""
    norm = _energy(own)
    steps = sum(peer.step**2 for peer in heard) / len(heard)
    return math.sqrt(steps / 6 * own.size / norm) if norm else 0.0


def _energy(vector: Vector) -> float:
    wide = vector.astype(np.float64)
    return float(np.dot(wide, wide))
