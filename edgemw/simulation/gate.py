"""Uploads that wait for tokens, as `transport/gate.py` has them wait, in virtual time.

One that is larger than the bucket leaves when the bucket is full; in production its chunks would follow each other, so that the
last of them would leave later.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from edgemw.wire.bucket import Bucket


class Gate:
    """The uplink of one life of a node; `wait(seconds, then)` calls a function later in the same life."""

    def __init__(self, bucket: Bucket, clock: Callable[[], float], wait: Callable[[float, Callable[[], None]], None]) -> None:
        self._bucket, self._clock, self._wait = bucket, clock, wait
        self._waiting: deque[tuple[int, Callable[[], bool]]] = deque()

    def pass_through(self, size_bytes: int, leave: Callable[[], bool]) -> None:
        """Let so many bytes leave in their turn, when they may; `leave` says whether a connection took them."""
        size_bytes = min(size_bytes, self._bucket.burst)
        self._bucket.asked += size_bytes
        self._waiting.append((size_bytes, leave))
        if len(self._waiting) == 1:
            self._open()

    def close(self) -> None:
        """The life is over: what waits stays here."""
        self._bucket.asked -= sum(size_bytes for size_bytes, _ in self._waiting)
        self._waiting.clear()

    def _open(self) -> None:
        while self._waiting:
            size_bytes, leave = self._waiting[0]
            wait_s = self._bucket.take(size_bytes, self._clock())
            if wait_s > 0:
                self._wait(wait_s, self._open)
                return
            self._waiting.popleft()
            self._bucket.asked -= size_bytes
            taken = leave()
            self._bucket.left(size_bytes, self._clock(), stayed=0 if taken else size_bytes)
