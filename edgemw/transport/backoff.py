"""How long to wait before the next attempt to connect."""

from __future__ import annotations

import asyncio
import random


class Backoff:
    """Exponential back-off with full jitter: a fleet that lost its broker at one moment does not return at one moment.

    Source: M. Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015 (the "full jitter" variant, here
    with a floor of half the shortest delay so that an attempt never follows at once).
    """

    def __init__(self, *, min_s: float, max_s: float, rng: random.Random) -> None:
        self._min_s = min_s
        self._max_s = max_s
        self._rng = rng
        self._attempt = 0

    def next_delay_s(self) -> float:
        """The delay before the next attempt; the ceiling doubles each time up to the maximum."""
        ceiling_s = min(self._max_s, self._min_s * 2.0 ** min(self._attempt, 32))
        self._attempt += 1
        return self._rng.uniform(min(self._min_s / 2, ceiling_s), ceiling_s)

    async def wait(self) -> None:
        """Sleep for the next delay."""
        await asyncio.sleep(self.next_delay_s())

    def reset(self) -> None:
        """A connection has proved stable: start from the shortest delay again."""
        self._attempt = 0
