"""`edgemw status`: ask a running net how everybody is."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from edgemw.app.census import NodeStatus
from edgemw.app.joules import energy_told, fleet_document, fleet_energy, prefixed
from edgemw.cli.connect import with_console
from edgemw.cli.flags import add_connection_flags

_EPILOG = """A node that was stopped is listed until it is forgotten; nothing is wrong with it. "awaited" are children of a
fog node that have not answered the present release yet. Joules are of all lives of a node, as far as its meter, or the profile
of its device, knows them; per round those of all nodes, per megabyte what is modelled for the radio, per prediction what serving
took, per accuracy point those of all nodes, for each hundredth that the present run has gained.

exit code: 0 everybody is well, 1 somebody is not (its line says why), 3 a node cannot be forgotten, 4 the broker cannot be used

examples:
  edgemw status --config fog.toml
  edgemw status --broker mqtt://127.0.0.1:1883 --net quickstart --json
  edgemw status --config fog.toml --forget device-7
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the main program."""
    parser = subparsers.add_parser(
        "status",
        help="ask a running net how every node is, and why if something is not right",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_connection_flags(parser)
    parser.add_argument("--timeout", type=float, default=3.0, metavar="S", help="seconds to wait for answers (default: 3)")
    parser.add_argument(
        "--forget",
        action="append",
        default=[],
        metavar="NODE",
        help="do not ask: take a node that is gone for good off the list; may be given several times",
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object with a list of nodes")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Ask and print, or forget."""
    if args.forget:
        return _forget(args)
    statuses = with_console(args, lambda console: console.ask(args.timeout))
    energy = _energy(statuses)
    if args.json:
        nodes = [{"node": s.node, "task": s.task, **asdict(s.status)} for s in statuses]
        print(json.dumps({"nodes": nodes, "energy": energy}, indent=1))
    elif not statuses:
        print("no node has ever been seen in this net: is its name right, is this its broker, may this user ask?")
    else:
        print(f"{'node':<16}{'role':<8}{'parent':<12}{'task':<12}{'state':<12}{'release':>7}  {'last update':<12}  details")
        for status in statuses:
            print(_line(status))
        if energy is not None:
            print(f"energy: {energy_told(energy)}")
    return 1 if not statuses or any(s.status.reason for s in statuses) else 0


def _energy(statuses: list[NodeStatus]) -> dict[str, Any] | None:
    """Joules of all nodes that know theirs, and for each round, megabyte and prediction."""
    return fleet_document(fleet_energy((s.node, s.status.facts) for s in statuses), [s.status.facts for s in statuses])


def _forget(args: argparse.Namespace) -> int:
    with_console(args, lambda console: console.forget(args.forget, args.timeout))
    print(json.dumps({"forgotten": args.forget}) if args.json else f"forgotten: {', '.join(args.forget)}")
    return 0


def _masks(facts: Mapping[str, int | float | str]) -> str:
    """Whether what a node sends, or adds, is under masks."""
    if "group" not in facts:
        return ""
    if "groups_unmasked" not in facts:
        return f", under masks in a group of {facts['group']}"
    groups = f", masks off {facts['groups_unmasked']} sums, the last of {facts['group']} devices"
    given_up = facts.get("groups_given_up", 0)
    return groups + (f", {given_up} groups given up" if given_up else "")


def _line(s: NodeStatus) -> str:
    facts = s.status.facts
    release = "-" if facts.get("release", -1) == -1 else facts["release"]
    age = facts.get("last_update_s")
    last = "-" if age is None else f"{age} s ago"
    if s.status.role == "fog":
        awaited = facts.get("awaited", facts.get("late", 0))  # "late" is what a node of an older version says
        details = f"{facts.get('children', 0)} children, {facts.get('window', 0)} updates waiting, {awaited} awaited"
        kept = facts.get("remainder_bytes", 0)
        details += f", {kept} B kept back by its budget" if kept else ""
        if "updates_counted" in facts:
            details += f", {facts['updates_counted']} counted"
        details += f", {facts['privacy']}" if "privacy" in facts else ""
        for book in ("returned", "refused"):
            amount = facts.get(f"updates_{book}", 0)
            details += f", {amount} {book}" if amount else ""
    else:
        details = f"{facts.get('updates_sent', 0)} updates sent, {facts.get('updates_pending', 0)} without outcome"
    details += _masks(facts)
    if "energy_j" in facts:
        details += f", {prefixed(float(facts['energy_j']), 'J')}"
    if not facts:
        details = ""
    who = f"{s.node:<16}{s.status.role:<8}{s.status.parent or '-':<12}{s.task or '-':<12}"
    text = f"{who}{s.status.state:<12}{release:>7}  {last:<12}  {details}".rstrip()
    return f"{text}\n{'':<16}! {s.status.reason}" if s.status.reason else text
