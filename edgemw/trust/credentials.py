"""Whose key is whose: certificates that nodes show, checked against the one authority that a fog node was given.

    believed  =  signed by the authority, for this node (CN is its id), of an Ed25519 key, in its validity, not revoked,
                 without an extended key usage or with codeSigning in it

Of several such certificates of one node each counts: anybody may show one that the node has had. Every check of a signature
looks at validity and revocation again, so that a certificate ends when it ends, however long ago it was shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edgemw.core.errors import ConfigError
from edgemw.trust.keys import is_certificate, verifies

MAX_NODES = 100_000
MAX_EACH = 4  # certificates of one node: the one that has verified last stays, and the newest that were shown

NO_CREDENTIAL = "it has shown no certificate that is believed here"
UNSIGNED = "it is not signed"
FORGED = "its signature is not of this node's key, or it was altered or meant for another node"


@dataclass(frozen=True, slots=True)
class Credential:
    """A certificate that is believed, and what it says."""

    key: Ed25519PublicKey
    serial: int
    since: datetime
    until: datetime
    der: bytes


class Authority:
    """The one that signs certificates of nodes, and its list of those that are revoked."""

    def __init__(self, certificate: x509.Certificate) -> None:
        """Begin with an empty list. Raises ConfigError for a certificate that is none of an authority."""
        if not _is_authority(certificate):
            raise ConfigError("is not the certificate of an authority (basicConstraints CA)")
        self._certificate = certificate
        self._revoked: frozenset[int] = frozenset()

    def revoke(self, crl: x509.CertificateRevocationList) -> None:
        """Take a list in the place of the one before. Raises ConfigError where it is of another authority."""
        key = self._certificate.public_key()
        try:
            ours = isinstance(key, EllipticCurvePublicKey | Ed25519PublicKey | RSAPublicKey) and crl.is_signature_valid(key)
            revoked = frozenset(entry.serial_number for entry in crl)
        except Exception as error:  # as below
            raise ConfigError(f"is not a list that can be read: {error}") from error
        if not ours:
            raise ConfigError("is not a list of the authority in security.ca")
        self._revoked = revoked

    def serial_of(self, pem: bytes) -> int | None:
        """The number of a certificate of this authority; None for a bare key, and for what another one has signed."""
        if not is_certificate(pem):
            return None
        found = certificate(pem)
        try:
            found.verify_directly_issued_by(self._certificate)
        except (ValueError, TypeError, InvalidSignature):
            return None
        return found.serial_number

    def has_revoked(self, serial: int | None) -> bool:
        """Whether a certificate with this number is on the list; a key without one cannot be."""
        return serial in self._revoked

    def refusal(self, credential: Credential, now: datetime) -> str:
        """Why a certificate that was believed is not believed now; "" where it is."""
        if credential.serial in self._revoked:
            return "its certificate is revoked"
        if now < credential.since:
            return f"its certificate is valid from {credential.since:%Y-%m-%d %H:%M} UTC: is the clock right?"
        return f"its certificate ended at {credential.until:%Y-%m-%d %H:%M} UTC" if now > credential.until else ""

    def credential(self, node: str, der: bytes) -> Credential:
        """What a certificate says of a node, whenever it is valid. Raises ConfigError with the reason why it is not believed."""
        try:
            certificate = x509.load_der_x509_certificate(der)
            certificate.verify_directly_issued_by(self._certificate)
            names = [name.value for name in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
            key = certificate.public_key()
            since, until = certificate.not_valid_before_utc, certificate.not_valid_after_utc
            signs = _is_for_signatures(certificate)
            whole = der.endswith(b"\0" + certificate.signature)  # else bits of it are said to be unused, and it has two forms
        except InvalidSignature as error:
            raise ConfigError("its certificate is not signed by the authority in security.ca") from error
        except Exception as error:  # what is wrong with a certificate has no common base there, and anybody may show one
            raise ConfigError(f"its certificate cannot be read, or is of another authority: {error}") from error
        if not whole:
            raise ConfigError("its certificate is not the one that was issued: its signature has unused bits")
        if names != [node]:
            raise ConfigError(f"its certificate is of {', '.join(map(str, names)) or 'nobody'}, not of {node}")
        if not isinstance(key, Ed25519PublicKey):
            raise ConfigError("its certificate is not of an Ed25519 key")
        if not signs:
            raise ConfigError("its certificate is not for signatures (extended key usage without codeSigning)")
        return Credential(key, certificate.serial_number, since, until, der)


class Credentials:
    """The nodes that have shown a certificate: see `edgemw.wire.signed.Senders`."""

    def __init__(self, authority: Authority, clock: Callable[[], float]) -> None:
        """Begin without any; `clock` gives seconds since 1970 UTC, because certificates end by the calendar."""
        self._authority, self._clock = authority, clock
        self._known: dict[str, tuple[Credential, ...]] = {}  # the one that has verified last is the first

    def learn(self, node: str, credential: bytes) -> str:
        """Take what a node shows; gives why it is not believed, or ""."""
        known = self._known.get(node, ())
        same = next((each for each in known if each.der == credential), None)
        if same is not None:
            return self._authority.refusal(same, self._now())
        if not credential:
            return NO_CREDENTIAL
        try:
            shown = self._authority.credential(node, credential)
        except ConfigError as error:
            return error.reason
        refusal = self._authority.refusal(shown, self._now())
        if refusal:
            return refusal
        if not known and len(self._known) >= MAX_NODES:
            return f"{MAX_NODES} nodes are known already"
        known = tuple(each for each in known if not self._authority.refusal(each, self._now()))
        self._known[node] = (*known[:1], shown, *known[1:])[:MAX_EACH]
        return ""

    def credential(self, node: str) -> bytes:
        """The certificate of a node by which its last text was believed, DER; empty where there is none."""
        known = self._known.get(node)
        return known[0].der if known else b""

    def refusal(self, node: str, text: bytes, signature: bytes) -> str:
        """Why a text is not believed to be of a node; "" where it is."""
        if not signature:
            return UNSIGNED
        known, now = self._known.get(node), self._now()
        if not known:
            return NO_CREDENTIAL
        here = [each for each in known if not self._authority.refusal(each, now)]
        if not here:
            return self._authority.refusal(known[0], now)
        found = next((each for each in here if verifies(each.key, text, signature)), None)
        if found is None:
            return FORGED
        if found is not known[0]:
            self._known[node] = (found, *(each for each in known if each is not found))
        return ""

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)


@dataclass(frozen=True, slots=True)
class CertifiedKeys:
    """Public keys, less those whose certificate is revoked: see `edgemw.wire.signed.ReleaseKeys`.

    Attributes:
        keys: each with the number of its certificate; None where it has none of this authority, and cannot be revoked.
    """

    authority: Authority
    keys: tuple[tuple[Ed25519PublicKey, int | None], ...]

    def signed(self, text: bytes, signature: bytes) -> bool:
        """Whether one of them that is not revoked now has signed a text."""
        return any(not self.authority.has_revoked(serial) and verifies(key, text, signature) for key, serial in self.keys)


def proven_by(known: Authority) -> Callable[[str, bytes, bytes, bytes], bool]:
    """Whether a node, by a certificate of an authority, has signed a text: node, certificate as DER, text, signature.

    When the certificate ends, or ended, does not matter: this looks at what was taken while it was believed.
    """
    seen: dict[tuple[str, bytes], Ed25519PublicKey | None] = {}

    def proven(node: str, der: bytes, text: bytes, signature: bytes) -> bool:
        if (node, der) not in seen:
            try:
                seen[node, der] = known.credential(node, der).key
            except ConfigError:
                seen[node, der] = None
        key = seen[node, der]
        return key is not None and bool(signature) and verifies(key, text, signature)

    return proven


def authority(pem: bytes) -> Authority:
    """The authority of a PEM certificate. Raises ConfigError."""
    return Authority(certificate(pem))


def certificate(pem: bytes) -> x509.Certificate:
    """A certificate in PEM. Raises ConfigError for anything else."""
    try:
        return x509.load_pem_x509_certificate(pem)
    except Exception as error:  # as above
        raise ConfigError(f"is not a certificate in PEM: {error}") from error


def revocations(pem: bytes) -> x509.CertificateRevocationList:
    """A list of revoked certificates in PEM. Raises ConfigError for anything else."""
    try:
        return x509.load_pem_x509_crl(pem)
    except Exception as error:  # as above
        raise ConfigError(f"is not a certificate revocation list in PEM: {error}") from error


def der_of(found: x509.Certificate) -> bytes:
    """The certificate as it travels."""
    return found.public_bytes(Encoding.DER)


def names_of(found: x509.Certificate) -> Iterable[str]:
    """The common names in a certificate."""
    return [str(name.value) for name in found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]


def _is_for_signatures(found: x509.Certificate) -> bool:
    try:
        uses = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return ExtendedKeyUsageOID.CODE_SIGNING in uses


def _is_authority(found: x509.Certificate) -> bool:
    try:
        return found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False
