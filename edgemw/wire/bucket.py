"""A token bucket: how many bytes may leave now, so that the bytes of any window of time are bounded.

    bytes in any window of length dt  <=  burst + rate dt

What was taken and has not left yet still fills the bucket, so the bound holds for when bytes really leave, however long
a slow link keeps them: level + on_the_way <= burst always, so in a window [a, b]

    left  <=  on_the_way(a) + taken(a, b)  <=  on_the_way(a) + level(a) + rate (b - a)  <=  burst + rate (b - a)

A bucket starts empty, in every life of a node. A restart gives nothing for free, so the bound holds over restarts, and there is
nothing to keep on disk, and no clock of the machine to trust; the price is a wait of at most burst / rate.

Source: Turner, IEEE Communications Magazine 24(10), 1986 (leaky bucket as a meter).
"""

from __future__ import annotations

_SHORTEST_WAIT_S = 1e-3


class Bucket:
    """The bytes that a node may send. One is shared by all that send on one uplink, in one thread.

    Attributes:
        rate: bytes per second that come in.
        burst: the most bytes that it holds.
        asked: bytes that somebody waits for already, before whoever comes now.
    """

    def __init__(self, rate: float, burst: int, now: float) -> None:
        if rate <= 0 or burst <= 0:
            raise ValueError(f"a bucket of {burst} bytes that fills with {rate} bytes per second")
        self.rate, self.burst = rate, burst
        self.asked = 0
        self._level, self._on_the_way, self._at = 0.0, 0, now

    def level(self, now: float) -> float:
        """The bytes that may leave now."""
        return min(self._level + self.rate * max(0.0, now - self._at), self.burst - self._on_the_way)

    def wait_s(self, size_bytes: int, now: float) -> float:
        """The seconds until so many bytes may leave besides those that were asked for, if nothing is taken; 0 is now."""
        return self._until(size_bytes + self.asked - self.level(now))

    def take(self, size_bytes: int, now: float) -> float:
        """Take the bytes of one message; returns 0, or without taking any the seconds until it can be tried again.

        Raises:
            ValueError: more than the bucket can ever hold.
        """
        if size_bytes > self.burst:
            raise ValueError(f"{size_bytes} bytes from a bucket of {self.burst}")
        self._settle(now)
        if size_bytes > self._level:
            return self._until(size_bytes - self._level)
        self._level -= size_bytes
        self._on_the_way += size_bytes
        return 0.0

    def left(self, size_bytes: int, now: float, *, stayed: int = 0) -> None:
        """Bytes that were taken have left: there is room for new ones from now on. Those that `stayed` here are back."""
        self._settle(now)
        self._on_the_way -= size_bytes
        self._level += stayed

    def _until(self, missing_bytes: float) -> float:
        """Never a wait that is too short for a clock to see: it would be tried again for ever."""
        return max(missing_bytes / self.rate, _SHORTEST_WAIT_S) if missing_bytes > 0 else 0.0

    def _settle(self, now: float) -> None:
        self._level, self._at = self.level(now), max(now, self._at)
