"""Accounts for brokers whose access rules know no %u: one for each node, from the rules of mosquitto.

python brokers/accounts.py nats line-3 top fog-0 device-0 device-1 > users.conf
python brokers/accounts.py rabbitmq line-3 top fog-0 device-0 device-1 > definitions.json

The first name is that of the net, the others are those of its nodes. The users that brokers/mosquitto/acl names come besides.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ACL = Path(__file__).with_name("mosquitto") / "acl"
MAX_QUEUED_MESSAGES = 20_000
MAX_QUEUED_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True)
class Account:
    """Who it is, and the topic filters that it may write and read."""

    name: str
    write: list[str] = field(default_factory=list)
    read: list[str] = field(default_factory=list)


def accounts(acl: str, nodes: Iterable[str]) -> list[Account]:
    """One for each node, and one for each user that the rules name: patterns hold for everybody.

    Raises:
        ValueError: a line of the rules is not understood.
    """
    patterns: list[tuple[str, str]] = []
    users: dict[str, list[tuple[str, str]]] = {node: [] for node in nodes}
    rules = patterns
    for line in acl.splitlines():
        words = line.split()
        match words:
            case [] | ["#", *_]:
                continue
            case [first, *_] if first.startswith("#"):
                continue
            case ["user", name]:
                rules = users.setdefault(name, [])
            case ["pattern", way, topic]:
                patterns.append((way, topic))
            case ["topic", way, topic]:
                rules.append((way, topic))
            case _:
                raise ValueError(f"not understood: {line!r}")
    return [_account(name, [*patterns, *own]) for name, own in users.items()]


def _account(name: str, rules: list[tuple[str, str]]) -> Account:
    def topics(*ways: str) -> list[str]:
        return [topic.replace("%u", name) for way, topic in rules if way in ways]

    return Account(name, topics("write", "readwrite"), topics("read", "readwrite"))


# ------------------------------------------------------------------------------------------------------------------ NATS


def nats(_net: str, found: Iterable[Account]) -> str:
    """The file `users.conf`."""
    lines = ["# Made by `python brokers/accounts.py nats ...`: who may do what. The name is that in the node's certificate."]
    lines += ["users = [", *(line for account in found for line in _nats_user(account)), "]", ""]
    return "\n".join(lines)


def _nats_user(account: Account) -> Iterator[str]:
    # Through $MQTT.sub the server hands over what is subscribed to with QoS 1; the names below it are its own.
    reads = [*_subjects(account.read), "$MQTT.sub.>"]
    yield f'  {{ user: "CN={account.name}", allowed_connection_types: ["MQTT"], permissions: {{'
    yield f"      publish: {json.dumps(_subjects(account.write))}"
    yield f"      subscribe: {json.dumps(reads)} }} }}"


def _subjects(filters: Iterable[str]) -> list[str]:
    """MQTT topic filters as subjects of NATS; a # counts the level above it as well."""
    subjects = []
    for topic in filters:
        subject = topic.replace("/", ".").replace("+", "*")
        subjects += [subject.removesuffix(".#"), subject.removesuffix("#") + ">"] if subject.endswith(".#") else [subject]
    return subjects


# -------------------------------------------------------------------------------------------------------------- RabbitMQ


def rabbitmq(net: str, found: Iterable[Account]) -> str:
    """The file `definitions.json`."""
    rows = list(found)
    queues = {"max-length": MAX_QUEUED_MESSAGES, "max-length-bytes": MAX_QUEUED_BYTES, "overflow": "drop-head"}
    everything: Mapping[str, list[Mapping[str, Any]]] = {
        "vhosts": [{"name": "/"}],
        # Nobody has a password: the certificate is what lets in.
        "users": [{"name": row.name, "password_hash": "", "tags": [], "limits": {}} for row in rows],
        "permissions": [_rabbit_permission(net, row.name) for row in rows],
        "topic_permissions": [
            {"user": row.name, "vhost": "/", "exchange": "amq.topic", "write": _regex(row.write), "read": _regex(row.read)}
            for row in rows
        ],
        "policies": [
            {"vhost": "/", "name": "bounded", "pattern": "^mqtt-subscription-", "apply-to": "queues", "definition": queues}
        ],
    }
    return json.dumps(everything, indent=1) + "\n"


def _rabbit_permission(net: str, name: str) -> Mapping[str, str]:
    """Its own queues, which are named after its client ids, and the exchange where all publications go."""
    clients = f"em1-{net}-{name}|em1-(console|doctor)-[0-9a-f]{{12}}|{name}-(serve-)?[0-9a-f]{{8}}"
    queue = f"mqtt-subscription-({clients})qos[01]"
    both = f"^({queue}|amq[.]topic)$"
    return {"user": name, "vhost": "/", "configure": f"^{queue}$", "write": both, "read": both}


def _regex(filters: Iterable[str]) -> str:
    """MQTT topic filters as one regular expression over routing keys, which have dots for slashes."""
    keys = (re.sub(r"/#$", "([.].*)?", topic).replace("/", "[.]").replace("+", "[^.]+") for topic in filters)
    return f"^({'|'.join(keys)})$"


def main() -> None:
    """Print the accounts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("broker", choices=("nats", "rabbitmq"))
    parser.add_argument("net", type=_name)
    parser.add_argument("nodes", nargs="+", type=_name)
    parser.add_argument("--acl", type=Path, default=ACL, help="rules of mosquitto to begin with (default: %(default)s)")
    args = parser.parse_args()
    write = nats if args.broker == "nats" else rabbitmq
    print(write(args.net, accounts(args.acl.read_text(), args.nodes)), end="")


def _name(text: str) -> str:
    if not re.fullmatch("[a-z0-9-]{1,40}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no name: 1 to 40 of a-z, 0-9 and '-'")
    return text


if __name__ == "__main__":
    main()
