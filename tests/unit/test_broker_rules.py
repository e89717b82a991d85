"""The access rules of other brokers are those of mosquitto, and the files of brokers/ are what `edgemw broker rules` makes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from edgemw.app.rule_languages import emqx, hivemq, mosquitto, nanomq, nats, rabbitmq
from edgemw.app.rules import Rights, parse

BROKERS = Path(__file__).parents[2] / "brokers"
NODES = ("top", "fog-0", "fog-1", *(f"device-{number}" for number in range(8)))
RULES = """
# a comment
pattern write em1/+/+/up/%u/#
pattern readwrite em1/+/%u/#
user watcher
topic read em1/#
"""
DEVICE = Rights(["em1/+/+/up/dev/#", "em1/+/dev/#"], ["em1/+/dev/#"])


def made(*arguments: str) -> str:
    command = [sys.executable, "-m", "edgemw", "broker", "rules", "--for", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.mark.parametrize(
    ("path", "arguments"),
    [
        ("nats/users.conf", ("nats", "quickstart", *NODES)),
        ("rabbitmq/definitions.json", ("rabbitmq", "quickstart", *NODES)),
        ("emqx/acl.conf", ("emqx",)),
        ("nanomq/acl.conf", ("nanomq",)),
        ("hivemq/credentials.xml", ("hivemq",)),
    ],
)
def test_the_files_are_up_to_date(path: str, arguments: tuple[str, ...]) -> None:
    message = f"run: edgemw broker rules --for {' '.join(arguments)} > brokers/{path}"
    assert (BROKERS / path).read_text() == made(*arguments), message


def test_patterns_hold_for_everybody_and_topics_for_their_user() -> None:
    accounts = parse(RULES).accounts(["dev"])
    assert dict(accounts) == {
        "dev": DEVICE,
        "watcher": Rights(["em1/+/+/up/watcher/#", "em1/+/watcher/#"], ["em1/+/watcher/#", "em1/#"]),
    }


@pytest.mark.parametrize("line", ["pattern deny a", "topic a", "pattern read a b", "allow all"])
def test_a_rule_that_is_not_understood_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=line):
        parse(line)


def test_nats_has_subjects_and_counts_the_level_above() -> None:
    users = nats(parse(RULES), "n", ["dev"], "made")
    assert 'user: "CN=dev", allowed_connection_types: ["MQTT"]' in users
    assert 'publish: ["em1.*.*.up.dev", "em1.*.*.up.dev.>", "em1.*.dev", "em1.*.dev.>"]' in users
    assert 'subscribe: ["em1.*.dev", "em1.*.dev.>", "$MQTT.sub.>"]' in users


def test_rabbitmq_has_expressions_that_hold_for_whole_keys_and_own_queues() -> None:
    found = json.loads(rabbitmq(parse(RULES), "n", ["dev"], "made"))
    write = re.compile(found["topic_permissions"][0]["write"])
    assert all(write.search(key) for key in ("em1.n.fog.up.dev", "em1.n.fog.up.dev.digits", "em1.n.dev.st.x"))
    assert not any(
        write.search(key) for key in ("em1.n.fog.up.devil.digits", "em1.n.fog.up.x.dev", "x.em1.n.dev", "em1.n.dev2.x")
    )
    queue = re.compile(found["permissions"][0]["configure"])
    assert queue.search("mqtt-subscription-em1-n-devqos1")
    assert queue.search("mqtt-subscription-em1-n-dev-0123456789abcdefqos1")
    assert not any(queue.search(f"mqtt-subscription-em1-{name}qos1") for name in ("n-dev2", "n-other", "n-other-dev", "m-dev"))
    assert [user["password_hash"] for user in found["users"]] == ["", ""]


def test_brokers_that_know_a_placeholder_have_one_file_for_every_fleet() -> None:
    rules = parse(RULES)
    assert '{allow, all, publish, [\n  "em1/+/+/up/${username}/#",\n  "em1/+/${username}/#"\n]}.' in emqx(rules, "made")
    assert emqx(rules, "made").endswith('{allow, {username, "watcher"}, subscribe, [\n  "em1/#"\n]}.\n{deny, all}.\n')
    listed = json.loads(nanomq(rules, "made").split("rules = ")[1])
    assert listed[0] == {
        "permit": "allow",
        "username": "#",
        "action": "publish",
        "topics": ["em1/+/+/up/${username}/#", "em1/+/${username}/#"],
    }
    assert listed[-1] == {"permit": "deny"}
    roles = {role.findtext("id"): role for role in ElementTree.fromstring(hivemq(rules, "made")).iter("role")}
    topics = [(item.findtext("activity"), item.findtext("topic")) for item in roles["node"].iter("permission")]
    assert ("PUBLISH", "em1/+/+/up/${{username}}/#") in topics
    assert set(roles) == {"node", "watcher"}


def test_mosquitto_reads_what_was_parsed_from_its_file() -> None:
    for acl in (RULES, (BROKERS / "mosquitto/acl").read_text()):
        rules = parse(acl)
        again = parse(mosquitto(rules, "made"))
        assert {who: (set(r.write), set(r.read)) for who, r in again.accounts(["dev"]).items()} == {
            who: (set(r.write), set(r.read)) for who, r in rules.accounts(["dev"]).items()
        }


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(("nats",), "need the net"), (("emqx", "net", "dev"), "take none"), (("nats", "n", "A"), "'A' must be")],
)
def test_what_cannot_be_meant_is_refused(arguments: tuple[str, ...], says: str) -> None:
    command = [sys.executable, "-m", "edgemw", "broker", "rules", "--for", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3
    assert says in done.stderr
