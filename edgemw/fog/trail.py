"""What a release needs on the broker so that anybody can have it: the last theta as a whole, and the differences since.

    whole  <- difference <- difference <- ... <- the difference in the manifest

A theta is put on the broker as a whole where the differences since the last one would cost more than half of it. So a late
joiner reads at most one and a half times theta, and a fog node with a slow link writes little more than the differences.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from edgemw.fog.announcer import Shelf
from edgemw.wire.chunks import blob_of
from edgemw.wire.fields import LABEL_BYTES
from edgemw.wire.following import MAX_HOPS, Theta
from edgemw.wire.messages import MAX_INLINE_BYTES, Blob, Difference, ReleaseManifest, pack_difference, unpack_difference

MANIFEST_BYTES = 1024  # everything in a manifest besides its difference, at most
HOPS = 64  # each costs a late joiner one more question


@dataclass(frozen=True, slots=True)
class Lead:
    """How a release is reached from the one before: the places of its manifest, and the difference as a blob."""

    whole: bool
    blob: Blob
    data: bytes
    inline: bool

    def into(self, manifest: ReleaseManifest) -> ReleaseManifest:
        """The manifest that says so."""
        if self.inline:
            return replace(manifest, whole=self.whole, difference=self.data, packed=())
        return replace(manifest, whole=self.whole, difference=b"", packed=(self.blob.brief,))


class Trail:
    """The blobs behind the present release of one task."""

    def __init__(self) -> None:
        self._origin = b""
        self._whole: Shelf = {}
        self._hops: Shelf = {}  # by label
        self._last: tuple[Blob, Theta] | None = None  # the release that was asked for last
        self._reached: set[bytes] = set()  # hops that lead back to a theta which is here as a whole

    def start(self, theta0: Theta) -> None:
        """The bundle is known; its theta0 is never put on the broker."""
        self._origin = hashlib.sha256(theta0).digest()

    def lead(self, old: ReleaseManifest, payload: bytes, beside: bytes = b"") -> Lead | None:
        """How the release after `old` is reached by a difference; None where the whole is cheaper."""
        chunk_size = old.theta.chunk_size
        before: tuple[Blob, ...] = ()
        if not old.whole:
            before = old.packed or (blob_of(old.difference, chunk_size).brief,)
        data = pack_difference(Difference(old.theta.label, before, payload, beside))
        if 2 * len(data) > old.theta.size:
            return None
        hops = self._hops if before else {}
        cost = len(data) + sum(len(hop) for _, hop in hops.values())
        whole = len(hops) >= HOPS or 2 * cost > old.theta.size
        inline = len(data) <= min(MAX_INLINE_BYTES, chunk_size) - MANIFEST_BYTES
        return Lead(whole, blob_of(data, chunk_size), data, inline)

    def heard(self, manifest: ReleaseManifest) -> None:
        """A release is out; every one of them is told, also those that are passed over."""
        if manifest.whole:
            self._hops = {}
            self._reached.clear()
        elif manifest.difference:
            self.put(blob_of(manifest.difference, manifest.theta.chunk_size), manifest.difference)

    def put(self, blob: Blob, data: bytes) -> None:
        """Keep something on the way to a release: made here, or fetched from the parent."""
        self._hops[blob.label] = blob_of(data, blob.chunk_size), data
        while len(self._hops) > MAX_HOPS + 1:
            del self._hops[next(iter(self._hops))]
            self._reached.clear()

    def release(self, manifest: ReleaseManifest, theta: Theta) -> tuple[ReleaseManifest, Shelf, Shelf]:
        """The present release: its manifest for this domain, what has to be on the broker for it, what for the next besides.

        A node that did not hear of a whole release knows its theta, but its children could not get it: the theta is put on the
        broker where the differences since begin at it and it is here, the release before this one. Where the way back is
        broken otherwise, the manifest becomes whole. It loses a difference that is not here, where the whole is.
        """
        if not manifest.whole:
            lacking = self._lacking(manifest)
            if lacking is not None and self._last is not None and lacking == self._last[0].label:
                self._stand_on(*self._last)
                lacking = self._lacking(manifest)
            if lacking is not None:
                manifest = replace(manifest, whole=True)
        if manifest.whole:
            self._stand_on(manifest.theta, theta)
            if not all(blob.label in self._hops for blob in manifest.packed):
                manifest = replace(manifest, packed=())
        self._last = manifest.theta, theta
        own, shelf = hashlib.sha256(manifest.difference).digest(), {hop[0].digest: hop for hop in self._hops.values()}
        ahead = {digest: hop for digest, hop in shelf.items() if digest == own}
        return manifest, self._whole | {digest: hop for digest, hop in shelf.items() if digest != own}, ahead

    def _stand_on(self, blob: Blob, theta: Theta) -> None:
        """From now on this theta is on the broker as a whole, unless it came with the bundle."""
        self._whole = {} if blob.digest == self._origin else {blob.digest: (blob, bytes(theta))}
        self._reached.clear()

    def _lacking(self, manifest: ReleaseManifest) -> bytes | None:
        """The label of what is not here of the way back from a release to a theta that is; None where nothing is missing."""
        walked: list[bytes] = []
        if not (manifest.difference or manifest.packed):
            return manifest.theta.label
        own = (blob_of(manifest.difference, manifest.theta.chunk_size),) if manifest.difference else manifest.packed
        label = own[0].label
        while label not in self._reached:
            hop = self._hops.get(label)
            if hop is None:
                return label
            walked.append(label)
            difference = unpack_difference(hop[1])
            if not difference.before:
                if not self._is_here(difference.base):
                    return difference.base
                break
            label = difference.before[0].label
        self._reached.update(walked)
        return None

    def _is_here(self, theta: bytes) -> bool:
        """Whether a theta is known to everybody, or here as a whole: made so, or fetched."""
        return theta in {label[:LABEL_BYTES] for label in (self._origin, *self._whole)} or theta in self._hops
