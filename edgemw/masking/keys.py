"""What the members of a group agree on in pairs, and what one of them keeps to itself: X25519, HKDF, ChaCha20-Poly1305.

A device has one seed of 32 bytes for each release that it takes part in. All else follows from it:

    mask key, cipher key = HKDF(seed)                   X25519, what others agree with; they say them before the group is known
    self mask, shares    = HKDF(seed, transcript)       b_i of Bonawitz et al., and the coefficients of its shares
    pair(i, j)           = HKDF(X25519(key_i, key_j), transcript)

`transcript` is the sha256 of everything that the members know of their group: the net, the task, the run, the release, all
names and keys and the threshold. So two groups never share a key, and whoever was shown another list of members has other keys.

Source: Bonawitz et al., Practical secure aggregation for privacy-preserving machine learning, CCS 2017, figure 4.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES = 32
SEED_BYTES = 32
TAG_BYTES = 16
_NONCE = bytes(12)  # every key seals one message
_ANYBODY = X25519PrivateKey.from_private_bytes(bytes(KEY_BYTES))  # multiples of 8, which all are, tell keys of small order


class Tampered(Exception):
    """What was sealed for us was altered, or sealed for somebody else, or a key is not one."""


@dataclass(frozen=True, slots=True, repr=False)
class Secrets:
    """What a device knows in one group, from its seed.

    Attributes:
        mask: its X25519 key that masks come from; may be given up, in shares.
        cipher: its X25519 key that shares are sealed with; never leaves it.
    """

    seed: bytes
    mask: bytes
    cipher: bytes

    @classmethod
    def of(cls, seed: bytes) -> Secrets:
        """The keys of a seed. Raises ValueError for a seed of another size."""
        if len(seed) != SEED_BYTES:
            raise ValueError(f"a seed of {len(seed)} bytes")
        return cls(seed, derived(seed, b"", b"mask"), derived(seed, b"", b"cipher"))

    def self_mask(self, transcript: bytes) -> bytes:
        """The seed of its own mask in a group, 32 bytes."""
        return derived(self.seed, transcript, b"self")


def derived(secret: bytes, transcript: bytes, purpose: bytes, size: int = KEY_BYTES) -> bytes:
    """Bytes for one purpose, from a secret that has the entropy of a key."""
    return HKDF(SHA256(), size, transcript or None, b"edgemw masks " + purpose).derive(secret)


def public(private: bytes) -> bytes:
    """The X25519 key that is said to others."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def is_key(said: bytes) -> bool:
    """Whether others can agree with a public key; with one of small order everybody would agree on zeros."""
    try:
        _ANYBODY.exchange(X25519PublicKey.from_public_bytes(said))
    except ValueError:
        return False
    return True


def agreed(private: bytes, other: bytes, transcript: bytes, purpose: bytes) -> bytes:
    """The key that two members have in common: 32 bytes, the same at both ends.

    Raises:
        Tampered: the other's is a key that no honest member says.
    """
    try:
        secret = X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(other))
    except ValueError as error:
        raise Tampered("a public key of small order") from error
    return derived(secret, transcript, purpose)


def seal(private: bytes, other: bytes, transcript: bytes, way: bytes, plain: bytes) -> bytes:
    """Encrypt for one other member; `way` says from whom to whom, and each way is used once."""
    return ChaCha20Poly1305(agreed(private, other, transcript, b"seal " + way)).encrypt(_NONCE, plain, transcript)


def unseal(private: bytes, other: bytes, transcript: bytes, way: bytes, sealed: bytes) -> bytes:
    """The inverse of `seal`. Raises Tampered."""
    try:
        return ChaCha20Poly1305(agreed(private, other, transcript, b"seal " + way)).decrypt(_NONCE, sealed, transcript)
    except InvalidTag as error:
        raise Tampered("a sealed share was altered") from error
