"""`edgemw doctor`: is this machine ready, and its broker?"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from dataclasses import asdict
from pathlib import Path

from edgemw.app.checks import AUTO
from edgemw.app.doctor import Check, check_broker, check_energy, check_machine
from edgemw.app.settings import EMBEDDED, SCHEMAS, Broker, Deployment, Energy, Node, kind_of, load_file, read_text
from edgemw.cli.connect import at_flag

_EXAMPLES = """exit code: 0 all is right or only warnings, 1 something fails, 4 the broker fails

examples:
  edgemw doctor
  edgemw doctor --config /etc/edgemw/device.toml
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the main program."""
    parser = subparsers.add_parser(
        "doctor", help="check this machine and its broker", epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config", "-c", type=Path, metavar="FILE", help="a node's or deployment's file: its broker and state are checked"
    )
    parser.add_argument("--broker", metavar="URL", help="mqtt://HOST:PORT or mqtts://HOST:PORT, instead of the file's")
    parser.add_argument("--json", action="store_true", help="print a JSON object with a list of checks")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check and print."""
    broker, node, energy = _subject(args)
    checks = [*check_machine(node.state if node is not None else None), *check_energy(node.profile if node else AUTO, energy)]
    broker_checks = asyncio.run(check_broker(broker, os.environ)) if broker is not None else []
    checks += broker_checks
    if args.json:
        print(json.dumps({"checks": [asdict(check) for check in checks]}, indent=1))
    else:
        print("\n".join(_line(check) for check in checks))
        if broker is None:
            own = args.config is not None and f"{args.config} starts one of its own"
            print(f"      broker          not checked: {own or 'give --config FILE or --broker URL'}")
    if any(check.level == "fail" for check in broker_checks):
        return 4
    return 1 if any(check.level == "fail" for check in checks) else 0


def _subject(args: argparse.Namespace) -> tuple[Broker | None, Node | None, Energy]:
    broker: Broker | None = None
    node, energy = None, Energy()
    if args.config is not None:
        cls = SCHEMAS[kind_of(read_text(args.config), str(args.config))]
        settings = load_file(cls, args.config, env=os.environ).value
        broker, energy = settings.broker, settings.energy
        if not isinstance(settings, Deployment):
            node = settings.node
    if args.broker is not None:
        broker = at_flag(broker or Broker(), args.broker)
    return (None if broker is None or broker.url == EMBEDDED else broker), node, energy


def _line(check: Check) -> str:
    mark = {"ok": "ok   ", "warn": "WARN ", "fail": "FAIL "}[check.level]
    text = f"{mark} {check.name:<16}{check.found}"
    return f"{text}\n      {'':<16}-> {check.hint}" if check.hint else text
