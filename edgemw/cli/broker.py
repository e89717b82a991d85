"""`edgemw broker`: configuration and access rules of a broker, from a deployment file or from the rules that come with edgemw."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from edgemw.app.access import access_rules
from edgemw.app.broker_files import (
    KINDS,
    Listener,
    broker_files,
    certificates,
    check_hosts,
    port_of,
    without_revoked,
    write_files,
)
from edgemw.app.checks import check_id
from edgemw.app.deployment import load_deployment
from edgemw.app.rule_languages import FOR_ALL, PER_NODE
from edgemw.app.rules import SHIPPED, parse
from edgemw.core.config.reading import read_text
from edgemw.core.errors import ConfigError
from edgemw.transport.broker import find_mosquitto

MADE = "Made by `edgemw broker rules` from brokers/mosquitto/acl: who may do what."

_CONFIG = """Every node is named, speaks as itself in the domain of its parent alone, and hears what is meant for it; a fog node
owns its domain. `author` publishes tasks, `monitor` asks how everybody is. Files are replaced, but for state/ and what else is
in conf.d/. For emqx and nanomq the files are untested: neither ran where this was written.

exit code: 0 written, 3 a file was refused

examples:
  edgemw broker config edgemw.toml --for mosquitto --pki pki --out broker && (cd broker && mosquitto -d -c mosquitto.conf)
  edgemw broker config edgemw.toml --for mosquitto --pki pki --out broker --asker kiosk --port 9883
  edgemw broker config edgemw.toml --for emqx --out emqx --json
"""
_RULES = """The rules of brokers/mosquitto/acl name no node: they are good for every fleet, and let a node speak as itself in
any domain. `edgemw broker config` makes narrower ones, from a deployment file. nats and rabbitmq know no placeholder for who is
connected: they need the net and its nodes.

examples:
  edgemw broker rules --for emqx > acl.conf
  edgemw broker rules --for nats line-3 top fog-0 device-0 device-1 > users.conf
"""
_EXAMPLES = """examples:
  edgemw broker config edgemw.toml --for mosquitto --pki pki --out broker
  edgemw broker rules --for nats line-3 top fog-0 device-0 device-1 > users.conf
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the main program."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = subparsers.add_parser(
        "broker", help="configuration and access rules of a broker", epilog=_EXAMPLES, formatter_class=raw
    )
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    config = verbs.add_parser("config", help="a broker's files for one deployment", epilog=_CONFIG, formatter_class=raw)
    config.add_argument("file", type=Path, metavar="FILE", help="deployment file (TOML)")
    config.add_argument("--for", dest="kind", choices=sorted(KINDS), required=True, help="the program")
    config.add_argument("--pki", type=Path, metavar="DIR", help="folder of `edgemw pki`: its certificates are copied, too")
    config.add_argument("--out", type=Path, metavar="DIR", default=Path("broker"), help="folder of the files (default: broker)")
    config.add_argument("--port", type=int, metavar="N", help="where it listens (default: that of broker.url, else 8883)")
    config.add_argument("--listen", metavar="ADDRESS", default="", help="address of its machine (default: every one)")
    add_asker_flag(config)
    help_ = "let a node finish with a parent that it had before; may be given several times"
    config.add_argument("--moved", action="append", default=[], metavar="NODE=PARENT", help=help_)
    config.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help="change a value of the file"
    )
    config.add_argument("--json", action="store_true", help="print one JSON object")
    config.set_defaults(run=run_config)
    rules = verbs.add_parser(
        "rules", help="the rules for every fleet in the words of a broker", epilog=_RULES, formatter_class=raw
    )
    rules.add_argument("--for", dest="kind", choices=(*FOR_ALL, *PER_NODE), required=True, help="the program")
    rules.add_argument("--acl", type=Path, metavar="FILE", help="rules of mosquitto to begin with (default: those of edgemw)")
    rules.add_argument("net", nargs="?", help="nats and rabbitmq: name of the net")
    rules.add_argument("nodes", nargs="*", metavar="NODE", help="nats and rabbitmq: the nodes")
    rules.set_defaults(run=run_rules)


def add_asker_flag(parser: argparse.ArgumentParser) -> None:
    """Add --asker."""
    help_ = "a user who may ask every prediction service; may be given several times"
    parser.add_argument("--asker", action="append", default=[], metavar="NAME", dest="askers", help=help_)


def askers_of(args: argparse.Namespace) -> list[str]:
    """The names that --asker gives. Raises ConfigError for what is no name."""
    for name in args.askers:
        if problem := check_id(name):
            raise ConfigError(problem, key="--asker")
    return list(args.askers)


def run_config(args: argparse.Namespace) -> int:
    """Write the files."""
    kind = KINDS[args.kind]
    settings = load_deployment(args.file, None, os.environ, args.overrides)
    rules = access_rules(settings, askers_of(args), [_moved(text) for text in args.moved])
    port = args.port or port_of(settings)
    if not 1 <= port <= 65535:
        raise ConfigError("must be 1 to 65535", key="--port")
    if not all(character.isalnum() or character in ".:-" for character in args.listen):
        raise ConfigError("is no address", key="--listen")
    made = f"Made by `edgemw broker config` for the net {settings.name}: who may do what. Nobody else may do anything."
    own = []
    if args.pki is not None:
        _check_apart(args.out.resolve(), args.pki.resolve())
        check_hosts(settings, args.pki)
        own = [*certificates(kind, args.pki)]
        rules = without_revoked(rules, args.pki)
    files = [*broker_files(kind, rules, made, Listener(args.listen, port)), *own]
    written = write_files(kind, args.out, files)
    if args.json:
        facts = {"for": args.kind, "out": str(args.out), "port": port, "users": [*rules.users], "files": [*map(str, written)]}
        print(json.dumps(facts))
        return 0
    print(f"{args.out}: {', '.join(str(path.relative_to(args.out)) for path in written)}, for {len(rules.users)} users")
    for line in _next(args):
        print(line)
    return 0


def _check_apart(out: Path, pki: Path) -> None:
    if out == pki or out in pki.parents or pki in out.parents:
        reason = f"the broker's user is to own this folder, and {pki} has the keys of everybody: give one of its own"
        raise ConfigError(reason, key="--out")


def _moved(text: str) -> tuple[str, str]:
    node, equals, parent = text.partition("=")
    if not equals:
        raise ConfigError(f"{text!r} is not NODE=PARENT", key="--moved")
    return node, parent


def _next(args: argparse.Namespace) -> list[str]:
    """What is left to be done."""
    lines = []
    if args.pki is None:
        lines.append(
            "ca.crt, server.crt, server.key"
            + (" and crl.pem belong there too" if args.kind == "mosquitto" else " belong there too")
        )
    if args.kind == "mosquitto":
        owner = f"chown -R mosquitto: {args.out} && " if os.geteuid() == 0 else ""
        lines.append(f"start it: {owner}(cd {args.out} && {find_mosquitto() or 'mosquitto'} -d -c mosquitto.conf)")
        lines.append("where it does not start, the same without -d says why")
        lines.append("after a later change: kill the broker, wait until it has ended, start it again; nothing is lost")
    else:
        lines.append(f"untested: see brokers/{args.kind}/README.md for where they belong")
    return lines


def run_rules(args: argparse.Namespace) -> int:
    """Print the rules."""
    path = args.acl or SHIPPED / "mosquitto" / "acl"
    try:
        rules = parse(read_text(path))
    except ValueError as error:
        raise ConfigError(str(error), file=str(path)) from error
    if (args.kind in PER_NODE) != bool(args.nodes):
        raise ConfigError("nats and rabbitmq need the net and its nodes; the others take none", key="NODE")
    for name in filter(None, (args.net, *args.nodes)):
        if problem := check_id(name):
            raise ConfigError(f"{name!r} {problem}", key="NODE")
    made = FOR_ALL[args.kind](rules, MADE) if args.kind in FOR_ALL else PER_NODE[args.kind](rules, args.net, args.nodes, MADE)
    print(made, end="")
    return 0
