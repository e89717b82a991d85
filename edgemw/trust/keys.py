"""Ed25519 keys out of PEM text; `cryptography` enters here and in the files beside."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from edgemw.core.errors import ConfigError

_CERTIFICATE = b"-----BEGIN CERTIFICATE-----"


@dataclass(frozen=True, slots=True)
class Key:
    """A private key: see `edgemw.wire.signed.Signer`."""

    private: Ed25519PrivateKey

    def sign(self, text: bytes) -> bytes:
        """The signature of a text, 64 bytes; always the same one (RFC 8032)."""
        return self.private.sign(text)

    @property
    def public(self) -> Ed25519PublicKey:
        """Its other half."""
        return self.private.public_key()


@dataclass(frozen=True, slots=True)
class KeyRing:
    """Some public keys: see `edgemw.wire.signed.ReleaseKeys`."""

    keys: tuple[Ed25519PublicKey, ...]

    def signed(self, text: bytes, signature: bytes) -> bool:
        """Whether one of them has signed a text."""
        return any(verifies(key, text, signature) for key in self.keys)


def verifies(key: Ed25519PublicKey, text: bytes, signature: bytes) -> bool:
    """Whether a signature of a text is of a key."""
    try:
        key.verify(signature, text)
    except InvalidSignature:
        return False
    return True


def private_key(pem: bytes) -> Key:
    """A private key, PKCS8 in PEM, without a passphrase. Raises ConfigError for anything else."""
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:  # TypeError: it asks for a passphrase
        raise ConfigError(f"is not a private key in PEM without a passphrase: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError("is not an Ed25519 key")
    return Key(key)


def is_certificate(pem: bytes) -> bool:
    """Whether PEM text is that of a certificate."""
    return _CERTIFICATE in pem


def public_key(pem: bytes) -> Ed25519PublicKey:
    """A public key in PEM, or that of a certificate. Raises ConfigError for anything else."""
    try:
        key = x509.load_pem_x509_certificate(pem).public_key() if is_certificate(pem) else load_pem_public_key(pem)
    except Exception as error:  # what is wrong with a certificate has no common base there
        raise ConfigError(f"is neither a public key nor a certificate in PEM: {error}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError("is not an Ed25519 key")
    return key
