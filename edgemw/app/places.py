"""`{node}` in the [broker] of a deployment file: one line gives every node an identity of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgemw.app.sections import Broker
from edgemw.core.errors import ConfigError
from edgemw.pki import layout

NODE = "{node}"
MONITOR, AUTHOR = "monitor", "author"
"""Users beside the nodes: who asks how everybody is, and who publishes tasks."""

SECURED = "mqtts://localhost:8883"
"""Where a broker with certificates is looked for when nobody says so: the port of `edgemw broker config`."""

_FILES = {"ca": layout.AUTHORITY, "cert": layout.CERTIFICATE, "key": layout.KEY}


def identity_files(pki: Path, node: str) -> dict[str, Path]:
    """What `edgemw pki` has made for somebody, by the keys of [broker.tls]."""
    folder = layout.node_folder(pki.absolute(), node)
    return {key: folder / name for key, name in _FILES.items()}


def identity_settings(pki: Path) -> list[str]:
    """Settings, as KEY=VALUE, with which every node shows what `edgemw pki` has made for it."""
    return [f"broker.tls.{key}={path}" for key, path in identity_files(pki, NODE).items()]


def for_node(broker: Broker, node: str) -> Broker:
    """The same with the id of a node, or another user's name, in every place that says {node}."""
    files = {name: path and Path(str(path).replace(NODE, node)) for name in _FILES if (path := getattr(broker.tls, name))}
    password = broker.password
    if password is not None and password.file is not None:
        password = replace(password, file=password.file.replace(NODE, node))
    username = broker.username.replace(NODE, node)
    return replace(broker, tls=replace(broker.tls, **files), password=password, username=username)


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
    texts = {f"tls.{name}": str(getattr(broker.tls, name) or "") for name in _FILES}
    texts |= {"username": broker.username, "password": (broker.password and broker.password.file) or ""}
    return [f"broker.{key}" for key, text in texts.items() if NODE in text]
