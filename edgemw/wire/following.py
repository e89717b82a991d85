"""A release put together from what is known already, from differences, or from the whole, in that order.

    difference in the manifest | base known           no further message
    known is older             | walk back:           difference <- its `before` <- ... until the base is known or whole
    otherwise                  | theta as a whole

Vectors are named by their sha256, so nothing here depends on numbers or runs, and what is put together is the release bit
for bit or is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from edgemw.core.errors import WireError
from edgemw.wire.messages import Blob, Difference, ReleaseManifest, unpack_difference

MAX_HOPS = 256  # differences between a whole theta and a release

Theta = bytes | memoryview
Advance = Callable[[Theta, bytes], bytes]


class Following:
    """Follows the releases of one task; `advance(theta, payload)` applies a difference."""

    def __init__(self, advance: Advance) -> None:
        self._advance = advance
        self._known: dict[bytes, Theta] = {}  # theta0 and the newest
        self._origin = b""
        self._made_by: dict[bytes, Difference] = {}  # digest of a theta -> what makes it
        self._wanted: ReleaseManifest | None = None
        self._asked: tuple[Blob, Blob | None] | None = None  # a blob, and the theta that the difference in it makes

    def know(self, theta0: Theta) -> None:
        """The bundle is here: its theta0 need not travel."""
        self._known.pop(self._origin, None)
        self._origin = hashlib.sha256(theta0).digest()
        self._known[self._origin] = theta0

    def want(self, manifest: ReleaseManifest) -> Blob | Theta:
        """Begin with a release: its theta, or the blob that is needed next.

        Raises:
            WireError: a difference is malformed or leads to another theta. What was known stays; a later release that is on
                the broker as a whole can be taken.
        """
        self._wanted = manifest
        if manifest.difference:
            self._made_by[manifest.theta.digest] = unpack_difference(manifest.difference)
        return self._proceed(manifest)

    def on_blob(self, blob: Blob, data: bytes) -> Blob | Theta | None:
        """A blob has come: the theta that is wanted, or the blob that is needed next; None where nobody asked for it.

        Raises:
            WireError: as `want`.
        """
        if self._wanted is None or self._asked is None or self._asked[0].digest != blob.digest:
            return None
        makes, self._asked = self._asked[1], None
        if makes is None:
            self._known[blob.digest] = data
        else:
            self._made_by[makes.digest] = unpack_difference(data)
        return self._proceed(self._wanted)

    def waits_for(self, blob: Blob) -> bool:
        """Whether this blob is what the release lacks."""
        return self._asked is not None and self._asked[0].digest == blob.digest

    def _proceed(self, manifest: ReleaseManifest) -> Blob | Theta:
        target, path, held_bytes = manifest.theta, list[Difference](), 0
        need = target
        while need.digest not in self._known:
            made_by = self._made_by.get(need.digest)
            if made_by is None:
                kept = {digest for digest, difference in self._made_by.items() if any(difference is one for one in path)}
                self._made_by = {digest: self._made_by[digest] for digest in kept}  # of releases that are given up
                return self._ask(manifest, need, path)
            path.append(made_by)
            held_bytes += len(made_by.payload)
            if made_by.base.size != target.size or len(path) > MAX_HOPS or held_bytes > target.size:
                self._made_by.clear()
                raise WireError("difference", "differences that cost more than the whole, or fit no theta")
            need = made_by.base
        return self._put_together(target, self._known[need.digest], path)

    def _ask(self, manifest: ReleaseManifest, need: Blob, path: list[Difference]) -> Blob:
        before = path[-1].before if path else manifest.packed
        whole = manifest.whole and (path or not manifest.packed)
        if whole:
            self._asked = manifest.theta, None
        elif before:
            self._asked = before[0], need
        else:
            self._asked = need, None
        return self._asked[0]

    def _put_together(self, target: Blob, theta: Theta, path: list[Difference]) -> Theta:
        try:
            for difference in reversed(path):
                theta = self._advance(theta, difference.payload)
            if hashlib.sha256(theta).digest() != target.digest:
                raise WireError("digest", "its differences lead to another theta")
        finally:
            self._made_by.clear()
        origin = self._known.get(self._origin)
        self._known = {target.digest: theta}
        if origin is not None:
            self._known[self._origin] = origin
        self._wanted = self._asked = None
        return theta
