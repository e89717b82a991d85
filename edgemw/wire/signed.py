"""What is signed, in bytes, and who signs and verifies: no key and no cryptography here.

    frame      "edgemw frame 1"    0  net 0  domain 0  sha256 of the packed frame, task and node said, without its signature
    release    "edgemw release 1"  0  net 0  task 0    sha256 of what the manifest says of the release, not of how it is had
    bundle     "edgemw bundle 1"   0  net 0  task 0    run, size, chunk_size (uint64 big-endian each), sha256 of the bundle
    proposal   "edgemw proposal 1" 0  net 0  task 0    size, chunk_size (uint64 big-endian each), sha256 of the bundle

Each text begins with what it is for, so that a signature is never one of something else. Ids have no byte 0 in them. The sha256
stands for the frame because Ed25519 (RFC 8032, section 5.1.6) reads its message twice, and a frame may have many megabytes.
What is signed is what a reader has understood: a place that it does not know is not covered, so a frame with one is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from edgemw.wire.messages import Blob, Frame, ReleaseManifest, TaskManifest, core_of, pack


class Signer(Protocol):
    """A private key."""

    def sign(self, text: bytes) -> bytes:
        """The signature of a text, 64 bytes."""
        ...


class Senders(Protocol):
    """Whose updates are taken: the keys of nodes, by the certificates that they show."""

    def learn(self, node: str, credential: bytes) -> str:
        """Take the certificate that a node shows, DER; gives why it is not believed, or "" where it is."""
        ...

    def credential(self, node: str) -> bytes:
        """The certificate of a node by which its last text was believed, DER; empty where there is none."""
        ...

    def refusal(self, node: str, text: bytes, signature: bytes) -> str:
        """Why a text is not believed to be of a node; "" where it is."""
        ...


class ReleaseKeys(Protocol):
    """The public keys whose releases and bundles are taken."""

    def signed(self, text: bytes, signature: bytes) -> bool:
        """Whether one of them has signed a text."""
        ...


@dataclass(frozen=True, slots=True)
class Trust:
    """What a node signs with and whom it believes; None asks for no signature.

    Attributes:
        signer: of this node's updates, or of a top's releases.
        senders: of updates from below.
        releases: of releases and bundles from above, and of bundles that are proposed to a top.
        revoke: takes the authority's list of revoked certificates (PEM) in the place of the one before, for senders and releases;
            raises ConfigError for what is none of its lists.
    """

    signer: Signer | None = None
    senders: Senders | None = None
    releases: ReleaseKeys | None = None
    revoke: Callable[[bytes], None] | None = None


ANYBODY = Trust()


def frame_text(net: str, domain: str, frame: Frame) -> bytes:
    """What is signed of an update for the node that owns a domain."""
    return _text("frame", net, domain) + hashlib.sha256(pack(replace(frame, signature=b""))).digest()


def release_text(net: str, task: str, manifest: ReleaseManifest) -> bytes:
    """What is signed of a release."""
    return _text("release", net, task) + hashlib.sha256(core_of(manifest)).digest()


def bundle_text(net: str, task: str, blob: Blob, run: int) -> bytes:
    """What is signed of a bundle that a run began with."""
    return _text("bundle", net, task) + run.to_bytes(8, "big") + _blob(blob)


def proposal_text(net: str, task: str, blob: Blob) -> bytes:
    """What is signed of a bundle that the top is asked to take."""
    return _text("proposal", net, task) + _blob(blob)


def signed_frame(signer: Signer, net: str, domain: str, frame: Frame) -> Frame:
    """The frame with its signature."""
    return replace(frame, signature=signer.sign(frame_text(net, domain, frame)))


def signed_release(signer: Signer, net: str, task: str, manifest: ReleaseManifest) -> ReleaseManifest:
    """The manifest with its signature."""
    return replace(manifest, signature=signer.sign(release_text(net, task, manifest)))


def signed_bundle(signer: Signer, net: str, task: str, blob: Blob, run: int) -> TaskManifest:
    """The manifest of a bundle, signed."""
    return TaskManifest(blob, run, signer.sign(bundle_text(net, task, blob, run)))


def signed_proposal(signer: Signer, net: str, task: str, blob: Blob) -> TaskManifest:
    """The proposal of a bundle, signed."""
    return TaskManifest(blob, signature=signer.sign(proposal_text(net, task, blob)))


def _text(what: str, net: str, about: str) -> bytes:
    return f"edgemw {what} 1\0{net}\0{about}\0".encode()


def _blob(blob: Blob) -> bytes:
    return blob.size.to_bytes(8, "big") + blob.chunk_size.to_bytes(8, "big") + blob.digest
