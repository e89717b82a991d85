"""The files of a broker for one deployment.

They are those of brokers/NAME, line by line, but for where it listens and how many may connect; rules and certificates are
its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgemw.app import rule_languages
from edgemw.app.places import SECURED
from edgemw.app.rules import SHIPPED, Rules
from edgemw.app.settings import EMBEDDED, Deployment
from edgemw.core.errors import ConfigError
from edgemw.pki import layout
from edgemw.pki.issued import read_index
from edgemw.transport.addresses import broker_addresses

CONNECTIONS = 5000
"""What the files of brokers/ allow."""
_EVERY = "0.0.0.0"  # noqa: S104  # a broker is there to be reached
_CERTIFICATES = {"ca.crt": layout.AUTHORITY, "server.crt": layout.CERTIFICATE, "server.key": layout.KEY}


@dataclass(frozen=True, slots=True)
class Listener:
    """Where a broker is reached: `address` of its machine, "" for every one of them."""

    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Kind:
    """A program.

    Attributes:
        configuration: its files, each with the name that it has under `brokers/`.
        acl: the file of rules.
        rules: writes it.
        listens: the line that says where it listens, as it is shipped, and as it becomes.
        connections: the line that bounds connections, as it is shipped; "" where there is none.
        revokes: whether it reads a list of revoked certificates.
        folders: that it wants to find.
    """

    configuration: Mapping[str, str]
    acl: str
    rules: Callable[[Rules, str], str]
    listens: tuple[str, Callable[[Listener], str]]
    connections: str
    revokes: bool
    folders: tuple[str, ...] = ()


KINDS: Mapping[str, Kind] = {
    "mosquitto": Kind(
        {"mosquitto.conf": "mosquitto/mosquitto.conf", "conf.d/listener.conf": "mosquitto/tls/listener.conf"},
        "acl",
        rule_languages.mosquitto,
        ("listener 8883", lambda at: f"listener {at.port} {at.address}".rstrip()),
        "max_connections 5000",
        True,
        ("conf.d", "state"),
    ),
    "emqx": Kind(
        {"base.hocon": "emqx/base.hocon"},
        "acl.conf",
        rule_languages.emqx,
        (f'  bind = "{_EVERY}:8883"', lambda at: f'  bind = "{at.address or _EVERY}:{at.port}"'),
        "  max_connections = 5000",
        False,
    ),
    "nanomq": Kind(
        {"nanomq.conf": "nanomq/nanomq.conf"},
        "acl.conf",
        rule_languages.nanomq,
        (f'  bind = "{_EVERY}:8883"', lambda at: f'  bind = "{at.address or _EVERY}:{at.port}"'),
        "",
        False,
    ),
}


def broker_files(kind: Kind, rules: Rules, made: str, at: Listener) -> Iterator[tuple[str, bytes]]:
    """The files of a broker by their name in its folder, without certificates.

    Args:
        kind: of broker.
        rules: who may do what.
        made: what these files say of themselves.
        at: where it listens.

    Raises:
        ConfigError: edgemw was installed without the files of brokers/.
    """
    needed = max(CONNECTIONS, 2 * len(rules.users))  # a node, and its prediction service or somebody who looks
    changes = {kind.listens[0]: kind.listens[1](at), kind.connections: kind.connections.replace(str(CONNECTIONS), str(needed))}
    for name, shipped in kind.configuration.items():
        lines = (changes.get(line, line) for line in _shipped(shipped).splitlines())
        yield name, "\n".join([*lines, ""]).encode()
    yield kind.acl, kind.rules(rules, made).encode()


def certificates(kind: Kind, pki: Path) -> Iterator[tuple[str, bytes]]:
    """What a broker shows, and whom it believes. Raises ConfigError where `edgemw pki` has not made it."""
    for name, source in _CERTIFICATES.items():
        yield name, _read(pki / layout.BROKER / source, "edgemw pki issue DIR --broker --host NAME")
    if kind.revokes:
        yield layout.REVOKED, _read(pki / layout.REVOKED, "edgemw pki init DIR")


def without_revoked(rules: Rules, pki: Path) -> Rules:
    """The rules without those who are revoked: a broker looks at its list when somebody connects, at its rules all the time."""
    last = {each.name: each for each in read_index(pki / layout.INDEX).certificates if each.kind == "node"}
    kept = {name: rights for name, rights in rules.users.items() if name not in last or last[name].revoked is None}
    return Rules(rules.everybody, kept)


def write_files(kind: Kind, out: Path, files: Sequence[tuple[str, bytes]]) -> list[Path]:
    """Write them, all but keys and rules for everybody to read; what was there is replaced.

    Where root writes, they belong to whoever has the folder, so that a broker that runs as its own user can read them again.

    Raises:
        EdgeError: a file cannot be written.
    """
    folders = [out, *(out / name for name in kind.folders)]
    new = [folder for folder in folders if not folder.exists()]
    for folder in folders:
        layout.make_folder(folder)
    for name, data in files:
        write = layout.write_private if name.endswith((".key", "acl", "acl.conf")) else layout.write_public
        write(out / name, data)
    if os.geteuid() == 0:
        owner = out.stat()
        for path in (*new, *(out / name for name, _ in files)):
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
    return [out / name for name, _ in files]


def port_of(settings: Deployment) -> int:
    """Where the deployment's nodes look for their broker, if its file says so."""
    url = settings.broker.url
    return broker_addresses(url if url.startswith("mqtts://") else SECURED)[0].port


def check_hosts(settings: Deployment, pki: Path) -> None:
    """Refuse a certificate of the broker that says another name than that by which nodes reach it. Raises ConfigError."""
    if settings.broker.url == EMBEDDED:
        return
    made = [each.hosts for each in read_index(pki / layout.INDEX).certificates if each.kind == "broker" and each.revoked is None]
    for address in broker_addresses(settings.broker.url) if made else ():
        if address.host not in made[-1]:
            said = f"the broker's certificate in {pki / layout.BROKER} is for {', '.join(made[-1])}, and not for {address.host}"
            raise ConfigError(f"{said}: edgemw pki issue {pki} --broker --host {address.host} --renew", key="broker.url")


def _shipped(name: str) -> str:
    path = SHIPPED / name
    try:
        return path.read_text()
    except OSError as error:
        raise ConfigError(
            f"{error.strerror or error}: edgemw was installed without its folder brokers/", file=str(path)
        ) from error


def _read(path: Path, command: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{error.strerror or error}: {command} makes it", file=str(path)) from error
