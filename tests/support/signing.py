"""An authority, keys and certificates of nodes for a test, in memory or as files."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from edgemw.trust.credentials import Authority, Credentials, der_of
from edgemw.trust.keys import Key, KeyRing
from edgemw.wire.signed import Trust

NOW = datetime(2030, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


class Office:
    """An authority that issues certificates, and revokes them."""

    def __init__(self, name: str = "test authority", *, at: datetime = NOW) -> None:
        self.key, self.at = ec.generate_private_key(ec.SECP256R1()), at
        self.certificate = self._signed(_name(name), _name(name), self.key.public_key(), at - DAY, at + 30 * DAY, ca=True)
        self.keys: dict[str, Key] = {}
        self.certificates: dict[str, x509.Certificate] = {}
        self._revoked: list[x509.RevokedCertificate] = []

    def issue(
        self,
        node: str,
        *,
        since: timedelta = -DAY,
        until: timedelta = DAY,
        curve: bool = False,
        uses: tuple[x509.ObjectIdentifier, ...] = (),
    ) -> x509.Certificate:
        """A new key of a node, and its certificate; with `curve` it is of another kind than nodes sign with."""
        key = Ed25519PrivateKey.generate()
        self.keys[node] = Key(key)
        public = ec.generate_private_key(ec.SECP256R1()).public_key() if curve else key.public_key()
        issuer = self.certificate.subject
        self.certificates[node] = self._signed(_name(node), issuer, public, self.at + since, self.at + until, uses, ca=False)
        return self.certificates[node]

    def der(self, node: str) -> bytes:
        """The certificate of a node as it travels; made where there is none yet."""
        if node not in self.certificates:
            self.issue(node)
        return der_of(self.certificates[node])

    def revoke(self, node: str) -> x509.CertificateRevocationList:
        """The list, with this node on it."""
        serial = self.certificates[node].serial_number
        self._revoked.append(x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(self.at - DAY).build())
        return self.revoked()

    def revoked(self) -> x509.CertificateRevocationList:
        """The list."""
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.certificate.subject)
        builder = builder.last_update(self.at - DAY).next_update(self.at + 30 * DAY)
        for entry in self._revoked:
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(self.key, SHA256())

    def authority(self) -> Authority:
        """As a fog node knows it."""
        return Authority(self.certificate)

    def senders(self) -> Credentials:
        """What a fog node knows at first: the authority, at the time of this office, and nobody."""
        return Credentials(self.authority(), self.at.timestamp)

    def trust(self, node: str, *, top: str = "", fog: bool = False) -> Trust:
        """What a node signs with, and whose updates and releases it takes."""
        self.der(node)
        releases = None
        if top:
            self.der(top)
            releases = KeyRing((self.keys[top].public,))
        return Trust(self.keys[node], self.senders() if fog else None, releases)

    def write(self, folder: Path, nodes: Iterable[str]) -> None:
        """The files that `[security]` of these nodes names: ca.pem, crl.pem, nodes/NAME/sign.key and sign.pem."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "ca.pem").write_bytes(self.certificate.public_bytes(Encoding.PEM))
        (folder / "crl.pem").write_bytes(self.revoked().public_bytes(Encoding.PEM))
        for node in nodes:
            self.der(node)
            own = folder / "nodes" / node
            own.mkdir(parents=True, exist_ok=True)
            pem = self.keys[node].private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            (own / "sign.key").touch(mode=0o600)
            (own / "sign.key").write_bytes(pem)
            (own / "sign.pem").write_bytes(self.certificates[node].public_bytes(Encoding.PEM))

    def _signed(
        self,
        subject: x509.Name,
        issuer: x509.Name,
        key: CertificatePublicKeyTypes,
        since: datetime,
        until: datetime,
        uses: tuple[x509.ObjectIdentifier, ...] = (),
        *,
        ca: bool,
    ) -> x509.Certificate:
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(since).not_valid_after(until)
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        if uses:
            builder = builder.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        return builder.sign(self.key, SHA256())


@cache
def office() -> Office:
    """One that tests share who change nothing about it."""
    return Office()
