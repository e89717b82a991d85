"""Whether every node of a deployment has the files that it is to connect with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path

from edgemw.app.deployment import members
from edgemw.app.places import MONITOR, TLS_FILES, for_node, names_nodes
from edgemw.app.settings import Broker, Deployment
from edgemw.core.errors import ConfigError


def own_files(settings: Deployment) -> Mapping[str, list[Path]]:
    """The files of every node by the key that names them with {node}, and those of who watches; none where no key does."""
    found = defaultdict[str, list[Path]](list)
    if names_nodes(settings.broker):
        _add(found, "broker", settings.broker, [MONITOR])
    for member in members(settings):
        broker = settings.tiers[member.tier].broker
        if names_nodes(broker):
            _add(found, "broker" if broker == settings.broker else f"tiers.{member.tier}.broker", broker, [member.id])
    return found


def missing(settings: Deployment) -> Iterator[tuple[str, str]]:
    """Keys, and which files are not there that they name."""
    for key, paths in own_files(settings).items():
        absent = [path for path in paths if not path.is_file()]
        if absent:
            more = f", nor {len(absent) - 1} others" if len(absent) > 1 else ""
            yield key, f"there is no file {absent[0]}{more}"


def check_identities(settings: Deployment) -> None:
    """Refuse a deployment in which a node could not connect. Raises ConfigError."""
    for key, reason in missing(settings):
        raise ConfigError(f"{reason}: `edgemw pki issue DIR --for FILE` makes them", key=key)


def certificate_problem(path: Path, node: str, now: datetime) -> str:
    """What is wrong with the certificate that a node would show to a broker; empty where nothing is seen to be.

    Without `cryptography` nothing is looked at, and a file that holds no certificate is left to whoever loads it.
    """
    if find_spec("cryptography") is None or not path.is_file():
        return ""
    from edgemw.trust.credentials import certificate, names_of

    try:
        found = certificate(path.read_bytes())
    except (ConfigError, OSError):
        return ""
    names = list(names_of(found))
    if node not in names:
        named = " and ".join(map(repr, names)) or "nobody"
        return f"is of {named}, not of {node!r}: rules by name (`edgemw broker config`) let it write as that alone"
    if not found.not_valid_before_utc <= now <= found.not_valid_after_utc:
        since, until = found.not_valid_before_utc, found.not_valid_after_utc
        return f"is valid from {since:%Y-%m-%d} to {until:%Y-%m-%d} alone: `edgemw pki issue --renew` makes another"
    return ""


def _add(found: defaultdict[str, list[Path]], key: str, broker: Broker, nodes: Iterable[str]) -> None:
    for node in nodes:
        tls = for_node(broker, node).tls
        for name in TLS_FILES:
            path, said = getattr(tls, name), getattr(broker.tls, name)
            if path is not None and path != said:
                found[f"{key}.tls.{name}"].append(path)
