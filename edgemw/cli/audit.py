"""`edgemw audit`: is every update of a stopped net counted once, or returned, or still on its way?"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from edgemw.app.books import read_books
from edgemw.app.proofs import read_verdicts
from edgemw.fog.accounts import Amount
from edgemw.fog.audit import Audit, Row, audit
from edgemw.fog.evidence import Verdict

_EPILOG = """Every node keeps books of what it has sent, taken and been told, in the same transactions as the updates themselves.
This reads those of all nodes of a net, which must not run, and compares them: see docs/delivery.md for what is compared.
With --ca the signed updates that fog nodes have kept (security.evidence) are verified and added up again as well: see
docs/security-signing.md.

exit code: 0 nothing is lost, counted twice or altered, 1 something does not agree, or books are missing (it is said which),
           3 there are no books or no evidence, or a node is still running

examples:
  edgemw audit run/                              a deployment that `edgemw up --out run` has run
  edgemw audit top-state fog-state device-*/state
  edgemw audit run/ --json
  edgemw audit run/ --ca pki/ca.pem
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the main program."""
    parser = subparsers.add_parser(
        "audit",
        help="prove from the books of stopped nodes that nothing was lost or counted twice",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="state of a node, or a folder above several")
    parser.add_argument("--ca", type=Path, metavar="FILE", help="certificate of the authority: verify what was signed, too")
    parser.add_argument("--json", action="store_true", help="print a JSON object with a list of tasks")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Compare and print."""
    audits = audit(read_books(args.folders))
    verdicts = read_verdicts(args.folders, args.ca) if args.ca is not None else []
    if args.json:
        document = {"tasks": [asdict(found) for found in audits]}
        if args.ca is not None:
            document["evidence"] = [asdict(found) for found in verdicts]
        print(json.dumps(document, indent=1))
    else:
        print("\n\n".join([*map(_table, audits), *map(_evidence, verdicts)]))
    faults = [fault for found in audits for fault in found.faults] + [fault for found in verdicts for fault in found.faults]
    return 1 if faults else 0


def _evidence(found: Verdict) -> str:
    lines = [f"task {found.task}: {found.signatures} signatures verified, {found.windows} windows added up again"]
    lines += [f"note: {note}" for note in found.notes]
    lines += [f"! {fault}" for fault in found.faults]
    return "\n".join([*lines, "something was altered, or cannot be proven" if found.faults else "0 altered"])


def _table(found: Audit) -> str:
    names = ["sent or taken", "counted", "waiting", "returned", "refused"]
    names += ["bounded"] if any(row.bounded for row in found.rows) else []  # where nothing is, nobody asked for it
    head = f"{'node':<16}{'role':<8}" + "".join(f"{name:>18}" for name in names)
    rows = [_line(row, len(names)) for row in found.rows]
    lines = [f"task {found.task}, run {found.run}: updates and the training examples behind them", head, *rows]
    lines += [f"note: {note}" for note in found.notes]
    lines += [f"! {fault}" for fault in found.faults]
    verdict = "something does not agree" if found.faults else "0 lost, 0 counted twice"
    return "\n".join([*lines, verdict])


def _line(row: Row, columns: int) -> str:
    amounts = (row.sent, row.counted, row.waiting, row.returned, row.refused, row.bounded)[:columns]
    return f"{row.node:<16}{row.role:<8}" + "".join(f"{_short(amount):>18}" for amount in amounts)


def _short(amount: Amount) -> str:
    return f"{amount.updates} / {amount.weight}" if amount else "-"
