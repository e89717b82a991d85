"""How commands that talk to a running net find its broker: from a node's or deployment's file, or from flags."""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from edgemw.app.checks import check_id, check_url
from edgemw.app.console import Console, open_console
from edgemw.app.settings import EMBEDDED, SCHEMAS, Broker, Deployment, kind_of, load_file, read_text
from edgemw.core.errors import ConfigError

T = TypeVar("T")


def add_connection_flags(parser: argparse.ArgumentParser) -> None:
    """Add --config, --broker and --net."""
    parser.add_argument(
        "--config", "-c", type=Path, metavar="FILE", help="a node's or deployment's file: its broker and net are used"
    )
    parser.add_argument("--broker", metavar="URL", help="mqtt://HOST:PORT or mqtts://HOST:PORT, instead of the file's")
    parser.add_argument("--net", help="name of the federation, instead of the file's")


def connection_of(args: argparse.Namespace) -> tuple[Broker, str]:
    """The broker and net that the flags say.

    Raises:
        ConfigError: they do not say both, or one of them cannot be meant.
    """
    broker, net = Broker(), None
    if args.config is not None:
        cls = SCHEMAS[kind_of(read_text(args.config), str(args.config))]
        settings = load_file(cls, args.config, env=os.environ).value
        broker = settings.broker
        net = settings.name if isinstance(settings, Deployment) else settings.net
    broker = at_flag(broker, args.broker)
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


def with_console(args: argparse.Namespace, work: Callable[[Console], Coroutine[None, None, T]]) -> T:
    """Connect a console and do something with it. Raises LinkError when the broker cannot be used."""
    broker, net = connection_of(args)

    async def run() -> T:
        async with open_console(broker, net, os.environ) as console:
            return await work(console)

    return asyncio.run(run())
