"""What a node signs with and whom it believes, out of the files that [security] names."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from edgemw.app.secrets import is_here, reveal, secret_warnings
from edgemw.app.sections import Security
from edgemw.app.settings import DeviceFile, FogFile
from edgemw.core.config.secret import Secret
from edgemw.core.errors import ConfigError
from edgemw.wire.messages import MAX_CREDENTIAL_BYTES
from edgemw.wire.signed import ANYBODY, ReleaseKeys, Trust

if TYPE_CHECKING:
    from edgemw.trust.credentials import Authority
    from edgemw.trust.keys import Key

MAX_FILE_BYTES = 1 << 24  # of a revocation list; others are smaller

T = TypeVar("T")
Role = Literal["top", "fog", "device"]


def trust_of(security: Security, node: str, role: Role, env: Mapping[str, str]) -> Trust:
    """What a node signs with and whom it believes.

    Raises:
        ConfigError: a file is missing or is not what it should be, with the key that names it; `cryptography` is not installed.
    """
    if security == Security():
        return ANYBODY
    authority = _authority(security)
    key = _own_key(security, node, authority, env)
    releases = _release_keys(security, authority, own=role == "top" and key is not None)
    if authority is None:
        return Trust(key, None, releases)
    from edgemw.trust.credentials import Credentials, revocations

    senders = Credentials(authority, time.time) if role != "device" else None  # nobody is below a device
    return Trust(key, senders, releases, lambda pem: authority.revoke(revocations(pem)))


def revoked_keys(security: Security) -> tuple[str, ...]:
    """A sentence for each release key that is revoked: the node runs, and does not believe it. Raises ConfigError."""
    authority = _authority(security)
    if authority is None:
        return ()
    serials = {path: _read("release_key", path, authority.serial_of) for path in security.release_key}
    return tuple(
        f"security.release_key: {path} is revoked, and nothing that it signs is taken"
        for path, serial in serials.items()
        if authority.has_revoked(serial)
    )


def credential_of(security: Security) -> bytes:
    """The certificate that a node shows to its parent, DER; empty where it signs nothing. Raises ConfigError."""
    if security.certificate is None:
        return b""
    _need_cryptography()
    from edgemw.trust.credentials import certificate, der_of

    return der_of(_read("certificate", security.certificate, certificate))


def check_trust(security: Security, node: str, role: Role, env: Mapping[str, str]) -> tuple[str, ...]:
    """Refuse what [security] of a node says where its files are here and do not go together.

    Returns:
        A sentence for each that is not here, can be read by others, or is revoked.

    Raises:
        ConfigError: with the key.
    """
    named = [("certificate", security.certificate), ("ca", security.ca), ("crl", security.crl)]
    named += [("release_key", path) for path in security.release_key]
    missing = [f"security.{name}: there is no file {path}" for name, path in named if path is not None and not path.is_file()]
    secret = tuple(f"security.{problem}" for problem in secret_warnings(security, env))
    if not missing and (security.key is None or is_here(security.key, env)):
        trust_of(security, node, role, env)
    return (*missing, *secret, *(() if missing else revoked_keys(security)))


def is_among(secret: Secret, keys: Sequence[Path], env: Mapping[str, str]) -> bool:
    """Whether a private key is one of some public keys. Raises ConfigError where one of them is none."""
    _need_cryptography()
    from edgemw.trust.keys import public_key

    own = signer_in(secret, "security.key", env).public
    return any(_read("release_key", path, public_key) == own for path in keys)


def signer_in(secret: Secret, name: str, env: Mapping[str, str]) -> Key:
    """A private key; `name` is what said where it stands. Raises ConfigError where it is none, or is not there."""
    _need_cryptography()
    from edgemw.trust.keys import private_key

    try:
        return private_key(reveal(secret, env).encode())
    except ConfigError as error:
        raise ConfigError(error.reason, key=name) from error


def role_of(settings: DeviceFile | FogFile) -> Role:
    """What a node is in the tree."""
    return "device" if isinstance(settings, DeviceFile) else "top" if settings.is_top else "fog"


def _authority(security: Security) -> Authority | None:
    if security.ca is None:
        return None
    _need_cryptography()
    from edgemw.trust.credentials import authority, revocations

    found = _read("ca", security.ca, authority)
    if security.crl is not None:
        listed = _read("crl", security.crl, revocations)
        _refused_as("crl", security.crl, lambda: found.revoke(listed))
    return found


def _own_key(security: Security, node: str, authority: Authority | None, env: Mapping[str, str]) -> Key | None:
    """The key of this node, whose certificate is of it, says who it is, and is signed by the authority where there is one."""
    if security.key is None or security.certificate is None:
        return None
    _need_cryptography()
    from edgemw.trust.credentials import certificate, der_of, names_of

    key = signer_in(security.key, "security.key", env)
    path = security.certificate
    found = _read("certificate", path, certificate)
    if found.public_key() != key.public:
        raise ConfigError(f"{path} is not of the key in security.key", key="security.certificate")
    if [*names_of(found)] != [node]:
        raise ConfigError(f"{path} is of {', '.join(names_of(found)) or 'nobody'}, not of {node}", key="security.certificate")
    der = der_of(found)
    if len(der) > MAX_CREDENTIAL_BYTES:
        reason = f"{path} has {len(der)} bytes as DER, and at most {MAX_CREDENTIAL_BYTES} travel"
        raise ConfigError(reason, key="security.certificate")
    if authority is not None:
        _refused_as("certificate", path, lambda: authority.credential(node, der))
    return key


def _release_keys(security: Security, authority: Authority | None, *, own: bool) -> ReleaseKeys | None:
    """Keys that releases are signed by, or for a top bundles that are proposed: then its own is always one of them."""
    files = [("release_key", path) for path in security.release_key]
    if own and security.certificate is not None:
        files.append(("certificate", security.certificate))
    if not files:
        return None
    _need_cryptography()
    from edgemw.trust.keys import KeyRing, public_key

    if authority is None:
        return KeyRing(tuple(_read(name, path, public_key) for name, path in files))
    from edgemw.trust.credentials import CertifiedKeys

    return CertifiedKeys(
        authority, tuple((_read(name, path, public_key), _read(name, path, authority.serial_of)) for name, path in files)
    )


def _read(name: str, path: Path, parse: Callable[[bytes], T]) -> T:
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}", key=f"security.{name}") from error
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"{path} has more than {MAX_FILE_BYTES} bytes", key=f"security.{name}")
    return _refused_as(name, path, lambda: parse(data))


def _refused_as(name: str, path: Path, work: Callable[[], T]) -> T:
    """What comes of some work; where it refuses, the file and its key are named."""
    try:
        return work()
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.reason}", key=f"security.{name}") from error


def _need_cryptography() -> None:
    try:
        import cryptography  # noqa: F401  (only to say what is missing)
    except ModuleNotFoundError as error:
        raise ConfigError("signatures need cryptography: pip install 'edgemw[security]'", key="security") from error
