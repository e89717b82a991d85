"""Uploads that wait for tokens, as `transport/gate.py` has them wait, in virtual time.

One that is larger than the bucket leaves when the bucket is full; in production its chunks would follow each other, so that the
last of them would leave later.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

from edgemw.wire.bucket import Bucket


class Gate:
    """The uplink of one life of a node; `wait(seconds, then)` calls a function later in the same life."""

    def __init__(self, bucket: Bucket, clock: Callable[[], float], wait: Callable[[float, Callable[[], None]], None]) -> None:
        self._bucket, self._clock, self._wait = bucket, clock, wait
        self._waiting: dict[Hashable, tuple[int, Callable[[], bool]]] = {}  # in their order

    def pass_through(self, key: Hashable, size_bytes: int, leave: Callable[[], bool]) -> None:
        """Let so many bytes leave in their turn, when they may; `leave` says whether a connection took them.

        What waits already, by its key, waits once.
        """
        if key in self._waiting:
            return
        size_bytes = min(size_bytes, self._bucket.burst)
        self._bucket.asked += size_bytes
        self._waiting[key] = size_bytes, leave
        if len(self._waiting) == 1:
            self._open()

    def close(self) -> None:
        """The life is over: what waits stays here."""
        self._bucket.asked -= sum(size_bytes for size_bytes, _ in self._waiting.values())
        self._waiting.clear()

    def _open(self) -> None:
        while self._waiting:
            key = next(iter(self._waiting))
            size_bytes, leave = self._waiting[key]
            wait_s = self._bucket.take(size_bytes, self._clock())
            if wait_s > 0:
                self._wait(wait_s, self._open)
                return
            del self._waiting[key]
            self._bucket.asked -= size_bytes
            taken = leave()
            self._bucket.left(size_bytes, self._clock(), stayed=0 if taken else size_bytes)
