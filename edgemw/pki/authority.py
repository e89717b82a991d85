"""A small certificate authority in a folder: for fleets that have none. `layout.py` says which files it keeps.

What is issued is on the list before it is in anybody's hands, so that there is nothing that could not be revoked.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edgemw.core.config.words import nearest
from edgemw.core.errors import ConfigError, EdgeError
from edgemw.pki import layout
from edgemw.pki.certificates import (
    AUTHORITY_DAYS,
    Pair,
    PrivateKey,
    Signer,
    broker_pair,
    new_authority,
    node_pair,
    revocation_list,
    signing_pair,
)
from edgemw.pki.issued import Index, Issued, Kind, index_bytes, read_index

MAX_PEM_BYTES = 1 << 16
MAX_LIST_BYTES = 1 << 24
COMMON_NAME = "edgemw authority"
BROKER_NAME = "broker"


def init(folder: Path, passphrase: str | None, now: datetime.datetime, days: int = AUTHORITY_DAYS) -> None:
    """Make an authority, and its first, empty list of what is revoked.

    Raises:
        ConfigError: there is one already.
        EdgeError: a file cannot be written.
    """
    names = (layout.AUTHORITY, layout.AUTHORITY_KEY, layout.INDEX)
    there = [folder / name for name in names if (folder / name).exists()]
    if len(there) == len(names):
        reason = "there is an authority already, and every certificate of it would be worth nothing"
        raise ConfigError(f"{reason}: `edgemw pki issue` makes more of them", file=str(there[0]))
    if there:
        reason = "there is a part of an authority, one that was not finished or has lost files"
        raise ConfigError(f"{reason}: put them back, or give another folder", file=str(there[0]))
    layout.make_folder(folder)
    signer = new_authority(COMMON_NAME, now, days)
    layout.write_private(folder / layout.AUTHORITY_KEY, _key_pem(signer.key, passphrase))
    _write_list(folder, signer, Index(), now)
    layout.write_public(folder / layout.AUTHORITY, _pem(signer.certificate))


class Authority:
    """An authority whose key was opened; from `opened`, which keeps every other command out of its folder meanwhile."""

    def __init__(self, folder: Path, signer: Signer, index: Index) -> None:
        self._folder, self._signer, self._index = folder, signer, index

    def issue_nodes(self, nodes: Sequence[str], now: datetime.datetime, days: int, *, renew: bool = False) -> None:
        """Give each of some nodes a certificate for TLS and one for signatures, with new keys.

        Raises:
            ConfigError: one of them has keys, or is revoked, and they are not to be renewed; then nothing is issued.
            EdgeError: a file cannot be written.
        """
        if not renew:
            for node in nodes:
                self._refuse_again(node, now)
        pairs = [
            (node, node_pair(self._signer, node, now, days), signing_pair(self._signer, node, now, days))
            for node in dict.fromkeys(nodes)
        ]
        self._note([each for node, tls, sign in pairs for each in (_issued(node, "node", tls), _issued(node, "sign", sign))], now)
        for node, tls, sign in pairs:
            folder = layout.node_folder(self._folder, node)
            self._hand_over(folder, tls, (layout.KEY, layout.CERTIFICATE))
            self._hand_over(folder, sign, (layout.SIGN_KEY, layout.SIGN_CERTIFICATE))

    def issue_broker(self, hosts: Sequence[str], now: datetime.datetime, days: int, *, renew: bool = False) -> None:
        """Give the broker a certificate for the names and addresses by which nodes reach it.

        Raises:
            ConfigError: it has one, and that is not to be renewed.
            EdgeError: a file cannot be written.
        """
        folder = self._folder / layout.BROKER
        if not renew and (folder / layout.KEY).exists():
            raise ConfigError("there is one already: --renew makes another key", file=str(folder / layout.KEY))
        pair = broker_pair(self._signer, BROKER_NAME, hosts, now, days)
        self._note([replace(_issued(BROKER_NAME, "broker", pair), hosts=tuple(hosts))], now)
        self._hand_over(folder, pair, (layout.KEY, layout.CERTIFICATE))

    def revoke(self, names: Sequence[str], now: datetime.datetime) -> None:
        """Put every certificate that somebody was ever given on the list of what is revoked.

        Raises:
            ConfigError: one of them has none that holds; then nobody's are revoked.
            EdgeError: a file cannot be written.
        """
        known = {each.name: each.holds(now) for each in sorted(self._index.certificates, key=lambda each: each.holds(now))}
        for name in names:
            if not known.get(name, False):
                reason = f"{name!r} has no certificate that holds" if name in known else f"nothing was issued to {name!r}"
                raise ConfigError(reason, file=str(self._folder), suggestion=None if name in known else nearest(name, [*known]))
        rows = (
            replace(each, revoked=now) if each.name in names and each.revoked is None else each
            for each in self._index.certificates
        )
        self._save(replace(self._index, certificates=tuple(rows)), now)

    def has_keys(self, node: str) -> bool:
        """Whether a node was given keys that lie here."""
        return (layout.node_folder(self._folder, node) / layout.KEY).exists()

    def know_top(self, top: str) -> None:
        """Say which node signs releases. Raises EdgeError where the file cannot be written."""
        self._index = replace(self._index, top=top)
        layout.write_private(self._folder / layout.INDEX, index_bytes(self._index))

    def refresh(self) -> list[str]:
        """Copy the list, and the certificate that releases are signed by, into each node's folder; the names whose files changed.

        Raises:
            EdgeError: a file cannot be written.
        """
        folders = sorted(path for path in (self._folder / layout.NODES).glob("*") if path.is_dir())
        revoked, top = _read(self._folder / layout.REVOKED, MAX_LIST_BYTES), self._index.top
        signs = {name: layout.node_folder(self._folder, name) / layout.SIGN_CERTIFICATE for name in (top, layout.AUTHOR) if name}
        keys = {name: _read(path) for name, path in signs.items() if path.is_file()}
        changed = []
        for folder in folders:
            files = {layout.REVOKED: revoked}
            if top and (key := keys.get(layout.AUTHOR if folder.name == top else top)) is not None:
                files[layout.RELEASE] = key
            new = {name: data for name, data in files.items() if not _holds(folder / name, data)}
            for name, data in new.items():
                layout.write_public(folder / name, data)
            if new:
                changed.append(folder.name)
        return changed

    def is_revoked(self, node: str) -> bool:
        """Whether what a node was given last is revoked."""
        last = self._last(node)
        return last is not None and last.revoked is not None

    def has_release(self, node: str) -> bool:
        """Whether a node's folder says whose releases it takes."""
        return (layout.node_folder(self._folder, node) / layout.RELEASE).exists()

    def _last(self, node: str) -> Issued | None:
        return next((each for each in reversed(self._index.certificates) if each.name == node and each.kind == "node"), None)

    def _refuse_again(self, node: str, now: datetime.datetime) -> None:
        last = self._last(node)
        if last is not None and last.revoked is not None:
            raise ConfigError(f"{node} is revoked: --renew lets it in again, with new keys", file=str(self._folder))
        if self.has_keys(node):
            until = f", until {last.until:%Y-%m-%d}" if last is not None and last.holds(now) else ""
            path = layout.node_folder(self._folder, node) / layout.KEY
            raise ConfigError(f"{node} has keys{until}: --renew makes others", file=str(path))

    def _hand_over(self, folder: Path, pair: Pair, names: tuple[str, str]) -> None:
        layout.make_folder(folder)
        key, certificate = (folder / name for name in names)
        layout.write_private(key, _key_pem(pair.key, None))
        layout.write_public(certificate, _pem(pair.certificate))
        layout.write_public(folder / layout.AUTHORITY, _pem(self._signer.certificate))

    def _note(self, rows: list[Issued], now: datetime.datetime) -> None:
        """Keep what will be handed out; the oldest that have ended are forgotten, for they open nothing."""
        kept = [each for each in self._index.certificates if now < each.until]
        self._index = replace(self._index, certificates=(*kept, *rows))
        layout.write_private(self._folder / layout.INDEX, index_bytes(self._index))

    def _save(self, index: Index, now: datetime.datetime) -> None:
        self._index = _write_list(self._folder, self._signer, index, now)


@contextlib.contextmanager
def opened(folder: Path, passphrase: str | None) -> Iterator[Authority]:
    """The authority of a folder, for as long as nobody else works with it.

    Raises:
        ConfigError: there is none, its passphrase is wrong or missing, or a file is damaged.
        EdgeError: another command is at work there.
    """
    index = read_index(folder / layout.INDEX)
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise EdgeError(f"{folder}: {error.strerror or error}") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise EdgeError(f"{folder}: another `edgemw pki` is at work here") from error
        index = read_index(folder / layout.INDEX)  # again, now that it stays as it is
        yield Authority(folder, _signer(folder, passphrase), index)
    finally:
        os.close(handle)


def _signer(folder: Path, passphrase: str | None) -> Signer:
    path = folder / layout.AUTHORITY_KEY
    data = _read(path)
    try:
        key = serialization.load_pem_private_key(data, None if passphrase is None else passphrase.encode())
    except TypeError as error:
        if passphrase is None:
            raise ConfigError(
                "is closed with a passphrase: say where it stands with --passphrase-file or --passphrase-env", file=str(path)
            ) from error
        raise ConfigError("is not closed with a passphrase, and one was given", file=str(path)) from error
    except ValueError as error:
        reason = "is not the key of an authority" if passphrase is None else "the passphrase is wrong, or this is no key"
        raise ConfigError(reason, file=str(path)) from error
    try:
        certificate = x509.load_pem_x509_certificate(_read(folder / layout.AUTHORITY))
    except ValueError as error:
        raise ConfigError("is not a certificate", file=str(folder / layout.AUTHORITY)) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise ConfigError(f"is not the key of {layout.AUTHORITY} beside it", file=str(path))
    return Signer(key, certificate)


def _holds(path: Path, data: bytes) -> bool:
    return path.is_file() and path.read_bytes() == data


def _read(path: Path, limit: int = MAX_PEM_BYTES) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(limit)
    except OSError as error:
        hint = "; is the authority's key kept elsewhere?" if path.name == layout.AUTHORITY_KEY else ""
        raise ConfigError(f"cannot be read: {error.strerror or error}{hint}", file=str(path)) from error


def _write_list(folder: Path, signer: Signer, index: Index, now: datetime.datetime) -> Index:
    """Write the index and then the list that follows from it; what was written."""
    index = replace(index, lists=index.lists + 1)
    revoked = ((each.serial, each.revoked) for each in index.certificates if each.revoked is not None)
    made = revocation_list(signer, revoked, index.lists, now)
    layout.write_private(folder / layout.INDEX, index_bytes(index))
    layout.write_public(folder / layout.REVOKED, made.public_bytes(serialization.Encoding.PEM))
    return index


def _issued(name: str, kind: Kind, pair: Pair) -> Issued:
    certificate = pair.certificate
    return Issued(name=name, kind=kind, serial=certificate.serial_number, until=certificate.not_valid_after_utc)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: PrivateKey, passphrase: str | None) -> bytes:
    closed: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None:
        closed = serialization.BestAvailableEncryption(passphrase.encode())
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, closed)
