"""What devices tell over MQTT, at the fog node above them, against a real broker."""

from __future__ import annotations

import gzip
import json
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.system.fleet import Fleet, when

POWER, UP = "edgemw_device_power_watts", "edgemw_device_up"


def told_at(url: str) -> dict[str, dict[str, float]]:
    """Values at a fog node by metric and device, as Prometheus asks for them."""
    request = urllib.request.Request(f"{url}/fleet", headers={"Accept-Encoding": "gzip"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        body = answer.read()
        text = (gzip.decompress(body) if answer.headers.get("Content-Encoding") == "gzip" else body).decode()
    found: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[sample.labels.get("device", "")] = sample.value
    return found


def until(fleet: Fleet, url: str, right: Callable[[dict[str, dict[str, float]]], bool]) -> dict[str, dict[str, float]]:
    return when(lambda: told_at(url), right)


@pytest.fixture
def tree(fleet: Fleet) -> tuple[Fleet, str]:
    """A top, a fog node and two devices that tell about themselves every second."""
    quick: dict[str, Any] = {"telemetry": {"http": "127.0.0.1:0", "publish": "1s"}, "energy": {"sources": ["model"]}}
    fleet.fog("top", **quick)
    fleet.fog("fog-0", "top", **quick | {"telemetry": quick["telemetry"] | {"targets": str(fleet.folder / "targets.json")}})
    for node in ("device-0", "device-1"):
        fleet.device(node, "fog-0", **quick)
    fleet.start("top", "fog-0", "device-0", "device-1")
    return fleet, fleet.address("fog-0", "telemetry")


def test_a_fog_node_tells_of_its_devices_and_its_parent_of_it(tree: tuple[Fleet, str]) -> None:
    fleet, url = tree
    found = until(fleet, url, lambda told: set(told.get(POWER, {})) == {"device-0", "device-1"})
    assert all(watts > 0 for watts in found[POWER].values())
    assert found["edgemw_device_cpu_seconds_total"].keys() == found[UP].keys()
    until(fleet, fleet.address("top", "telemetry"), lambda told: "fog-0" in told.get(POWER, {}))


def test_a_device_that_is_killed_is_down_and_back_when_it_is(tree: tuple[Fleet, str]) -> None:
    fleet, url = tree
    until(fleet, url, lambda told: "device-1" in told.get(POWER, {}))
    fleet.kill("device-1")
    found = until(fleet, url, lambda told: told[UP].get("device-1") == 0.0)  # its last will, long before three intervals
    assert "device-1" not in found[POWER]
    fleet.start("device-1")
    found = until(fleet, url, lambda told: "device-1" in told.get(POWER, {}))
    assert found[UP]["device-1"] == 1.0
    assert "edgemw_telemetry_rejected_total" not in found


def test_a_device_with_an_address_is_listed_for_prometheus_to_ask_itself(tree: tuple[Fleet, str]) -> None:
    fleet, url = tree
    quick = {"http": "127.0.0.1:0", "publish": "1s", "advertise": "192.0.2.7:9108"}
    fleet.device("device-2", "fog-0", telemetry=quick)
    fleet.start("device-2")
    found = until(fleet, url, lambda told: "device-2" in told.get(UP, {}) and "device-0" in told.get(POWER, {}))
    assert "device-2" not in found[POWER]
    listed: Path = fleet.folder / "targets.json"
    expected = [{"targets": ["192.0.2.7:9108"], "labels": {"__meta_edgemw_device": "device-2", "__meta_edgemw_site": ""}}]
    assert when(lambda: json.loads(listed.read_text()) if listed.exists() else [], lambda targets: targets != []) == expected
    with urllib.request.urlopen(f"{url}/sd", timeout=10) as answer:
        assert json.loads(answer.read()) == expected
