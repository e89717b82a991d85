"""`edgemw doctor`: is this machine ready, and its broker?"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from edgemw.app.checks import AUTO
from edgemw.app.doctor import check_energy, check_machine
from edgemw.app.finding import Check
from edgemw.app.places import MONITOR, for_node, names_nodes
from edgemw.app.probing import Subject, probe_broker
from edgemw.app.settings import (
    EMBEDDED,
    SCHEMAS,
    Broker,
    Deployment,
    DeviceFile,
    Energy,
    FogFile,
    Node,
    kind_of,
    load_file,
    read_text,
)
from edgemw.cli.connect import at_flag
from edgemw.core.ids import Place, valid_id

_EXAMPLES = """exit code: 0 all is right or only warnings, 1 something fails, 3 a file or address is refused, 4 the broker fails

examples:
  edgemw doctor
  edgemw doctor --config /etc/edgemw/device.toml             with this node's name, password or certificate, and its topics
  edgemw doctor --broker mqtt://broker.example --json        a broker that lets everybody in

The broker is probed for what edgemw uses of it, on topics of the command's own: some 7 seconds, at most 30. Nothing is left.
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the main program."""
    parser = subparsers.add_parser(
        "doctor", help="check this machine and its broker", epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config", "-c", type=Path, metavar="FILE", help="a node's or deployment's file: its broker and state are checked"
    )
    parser.add_argument("--broker", metavar="URL", help="mqtt://HOST:PORT or mqtts://HOST:PORT[,...], instead of the file's")
    parser.add_argument("--json", action="store_true", help="print a JSON object with a list of checks")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check and print."""
    subject, node, energy = _subject(args)
    checks = [*check_machine(node.state if node is not None else None), *check_energy(node.profile if node else AUTO, energy)]
    show = (lambda check: None) if args.json else _print
    for check in checks:
        show(check)
    broker_checks = asyncio.run(_probe(subject, show)) if subject is not None else []
    checks += broker_checks
    if args.json:
        print(json.dumps({"checks": [asdict(check) for check in checks]}, indent=1))
    elif subject is None:
        own = args.config is not None and f"{args.config} starts one of its own"
        print(f"      broker          not checked: {own or 'give --config FILE or --broker URL'}")
    if any(check.level == "fail" for check in broker_checks):
        return 4
    return 1 if any(check.level == "fail" for check in checks) else 0


async def _probe(subject: Subject, show: Callable[[Check], None]) -> list[Check]:
    """The findings about a broker, each shown as soon as it is there."""
    found = []
    async for check in probe_broker(subject, os.environ, _tell):
        show(check)
        found.append(check)
    return found


def _subject(args: argparse.Namespace) -> tuple[Subject | None, Node | None, Energy]:
    settings: Deployment | DeviceFile | FogFile | None = None
    broker, node, energy = None, None, Energy()
    if args.config is not None:
        settings = load_file(SCHEMAS[kind_of(read_text(args.config), str(args.config))], args.config, env=os.environ).value
        broker, energy = for_node(settings.broker, MONITOR), settings.energy
        if not isinstance(settings, Deployment):
            node = settings.node
    if args.broker is not None:
        broker = at_flag(broker or Broker(), args.broker)
    if broker is None or broker.url == EMBEDDED:
        return None, node, energy
    return Subject(broker, _place(settings, broker), *_chunk(settings)), node, energy


def _place(settings: Deployment | DeviceFile | FogFile | None, broker: Broker) -> Place:
    """Whose topics are tried: the file's node, or the user that the broker knows, or nobody."""
    if settings is not None and not isinstance(settings, Deployment):
        return Place(settings.net, settings.node.id, settings.node.parent or "", 0)
    if settings is not None and names_nodes(settings.broker):
        return Place(settings.name, MONITOR, "", 0)
    user = broker.username if valid_id(broker.username) else "doctor"
    return Place("doctor" if settings is None else settings.name, user, "", 0)


def _chunk(settings: Deployment | DeviceFile | FogFile | None) -> tuple[int, ...]:
    return () if settings is None else (int(settings.limits.max_message_bytes),)


def _tell(probe: str) -> None:
    print(f"      {probe} ...", file=sys.stderr, flush=True)


def _print(check: Check) -> None:
    print(_line(check), flush=True)


def _line(check: Check) -> str:
    mark = {"ok": "ok   ", "warn": "WARN ", "fail": "FAIL "}[check.level]
    text = f"{mark} {check.name:<16}{check.found}"
    return f"{text}\n      {'':<16}-> {check.hint}" if check.hint else text
