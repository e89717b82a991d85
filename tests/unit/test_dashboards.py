"""The dashboards are what their generator makes, and keep the rules that Grafana's own linter has, and some of ours."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgemw.telemetry.fleet import SEEN, UP
from edgemw.wire.readings import READINGS
from grafana.generate import DASHBOARDS, FOLDER, Dashboard, files
from tests.unit.test_telemetry_observer import SEQUENCES

MOST_PANELS = 12
UNITS = {"joules": "joule", "watts": "watt", "bytes": "bytes", "celsius": "celsius"}
BOARDS = pytest.mark.parametrize("board", DASHBOARDS, ids=lambda board: board.uid)
_SELECTOR = re.compile(r"\{[^{}]*\}")
_METRIC = re.compile(r"\bedgemw_[a-z0-9_]+")


def expressions(board: Dashboard) -> list[str]:
    return [expression for panel in board.panels for expression in panel.expressions]


def exposed() -> set[str]:
    """Names of all metrics that nodes have."""
    text = "".join(make().render().decode() for make in SEQUENCES.values())
    own = {line.split("{")[0].split(" ")[0] for line in text.splitlines() if not line.startswith("#")}
    counts = {f"edgemw_telemetry_{name}_total" for name in ("messages", "rejected", "expired")}
    return own | {reading.metric for reading in READINGS} | {UP, SEEN} | counts


def test_the_files_are_what_the_generator_makes() -> None:
    """After a change on purpose: python grafana/generate.py."""
    assert {path.name: path.read_text() for path in FOLDER.glob("*.json")} == files()


@BOARDS
def test_every_panel_says_what_it_shows_of_which_source_and_in_which_unit(board: Dashboard) -> None:
    document = board.document
    assert (document["editable"], document["schemaVersion"]) == (False, 41)
    assert len(board.panels) <= MOST_PANELS
    for panel in document["panels"]:
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["targets"]
        assert {json.dumps(part["datasource"]) for part in (panel, *panel["targets"])} == {
            json.dumps({"type": "prometheus", "uid": "${datasource}"})
        }
    assert len({panel["id"] for panel in document["panels"]}) == len(document["panels"])
    assert len({panel.title for panel in board.panels}) == len(board.panels)


@BOARDS
def test_variables_choose_source_site_and_device(board: Dashboard) -> None:
    found: dict[str, Any] = {variable["name"]: variable for variable in board.document["templating"]["list"]}
    assert list(found) == ["datasource", "site", "device"]
    assert found["datasource"]["label"] == "Data source"
    for name in ("site", "device"):
        assert (found[name]["multi"], found[name]["includeAll"], found[name]["refresh"]) == (True, True, 2)
        assert found[name]["label"] == name.title()


@BOARDS
def test_panels_lie_beside_each_other_and_not_on_top(board: Dashboard) -> None:
    places = [panel["gridPos"] for panel in board.document["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, two in combinations(places, 2):
        apart = (
            one["x"] + one["w"] <= two["x"]
            or two["x"] + two["w"] <= one["x"]
            or one["y"] + one["h"] <= two["y"]
            or two["y"] + two["h"] <= one["y"]
        )
        assert apart, (one, two)


@BOARDS
def test_questions_are_about_the_chosen_devices_and_of_metrics_that_there_are(board: Dashboard) -> None:
    for expression in expressions(board):
        assert set(_METRIC.findall(expression)) <= exposed(), expression
        for selector in _SELECTOR.findall(expression):
            assert "alertname" in selector or selector.startswith('{site=~"$site",device=~"$device"'), expression
        bare = re.sub(r"by \([^)]*\)", "", expression)
        of_nodes = [name for name in _METRIC.findall(bare) if not name.startswith("edgemw_telemetry_")]
        assert len(of_nodes) == len([s for s in _SELECTOR.findall(expression) if "alertname" not in s]), expression


@BOARDS
def test_counters_are_asked_for_their_rate_and_with_grafana_s_interval(board: Dashboard) -> None:
    for expression in expressions(board):
        flat = _SELECTOR.sub("", expression)
        for metric in _METRIC.findall(flat):
            counter = metric.endswith(("_total", "_bucket"))
            asked = re.search(rf"(rate|increase)\({metric}\[(\$__rate_interval|1h|24h)\]\)", flat)
            assert bool(asked) == counter, expression


@BOARDS
def test_units_belong_to_what_is_asked(board: Dashboard) -> None:
    for panel in board.panels:
        flat = " ".join(panel.expressions)
        if "/" in flat or "count(" in flat or "histogram" in flat or panel.unit in ("none", "percentunit", "reqps"):
            continue
        (metric, *_) = _METRIC.findall(flat)
        unit = next((unit for word, unit in UNITS.items() if f"_{word}" in metric), panel.unit)
        if "rate(" in flat:
            unit = {"joule": "watt", "bytes": "Bps"}.get(unit, unit)
        assert panel.unit == unit, panel.title


def test_provisioning_is_of_one_source_and_the_folder() -> None:
    folder = FOLDER.parent / "provisioning"
    (source,) = yaml.safe_load((folder / "datasources" / "edgemw.yaml").read_text())["datasources"]
    assert (source["type"], source["uid"], source["jsonData"]["httpMethod"]) == ("prometheus", "edgemw-prom", "POST")
    (provider,) = yaml.safe_load((folder / "dashboards" / "edgemw.yaml").read_text())["providers"]
    assert (provider["type"], provider["allowUiUpdates"]) == ("file", False)
    scraped = yaml.safe_load((Path(__file__).parents[2] / "prometheus" / "prometheus.yml").read_text())
    assert scraped["global"]["scrape_interval"] == source["jsonData"]["timeInterval"]


@BOARDS
def test_what_two_jobs_may_know_of_a_device_is_asked_for_once(board: Dashboard) -> None:
    """A device that is scraped and tells its fog node as well has its series twice; sums of those would be twice too much."""
    twice = {reading.metric for reading in READINGS}
    asked = [expression for expression in expressions(board) if twice & set(_METRIC.findall(expression))]
    assert [expression for expression in asked if "max by (device" not in expression] == []
    inner = re.compile(r"(?:max|sum) by \(([a-z, ]+)\) \((?:sum by \(([a-z, ]+)\) \()?")
    for expression in asked:
        for by, inside in inner.findall(expression):
            assert "device" not in by or not inside or {"job", "instance"} <= set(inside.split(", ")), expression
