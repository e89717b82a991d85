"""The quickstart on brokers with the files of brokers/mosquitto, every node with an identity of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edgemw.app.dealing import deal_out
from edgemw.app.deployment import device_ids, expand, load_deployment, to_toml
from edgemw.app.settings import Broker
from edgemw.app.wiring import load_bundle
from tests.support.mosquitto import Authority, Mosquitto
from tests.system.fleet import BUNDLE, ROOT, Fleet, edgemw, fact

ROUNDS = 5
QUICKSTART = ROOT / "examples/quickstart/edgemw.toml"


def write_nodes(folder: Path, deployment: Path, login: Callable[[str], Broker], rounds: int) -> list[str]:
    """The files of a deployment's nodes, each with what it says to its broker; their names, parents first."""
    settings = load_deployment(deployment, None, {}, [f"task.rounds={rounds}"])
    assert settings.data is not None
    dealt = deal_out(settings.data, device_ids(settings), load_bundle(BUNDLE)[1].manifest)
    specs = expand(settings, "mqtt://localhost", folder, dealt.write(folder / "data"))
    for spec in specs:
        spec.path.write_text(to_toml(replace(spec.settings, broker=login(spec.id))))
    return [spec.id for spec in specs]


def finish(fleet: Fleet, top: str, rounds: int) -> None:
    """Wait until the top has made the last release."""
    statuses = fleet.until(lambda s: top in s and s[top].status.state == "finished", timeout_s=120)
    assert fact(statuses[top], "release") == rounds


def check_books(fleet: Fleet) -> None:
    """Stop every node and compare what all have counted."""
    for node in list(fleet.processes):
        fleet.kill(node)
    done = edgemw("audit", fleet.folder, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = json.loads(done.stdout)["tasks"]
    assert found["faults"] == []
    assert {row["node"] for row in found["rows"]} == {path.stem for path in fleet.folder.glob("*.toml")}


def check_nothing_was_refused(fleet: Fleet) -> None:
    """No node has said that its broker did not take something."""
    logs = {path.name: path.read_text() for path in fleet.folder.glob("*.log")}
    assert logs
    assert not {name: text for name, text in logs.items() if "level=error" in text}


def check_who_may_ask(fleet: Fleet, gone: str) -> None:
    """A fog node's own file is enough to ask everybody and to forget a child; a file of somebody else's child is not."""
    statuses = fleet.until(lambda s: gone in s)
    parent = statuses[gone].status.parent
    stranger = next(s.status.parent for s in statuses.values() if s.status.role == "device" and s.status.parent != parent)
    asked = edgemw("status", "--config", fleet.folder / "top.toml", "--json")
    assert (asked.returncode, asked.stderr) == (0, "")
    assert {node["node"] for node in json.loads(asked.stdout)["nodes"]} == statuses.keys()
    fleet.kill(gone)
    fleet.until(lambda s: s[gone].status.state == "lost")
    refused = edgemw("status", "--config", fleet.folder / f"{stranger}.toml", "--forget", gone)
    assert refused.returncode != 0
    assert fleet.until(lambda s: gone in s)[gone].status.state == "lost"
    forgotten = edgemw("status", "--config", fleet.folder / f"{parent}.toml", "--forget", gone)
    assert (forgotten.returncode, forgotten.stderr) == (0, "")
    fleet.until(lambda s: gone not in s)


@pytest.fixture(params=["single", "tls"])
def secured(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[list[str], Fleet]]:
    """A broker that knows the nodes of the quickstart, their names, and who may ask them."""
    authority = Authority(tmp_path / "authority") if request.param == "tls" else None
    broker = Mosquitto(tmp_path / "broker", request.param, authority)
    nodes = write_nodes(tmp_path / "nodes", QUICKSTART, broker.login, ROUNDS)
    (broker if authority is None else authority).admit(*nodes, "monitor")
    with broker, Fleet(tmp_path / "nodes", broker.url, "quickstart", broker.login("monitor")) as fleet:
        yield nodes, fleet


def test_they_carry_the_quickstart(secured: tuple[list[str], Fleet]) -> None:
    nodes, fleet = secured
    fleet.start(*nodes)
    finish(fleet, "top", ROUNDS)
    statuses = fleet.until(lambda s: set(s) == set(nodes))
    assert {status.status.reason for status in statuses.values()} == {""}
    check_who_may_ask(fleet, gone="device-7")
    check_books(fleet)
    check_nothing_was_refused(fleet)
