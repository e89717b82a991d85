"""Every question of every panel is asked of a real Prometheus that scrapes real nodes, and has an answer."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from grafana.generate import DASHBOARDS, Panel
from tests.support.prometheus import Prometheus, prometheus
from tests.support.sysfs import battery, plant
from tests.system.fleet import ROOT, Fleet, when

CONFIG = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [{rules}]
scrape_configs:
  - job_name: edgemw
    static_configs: [{{targets: {nodes}}}]
  - job_name: edgemw-devices
    http_sd_configs: [{{url: "http://{fog}/sd", refresh_interval: 1s}}]
  - job_name: edgemw-fleet
    metrics_path: /fleet
    static_configs: [{{targets: {fogs}}}]
"""
INPUT = {"name": "x", "shape": [1, 64], "datatype": "FP32", "data": [0.5] * 64}
VARIABLES = {"$__rate_interval": "10s", "$site": ".*", "$device": ".*"}


@pytest.fixture
def scraped(fleet: Fleet) -> Iterator[Prometheus]:
    """A top, a fog node, a device that Prometheus reaches, with a battery and a budget, and one that it does not."""
    quick: dict[str, Any] = {"http": "127.0.0.1:0", "publish": "1s"}
    sysfs = plant(fleet.folder / "sysfs", battery("Discharging", 2_500_000) | {"class/thermal/thermal_zone0/temp": 48_300})
    fleet.fog("top", telemetry=quick)
    fleet.fog("fog-0", "top", telemetry=quick)
    energy = {"sysfs": str(sysfs), "budget": 3.0, "sources": ["battery", "rapl", "model"]}
    fleet.device("device-0", "fog-0", energy=energy, telemetry=quick)
    fleet.device("device-1", "fog-0", telemetry=quick)
    fleet.start("top", "fog-0", "device-0", "device-1")
    hosts = {node: fleet.address(node, "telemetry").removeprefix("http://") for node in ("top", "fog-0", "device-0")}
    config = CONFIG.format(
        rules=ROOT / "prometheus" / "rules.yml",
        nodes=json.dumps([*hosts.values()]),
        fogs=json.dumps([hosts["top"], hosts["fog-0"]]),
        fog=hosts["fog-0"],
    )
    fleet.until(lambda s: all(node in s for node in ("top", "device-0")) and int(s["top"].status.facts.get("release", -1)) >= 3)
    with prometheus(fleet.folder / "prometheus", config) as running:
        yield running


def predict(door: str) -> None:
    request = urllib.request.Request(f"{door}/v2/models/digits/infer", json.dumps({"inputs": [INPUT]}).encode())
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 200


def answers(asked: Prometheus, panel: Panel) -> list[list[Any]]:
    """What comes for each question of a panel, as Grafana asks."""
    found = []
    for expression in panel.expressions:
        for name, value in VARIABLES.items():
            expression = expression.replace(name, value)
        now = time.time()
        if panel.kind in ("stat", "table", "bargauge"):
            found.append(asked.ask("query", query=expression, time=str(now))["result"])
        else:
            times = {"start": str(now - 20), "end": str(now), "step": "1"}
            found.append(asked.ask("query_range", query=expression, **times)["result"])
    return found


def test_every_question_of_every_panel_is_answered(scraped: Prometheus, fleet: Fleet) -> None:
    door = fleet.address("device-0", "serving")
    panels = [panel for board in DASHBOARDS for panel in board.panels]

    def unanswered() -> list[str]:
        predict(door)
        return [panel.title for panel in panels if not all(answers(scraped, panel)) and not panel.quiet]

    assert when(unanswered, lambda left: not left) == []
    up = {r["metric"]["job"]: r["value"][1] for r in scraped.ask("query", query="sum by (job) (up)")["result"]}
    assert up == {"edgemw": "3", "edgemw-fleet": "2"}
    (told,) = scraped.ask("query", query='edgemw_device_energy_joules_total{device="device-0",source="battery",job="edgemw"}')[
        "result"
    ]
    assert float(told["value"][1]) > 0
    (far,) = scraped.ask("query", query='edgemw_device_power_watts{device="device-1"}')["result"]
    assert far["metric"]["job"] == "edgemw-fleet"


def test_a_question_that_is_wrong_would_be_noticed(tmp_path: Path) -> None:
    with prometheus(tmp_path, "global: {}\n") as running, pytest.raises(AssertionError, match="parse error"):
        running.ask("query", query="sum(")
