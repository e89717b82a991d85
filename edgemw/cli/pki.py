"""`edgemw pki`: a small certificate authority, for those who have none."""

from __future__ import annotations

import argparse
import datetime
import ipaddress
import json
import os
from pathlib import Path
from types import ModuleType
from typing import Any

from edgemw.app.access import users_of
from edgemw.app.checks import check_id
from edgemw.app.deployment import load_deployment
from edgemw.app.secrets import reveal
from edgemw.cli.broker import add_asker_flag, askers_of
from edgemw.core.config.secret import Secret
from edgemw.core.errors import ConfigError
from edgemw.pki.issued import Issued, read_index
from edgemw.pki.layout import INDEX, NODES

LEAF_DAYS, MAX_DAYS = 365, 3650
SOON = datetime.timedelta(days=30)

_INIT = """The authority holds for ten years. With --for or --host it issues certificates at once, as `edgemw pki issue` does.

  DIR/ca.key              signs everything: keep it on this machine, or on none that is reached from outside
  DIR/nodes/NAME/         copy this folder to the machine of NAME, and nothing else
  DIR/broker/, crl.pem    for the broker: `edgemw broker config --pki DIR` takes them

examples:
  edgemw pki init pki --for edgemw.toml --host localhost
  edgemw pki init pki --passphrase-file ca.pass
"""
_ISSUE = """A node gets a certificate for TLS whose common name is its id (cert.pem, key.pem), and one for signatures (sign.pem,
sign.key); its folder also has crl.pem, and release.pem, the certificate of the top, which --for tells. With --for every node
of a deployment file gets them, and the users monitor and author; who has keys keeps them. Keys are replaced with --renew
only. What was handed out before goes on to hold until it ends, or is revoked. Who is revoked stays so, unless NAME and --renew
say otherwise.

examples:
  edgemw pki issue pki device-8 device-9
  edgemw pki issue pki --for edgemw.toml
  edgemw pki issue pki --broker --host mqtt.example --host 192.0.2.1
  edgemw pki issue pki device-3 --renew --days 90
"""
_REVOKE = """All that NAME was ever given is put on DIR/crl.pem. The broker has a copy, which it looks at when somebody
connects, and rules, which hold for who is connected, too: write both again and restart it. Fog nodes have a copy for signatures:
DIR/nodes/*/crl.pem are new; copy it to the machines of fog nodes again, which read it within seconds.

examples:
  edgemw pki revoke pki device-3
  edgemw broker config edgemw.toml --for mosquitto --pki pki --out broker && systemctl restart mosquitto
"""
_LIST = """exit code: 0 all is well, 1 something ends within 30 days, or has ended, and was not renewed

examples:
  edgemw pki list pki
  edgemw pki list pki --json
"""
_EXAMPLES = """needs pip install 'edgemw[security]'

exit code: 0 done, 1 a file cannot be written, or (list) something ends soon, 3 refused

examples:
  edgemw pki init pki --for edgemw.toml --host localhost
  edgemw pki issue pki device-8
  edgemw pki revoke pki device-3
  edgemw pki list pki
"""


class _NamesAnywhere(argparse.ArgumentParser):
    """Takes names behind flags, too: `issue pki --renew device-3`, which argparse reads as no names and a word too many."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        found, left = super().parse_known_args(args, namespace)
        if left and not any(word.startswith("-") for word in left) and getattr(found, "names", None) == []:
            found.names, left = left, []
        return found, left


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the main program."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = subparsers.add_parser("pki", help="a small certificate authority", epilog=_EXAMPLES, formatter_class=raw)
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True, parser_class=_NamesAnywhere)
    init = verbs.add_parser("init", help="make an authority", epilog=_INIT, formatter_class=raw)
    issue = verbs.add_parser("issue", help="certificates of nodes and of the broker", epilog=_ISSUE, formatter_class=raw)
    revoke = verbs.add_parser("revoke", help="let somebody in no longer", epilog=_REVOKE, formatter_class=raw)
    lister = verbs.add_parser("list", help="what was issued, until when, and what was revoked", epilog=_LIST, formatter_class=raw)
    for verb, function in ((init, run_init), (issue, run_issue), (revoke, run_revoke), (lister, run_list)):
        verb.add_argument("folder", type=Path, metavar="DIR", help="folder of the authority")
        verb.add_argument("--json", action="store_true", help="print one JSON object")
        verb.set_defaults(run=function)
    for verb in (issue, revoke):
        verb.add_argument("names", nargs="+" if verb is revoke else "*", metavar="NAME", help="id of a node, or name of a user")
    issue.add_argument("--broker", action="store_true", help="a certificate of the broker, for the names of --host")
    issue.add_argument("--renew", action="store_true", help="replace keys that are there")
    for verb in (init, issue):
        verb.add_argument("--for", dest="file", type=Path, metavar="FILE", help="everybody in a deployment file")
        verb.add_argument(
            "--host", action="append", default=[], metavar="NAME", dest="hosts", help="name or address of the broker"
        )
        verb.add_argument("--days", type=int, default=LEAF_DAYS, metavar="N", help=f"how long they hold (default: {LEAF_DAYS})")
        verb.add_argument(
            "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help="change a value of the file"
        )
        add_asker_flag(verb)
    for verb in (init, issue, revoke):
        verb.add_argument("--passphrase-file", metavar="FILE", help="file of the passphrase of the authority's key")
        verb.add_argument("--passphrase-env", metavar="NAME", help="environment variable of it")


def run_init(args: argparse.Namespace) -> int:
    """Make an authority, and what it is to issue at once."""
    now, authority_of = _now(), _authority()
    nodes, top = _wanted(args, [])
    _check_hosts(args.hosts)
    passphrase = _passphrase(args)
    authority_of.init(args.folder, passphrase, now)
    with authority_of.opened(args.folder, passphrase) as signer:
        if args.hosts:
            signer.issue_broker(args.hosts, now, args.days)
        signer.issue_nodes(nodes, now, args.days)
        if top:
            signer.know_top(top)
        signer.refresh()
    facts = {"folder": str(args.folder), "issued": nodes, "broker": args.hosts}
    also = f"; certificates of {len(nodes)} nodes and users in {args.folder / NODES}" if nodes else ""
    also += f"; of the broker, as {', '.join(args.hosts)}" if args.hosts else ""
    _say(args, facts, f"made an authority: keep {args.folder / 'ca.key'} safe{also}")
    return 0


def run_issue(args: argparse.Namespace) -> int:
    """Issue what is asked for, or nothing; who is revoked is let in again only where the command names it."""
    now, authority_of = _now(), _authority()
    nodes, top = _wanted(args, args.names)
    if args.broker != bool(args.hosts):
        raise ConfigError("--broker goes with the names and addresses by which nodes reach it: --host", key="--broker")
    if not nodes and not args.broker:
        raise ConfigError("say whose: NAME..., --for FILE or --broker", key="NAME")
    _check_hosts(args.hosts)
    with authority_of.opened(args.folder, _passphrase(args)) as signer:
        revoked = [node for node in nodes if node not in args.names and signer.is_revoked(node)]
        kept = [] if args.renew else [node for node in nodes if node not in (*args.names, *revoked) and signer.has_keys(node)]
        nodes = [node for node in nodes if node not in kept and node not in revoked]
        signer.issue_nodes(nodes, now, args.days, renew=args.renew)
        if args.broker:
            signer.issue_broker(args.hosts, now, args.days, renew=args.renew)
        if top:
            signer.know_top(top)
        stale = [name for name in signer.refresh() if name not in nodes]
        alone = [node for node in nodes if not signer.has_release(node)]
    said = [f"{node}: {args.folder / NODES / node}" for node in nodes]
    said += [f"{len(kept)} have keys and keep them (--renew replaces them)"] if kept else []
    back = f"name one to let it in again: edgemw pki issue {args.folder} NAME --renew"
    said += [f"revoked, and left so: {', '.join(revoked)} ({back})"] if revoked else []
    said += [f"new crl.pem or release.pem in {NODES}/, copy again: {', '.join(stale)}"] if stale else []
    said += ["no release.pem, for nobody has said who the top is: add --for FILE"] if alone else []
    said += [f"the broker, as {', '.join(args.hosts)}: {args.folder / 'broker'}"] if args.broker else []
    facts = {"folder": str(args.folder), "issued": nodes, "kept": kept, "revoked": revoked, "stale": stale, "broker": args.hosts}
    _say(args, facts, "\n".join(said))
    return 0


def run_revoke(args: argparse.Namespace) -> int:
    """Revoke all that some have."""
    authority_of = _authority()
    with authority_of.opened(args.folder, _passphrase(args)) as signer:
        signer.revoke(args.names, _now())
        signer.refresh()
    copies = f"copy crl.pem of {args.folder / NODES}/NAME again to fog nodes, and to whoever else has security.crl"
    what = f"write the broker's files again (edgemw broker config --pki {args.folder}) and restart it"
    text = f"revoked {', '.join(args.names)}: {what}; {copies}"
    _say(args, {"revoked": args.names, "list": str(args.folder / "crl.pem")}, text)
    return 0


def run_list(args: argparse.Namespace) -> int:
    """Print what was issued; cryptography is not needed for it."""
    now, rows = _now(), read_index(args.folder / INDEX).certificates
    last = {(each.name, each.kind): each for each in rows}
    states = [(each, _state(each, now, replaced=last[each.name, each.kind] is not each)) for each in rows]
    if args.json:
        print(json.dumps({"certificates": [_row(each, state) for each, state in states]}, indent=1))
    else:
        print(f"{'name':<24}{'kind':<8}{'until':<12}{'state':<12}serial")
        for each, state in states:
            print(f"{each.name:<24}{each.kind:<8}{each.until:%Y-%m-%d}  {state:<12}{each.serial:x}")
    return 1 if any(state in ("ends soon", "ended") for _, state in states) else 0


def _row(each: Issued, state: str) -> dict[str, Any]:
    revoked = each.revoked.isoformat() if each.revoked else None
    row = {"name": each.name, "kind": each.kind, "serial": f"{each.serial:x}", "until": each.until.isoformat()}
    return row | {"revoked": revoked, "hosts": list(each.hosts), "state": state}


def _state(each: Issued, now: datetime.datetime, *, replaced: bool) -> str:
    if each.revoked is not None:
        return "revoked"
    if replaced:
        return "replaced"
    return "ended" if now >= each.until else "ends soon" if now + SOON >= each.until else "good"


def _wanted(args: argparse.Namespace, names: list[str]) -> tuple[list[str], str]:
    """Who is to have certificates, those who are named and then those of the deployment file; and its top, "" without a file."""
    if not 1 <= args.days <= MAX_DAYS:
        raise ConfigError(f"must be 1 to {MAX_DAYS}", key="--days")
    for name in names:
        if problem := check_id(name):
            raise ConfigError(f"{name!r} {problem}", key="NAME")
    askers = askers_of(args)
    if args.file is None:
        return list(dict.fromkeys([*names, *askers])), ""
    settings = load_deployment(args.file, None, os.environ, args.overrides)
    return list(dict.fromkeys([*names, *users_of(settings, askers)])), settings.top


def _check_hosts(hosts: list[str]) -> None:
    for host in hosts:
        letters = host.replace("-", "").replace(".", "")
        if not (_is_ipv6(host) or (0 < len(host) <= 253 and letters.isascii() and letters.isalnum())):
            raise ConfigError(f"{host!r} is neither a name nor an address, without scheme and port", key="--host")


def _is_ipv6(host: str) -> bool:
    try:
        return ipaddress.IPv6Address(host).scope_id is None
    except ValueError:
        return False


def _passphrase(args: argparse.Namespace) -> str | None:
    if args.passphrase_file and args.passphrase_env:
        raise ConfigError("a file or a variable, not both", key="--passphrase-env")
    if not args.passphrase_file and not args.passphrase_env:
        return None
    secret = Secret(file=args.passphrase_file, env=args.passphrase_env, beside=str(Path.cwd()))
    return reveal(secret, os.environ)


def _authority() -> ModuleType:
    try:
        from edgemw.pki import authority
    except ModuleNotFoundError as error:
        raise ConfigError(f"needs {error.name}: pip install 'edgemw[security]'", key="edgemw pki") from error
    return authority


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)


def _say(args: argparse.Namespace, facts: dict[str, Any], text: str) -> None:
    print(json.dumps(facts) if args.json else text)
