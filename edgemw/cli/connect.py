"""How commands that talk to a running net find its broker: from a node's or deployment's file, or from flags."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from edgemw.app.checks import check_id, check_url
from edgemw.app.console import Console, open_console
from edgemw.app.places import MONITOR, SECURED, for_node, identity_files, names_nodes
from edgemw.app.settings import EMBEDDED, SCHEMAS, Broker, Deployment, DeviceFile, FogFile, Serving, kind_of, load_file, read_text
from edgemw.app.trust import signer_in
from edgemw.core.config.secret import Secret
from edgemw.core.errors import ConfigError
from edgemw.core.ids import valid_id
from edgemw.wire.signed import Signer

T = TypeVar("T")
_Settings = Deployment | DeviceFile | FogFile | None


def server_of(args: argparse.Namespace) -> tuple[Broker, str, str, Serving]:
    """The broker, the net, and the prediction service that the flags say: --node, or else the node of the file; and its settings.

    Raises:
        ConfigError: they do not say all of them, or one of them cannot be meant.
    """
    settings = _settings(args)
    return *_server(args, settings, args.node or _own_id(settings)), settings.serving if isinstance(
        settings, DeviceFile
    ) else Serving()


def asked_of(args: argparse.Namespace) -> tuple[Broker, str, str, str]:
    """As `server_of`, and who asks: --as, or the node of the file; "" where nobody is named."""
    settings = _settings(args)
    asker = args.asker or _own_id(settings)
    if args.asker and (problem := check_id(args.asker)):
        raise ConfigError(problem, key="--as")
    if args.pki is not None and not asker:
        raise ConfigError("is given without --as NAME: who of its users asks", key="--pki")
    return *_server(args, settings, asker or MONITOR), asker


def signer_of(key: Path | None, config: Path | None) -> Signer | None:
    """Who signs a proposal: the key of a flag, or else that of a node's file; None where there is none.

    Raises:
        ConfigError: there is no such key in it.
    """
    if key is not None:
        return signer_in(Secret(file=str(key.absolute()), beside="/"), "--sign", os.environ)
    settings = _settings_of(config)
    if settings is None or isinstance(settings, Deployment) or settings.security.key is None:
        return None
    return signer_in(settings.security.key, "security.key", os.environ)


def _server(args: argparse.Namespace, settings: _Settings, user: str) -> tuple[Broker, str, str]:
    node = args.node or _own_id(settings)
    if not node:
        raise ConfigError("say who answers: --node NAME, or --config FILE of a device")
    if problem := check_id(node):
        raise ConfigError(problem, key="--node")
    return *_connection(args, settings, user), node


def _own_id(settings: _Settings) -> str:
    """The node that a file is of; "" where there is none."""
    return "" if settings is None or isinstance(settings, Deployment) else settings.node.id


def _settings(args: argparse.Namespace) -> _Settings:
    return _settings_of(args.config, getattr(args, "overrides", ()))


def _settings_of(config: Path | None, overrides: Sequence[str] = ()) -> _Settings:
    if config is None:
        return None
    cls = SCHEMAS[kind_of(read_text(config), str(config))]
    return load_file(cls, config, env=os.environ, overrides=overrides).value


def _connection(args: argparse.Namespace, settings: _Settings, user: str) -> tuple[Broker, str]:
    """The broker and the net; where everybody has an identity, as this user."""
    broker, net = Broker(), None
    if settings is not None:
        broker = settings.broker
        net = settings.name if isinstance(settings, Deployment) else settings.net
    broker = _as_user(at_flag(broker, args.broker), getattr(args, "pki", None), user)
    net = args.net or net
    if net is None or (args.config is None and args.broker is None):
        raise ConfigError("say which net: --config FILE, or --broker URL and --net NAME")
    if problem := check_id(net):
        raise ConfigError(problem, key="--net")
    if broker.url == EMBEDDED:
        raise ConfigError("the file starts a broker of its own: give its address with --broker URL", key="broker.url")
    return broker, net


def at_flag(broker: Broker, url: str | None) -> Broker:
    """The broker at the address that --broker gives, if it is given. Raises ConfigError for what is no address."""
    if url is None:
        return broker
    if problem := check_url(url):
        raise ConfigError(problem, key="--broker")
    return replace(broker, url=url)


def _as_user(broker: Broker, pki: Path | None, user: str) -> Broker:
    """The broker as somebody of `edgemw pki` connects; "embedded" is where `edgemw up --pki` looks for it."""
    if pki is None:
        return for_node(broker, user)
    files = identity_files(pki, user)
    if not (folder := files["cert"].parent).is_dir():
        raise ConfigError(f"there is no folder {folder}: `edgemw pki issue DIR {user}` makes it", key="--pki")
    return replace(broker, url=SECURED if broker.url == EMBEDDED else broker.url, tls=replace(broker.tls, **files))


def with_console(args: argparse.Namespace, work: Callable[[Console], Coroutine[None, None, T]], user: str = MONITOR) -> T:
    """Connect a console and do something with it, as this user where everybody has an identity.

    Raises:
        LinkError: the broker cannot be used.
    """
    settings = _settings(args)
    broker, net = _connection(args, settings, user)
    named = args.pki is not None or (isinstance(settings, Deployment) and names_nodes(settings.broker))
    name = user if named else _own_id(settings) or (broker.username if valid_id(broker.username) else "")

    async def run() -> T:
        async with open_console(broker, net, os.environ, name) as console:
            done = await work(console)
            if console.refused:
                hint = "use a file of somebody who may ask everybody, such as `monitor` of brokers/mosquitto/acl"
                print(f"edgemw: not everybody was asked: {console.refused}; {hint}", file=sys.stderr)
            return done

    return asyncio.run(run())
