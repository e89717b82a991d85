"""`{node}` in the [broker] and [security] of a deployment file: one line gives every node an identity of its own."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

from edgemw.app.sections import Broker, Security, Tls
from edgemw.core.config.secret import Secret
from edgemw.core.errors import ConfigError
from edgemw.pki import layout

NODE = "{node}"
MONITOR, AUTHOR = "monitor", layout.AUTHOR
"""Users beside the nodes: who asks how everybody is, and who publishes tasks."""

SECURED = "mqtts://localhost:8883"
"""Where a broker with certificates is looked for when nobody says so: the port of `edgemw broker config`."""

TLS_FILES = {"ca": layout.AUTHORITY, "cert": layout.CERTIFICATE, "key": layout.KEY}
"""By the keys of [broker.tls]: what `edgemw pki` calls them."""

T = TypeVar("T")


def identity_files(pki: Path, node: str) -> dict[str, Path]:
    """What `edgemw pki` has made for somebody, by the keys of [broker.tls]."""
    folder = layout.node_folder(pki.absolute(), node)
    return {key: folder / name for key, name in TLS_FILES.items()}


def identity_settings(pki: Path) -> list[str]:
    """Settings, as KEY=VALUE, with which every node shows what `edgemw pki` has made for it, signs, and takes what is signed."""
    folder = layout.node_folder(pki.absolute(), NODE)
    said = {f"broker.tls.{key}": str(path) for key, path in identity_files(pki, NODE).items()}
    said |= {
        "security.key": f"{{ file = {json.dumps(str(folder / layout.SIGN_KEY))} }}",
        "security.certificate": str(folder / layout.SIGN_CERTIFICATE),
        "security.ca": str(folder / layout.AUTHORITY),
        "security.crl": str(folder / layout.REVOKED),
        "security.release_key": json.dumps([str(folder / layout.RELEASE)]),
    }
    return [f"{key}={value}" for key, value in said.items()]


def signing_key(pki: Path, user: str) -> Path:
    """What somebody signs with."""
    return layout.node_folder(pki.absolute(), user) / layout.SIGN_KEY


def for_node(table: T, node: str) -> T:
    """A section as a node, or another user, has it: its name in the place of every {node}, whatever table or list it is in."""
    named: T = _named(table, node)
    return named


def _named(value: Any, node: str) -> Any:
    match value:
        case str():
            return value.replace(NODE, node)
        case Path():
            return Path(str(value).replace(NODE, node))
        case Secret(file=str(file)):
            return replace(value, file=file.replace(NODE, node))
        case tuple():
            return tuple(_named(item, node) for item in value)
        case Broker() | Tls() | Security():
            return replace(value, **{spec.name: _named(getattr(value, spec.name), node) for spec in fields(value)})
        case _:
            return value


def names_nodes(broker: Broker) -> bool:
    """Whether each node connects as itself."""
    return bool(_places(broker))


def refuse_places(broker: Broker) -> None:
    """Refuse the place of a node where one node alone is meant.

    Raises:
        ConfigError: with the key that has it.
    """
    for key in _places(broker):
        raise ConfigError(
            f"{NODE} is for deployment files: this file is of one node, whose own file or name stands here", key=key
        )


def _places(broker: Broker) -> list[str]:
    texts = {f"tls.{name}": str(getattr(broker.tls, name) or "") for name in TLS_FILES}
    texts |= {"username": broker.username, "password": (broker.password and broker.password.file) or ""}
    return [f"broker.{key}" for key, text in texts.items() if NODE in text]
