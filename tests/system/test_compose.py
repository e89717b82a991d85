"""docker/compose.yaml learns: its services run with its commands, files, secrets and names, without Docker."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.compose import certificates, services
from tests.support.containers import Pod, needs_namespaces
from tests.support.programs import installed
from tests.system.fleet import when

DEVICES = [f"device-{number}" for number in range(8)]
NODES = ["top", "fog-0", "fog-1", *DEVICES]
WRITE = "touch /usr/x /etc/edgemw/x /x; touch /var/lib/edgemw/x && grep CapEff /proc/self/status"
FETCH = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=10).read().decode())"


def fetched(pod: Pod, at: str, url: str) -> Any:
    """The JSON at an address, as a service reaches it."""
    done = pod.execute(at, ["/usr/bin/python3", "-c", FETCH, url])
    return json.loads(done.stdout) if done.returncode == 0 else None


def status(pod: Pod) -> dict[str, Any]:
    """What `docker compose run --rm status` says, by node."""
    done = pod.run("status", "--json")
    return {node["node"]: node for node in json.loads(done.stdout or '{"nodes": []}')["nodes"]}


def asked(pod: Pod, query: str) -> list[dict[str, Any]]:
    """What Prometheus answers."""
    answer = fetched(pod, "prometheus", f"http://prometheus:9090/api/v1/query?query={query}")
    found: list[dict[str, Any]] = answer["data"]["result"] if answer else []
    return found


@pytest.fixture(scope="module")
def pod(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Pod]:
    """The broker, the nodes with their samples, and Prometheus, running."""
    needs_namespaces()
    installed("mosquitto")
    installed("prometheus")
    given = request.config.getoption("--images")
    folder = tmp_path_factory.mktemp("compose")
    certificates(folder / "secrets")
    with Pod(folder / "pod", services(folder / "secrets"), Path(given).resolve() if given else None) as pod:
        pod.start("samples")
        assert pod.wait("samples") == 0, pod.log("samples")
        for name in ("broker", *NODES, "prometheus"):
            pod.start(name)
        yield pod


def test_three_levels_learn_and_every_device_is_counted(pod: Pod) -> None:
    def counted(nodes: dict[str, Any]) -> bool:
        facts = [nodes.get(device, {}).get("facts", {}) for device in DEVICES]
        outcomes = [each.get("updates_sent", 0) - each.get("updates_pending", 0) for each in facts]
        return min(outcomes) > 0 and all(each["release"] > 0 for each in facts)

    found = when(lambda: status(pod), counted)
    above = {node: "fog-0" if node in DEVICES[:4] else "fog-1" for node in DEVICES}
    assert {node: found[node]["parent"] for node in found} == {"top": "", "fog-0": "top", "fog-1": "top", **above}
    assert [(node, found[node]["reason"]) for node in NODES if found[node]["reason"]] == []
    assert [node for node in NODES if found[node]["facts"].get("updates_returned", 0)] == []
    page = fetched(pod, "top", "http://top:9108/overview")
    assert {each["node"] for each in page["nodes"]} == set(NODES)


def test_every_container_is_healthy(pod: Pod) -> None:
    for name in ("broker", *NODES):
        when(partial(pod.healthy, name), bool)


def test_prometheus_asks_fog_nodes_and_the_north_and_is_told_of_the_south(pod: Pod) -> None:
    up = when(lambda: asked(pod, "up"), lambda found: len(found) == 10 and all(each["value"][1] == "1" for each in found))
    listed = {each["metric"]["device"] for each in up if each["metric"]["job"] == "edgemw-devices"}
    assert listed == set(DEVICES[:4])
    query = 'edgemw_device_power_watts{job="edgemw-fleet",instance="fog-1:9108"}'
    told = when(lambda: asked(pod, query), lambda found: len(found) == 4)
    assert {(each["metric"]["device"], each["metric"]["site"]) for each in told} == {(device, "south") for device in DEVICES[4:]}
    assert len(asked(pod, 'edgemw_learning_mass_imbalance_ratio{job="edgemw-devices"}')) == 4


def test_a_container_writes_its_state_and_nothing_else(pod: Pod) -> None:
    for name in ("broker", "top", "device-0"):
        done = pod.execute(name, ["sh", "-c", WRITE])
        assert done.stderr.count("Read-only file system") == 3, done.stderr
        assert done.stdout == "CapEff:\t0000000000000000\n"
    assert "Read-only" in pod.execute("device-0", ["touch", "/samples/x", "/run/secrets/node.pem"]).stderr


def test_predictions_are_published(pod: Pod) -> None:
    ready = when(lambda: fetched(pod, "top", "http://device-0:8080/v2/models/digits"), bool)
    assert ready["name"] == "digits"


def test_nobody_joins_without_a_certificate_or_with_one_that_was_revoked(pod: Pod) -> None:
    words = ["mosquitto_pub", "-h", "broker", "-p", "8883", "--cafile", "/etc/edgemw/ca.crt", "-t", "t", "-n"]
    assert pod.execute("broker", words).returncode != 0
    pod.signal("device-7", signal.SIGTERM)
    assert pod.wait("device-7") == 0
    certificates(pod.folder.parent / "secrets", REVOKE="device-7")
    pod.signal("broker", signal.SIGHUP)
    before = len(pod.log("device-7"))
    pod.start("device-7")
    refusal = re.compile("this certificate is revoked|the broker hung up on TLS")  # as the alert comes in time or not
    said = when(lambda: pod.log("device-7")[before:], lambda text: refusal.search(text) is not None)
    assert "link up" not in said


def test_a_node_without_its_broker_is_unhealthy_and_goes_on_when_it_is_back(pod: Pod) -> None:
    pod.signal("broker", signal.SIGTERM)
    assert pod.wait("broker") == 0
    when(lambda: pod.healthy("fog-0"), lambda healthy: not healthy)
    pod.start("broker")
    when(lambda: pod.healthy("fog-0"), bool)
