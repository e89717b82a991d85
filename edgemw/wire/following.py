"""A release put together from what is known already, from differences, or from the whole, in that order.

    difference in the manifest | base known           no further message
    known is older             | walk back:           difference <- its `before` <- ... until the base is known or whole
    otherwise                  | theta as a whole

Vectors and differences are named by their labels, the first half of their sha256, so nothing here depends on numbers or runs.
What is put together has the sha256 of the release, bit for bit, or is refused. What was asked for is of use whenever it
comes, also when newer releases are out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

from edgemw.core.errors import WireError
from edgemw.wire.fields import LABEL_BYTES
from edgemw.wire.messages import Blob, Difference, ReleaseManifest, unpack_difference

MAX_HOPS = 256  # differences between a whole theta and a release
MAX_ASKED = 16

Theta = bytes | memoryview
Advance = Callable[[Theta, bytes, bytes], bytes]
_Named = tuple[bytes, Theta]
"""A theta and its label."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A release with its theta."""

    manifest: ReleaseManifest
    theta: Theta


class Following:
    """Follows the releases of one task; `advance(theta, payload, side)` applies a difference."""

    def __init__(self, advance: Advance) -> None:
        self._advance = advance
        self._origin: _Named | None = None  # theta0
        self._newest: _Named | None = None
        self._fetched: _Named | None = None  # the last whole theta, until it has been used
        self._hops: dict[bytes, Difference] = {}  # by the label of their bytes
        self._wanted: ReleaseManifest | None = None
        self._asked: dict[bytes, bool] = {}  # blobs by label: whether they are a theta
        self._heard: tuple[int, int] | None = None  # run, and life of its fog node, of the last manifest

    def advance(self, theta: Theta, payload: bytes, side: bytes) -> bytes:
        """The theta that a difference leads to."""
        return self._advance(theta, payload, side)

    def digest(self, theta: Theta) -> bytes:
        """The sha256 of a theta."""
        return hashlib.sha256(theta).digest()

    def kept(self, theta: Theta, digest: bytes) -> Theta:
        """A theta as it is remembered: these bytes, which have that sha256."""
        return theta

    def know(self, theta0: Theta) -> None:
        """The bundle is here: its theta0 need not travel."""
        self._origin = self.digest(theta0)[:LABEL_BYTES], theta0

    def remember(self, theta: Theta) -> None:
        """A theta of an earlier life is here, perhaps of the release that is out still."""
        self._newest = self.digest(theta)[:LABEL_BYTES], theta

    def forget(self) -> None:
        """Nothing is wanted any more."""
        self._wanted = None
        self._asked.clear()

    def hear(self, run: int, boot: int) -> None:
        """A manifest of this run has come, from this life of the fog node.

        Another life may have removed what an earlier one had put on the broker.
        """
        if self._heard not in (None, (run, boot)):
            self.forget()
        self._heard = run, boot

    def want(self, manifest: ReleaseManifest) -> Blob | Taken | None:
        """Go for a release: it, or the blob that is needed next; None while an earlier one is on its way.

        Were each release given up for the next, a link that is slower than rounds would never bring any. Only what can be
        had at once goes first, and a release that is on the broker as a whole, for what leads to earlier ones may be
        removed then. Whoever takes an earlier one asks for the newest again.

        Raises:
            WireError: a difference is malformed or leads to another theta. What was known stays.
        """
        if manifest.difference:
            self._keep(_label(manifest.difference), manifest.difference, manifest.theta.size)
        busy = self._wanted is not None and self._wanted.run == manifest.run and bool(self._asked)
        if busy and not manifest.whole and self._path(manifest)[1] is not None:
            return None
        self._wanted = manifest
        return self._proceed(manifest)

    def want_anew(self, manifest: ReleaseManifest | None) -> Blob | Taken | None:
        """Go for a release, whatever an earlier one waits for. Raises as `want`."""
        self.forget()
        return None if manifest is None else self.want(manifest)

    def on_blob(self, blob: Blob, data: bytes) -> Blob | Taken | None:
        """A blob has come: a release, or the blob that is needed next; None where nobody waits for it.

        Raises:
            WireError: as `want`.
        """
        is_theta = self._asked.pop(blob.label, None)
        if is_theta is None or self._wanted is None:
            return None
        if is_theta:
            self._fetched = blob.label, data
        else:
            self._keep(blob.label, data, self._wanted.theta.size)
        return self._proceed(self._wanted)

    def waits_for(self, blob: Blob) -> bool:
        """Whether this blob was asked for and has not come."""
        return blob.label in self._asked

    def _proceed(self, manifest: ReleaseManifest) -> Blob | Taken:
        path, missing = self._path(manifest)
        if missing is None:
            return Taken(manifest, self._put_together(manifest.theta, path))
        whole = next((number for number, hop in enumerate(path) if not hop.before), None)
        if manifest.whole and (path or not manifest.packed):
            return self._ask(manifest.theta, is_theta=True)
        if whole is not None:
            return self._ask(replace(manifest.theta, digest=path[whole].base), is_theta=True)
        return self._ask(missing, is_theta=False)

    def _keep(self, label: bytes, data: bytes, theta_bytes: int) -> None:
        """Take a difference; of those that lead nowhere the newest stay, twice as many bytes as a path may have."""
        self._hops[label] = unpack_difference(data)
        limit_bytes = 2 * theta_bytes
        while len(self._hops) > 2 * MAX_HOPS or sum(hop.size_bytes for hop in self._hops.values()) > limit_bytes:
            del self._hops[next(iter(self._hops))]

    def _path(self, manifest: ReleaseManifest) -> tuple[list[Difference], Blob | None]:
        """The differences from the release back to what is known, and the blob that is missing for the next step, if any."""
        path: list[Difference] = []
        theta, held_bytes = manifest.theta, 0
        own = _label(manifest.difference) if manifest.difference else None
        before = manifest.packed
        while self._known(theta.label) is None:
            label = own if own is not None and not path else (before[0].label if before else None)
            hop = self._hops.get(label) if label is not None else None
            if hop is None:
                return path, before[0] if before else theta
            path.append(hop)
            held_bytes += hop.size_bytes
            if len(path) > MAX_HOPS or held_bytes > manifest.theta.size:
                self._hops.clear()
                raise WireError("difference", "differences that cost more than the whole")
            theta, before = replace(theta, digest=hop.base), hop.before
        return path, None

    def _known(self, label: bytes) -> Theta | None:
        for named in (self._newest, self._fetched, self._origin):
            if named is not None and named[0] == label:
                return named[1]
        return None

    def _ask(self, blob: Blob, *, is_theta: bool) -> Blob:
        self._asked.pop(blob.label, None)
        self._asked[blob.label] = is_theta
        while len(self._asked) > MAX_ASKED:
            del self._asked[next(iter(self._asked))]
        return blob

    def _put_together(self, target: Blob, path: list[Difference]) -> Theta:
        theta = self._known(path[-1].base if path else target.label)
        assert theta is not None
        used = {id(hop) for hop in path}
        try:
            for hop in reversed(path):
                theta = self.advance(theta, hop.payload, hop.side)
            if self.digest(theta) != target.digest:
                raise WireError("digest", "its differences lead to another theta")
        finally:  # those of releases that came meanwhile stay
            self._hops = {digest: hop for digest, hop in self._hops.items() if id(hop) not in used}
        theta = self.kept(theta, target.digest)
        self._newest, self._fetched = (target.label, theta), None
        self._wanted = None
        self._asked.clear()
        return theta


def _label(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()[:LABEL_BYTES]
