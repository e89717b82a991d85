"""What an authority signs: its own certificate, those of nodes and brokers, and the list of what it has revoked (RFC 5280).

Values in, values out: no file is opened here, and the time is an argument. Keys for TLS are on the P-256 curve, which every TLS
library has; a node's signing key is Ed25519 (RFC 8410). The common name is the node's id, and nothing else stands in a subject.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_DAYS = 3650
EARLIER = datetime.timedelta(days=1)
"""Certificates hold from a day before they are made: clocks of small machines are late after a start."""

Time = datetime.datetime
PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its private key."""

    key: PrivateKey
    certificate: x509.Certificate


@dataclass(frozen=True, slots=True)
class Signer:
    """The authority: what it signs with, and its own certificate."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


def new_authority(name: str, now: Time, days: int = AUTHORITY_DAYS) -> Signer:
    """An authority that signs its own certificate, and may sign certificates of nodes but none of further authorities."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(name)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - EARLIER)
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=False, authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return Signer(key, builder.sign(key, hashes.SHA256()))


def node_pair(by: Signer, node: str, now: Time, days: int) -> Pair:
    """What a node shows to its broker; good for nothing but a client of TLS."""
    return _signed(by, ec.generate_private_key(ec.SECP256R1()), node, (now, days), [ExtendedKeyUsageOID.CLIENT_AUTH])


def broker_pair(by: Signer, name: str, hosts: Iterable[str], now: Time, days: int) -> Pair:
    """What a broker shows to nodes that reach it as one of these names and addresses; it lets nobody in anywhere."""
    names = x509.SubjectAlternativeName([_host(host) for host in hosts])
    return _signed(by, ec.generate_private_key(ec.SECP256R1()), name, (now, days), [ExtendedKeyUsageOID.SERVER_AUTH], names)


def signing_pair(by: Signer, node: str, now: Time, days: int) -> Pair:
    """What a node signs its updates with; the critical use for signatures alone keeps it from letting anybody into a broker."""
    return _signed(by, ed25519.Ed25519PrivateKey.generate(), node, (now, days), [ExtendedKeyUsageOID.CODE_SIGNING], critical=True)


def revocation_list(by: Signer, revoked: Iterable[tuple[int, Time]], number: int, now: Time) -> x509.CertificateRevocationList:
    """The list of revoked serial numbers and when each was.

    It holds as long as the authority does: with an expired list mosquitto lets nobody in, and a later list replaces it anyway.
    """
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(by.certificate.subject)
        .last_update(now - EARLIER)
        .next_update(by.certificate.not_valid_after_utc)
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(_authority_key(by), critical=False)
    )
    for serial, when in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(when).build()
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(by.key, hashes.SHA256())


def is_address(host: str) -> bool:
    """Whether a host is an IP address, and not a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _signed(
    by: Signer,
    key: PrivateKey,
    name: str,
    valid: tuple[Time, int],
    uses: list[x509.ObjectIdentifier],
    names: x509.SubjectAlternativeName | None = None,
    *,
    critical: bool = False,
) -> Pair:
    """A certificate that ends with its authority at the latest."""
    now, days = valid
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(by.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(max(now - EARLIER, by.certificate.not_valid_before_utc))
        .not_valid_after(min(now + datetime.timedelta(days=days), by.certificate.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=True, authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=critical)
        .add_extension(_authority_key(by), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if names is not None:
        builder = builder.add_extension(names, critical=False)
    return Pair(key, builder.sign(by.key, hashes.SHA256()))


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _host(host: str) -> x509.GeneralName:
    return x509.IPAddress(ipaddress.ip_address(host)) if is_address(host) else x509.DNSName(host)


def _authority_key(by: Signer) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(by.key.public_key())


def _usage(*, signs: bool, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )
