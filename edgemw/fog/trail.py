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
        elif manifest.difference:
            self.put(blob_of(manifest.difference, manifest.theta.chunk_size), manifest.difference)

    def put(self, blob: Blob, data: bytes) -> None:
        """Keep something on the way to a release: made here, or fetched from the parent."""
        self._hops[blob.label] = blob_of(data, blob.chunk_size), data
        while len(self._hops) > MAX_HOPS + 1:
            del self._hops[next(iter(self._hops))]

    def release(self, manifest: ReleaseManifest, theta: Theta) -> tuple[ReleaseManifest, Shelf, Shelf]:
        """The present release: its manifest for this domain, what has to be on the broker for it, what for the next besides.

        The manifest loses a difference that is not here, where the whole is; and becomes whole where what its difference needs
        is not here: a node that did not hear of a whole release knows its theta, but its children could not get it.
        """
        if not manifest.whole and not self._is_reached(manifest):
            manifest = replace(manifest, whole=True)
        if manifest.whole:
            known = manifest.theta.digest == self._origin
            self._whole = {} if known else {manifest.theta.digest: (manifest.theta, bytes(theta))}
            if not all(blob.label in self._hops for blob in manifest.packed):
                manifest = replace(manifest, packed=())
        own, shelf = hashlib.sha256(manifest.difference).digest(), {hop[0].digest: hop for hop in self._hops.values()}
        ahead = {digest: hop for digest, hop in shelf.items() if digest == own}
        return manifest, self._whole | {digest: hop for digest, hop in shelf.items() if digest != own}, ahead

    def _is_reached(self, manifest: ReleaseManifest) -> bool:
        """Whether all that leads to a release is here: every difference, back to one that begins at a theta that is."""
        known = {label[:LABEL_BYTES] for label in (self._origin, *self._whole)} | self._hops.keys()
        data, before = manifest.difference, manifest.packed
        while True:
            if not data:
                if not before or before[0].label not in self._hops:
                    return False
                data = self._hops[before[0].label][1]
            last = unpack_difference(data)
            if not last.before:
                return last.base in known
            data, before = b"", last.before
