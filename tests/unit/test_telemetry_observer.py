"""From facts to metrics: the exposition is compared with files, and no fact can break it or make it grow."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from edgemw.core.events import Fact
from edgemw.telemetry.energy.meter import Energy
from edgemw.telemetry.exporter import Exporter
from edgemw.telemetry.labels import Bounded, reason_label
from edgemw.telemetry.machine import Machine
from edgemw.telemetry.observer import Observer
from edgemw.telemetry.process import ProcessUsage, Usage

GOLDEN = Path(__file__).parents[1] / "golden"
Facts = dict[str, int | float | str]


@dataclass(frozen=True)
class Totals:
    sent_bytes: int = 1200
    received_bytes: int = 90_000
    sent_messages: int = 7
    received_messages: int = 31
    reconnects: int = 2
    dropped: int = 1


def observer(role: str = "device", node: str = "device-0", site: str = "hall-3") -> Observer:
    it = Observer(role, node, site, process=lambda: Usage(12.5, 57_000_000))
    machine = Machine(3600.5, 4, 900_000_000, 4_000_000_000, 48.3, (0.73, False) if role == "device" else None)
    it.watch_machine(lambda: machine, "raspberry-pi-4b", "aarch64")
    return it


def device() -> Observer:
    it = observer()
    for number, loss in ((0, 2.25), (1, 1.5)):
        it.observe("digits", Fact("trained", {"release": number, "loss": loss, "bytes": 700 + number, "codec": "lattice"}))
        it.trained_seconds(0.75)
    it.observe("digits", Fact("settled", {"counted": 1, "reason": ""}))
    it.observe("digits", Fact("settled", {"counted": 0, "reason": "stale: trained from release 0, now 9"}))
    it.observe("digits", Fact("update_refused", {"reason": "loss or gradient is not finite after 3 steps: ..."}))
    it.observe("digits", Fact("release_refused", {"release": 2, "reason": "theta is damaged or holds NaN or infinite values"}))
    it.observe("har", Fact("task_refused", {"reason": "train.onnx does not match its sha256: the bundle is damaged"}))
    it.observe("digits", Fact("something_new", {}))
    for seconds in (0.0002, 0.003, 0.003, 2.0):
        it.served(seconds)
    it.watch_link(Totals)
    it.watch_channel(Counter(update=1500, presence=80), Counter(release=400, blob=90_000), Counter({"sender": 2, "link-down": 1}))
    machine: Facts = {"release": 2, "updates_pending": 1, "tokens_bytes": 700, "mass_imbalance": 2.5e-7}
    it.watch_machines(lambda: [("digits", "working", "", machine), ("har", "waiting", "no bundle", {})])
    parts = {"train": 20.5, "serve": 1.25, "communicate": 0.75, "agent": 3.0}
    energy = Energy({"battery": 30.5, "model": 12.0}, 15.0, parts, 2_500_000.0, 40, 2.75, "battery", 0.1, 2)
    it.watch_energy(lambda: energy, {"battery": "", "model": "", "hwmon": "missing", "rapl": "permission"}, budget_w=4.5)
    return it


def fog() -> Observer:
    it = observer("fog", "fog-0")
    it.observe("digits", Fact("release", {"release": 4, "step": 0.125}))
    for staleness in (0, 0, 1, 3):
        fact = Fact("update_taken", {"node": "device-1", "staleness": staleness, "codec": "lattice", "bytes": 250})
        it.observe("digits", fact)
    it.observe("digits", Fact("duplicate", {"node": "device-1"}))
    it.observe("digits", Fact("update_refused", {"node": "device-2", "reason": "another training run", "weight": 10}))
    it.observe("digits", Fact("masks", {"outcome": "unmasked", "members": 7, "dropped": 3, "reason": ""}))
    few = "2 updates where 6 are needed to take the masks off"
    it.observe("digits", Fact("masks", {"outcome": "given up", "members": 9, "dropped": 0, "reason": few}))
    it.observe("digits", Fact("window_closed", {"updates": 4, "late": 2, "release": 4}))
    totals: Facts = {"uplink_bytes": 5000, "downlink_bytes": 70_000, "updates_counted": 8, "weight_counted": 320, "children": 2}
    totals |= {"kappa": 12.5, "spent_bytes": 640, "release_spent_bytes": 1280}
    it.observe("digits", Fact("round", {**totals, "accuracy": 0.875, "train_loss": 0.5, "uplink": 40.0, "measured": 4}))
    it.observe("digits", Fact("release", {"release": 5, "step": 0.0625}))
    machine: Facts = {"release": 5, "children": 2, "window": 1, "awaited": 1, "remainder_bytes": 180, "mass_imbalance": 0.0}
    machine |= {"updates_taken": 12, "updates_counted": 8, "updates_waiting": 3, "updates_returned": 1, "updates_unaccounted": 0}
    machine |= {"weight_taken": 480, "weight_counted": 320, "weight_waiting": 120, "weight_returned": 40, "weight_refused": 10}
    it.watch_machines(lambda: [("digits", "collecting", "", machine)])
    return it


SEQUENCES: dict[str, Callable[[], Observer]] = {"device": device, "fog": fog}


@pytest.mark.parametrize("name", SEQUENCES)
def test_the_exposition_is_what_it_was(name: str) -> None:
    """After a change on purpose: EDGEMW_GOLDEN=write pytest tests/unit/test_telemetry_observer.py, and read the diff."""
    path, text = GOLDEN / f"metrics_{name}.txt", SEQUENCES[name]().render().decode()
    if os.environ.get("EDGEMW_GOLDEN") == "write":
        path.write_text(re.sub(r'version="[^"]*"', 'version="X"', text))
    assert re.sub(r'version="[^"]*"', 'version="X"', text) == path.read_text()


@pytest.mark.parametrize("name", SEQUENCES)
def test_names_units_and_labels_keep_the_conventions(name: str) -> None:
    units = "seconds|bytes|joules|gaps|messages|updates|reconnects|requests|releases|rounds|windows|children"
    units += "|groups|dropouts|duplicates|facts|examples|refused"
    for family in text_string_to_metric_families(SEQUENCES[name]().render().decode()):
        assert family.name.startswith("edgemw_")
        assert family.documentation.endswith(".")
        if family.type == "counter":
            assert re.search(rf"_({units})$", family.name), family.name
        for sample in family.samples:
            assert not sample.name.endswith(("_created", "_ms", "_percent"))
            assert sample.labels["device"]
            assert sample.labels["site"] == "hall-3"
            assert sample.timestamp is None


def test_what_has_not_happened_is_not_there() -> None:
    text = observer("fog").render().decode()
    assert "serving" not in text
    assert "learning" not in text
    assert 'edgemw_telemetry_unknown_facts_total{device="device-0",site="hall-3"} 0.0' in text


def test_a_source_is_read_anew_on_every_scrape() -> None:
    it, sent = observer(), Counter({"update": 5})
    it.watch_channel(sent, {}, {})
    assert b'channel="update",device="device-0",site="hall-3"} 5.0' in it.render()
    sent["update"] += 2
    assert b'channel="update",device="device-0",site="hall-3"} 7.0' in it.render()


def test_a_task_has_one_state_at_a_time() -> None:
    it, states = observer(), ["fetching"]
    it.watch_machines(lambda: [("digits", states[0], "", {})])
    assert b'state="fetching"' in it.render()
    states[0] = "working"
    assert b'state="fetching"' not in it.render()
    assert b'state="working"' in it.render()


def value_of(it: Observer, name: str) -> float:
    return sum(
        sample.value
        for family in text_string_to_metric_families(it.render().decode())
        for sample in family.samples
        if sample.name == name
    )


@pytest.mark.parametrize(
    "fact",
    [
        Fact("unheard_of", {"release": 1}),
        Fact("trained", {}),
        Fact("trained", {"release": "one", "loss": 1.0, "bytes": 1}),
        Fact("trained", {"release": 1, "loss": 1.0, "bytes": -1}),
        Fact("trained", {"release": 1, "loss": 10**400, "bytes": 1}),
        Fact("trained", {"release": float("inf"), "loss": 1.0, "bytes": 1}),
        Fact("update_taken", {"staleness": float("nan"), "codec": "lattice"}),
        Fact("update_taken", {"staleness": 0, "codec": 5}),
        Fact("window_closed", {"updates": 3}),
        Fact("settled", {"counted": 0, "reason": 4}),
    ],
)
def test_a_fact_that_is_not_as_it_should_be_is_counted_and_counts_nothing_else(fact: Fact) -> None:
    it = observer()
    before = it.render()
    it.observe("digits", fact)
    changed = set(it.render().splitlines()) ^ set(before.splitlines())
    assert all(line.startswith(b"edgemw_telemetry_unknown_facts_total") for line in changed)
    assert value_of(it, "edgemw_telemetry_unknown_facts_total") == 1


_NAMES = st.sampled_from(list(observer()._takers)) | st.text(max_size=8)
_VALUES = st.dictionaries(
    st.sampled_from(
        ["release", "loss", "bytes", "codec", "reason", "counted", "staleness", "updates", "late", "step", "measured"]
    )
    | st.text(max_size=4),
    st.integers() | st.floats() | st.text(max_size=10),
    max_size=6,
)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.text(max_size=5), _NAMES, _VALUES), max_size=30))
def test_no_fact_breaks_the_exposition(facts: list[tuple[str, str, Facts]]) -> None:
    it = observer()
    for task, name, values in facts:
        it.observe(task, Fact(name, values))
    list(text_string_to_metric_families(it.render().decode()))


def test_no_peer_makes_the_exposition_grow_without_end() -> None:
    it = observer("fog")
    for n in range(500):
        it.observe(f"task-{n}", Fact("update_taken", {"node": f"device-{n}", "staleness": n, "codec": f"codec-{n}"}))
        it.observe("digits", Fact("round", {f"metric-{n}": 1.0}))
        it.observe("digits", Fact("update_refused", {"reason": f"reason number {n}"}))
    samples = [sample for family in text_string_to_metric_families(it.render().decode()) for sample in family.samples]
    assert len(samples) < 700
    assert value_of(it, "edgemw_fog_updates_total") == 500
    assert value_of(it, "edgemw_refused_total") == 500


# -- labels


@pytest.mark.parametrize(
    ("reason", "label"),
    [
        ("another training run", "run"),
        ("stale: trained from release 1, now 9", "stale"),
        ("dense[3] where lattice[4] was asked for", "codec"),
        ("other parameters of lanes than was asked for in release 3", "codec"),
        ("step 0.5 where release 3 announced 0.25", "step"),
        ("malformed: truncated", "malformed"),
        ("release 4 would hold NaN or infinite values; the window was returned", "not-finite"),
        ("bundle format 2, this edgemw reads format 1: ...", "format"),
        ("manifest.json is incomplete: KeyError('name')", "manifest"),
        ("not a task bundle: File is not a zip file", "bundle"),
        ("bundle abc is for task 'a', not 'b'", "task"),
        ("no samples to train on", "data"),
        ("internal error: ZeroDivisionError()", "internal"),
        ("release 7 came before its sum", "overtaken"),
        ("2 updates where 3 are needed to take the masks off", "masks"),
        ("", "other"),
        ("whatever a peer may say" * 100, "other"),
    ],
)
def test_a_reason_becomes_a_word(reason: str, label: str) -> None:
    assert reason_label(reason) == label


def test_a_bounded_label_keeps_the_first_words() -> None:
    word = Bounded(2)
    assert [word(text) for text in ("a", "b", "c", "a", "no word", "x" * 60, "")] == [
        "a",
        "b",
        *["other"] * 1,
        "a",
        *["other"] * 3,
    ]


# -- process and exporter


def test_the_process_is_measured() -> None:
    usage = ProcessUsage()
    first = usage()
    assert first.cpu_s > 0
    assert 1 << 20 < first.resident_bytes < 1 << 40
    assert usage().cpu_s >= first.cpu_s


def test_metrics_and_health_are_served() -> None:
    health = [(True, "")]
    exporter = Exporter(device(), lambda: health[0])
    status, content_type, body = exporter.handle("GET", "/metrics", b"")
    assert (status, content_type) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert body == device().render()
    assert exporter.handle("GET", "/healthz", b"") == (200, "application/json", b'{"healthy": true, "reason": ""}\n')
    health[0] = False, "broker: refused"
    assert exporter.handle("GET", "/healthz", b"")[0] == 503
    assert b"broker: refused" in exporter.handle("GET", "/healthz", b"")[2]
    assert exporter.handle("POST", "/metrics", b"")[0] == 405
    assert exporter.handle("GET", "/", b"")[0] == 404
