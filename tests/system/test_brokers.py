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


def write_nodes(folder: Path, deployment: Path, login: Callable[[str], Broker]) -> list[str]:
    """The files of a deployment's nodes, each with what it says to its broker; their names, parents first."""
    settings = load_deployment(deployment, None, {}, [f"task.rounds={ROUNDS}"])
    assert settings.data is not None
    dealt = deal_out(settings.data, device_ids(settings), load_bundle(BUNDLE)[1].manifest)
    specs = expand(settings, "mqtt://localhost", folder, dealt.write(folder / "data"))
    for spec in specs:
        spec.path.write_text(to_toml(replace(spec.settings, broker=login(spec.id))))
    return [spec.id for spec in specs]


def finished(fleet: Fleet, top: str) -> None:
    """Wait until the top has made the last release."""
    statuses = fleet.until(lambda s: top in s and s[top].status.state == "finished", timeout_s=120)
    assert fact(statuses[top], "release") == ROUNDS


def check_books(fleet: Fleet) -> None:
    """Stop every node and compare what all have counted."""
    for node in list(fleet.processes):
        fleet.kill(node)
    done = edgemw("audit", fleet.folder, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = json.loads(done.stdout)["tasks"]
    assert found["faults"] == []
    assert {row["node"] for row in found["rows"]} == {path.stem for path in fleet.folder.glob("*.toml")}


@pytest.fixture(params=["single", "tls"])
def secured(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Mosquitto, list[str], Fleet]]:
    """A broker that knows the nodes of the quickstart, their names, and who may ask them."""
    authority = Authority(tmp_path / "authority") if request.param == "tls" else None
    broker = Mosquitto(tmp_path / "broker", request.param, authority)
    nodes = write_nodes(tmp_path / "nodes", QUICKSTART, broker.login)
    (broker if authority is None else authority).admit(*nodes, "monitor")
    with broker, Fleet(tmp_path / "nodes", broker.url, "quickstart", broker.login("monitor")) as fleet:
        yield broker, nodes, fleet


def test_they_carry_the_quickstart(secured: tuple[Mosquitto, list[str], Fleet]) -> None:
    broker, nodes, fleet = secured
    fleet.start(*nodes)
    finished(fleet, "top")
    statuses = fleet.until(lambda s: set(s) == set(nodes))
    assert {status.status.reason for status in statuses.values()} == {""}
    assert "denied" not in broker.log.lower()
    check_books(fleet)
