"""In a net that signs: what was announced is said again while children do not answer, for it may have been altered on its way.

A child that refuses a release which somebody has altered cannot answer it, and knows of no other. The first time comes after the
deadline of a window, the next after twice as long, up to an hour. Where nobody signs nothing is said again: nobody refuses it.
"""

from __future__ import annotations

import math

REPEAT = "repeat"
_LONGEST_S = 3600.0


class Repeating:
    """When to say it again."""

    def __init__(self, first_s: float, *, enabled: bool) -> None:
        """Begin with nothing announced."""
        self._first_s = first_s if enabled else math.inf
        self._interval_s, self.due = math.inf, math.inf

    def announced(self, now: float) -> None:
        """A release is out."""
        self._interval_s = self._first_s
        self.due = now + self._interval_s

    def again(self, now: float) -> bool:
        """Whether it is time; the next time is later."""
        if now < self.due:
            return False
        self._interval_s = min(2 * self._interval_s, _LONGEST_S)
        self.due = now + self._interval_s
        return True
