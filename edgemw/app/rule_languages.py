"""Access rules in the words of six brokers.

mosquitto, EMQX, NanoMQ and HiveMQ CE know a placeholder for who is connected, so that one file can be good for every fleet;
NATS and RabbitMQ do not, and get an account for each node.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from edgemw.app.rules import Rights, Rules

MAX_QUEUED_MESSAGES = 20_000
MAX_QUEUED_BYTES = 256 * 1024 * 1024


# ------------------------------------------------------------------------------------------------------------- mosquitto


def mosquitto(rules: Rules, made: str) -> str:
    """The file `acl`; what is in no line is denied."""
    lines = [f"# {made}", *_mosquitto_lines("pattern", rules.everybody)]
    for name, rights in rules.users.items():
        lines += ["", f"user {name}", *_mosquitto_lines("topic", rights)]
    return "\n".join([*lines, ""])


def _mosquitto_lines(kind: str, rights: Rights) -> Iterator[str]:
    both = set(rights.write) & set(rights.read)
    for way, filters in (("readwrite", rights.write), ("write", rights.write), ("read", rights.read)):
        yield from (f"{kind} {way} {topic}" for topic in dict.fromkeys(filters) if (topic in both) == (way == "readwrite"))


# ------------------------------------------------------------------------------------------------------------------ NATS


def nats(rules: Rules, _net: str, nodes: Iterable[str], made: str) -> str:
    """The file `users.conf`."""
    users = (line for name, rights in rules.accounts(nodes).items() for line in _nats_user(name, rights))
    return "\n".join([f"# {made}", "users = [", *users, "]", ""])


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


def rabbitmq(rules: Rules, net: str, nodes: Iterable[str], _made: str) -> str:
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
    clients = f"em1-{net}-{name}(-[0-9a-f]{{16}})?|em1-(console|doctor)-[0-9a-f]{{12}}(-[a-z-]+)?|{name}-(serve-)?[0-9a-f]{{8}}"
    queue = f"mqtt-subscription-({clients})qos[01]"
    both = f"^({queue}|amq[.]topic)$"
    return {"user": name, "vhost": "/", "configure": f"^{queue}$", "write": both, "read": both}


def _regex(filters: Iterable[str]) -> str:
    """MQTT topic filters as one regular expression over routing keys, which have dots for slashes."""
    keys = (re.sub(r"/#$", "([.].*)?", topic).replace("/", "[.]").replace("+", "[^.]+") for topic in filters)
    return f"^({'|'.join(keys)})$"


# ------------------------------------------------------------------------------------------------ EMQX, NanoMQ, HiveMQ CE


def emqx(rules: Rules, made: str) -> str:
    """The file `acl.conf`: the first rule that fits decides."""
    lines = [f"%% {made}"]
    for who, rights in (("all", rules.everybody.of("${username}")), *_named(rules, '{{username, "{}"}}')):
        for verb, filters in (("publish", rights.write), ("subscribe", rights.read)):
            topics = ",\n  ".join(map(json.dumps, filters))
            lines += [f"{{allow, {who}, {verb}, [\n  {topics}\n]}}."] if filters else []
    return "\n".join([*lines, "{deny, all}.", ""])


def nanomq(rules: Rules, made: str) -> str:
    """The file `acl.conf`: the first rule that fits decides."""
    lines = []
    for who, rights in (("#", rules.everybody.of("${username}")), *_named(rules, "{}")):
        for verb, filters in (("publish", rights.write), ("subscribe", rights.read)):
            rule = {"permit": "allow", "username": who, "action": verb, "topics": filters}
            lines += [f"  {json.dumps(rule)}"] if filters else []
    return "\n".join([f"# {made}", "rules = [", ",\n".join([*lines, '  {"permit": "deny"}']), "]", ""])


def hivemq(rules: Rules, made: str) -> str:
    """The file `credentials.xml` of the extension for roles, with one user as an example, whom nobody can be."""
    lines = [
        '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>',
        f"<!-- {made}",
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


PER_NODE: Mapping[str, Callable[[Rules, str, Iterable[str], str], str]] = {"nats": nats, "rabbitmq": rabbitmq}
FOR_ALL: Mapping[str, Callable[[Rules, str], str]] = {"mosquitto": mosquitto, "emqx": emqx, "nanomq": nanomq, "hivemq": hivemq}
