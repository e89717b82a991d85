"""What every node of a fleet computes alike, computed once: the theta that a difference leads to, and the digest of a theta.

A thousand devices that follow the same releases hold one vector between them, as its bytes cannot be changed. What is known is
known by the objects that went in, which are kept as long as the result is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from edgemw.wire.following import Advance, Following, Theta

_KEPT = 64
"""Results: more than the releases that nodes of a fleet are at, and come through, at one time."""

T = TypeVar("T")


class Shared:
    """See the module; for the nodes of one task."""

    def __init__(self) -> None:
        self._thetas: dict[tuple[int, bytes, bytes], tuple[Theta, bytes]] = {}
        self._digests: dict[int, tuple[Theta, bytes]] = {}

    def follow(self, advance: Advance) -> Following:
        """As `Following(advance)`; to be given to a `Cycle`, which makes it."""
        return _Sharing(self, advance)

    def theta(self, theta: Theta, payload: bytes, side: bytes, advance: Advance) -> bytes:
        """What `advance` gives."""
        return _once(self._thetas, (id(theta), payload, side), theta, lambda: advance(theta, payload, side))

    def digest(self, theta: Theta, compute: Callable[[Theta], bytes]) -> bytes:
        """What `compute` gives."""
        return _once(self._digests, id(theta), theta, lambda: compute(theta))


class _Sharing(Following):
    """One of many that follow the same releases."""

    def __init__(self, shared: Shared, advance: Advance) -> None:
        super().__init__(advance)
        self._shared = shared

    def advance(self, theta: Theta, payload: bytes, side: bytes) -> bytes:
        return self._shared.theta(theta, payload, side, super().advance)

    def digest(self, theta: Theta) -> bytes:
        return self._shared.digest(theta, super().digest)


def _once(known: dict[T, tuple[Theta, bytes]], key: T, theta: Theta, compute: Callable[[], bytes]) -> bytes:
    """The result for a key that names `theta` by its identity, which no other object has while it is kept."""
    found = known.get(key)
    if found is None:
        found = known[key] = theta, compute()
        if len(known) > _KEPT:
            del known[next(iter(known))]
    return found[1]
