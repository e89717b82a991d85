"""What nodes of a fleet compute alike, computed once: the theta that a difference leads to, and the digest of a theta.

Nodes that follow the same releases hold one vector between them, as nobody can write into its bytes. What is known is known by
the objects that went in, which are kept as long as the result is, and whoever comes to a theta in another way goes on with the
object that the others have.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import NamedTuple

from edgemw.wire.following import Advance, Following, Theta

MOST_RESULTS = 64
"""Of each kind: more than the releases that nodes of a fleet are at, and come through, at one time."""
MOST_BYTES = 64 << 20
"""In thetas, what went in and what came of it; two results are known whatever their size."""


class Shared:
    """See the module; for nodes of one task: the tensors of what they follow are the same."""

    def __init__(self) -> None:
        self._thetas, self._digests, self._objects = _Results(), _Results(), _Results()

    def follow(self, advance: Advance) -> Following:
        """As `Following(advance)`; to be given to a `Cycle`, which makes it."""
        return _Sharing(self, advance)

    def theta(self, theta: Theta, payload: bytes, side: bytes, advance: Advance) -> bytes:
        """What `advance` gives."""
        return bytes(self._thetas.once((id(theta), payload, side), theta, lambda: advance(theta, payload, side)))

    def digest(self, theta: Theta, compute: Callable[[Theta], bytes]) -> bytes:
        """What `compute` gives."""
        return bytes(self._digests.once(id(theta), theta, lambda: compute(theta)))

    def object_with(self, digest: bytes, theta: Theta) -> Theta:
        """The object with this sha256 that was seen first."""
        return self._objects.once(digest, theta, lambda: theta)


class _Sharing(Following):
    """One of many that follow the same releases."""

    def __init__(self, shared: Shared, advance: Advance) -> None:
        super().__init__(advance)
        self._shared = shared

    def advance(self, theta: Theta, payload: bytes, side: bytes) -> bytes:
        return self._shared.theta(theta, payload, side, super().advance)

    def digest(self, theta: Theta) -> bytes:
        return self._shared.digest(theta, super().digest)

    def kept(self, theta: Theta, digest: bytes) -> Theta:
        return self._shared.object_with(digest, theta)


class _Result(NamedTuple):
    theta: Theta  # what went in, which has its identity as long as this is here
    result: Theta


class _Results:
    """The results that were asked for last."""

    def __init__(self) -> None:
        self._known: dict[Hashable, _Result] = {}

    def once(self, key: Hashable, theta: Theta, compute: Callable[[], Theta]) -> Theta:
        """The result for a key, which may name `theta` by its identity."""
        found = self._known.pop(key, None) or _Result(theta, compute())
        self._known[key] = found
        most = max(2, min(MOST_RESULTS, MOST_BYTES // (len(theta) + len(found.result))))
        while len(self._known) > most:
            del self._known[next(iter(self._known))]
        return found.result
