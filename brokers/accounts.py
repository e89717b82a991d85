"""The access rules of brokers/mosquitto/acl in the words of other brokers.

These know a placeholder for who is connected, so one file is good for every fleet:

  python brokers/accounts.py emqx > brokers/emqx/acl.conf
  python brokers/accounts.py nanomq > brokers/nanomq/acl.conf
  python brokers/accounts.py hivemq > brokers/hivemq/credentials.xml

NATS and RabbitMQ do not: they get an account for each node. The first name is that of the net.

  python brokers/accounts.py nats line-3 top fog-0 device-0 device-1 > users.conf
  python brokers/accounts.py rabbitmq line-3 top fog-0 device-0 device-1 > definitions.json
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ACL = Path(__file__).with_name("mosquitto") / "acl"
MADE = "Made by brokers/accounts.py from brokers/mosquitto/acl: who may do what."
MAX_QUEUED_MESSAGES = 20_000
MAX_QUEUED_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True)
class Rights:
    """The topic filters that somebody may write and read."""

    write: list[str] = field(default_factory=list)
    read: list[str] = field(default_factory=list)

    def of(self, name: str) -> Rights:
        """The same with a name in the place of %u."""
        return Rights([topic.replace("%u", name) for topic in self.write], [topic.replace("%u", name) for topic in self.read])

    def __add__(self, other: Rights) -> Rights:
        return Rights(self.write + other.write, self.read + other.read)


@dataclass(frozen=True)
class Rules:
    """What everybody may do, %u being who that is, and what some users may do besides."""

    everybody: Rights
    users: Mapping[str, Rights]

    def accounts(self, nodes: Iterable[str]) -> Mapping[str, Rights]:
        """One for each node, and one for each user that is named."""
        names = dict.fromkeys([*nodes, *self.users])
        return {name: self.everybody.of(name) + self.users.get(name, Rights()) for name in names}


def parse(acl: str) -> Rules:
    """Read the file of mosquitto.

    Raises:
        ValueError: a line is not understood.
    """
    everybody, users = Rights(), dict[str, Rights]()
    user = Rights()
    for line in acl.splitlines():
        match line.split():
            case []:
                continue
            case [first, *_] if first.startswith("#"):
                continue
            case ["user", name]:
                user = users.setdefault(name, Rights())
            case [("pattern" | "topic") as kind, ("read" | "write" | "readwrite") as way, topic]:
                rights = everybody if kind == "pattern" else user
                for verb, filters in (("write", rights.write), ("read", rights.read)):
                    if verb in way:
                        filters.append(topic)
            case _:
                raise ValueError(f"not understood: {line!r}")
    return Rules(everybody, users)


# ------------------------------------------------------------------------------------------------------------------ NATS


def nats(rules: Rules, _net: str, nodes: Iterable[str]) -> str:
    """The file `users.conf`."""
    users = (line for name, rights in rules.accounts(nodes).items() for line in _nats_user(name, rights))
    return "\n".join([f"# {MADE}", "users = [", *users, "]", ""])


def _nats_user(name: str, rights: Rights) -> Iterator[str]:
    # Through $MQTT.sub the server hands over what is subscribed to with QoS 1; no client may subscribe to it itself.
    yield f'  {{ user: "CN={name}", allowed_connection_types: ["MQTT"], permissions: {{'
    yield f"      publish: {json.dumps(_subjects(rights.write))}"
    yield f"      subscribe: {json.dumps([*_subjects(rights.read), '$MQTT.sub.>'])} }} }}"


def _subjects(filters: Iterable[str]) -> list[str]:
    """MQTT topic filters as subjects of NATS; a # counts the level above it as well."""
    subjects = []
    for topic in filters:
        subject = topic.replace("/", ".").replace("+", "*")
        subjects += [subject.removesuffix(".#"), subject.removesuffix("#") + ">"] if subject.endswith(".#") else [subject]
    return subjects


# -------------------------------------------------------------------------------------------------------------- RabbitMQ


def rabbitmq(rules: Rules, net: str, nodes: Iterable[str]) -> str:
    """The file `definitions.json`."""
    rows = rules.accounts(nodes)
    queues = {"max-length": MAX_QUEUED_MESSAGES, "max-length-bytes": MAX_QUEUED_BYTES, "overflow": "drop-head"}
    everything: Mapping[str, list[Mapping[str, Any]]] = {
        "vhosts": [{"name": "/"}],
        # Nobody has a password: the certificate is what lets in.
        "users": [{"name": name, "password_hash": "", "tags": [], "limits": {}} for name in rows],
        "permissions": [_rabbit_permission(net, name) for name in rows],
        "topic_permissions": [
            {"user": name, "vhost": "/", "exchange": "amq.topic", "write": _regex(rights.write), "read": _regex(rights.read)}
            for name, rights in rows.items()
        ],
        "policies": [
            {"vhost": "/", "name": "bounded", "pattern": "^mqtt-subscription-", "apply-to": "queues", "definition": queues}
        ],
    }
    return json.dumps(everything, indent=1) + "\n"


def _rabbit_permission(net: str, name: str) -> Mapping[str, str]:
    """Its own queues, which are named after its client ids, and the exchange where all publications go."""
    clients = f"em1-{net}-{name}|em1-(console|doctor)-[0-9a-f]{{12}}(-[a-z-]+)?|{name}-(serve-)?[0-9a-f]{{8}}"
    queue = f"mqtt-subscription-({clients})qos[01]"
    both = f"^({queue}|amq[.]topic)$"
    return {"user": name, "vhost": "/", "configure": f"^{queue}$", "write": both, "read": both}


def _regex(filters: Iterable[str]) -> str:
    """MQTT topic filters as one regular expression over routing keys, which have dots for slashes."""
    keys = (re.sub(r"/#$", "([.].*)?", topic).replace("/", "[.]").replace("+", "[^.]+") for topic in filters)
    return f"^({'|'.join(keys)})$"


# ------------------------------------------------------------------------------------------------ EMQX, NanoMQ, HiveMQ CE


def emqx(rules: Rules) -> str:
    """The file `acl.conf`: the first rule that fits decides."""
    lines = [f"%% {MADE}"]
    for who, rights in (("all", rules.everybody.of("${username}")), *_named(rules, '{{username, "{}"}}')):
        for verb, filters in (("publish", rights.write), ("subscribe", rights.read)):
            topics = ",\n  ".join(map(json.dumps, filters))
            lines += [f"{{allow, {who}, {verb}, [\n  {topics}\n]}}."] if filters else []
    return "\n".join([*lines, "{deny, all}.", ""])


def nanomq(rules: Rules) -> str:
    """The file `acl.conf`: the first rule that fits decides."""
    lines = []
    for who, rights in (("#", rules.everybody.of("${username}")), *_named(rules, "{}")):
        for verb, filters in (("publish", rights.write), ("subscribe", rights.read)):
            rule = {"permit": "allow", "username": who, "action": verb, "topics": filters}
            lines += [f"  {json.dumps(rule)}"] if filters else []
    return "\n".join([f"# {MADE}", "rules = [", ",\n".join([*lines, '  {"permit": "deny"}']), "]", ""])


def hivemq(rules: Rules) -> str:
    """The file `credentials.xml` of the extension for roles, with one user as an example, whom nobody can be."""
    lines = [
        '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>',
        f"<!-- {MADE}",
        "     A user for each node belongs here. The password is what the extension's tool prints:",
        "     java -jar hivemq-file-rbac-extension-*.jar -p PASSWORD -->",
        "<file-rbac>",
        "  <users>",
        "    <user>",
        "      <name>device-0</name>",
        "      <password>put the hash here</password>",
        "      <roles><id>node</id></roles>",
        "    </user>",
        "  </users>",
        "  <roles>",
    ]
    for role, rights in (("node", rules.everybody.of("${{username}}")), *_named(rules, "{}")):
        lines += ["    <role>", f"      <id>{role}</id>", "      <permissions>"]
        for verb, filters in (("PUBLISH", rights.write), ("SUBSCRIBE", rights.read)):
            lines += [f"        <permission><topic>{topic}</topic><activity>{verb}</activity></permission>" for topic in filters]
        lines += ["      </permissions>", "    </role>"]
    return "\n".join([*lines, "  </roles>", "</file-rbac>", ""])


def _named(rules: Rules, form: str) -> Iterator[tuple[str, Rights]]:
    for name, rights in rules.users.items():
        yield form.format(name), rights


PER_NODE: Mapping[str, Callable[[Rules, str, Iterable[str]], str]] = {"nats": nats, "rabbitmq": rabbitmq}
FOR_ALL: Mapping[str, Callable[[Rules], str]] = {"emqx": emqx, "nanomq": nanomq, "hivemq": hivemq}


def main() -> None:
    """Print the accounts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("broker", choices=(*FOR_ALL, *PER_NODE))
    parser.add_argument("net", nargs="?", type=_name, help="nats and rabbitmq: name of the net")
    parser.add_argument("nodes", nargs="*", type=_name, help="nats and rabbitmq: the nodes")
    parser.add_argument("--acl", type=Path, default=ACL, help="rules of mosquitto to begin with (default: %(default)s)")
    args = parser.parse_args()
    rules = parse(args.acl.read_text())
    if (args.broker in PER_NODE) != bool(args.nodes):
        parser.error("nats and rabbitmq need a net and its nodes; the others take none")
    print(PER_NODE[args.broker](rules, args.net, args.nodes) if args.nodes else FOR_ALL[args.broker](rules), end="")


def _name(text: str) -> str:
    if not re.fullmatch("[a-z0-9-]{1,40}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no name: 1 to 40 of a-z, 0-9 and '-'")
    return text


if __name__ == "__main__":
    main()
