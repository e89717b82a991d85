"""What every node of a fleet computes alike, computed once: the theta that a difference leads to, and the digest of a theta.

A thousand devices that follow the same releases hold one vector between them, as its bytes cannot be changed. What is known is
known by the objects that went in, which are kept as long as the result is.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from edgemw.wire.following import Advance, Following, Theta, digest_of

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
        return Following(partial(self._advance, advance), self._digest)

    def _advance(self, advance: Advance, theta: Theta, payload: bytes, side: bytes) -> bytes:
        return _once(self._thetas, (id(theta), payload, side), theta, lambda: advance(theta, payload, side))

    def _digest(self, theta: Theta) -> bytes:
        return _once(self._digests, id(theta), theta, lambda: digest_of(theta))


def _once(known: dict[T, tuple[Theta, bytes]], key: T, theta: Theta, compute: Callable[[], bytes]) -> bytes:
    """The result for a key that names `theta` by its identity, which no other object has while it is kept."""
    found = known.get(key)
    if found is None:
        found = known[key] = theta, compute()
        if len(known) > _KEPT:
            del known[next(iter(known))]
    return found[1]
