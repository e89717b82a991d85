"""`edgemw status` and `edgemw task publish` as an operator types them, against real nodes: who is blamed, and who is not."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgemw.transport.broker import start_broker
from edgemw.transport.link import Received
from edgemw.transport.mqtt import MqttLink, MqttSettings
from tests.system.fleet import BUNDLE, ROOT, Fleet, edgemw, fact


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with start_broker("mosquitto", tmp_path / "broker") as broker, Fleet(tmp_path, broker.url) as made:
        made.fog("top", task={"bundle": str(BUNDLE), "rounds": 2}, plan={"steps": 2})
        for node in ("phone-1", "phone-2"):
            made.device(node, "top")
        yield made


def status(fleet: Fleet, *flags: str) -> tuple[int, str, str]:
    done = edgemw("status", "--broker", fleet.url, "--net", fleet.net, *flags)
    return done.returncode, done.stdout, done.stderr


def line_of(printed: str, node: str) -> list[str]:
    return next(line.split() for line in printed.splitlines() if line.startswith(f"{node} "))


def test_a_misspelt_parent_is_seen_at_a_glance(fleet: Fleet) -> None:
    fleet.device("phone-2", "tpo")
    fleet.start("top", "phone-1", "phone-2")
    fleet.until(lambda s: s.keys() >= {"top", "phone-2"} and s["top"].status.state == "finished")
    code, printed, _ = status(fleet)
    assert code == 1
    reason = "its parent 'tpo' has never been seen (did you mean 'top'?)"
    assert f"! {reason}" in printed
    assert "-1" not in line_of(printed, "phone-2")
    nodes: dict[str, Any] = {node["node"]: node for node in json.loads(status(fleet, "--json")[1])["nodes"]}
    assert nodes["phone-2"]["reason"].startswith(reason)
    assert nodes["phone-1"]["reason"] == ""


def test_a_device_that_knows_its_task_and_has_no_release_yet_shows_none(fleet: Fleet) -> None:
    fleet.start("top", "phone-2")
    fleet.until(lambda s: "phone-2" in s and fact(s["phone-2"], "release") >= 0)
    fleet.kill("phone-2")
    fleet.device("phone-2", "tpo")
    fleet.start("phone-2")
    fleet.until(lambda s: s["phone-2"].status.parent == "tpo" and s["phone-2"].task == "digits")
    assert line_of(status(fleet)[1], "phone-2")[:6] == ["phone-2", "device", "tpo", "digits", "waiting", "-"]


def test_who_was_stopped_is_no_fault_who_is_lost_is_one_and_both_can_be_forgotten(fleet: Fleet) -> None:
    fleet.start("top", "phone-1", "phone-2")
    fleet.until(lambda s: "top" in s and s["top"].status.state == "finished")
    fleet.signal("phone-1", signal.SIGINT)
    assert fleet.wait("phone-1") == 0
    fleet.until(lambda s: s["phone-1"].status.state == "stopped" and not any(x.status.reason for x in s.values()))
    code, printed, _ = status(fleet)
    assert (code, line_of(printed, "phone-1")[4]) == (0, "stopped")
    assert "0 awaited" in printed
    fleet.kill("phone-2")
    fleet.until(lambda s: s["phone-2"].status.state == "lost")
    assert status(fleet)[0] == 1

    code, printed, errors = status(fleet, "--forget", "phone-2", "--forget", "top")
    assert (code, printed) == (3, "")
    assert "top is online: stop it first" in errors
    assert status(fleet, "--forget", "phone-1", "--forget", "phone-2")[:2] == (0, "forgotten: phone-1, phone-2\n")
    code, printed, _ = status(fleet)
    assert code == 0
    assert "phone" not in printed


def test_a_task_is_published_to_no_other_node_than_the_top(fleet: Fleet) -> None:
    fleet.fog("fog-0", "top")
    fleet.start("top", "fog-0", "phone-1")
    fleet.until(lambda s: s.keys() >= {"top", "fog-0", "phone-1"})
    for node, says in (("phone-1", "phone-1 is a device; the top is top"), ("fog-0", "fog-0 is a fog node with a parent")):
        done = edgemw("task", "publish", BUNDLE, "--broker", fleet.url, "--net", fleet.net, "--to", node)
        assert done.returncode == 3
        assert says in done.stderr
    assert {topic.split("/")[2] for topic in retained(fleet)} <= {"top", "fog-0"}
    assert f"em1/{fleet.net}/top/st/phone-1" in retained(fleet)


def retained(fleet: Fleet) -> list[str]:
    """Topics of everything that the broker keeps of this net."""
    found = []

    async def look() -> None:
        async with MqttLink(MqttSettings(fleet.url, "looker", session_expiry_s=0)) as link:
            await link.subscribe(f"em1/{fleet.net}/#")
            await link.subscribe("end")
            await link.publish("end", b"x", retain=True)
            async for event in link.events():
                if isinstance(event, Received) and event.topic == "end":
                    return
                if isinstance(event, Received):
                    found.append(event.topic)

    asyncio.run(look())
    return found


QUICKSTART = ROOT / "examples" / "quickstart"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["status", "--broker", "http://a", "--net", "n"], 3, "--broker: must be a broker address such as mqtt://host:1883"),
        (["doctor", "--broker", "http://a"], 3, "--broker: must be a broker address such as mqtt://host:1883"),
        (["status", "--broker", "mqtt://127.0.0.1:1", "--net", "My Net"], 3, "--net: must be 1 to 40 of a-z, 0-9 and '-'"),
        (["compile", QUICKSTART / "task.py:task", "-o", "/nowhere/x.edge"], 3, "--output: there is no folder /nowhere"),
        (["compile", QUICKSTART / "task.py:task", "-o", QUICKSTART], 3, "quickstart cannot be written"),
        (["config", "show", "--config", "nowhere.toml"], 3, "nowhere.toml: cannot be read"),
        (["predict", "--store", "nowhere", "--json", "[[0]]"], 3, "there is no folder nowhere"),
    ],
)
def test_refusals_are_one_line_with_the_program_s_name(arguments: list[str | Path], code: int, says: str) -> None:
    done = edgemw(*arguments)
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert done.stderr.startswith("edgemw: ")
    assert len(done.stderr.splitlines()) == 1
