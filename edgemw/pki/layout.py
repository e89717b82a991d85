"""Where an authority keeps what, and how its files are written: whole or not at all, keys for their owner alone.

    DIR/ca.pem ca.key            the authority: its certificate, and the key that must never leave this machine
    DIR/crl.pem                  what it has revoked: for brokers
    DIR/issued.json              what it has issued
    DIR/broker/...               ca.pem cert.pem key.pem: what is copied to a broker, with crl.pem
    DIR/nodes/NAME/...           what is copied to a node, and nothing else: ca.pem cert.pem key.pem sign.pem sign.key, a copy of
                                 crl.pem, and release.pem, the certificate whose releases (at the top: whose proposals) it takes

No name here needs `cryptography`: whoever only says where files are does not load it.
"""

from __future__ import annotations

import os
from pathlib import Path

from edgemw.core.errors import EdgeError

AUTHORITY, AUTHORITY_KEY, REVOKED, INDEX = "ca.pem", "ca.key", "crl.pem", "issued.json"
BROKER, NODES = "broker", "nodes"
CERTIFICATE, KEY, SIGN_CERTIFICATE, SIGN_KEY = "cert.pem", "key.pem", "sign.pem", "sign.key"
RELEASE = "release.pem"
AUTHOR = "author"
"""The user who proposes bundles to the top."""


def node_folder(folder: Path, node: str) -> Path:
    """What is copied to a node."""
    return folder / NODES / node


def make_folder(path: Path) -> None:
    """A folder for its owner alone; one that is there stays as it is. Raises EdgeError."""
    try:
        path.mkdir(parents=True, mode=0o700, exist_ok=True)
    except OSError as error:
        raise EdgeError(f"{path}: {error.strerror or error}") from error


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner may read."""
    _write(path, data, 0o600)


def write_public(path: Path, data: bytes) -> None:
    """Write a file that holds no secret."""
    _write(path, data, 0o644)


def _write(path: Path, data: bytes, mode: int) -> None:
    """Whole or not at all, also where the power fails; never readable by more than its mode says. Raises EdgeError."""
    temporary = path.with_name(f".{path.name}.new")
    try:
        temporary.unlink(missing_ok=True)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        with os.fdopen(handle, "wb") as stream:
            os.fchmod(stream.fileno(), mode)  # whatever the umask takes away
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        raise EdgeError(f"{path}: {error.strerror or error}") from error
