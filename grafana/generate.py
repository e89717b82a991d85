"""The dashboards, as Grafana takes them: `python grafana/generate.py` writes grafana/dashboards/*.json.

A panel is said in one line of what is asked and how it is drawn. What all have in common stands here: the data source and the
variables, the grid, and units that belong to what is asked. Panels whose emptiness means that all is well are `quiet`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

FOLDER = Path(__file__).parent / "dashboards"
SCHEMA_VERSION = 41
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH, HEIGHT, STAT_HEIGHT = 24, 8, 4
HERE = '{site=~"$site",device=~"$device"'
"""What every question is about; more labels, and the brace, follow."""

Kind = Literal["timeseries", "stat", "table", "bargauge", "heatmap"]


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel.

    Attributes:
        title, about: for people.
        unit: as Grafana calls it.
        asked: expressions, each with its legend; @ stands for the selector of site and device, @, for one with more labels.
        kind: how it is drawn.
        width: of the 24 columns.
        quiet: nothing to show is nothing wrong.
        stacked: areas on top of each other.
    """

    title: str
    about: str
    unit: str
    asked: tuple[tuple[str, str], ...]
    kind: Kind = "timeseries"
    width: int = 8
    quiet: bool = False
    stacked: bool = False

    @property
    def expressions(self) -> list[str]:
        """What is asked, whole."""
        return [expression.replace("@,", HERE + ",").replace("@", HERE + "}") for expression, _ in self.asked]


@dataclass(frozen=True, slots=True)
class Dashboard:
    """Panels, in rows as they fit."""

    uid: str
    title: str
    about: str
    panels: tuple[Panel, ...] = field(default=())

    @property
    def document(self) -> dict[str, Any]:
        """As Grafana takes it."""
        return {
            "uid": self.uid,
            "title": self.title,
            "description": self.about,
            "tags": ["edgemw"],
            "schemaVersion": SCHEMA_VERSION,
            "version": 1,
            "editable": False,
            "graphTooltip": 1,
            "refresh": "30s",
            "time": {"from": "now-1h", "to": "now"},
            "timezone": "browser",
            "links": [{"type": "dashboards", "tags": ["edgemw"], "title": "edgemw", "asDropdown": True, "includeVars": True}],
            "annotations": {"list": []},
            "templating": {"list": list(_variables())},
            "panels": list(_placed(self.panels)),
        }


def _variables() -> Iterator[dict[str, Any]]:
    yield {"type": "datasource", "name": "datasource", "label": "Data source", "query": "prometheus", "current": {}, "hide": 0}
    for name, label, query in (
        ("site", "Site", "label_values(edgemw_device_cpu_cores, site)"),
        ("device", "Device", 'label_values(edgemw_device_cpu_cores{site=~"$site"}, device)'),
    ):
        yield {
            "type": "query",
            "name": name,
            "label": label,
            "datasource": SOURCE,
            "query": {"query": query, "refId": name},
            "definition": query,
            "refresh": 2,  # when the time range changes
            "sort": 7,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",  # a node that nobody has given a site has an empty one
            "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
            "hide": 0,
        }


def _placed(panels: tuple[Panel, ...]) -> Iterator[dict[str, Any]]:
    x = y = row = 0
    for number, panel in enumerate(panels, 1):
        height = STAT_HEIGHT if panel.kind == "stat" else HEIGHT
        if x + panel.width > WIDTH:
            x, y, row = 0, y + row, 0
        yield _drawn(panel, number, {"x": x, "y": y, "w": panel.width, "h": height})
        x, row = x + panel.width, max(row, height)


def _drawn(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    now = panel.kind in ("stat", "table", "bargauge")
    targets = [
        {
            "refId": chr(ord("A") + place),
            "datasource": SOURCE,
            "expr": expression,
            "legendFormat": legend,
            "instant": now,
            "range": not now,
            "format": {"table": "table", "heatmap": "heatmap"}.get(panel.kind, "time_series"),
        }
        for place, (expression, (_, legend)) in enumerate(zip(panel.expressions, panel.asked, strict=True))
    ]
    drawn: dict[str, Any] = {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": SOURCE,
        "gridPos": place,
        "targets": targets,
        "fieldConfig": {"defaults": {"unit": panel.unit, "noValue": "0" if panel.quiet else "-"}, "overrides": []},
        "options": _options(panel.kind),
    }
    if panel.kind == "timeseries":
        stacking = {"group": "A", "mode": "normal" if panel.stacked else "none"}
        drawn["fieldConfig"]["defaults"]["custom"] = {
            "lineWidth": 1, "fillOpacity": 30 if panel.stacked else 5, "showPoints": "never", "stacking": stacking
        }  # fmt: skip
    if panel.kind == "table":
        hidden = {"Time": True, "__name__": True, "instance": True, "job": True}
        drawn["transformations"] = [{"id": "organize", "options": {"excludeByName": hidden}}]
    return drawn


def _options(kind: Kind) -> dict[str, Any]:
    last = {"calcs": ["lastNotNull"], "fields": "", "values": False}
    options: dict[Kind, dict[str, Any]] = {
        "timeseries": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}},
        "stat": {"reduceOptions": last, "colorMode": "value", "graphMode": "none"},
        "bargauge": {"reduceOptions": last, "orientation": "horizontal", "displayMode": "basic"},
        "table": {"showHeader": True},
        "heatmap": {"calculate": False, "color": {"mode": "scheme", "scheme": "Oranges"}, "yAxis": {"unit": "s"}},
    }
    return options[kind]


# ---------------------------------------------------------------------------------------------------------- what is asked

RATE = "[$__rate_interval]"
EACH = "{{device}}"
JOULES, IDLE = "edgemw_device_energy_joules_total", "edgemw_device_energy_idle_joules_total"
PARTS = "edgemw_process_energy_joules_total"

# Once for each device, also where two jobs know it.
WATTS = "max by (device, site) (edgemw_device_power_watts@)"
RATE_OF_ALL = f"max by (device, site, source) (rate({JOULES}@{RATE}))"
RATE_OF_IDLE = f"max by (device, site) (rate({IDLE}@{RATE}))"
RATE_OF_PARTS = f"max by (device, site, component) (rate({PARTS}@{RATE}))"
HOUR_OF_ALL = f"max by (device, site, source) (increase({JOULES}@[1h]))"
HOUR_OF_IDLE = f"max by (device, site) (increase({IDLE}@[1h]))"
DAY_OF_ALL = f"max by (device, site, source) (increase({JOULES}@[24h]))"
SERVE_WATTS = f'max by (device) (rate({PARTS}@,component="serve"}}{RATE}))'
REQUESTS = f"max by (device) (sum by (device, job, instance) (rate(edgemw_serving_requests_total@{RATE})))"


FLEET = Dashboard(
    "edgemw-fleet",
    "edgemw / Fleet",
    "Who is there, what it costs, and what needs somebody.",
    (
        Panel(
            "Devices heard", "Devices that tell their fog node something.", "none", (("sum(edgemw_device_up@)", ""),), "stat", 4
        ),
        Panel(
            "Devices silent",
            "Devices that a fog node has known in the last day and does not hear.",
            "none",
            (("sum(1 - edgemw_device_up@)", ""),),
            "stat",
            4,
        ),
        Panel(
            "Power",
            "Of all devices that know theirs.",
            "watt",
            ((f"sum({WATTS})", ""),),
            "stat",
            4,
        ),
        Panel(
            "Energy, a day",
            "Of all devices in the last 24 hours.",
            "joule",
            ((f"sum({DAY_OF_ALL})", ""),),
            "stat",
            4,
        ),
        Panel(
            "Alerts",
            "Alerts of edgemw that are raised now.",
            "none",
            (('count(ALERTS{alertname=~"Edgemw.*",alertstate="firing"})', ""),),
            "stat",
            4,
            quiet=True,
        ),
        Panel(
            "Batteries below 20 %",
            "Devices that will be gone before long.",
            "none",
            (("count(max by (device) (edgemw_device_battery_charge_ratio@) < 0.2)", ""),),
            "stat",
            4,
            quiet=True,
        ),
        Panel(
            "Power by site",
            "Metered or modelled.",
            "watt",
            ((f"sum by (site) ({WATTS})", "{{site}}"),),
            stacked=True,
        ),
        Panel(
            "Most power",
            "The ten devices that take most.",
            "watt",
            (("topk(10, max by (device) (edgemw_device_power_watts@))", EACH),),
            "bargauge",
        ),
        Panel(
            "Busiest",
            "The ten devices whose processors are busiest, all cores together.",
            "percentunit",
            ((f"topk(10, max by (device) (rate(edgemw_device_cpu_seconds_total@{RATE}) / edgemw_device_cpu_cores@))", EACH),),
            "bargauge",
        ),
        Panel(
            "Silent for",
            "Since a device was heard for the last time, of those that are not heard.",
            "s",
            (("time() - max by (device, site) (edgemw_device_last_seen_timestamp_seconds@ and edgemw_device_up@ == 0)", EACH),),
            "table",
            12,
            quiet=True,
        ),
        Panel(
            "Alerts raised",
            "What they are of.",
            "none",
            (('ALERTS{alertname=~"Edgemw.*",alertstate="firing"}', "{{alertname}}"),),
            "table",
            12,
            quiet=True,
        ),
    ),
)

DEVICE = Dashboard(
    "edgemw-device",
    "edgemw / Device",
    "One device, or several beside each other: its machine, its joules, its part in learning.",
    (
        Panel("Power", "At the last look of each device.", "watt", (("max by (device) (edgemw_device_power_watts@)", EACH),)),
        Panel(
            "What the node's joules went into",
            "Beyond what the device would have taken idle.",
            "watt",
            ((f"max by (device, component) (rate(edgemw_process_energy_joules_total@{RATE}))", "{{device}} {{component}}"),),
            stacked=True,
        ),
        Panel(
            "Processor of the device",
            "All cores together.",
            "percentunit",
            ((f"max by (device) (rate(edgemw_device_cpu_seconds_total@{RATE}) / edgemw_device_cpu_cores@)", EACH),),
        ),
        Panel(
            "Processor of the node",
            "Cores that edgemw takes.",
            "none",
            ((f"max by (device) (rate(edgemw_process_cpu_seconds_total@{RATE}))", EACH),),
        ),
        Panel("Memory of the device", "In use.", "bytes", (("max by (device) (edgemw_device_memory_used_bytes@)", EACH),)),
        Panel("Memory of the node", "Resident.", "bytes", (("max by (device) (edgemw_process_resident_memory_bytes@)", EACH),)),
        Panel(
            "Temperature",
            "Of the hottest part that has a sensor.",
            "celsius",
            (("max by (device) (edgemw_device_temperature_celsius@)", EACH),),
        ),
        Panel("Battery", "How full it is.", "percentunit", (("max by (device) (edgemw_device_battery_charge_ratio@)", EACH),)),
        Panel(
            "Network",
            "Bytes of MQTT PUBLISH packets, sent and received.",
            "Bps",
            (
                (f"max by (device) (rate(edgemw_link_sent_bytes_total@{RATE}))", "{{device}} sent"),
                (f"max by (device) (rate(edgemw_link_received_bytes_total@{RATE}))", "{{device}} received"),
            ),
        ),
        Panel("Training loss", "Mean of the last update.", "none", (("edgemw_learning_loss@", "{{device}} {{task}}"),)),
        Panel("Release in use", "By task.", "none", (("edgemw_release_number@", "{{device}} {{task}}"),)),
        Panel(
            "Connections made again",
            "A link that comes and goes shows here.",
            "none",
            ((f"increase(edgemw_link_reconnects_total@{RATE})", EACH),),
        ),
    ),
)

LEARNING = Dashboard(
    "edgemw-learning",
    "edgemw / Learning",
    "How the model gets better, who takes part, and what it costs.",
    (
        Panel(
            "Releases", "Number of the last one.", "none", (("max by (task) (edgemw_release_number@)", "{{task}}"),), "stat", 6
        ),
        Panel(
            "Measured",
            "By devices on their held-out samples: share of right answers.",
            "percentunit",
            (('max by (task) (edgemw_round_measure@,measure="accuracy"})', "{{task}}"),),
            "stat",
            6,
        ),
        Panel(
            "Updates waiting",
            "In open windows.",
            "none",
            (("sum by (task) (edgemw_fog_window_updates@)", "{{task}}"),),
            "stat",
            6,
        ),
        Panel(
            "Unaccounted updates",
            "Must be 0: what was taken is counted, waits, or was returned.",
            "none",
            (('sum by (task) (edgemw_fog_books_updates@,book="unaccounted"})', "{{task}}"),),
            "stat",
            6,
        ),
        Panel(
            "What devices measure",
            "Means over the fleet, by release.",
            "none",
            (('edgemw_round_measure@,measure!~"train_s|uplink|downlink"}', "{{task}} {{measure}}"),),
        ),
        Panel(
            "Rounds",
            "Finished by the top, a minute.",
            "none",
            ((f"60 * sum by (task) (rate(edgemw_rounds_total@{RATE}))", "{{task}}"),),
        ),
        Panel(
            "Updates taken",
            "By fog nodes, a second.",
            "none",
            ((f"sum by (device, task) (rate(edgemw_fog_updates_total@{RATE}))", "{{device}} {{task}}"),),
            stacked=True,
        ),
        Panel(
            "Children that windows went without",
            "Late, or away.",
            "none",
            ((f"sum by (device, task) (increase(edgemw_fog_missing_children_total@{RATE}))", "{{device}} {{task}}"),),
            quiet=True,
        ),
        Panel(
            "Bytes of a round",
            "That devices have sent up and received, all together, in the mean.",
            "bytes",
            (
                (f"sum(rate(edgemw_fleet_uplink_bytes_total@{RATE})) / sum(rate(edgemw_rounds_total@{RATE}))", "up"),
                (f"sum(rate(edgemw_fleet_downlink_bytes_total@{RATE})) / sum(rate(edgemw_rounds_total@{RATE}))", "down"),
            ),
        ),
        Panel(
            "Joules of a round",
            "Of all devices, idle or not.",
            "joule",
            ((f"sum({RATE_OF_ALL}) / sum(rate(edgemw_rounds_total@{RATE}))", "joules"),),
        ),
        Panel(
            "Seconds of training",
            "Part of the time that devices train.",
            "percentunit",
            ((f"rate(edgemw_learning_train_seconds_total@{RATE})", EACH),),
        ),
        Panel(
            "Refused",
            "Updates, releases and tasks, by reason.",
            "none",
            ((f"sum by (what, reason) (increase(edgemw_refused_total@{RATE}))", "{{what}}: {{reason}}"),),
            quiet=True,
        ),
    ),
)

TRANSPORT = Dashboard(
    "edgemw-transport",
    "edgemw / Transport and serving",
    "What goes over the broker, and how fast predictions are.",
    (
        Panel(
            "Messages",
            "MQTT PUBLISH packets, sent and received.",
            "none",
            (
                (f"sum(rate(edgemw_link_sent_messages_total@{RATE}))", "sent"),
                (f"sum(rate(edgemw_link_received_messages_total@{RATE}))", "received"),
            ),
        ),
        Panel(
            "Payload by channel",
            "Of messages that nodes have sent.",
            "Bps",
            ((f"sum by (channel) (rate(edgemw_channel_sent_bytes_total@{RATE}))", "{{channel}}"),),
            stacked=True,
        ),
        Panel(
            "Connections made again",
            "By device.",
            "none",
            ((f"sum by (device) (increase(edgemw_link_reconnects_total@{RATE}))", EACH),),
        ),
        Panel(
            "Thrown away unread",
            "Messages that came faster than they could be read.",
            "none",
            ((f"sum by (device) (increase(edgemw_link_dropped_messages_total@{RATE}))", EACH),),
        ),
        Panel(
            "Refused messages",
            "Malformed, unexpected, or given up, by reason.",
            "none",
            ((f"sum by (reason) (increase(edgemw_channel_refused_messages_total@{RATE}))", "{{reason}}"),),
            quiet=True,
        ),
        Panel(
            "Telemetry",
            "Messages that fog nodes took from devices, a second.",
            "none",
            ((f"sum by (instance) (rate(edgemw_telemetry_messages_total{RATE}))", "{{instance}}"),),
        ),
        Panel("Predictions", "Requests answered, a second.", "reqps", ((REQUESTS, EACH),)),
        Panel(
            "Time to answer",
            "Half, and 99 of 100 requests, take at most so long.",
            "s",
            tuple(
                (
                    f"histogram_quantile({share}, sum by (device, le) (rate(edgemw_serving_latency_seconds_bucket@{RATE})))",
                    f"{{{{device}}}} {name}",
                )
                for share, name in ((0.5, "median"), (0.99, "p99"))
            ),
        ),
        Panel(
            "How long answers take",
            "Requests by time.",
            "s",
            ((f"sum by (le) (increase(edgemw_serving_latency_seconds_bucket@{RATE}))", "{{le}}"),),
            "heatmap",
        ),
    ),
)

ENERGY = Dashboard(
    "edgemw-energy",
    "edgemw / Energy",
    "Joules, where they are known from, and what they went into.",
    (
        Panel("Power", "Of all devices.", "watt", ((f"sum({WATTS})", ""),), "stat", 6),
        Panel(
            "Idle part",
            "Of all energy of the last hour.",
            "percentunit",
            (
                (
                    f"sum({HOUR_OF_IDLE}) / sum({HOUR_OF_ALL})",
                    "",
                ),
            ),
            "stat",
            6,
        ),
        Panel(
            "Uncertainty",
            "How far joules may be from the true ones: the worst of a device.",
            "percentunit",
            (("max(edgemw_device_energy_uncertainty_ratio@)", ""),),
            "stat",
            6,
        ),
        Panel(
            "Gaps",
            "Stretches of time of which no source knew anything, in an hour.",
            "none",
            (("sum(increase(edgemw_device_energy_gaps_total@[1h]))", ""),),
            "stat",
            6,
        ),
        Panel(
            "Power by source",
            "Meters, batteries, counters of processors, models.",
            "watt",
            ((f"sum by (source) ({RATE_OF_ALL})", "{{source}}"),),
            stacked=True,
        ),
        Panel(
            "Idle and not",
            "What devices would have taken with nothing to do, and what came on top.",
            "watt",
            (
                (f"sum({RATE_OF_IDLE})", "idle"),
                (
                    f"sum({RATE_OF_ALL}) - sum({RATE_OF_IDLE})",
                    "active",
                ),
            ),
            stacked=True,
        ),
        Panel(
            "What nodes took",
            "Beyond idle, by what for; the rest of the active power is of others on their devices.",
            "watt",
            (
                (
                    f"sum by (component) ({RATE_OF_PARTS})",
                    "{{component}}",
                ),
            ),
            stacked=True,
        ),
        Panel(
            "Energy of each device, a day",
            "The last 24 hours.",
            "joule",
            ((f"topk(20, sum by (device) ({DAY_OF_ALL}))", EACH),),
            "bargauge",
        ),
        Panel(
            "Joules of a prediction",
            "What serving took, over requests.",
            "joule",
            (
                (
                    f"{SERVE_WATTS} / ({REQUESTS} > 0)",
                    EACH,
                ),
            ),
        ),
        Panel(
            "Power and what is allowed",
            "Mean of an hour, beside energy.budget.",
            "watt",
            (
                (f"sum by (device) (max by (device, site, source) (rate({JOULES}@[1h])))", EACH),
                ("max by (device) (edgemw_device_power_budget_watts@)", "{{device}} allowed"),
            ),
        ),
        Panel(
            "Sources",
            "1 where a source can be read; the reason says why it cannot.",
            "none",
            (("max by (device, site, source, reason) (edgemw_energy_source_available@)", "{{device}} {{source}}"),),
            "table",
            16,
        ),
    ),
)

DASHBOARDS = (FLEET, DEVICE, LEARNING, TRANSPORT, ENERGY)


def files() -> dict[str, str]:
    """The files of the folder, by name."""
    return {f"{board.uid}.json": json.dumps(board.document, indent=1, ensure_ascii=False) + "\n" for board in DASHBOARDS}


if __name__ == "__main__":
    for name, text in files().items():
        (FOLDER / name).write_text(text)
