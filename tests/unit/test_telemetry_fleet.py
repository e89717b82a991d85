"""What a fog node tells Prometheus of the nodes below it."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from edgemw.telemetry.exporter import Exporter
from edgemw.telemetry.fleet import FEWEST_S, KEPT_S, Fleet
from edgemw.telemetry.observer import Observer
from edgemw.wire.messages import Frame, Message, Presence, Telemetry
from edgemw.wire.readings import PLACES, READINGS

READ = {"energy": 10.0, "power": 2.5, "cpu": 7.0, "cores": 4.0, "sent": 900.0}
ENERGY, POWER, UP, SEEN = (
    "edgemw_device_energy_joules_total",
    "edgemw_device_power_watts",
    "edgemw_device_up",
    "edgemw_device_last_seen_timestamp_seconds",
)


def told(node: str = "device-1", seq: int = 0, boot: int = 5, **readings: float) -> Frame:
    return Frame("", node, boot, seq, Telemetry("hall-3", 15.0, "model", "", READ | readings))


def said(node: str, state: str, boot: int = 5) -> Frame:
    return Frame("", node, boot, 0, Presence(state, "device", "fog-0"))


def series(fleet: Fleet, now_s: float, shard: int = 0, shards: int = 1) -> dict[tuple[str, ...], float]:
    """All samples, by name and label values; the whole of it must be well formed."""
    text = "".join(fleet.text(now_s, shard, shards))
    found: dict[tuple[str, ...], float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, *(sample.labels[name] for name in sorted(sample.labels)))
            assert key not in found
            assert sample.timestamp is None
            found[key] = sample.value
    return found


def test_every_reading_is_a_metric_of_its_device() -> None:
    fleet = Fleet(10)
    everything = {reading.name: float(place + 1) for place, reading in enumerate(READINGS)}
    fleet.take(Frame("", "device-1", 5, 0, Telemetry("hall-3", 15.0, "battery", "", everything)), 100.0, 1e9)
    found = {key: value for key, value in series(fleet, 101.0).items() if key[0] != "edgemw_telemetry_messages_total"}
    mine = {key: value for key, value in found.items() if "device-1" in key}
    assert len(mine) == len(READINGS) + 2 == 20
    assert mine[ENERGY, "device-1", "hall-3", "battery"] == 1.0
    assert mine["edgemw_process_energy_joules_total", "serve", "device-1", "hall-3"] == PLACES["serve"] + 1
    assert mine[UP, "device-1", "hall-3"] == 1.0
    assert mine[SEEN, "device-1", "hall-3"] == 1e9


def test_what_comes_again_or_out_of_order_is_not_counted() -> None:
    fleet = Fleet(10)
    fleet.take(told(seq=3, energy=30.0), 0.0, 0.0)
    for again in (told(seq=3, energy=31.0), told(seq=2, energy=32.0), told(seq=9, boot=4, energy=33.0)):
        fleet.take(again, 1.0, 0.0)
    assert series(fleet, 1.0)[ENERGY, "device-1", "hall-3", "model"] == 30.0
    assert fleet.rejected == {"old": 3}
    fleet.take(told(seq=0, boot=6, energy=1.0), 2.0, 0.0)
    assert series(fleet, 2.0)[ENERGY, "device-1", "hall-3", "model"] == 1.0


def test_a_counter_that_goes_backwards_in_one_life_is_rejected() -> None:
    fleet = Fleet(10)
    fleet.take(told(seq=0), 0.0, 0.0)
    fleet.take(told(seq=1, sent=899.0), 1.0, 0.0)
    assert fleet.rejected == {"backwards": 1}
    assert series(fleet, 1.0)["edgemw_link_sent_bytes_total", "device-1", "hall-3"] == 900.0
    other = Telemetry("hall-3", 15.0, "battery", "", READ | {"energy": 0.5})
    fleet.take(Frame("", "device-1", 5, 2, other), 2.0, 0.0)  # the battery's joules are another counter
    assert series(fleet, 2.0)[ENERGY, "device-1", "hall-3", "battery"] == 0.5


def test_who_falls_silent_is_down_and_stays_known_for_a_day() -> None:
    fleet = Fleet(10)
    fleet.take(told(), 0.0, 1e9)
    assert (POWER, "device-1", "hall-3") in series(fleet, FEWEST_S)
    after = series(fleet, FEWEST_S + 1)
    assert {key[0] for key in after if "device-1" in key} == {UP, SEEN}
    assert (after[UP, "device-1", "hall-3"], after[SEEN, "device-1", "hall-3"]) == (0.0, 1e9)
    assert fleet.expired == 1
    assert not [key for key in series(fleet, KEPT_S + 1) if "device-1" in key]


def test_a_long_interval_is_waited_for_three_times() -> None:
    fleet = Fleet(10)
    fleet.take(Frame("", "device-1", 5, 0, Telemetry("", 60.0, "model", "", READ)), 0.0, 0.0)
    assert series(fleet, 179.0)[UP, "device-1", ""] == 1.0
    assert series(fleet, 181.0)[UP, "device-1", ""] == 0.0


def test_a_last_will_ends_its_series_at_once_and_that_of_a_former_life_does_not() -> None:
    fleet = Fleet(10)
    fleet.take(told(boot=5), 0.0, 7.0)
    fleet.take(said("device-1", "lost", boot=4), 1.0, 8.0)
    assert (POWER, "device-1", "hall-3") in series(fleet, 1.0)
    fleet.take(said("device-1", "lost", boot=5), 2.0, 9.0)
    after = series(fleet, 2.0)
    assert {key[0] for key in after if "device-1" in key} == {UP, SEEN}
    assert (after[UP, "device-1", "hall-3"], after[SEEN, "device-1", "hall-3"]) == (0.0, 7.0)  # a will is not the device's word


def test_who_is_stopped_on_purpose_is_not_missed() -> None:
    fleet = Fleet(10)
    fleet.take(told(), 0.0, 7.0)
    fleet.take(said("device-1", "offline"), 1.0, 8.0)
    assert not [key for key in series(fleet, 1.0) if "device-1" in key]


def test_a_new_life_is_heard_at_once_though_its_counters_begin_anew() -> None:
    fleet = Fleet(10)
    fleet.take(told(boot=5, seq=40), 0.0, 0.0)
    fleet.take(said("device-1", "online", boot=6), 1.0, 0.0)
    fleet.take(told(boot=6, seq=0, sent=1.0), 2.0, 0.0)
    assert not fleet.rejected
    assert series(fleet, 2.0)["edgemw_link_sent_bytes_total", "device-1", "hall-3"] == 1.0


def test_a_birth_that_is_delivered_again_does_not_make_a_silent_device_alive_for_ever() -> None:
    fleet = Fleet(10)
    fleet.take(told(), 0.0, 0.0)
    assert series(fleet, 100.0)[UP, "device-1", "hall-3"] == 0.0
    fleet.take(said("device-1", "online"), 110.0, 0.0)
    assert series(fleet, 111.0)[UP, "device-1", "hall-3"] == 1.0
    assert series(fleet, 110.0 + FEWEST_S + 1)[UP, "device-1", "hall-3"] == 0.0


def test_joules_of_a_source_do_not_fall_while_another_counts() -> None:
    fleet = Fleet(10)
    for seq, (source, energy) in enumerate((("rapl", 100.0), ("model", 3.0), ("rapl", 50.0))):
        fleet.take(Frame("", "device-1", 5, seq, Telemetry("", 15.0, source, "", {"energy": energy})), float(seq), 0.0)
    fleet.take(told("device-2", sent=-1.0), 4.0, 0.0)
    assert fleet.rejected == {"backwards": 2}


def test_a_node_that_tells_nothing_is_there_all_the_same() -> None:
    fleet = Fleet(10)
    fleet.take(said("device-1", "online"), 0.0, 5.0)
    fleet.take(said("device-2", "lost"), 0.0, 6.0)
    found = series(fleet, 1000.0)
    assert (found[UP, "device-1", ""], found[UP, "device-2", ""]) == (1.0, 0.0)
    assert (SEEN, "device-2", "") not in found  # only its will was


def test_a_net_that_is_full_makes_room_of_those_that_are_away_only() -> None:
    fleet = Fleet(2)
    fleet.take(told("device-1"), 0.0, 0.0)
    fleet.take(told("device-2"), 0.0, 0.0)
    fleet.take(told("device-3"), 0.0, 0.0)
    fleet.take(told("device-3", seq=1), 0.5, 0.0)
    assert fleet.rejected == {"full": 2}
    fleet.take(said("device-1", "lost"), 1.0, 0.0)
    fleet.take(told("device-3"), 2.0, 0.0)
    assert {key[1] for key in series(fleet, 2.0) if key[0] == UP} == {"device-2", "device-3"}


@pytest.mark.parametrize("shards", [2, 3, 7])
def test_shards_hold_every_device_once(shards: int) -> None:
    fleet = Fleet(100)
    for number in range(40):
        fleet.take(told(f"device-{number}"), 0.0, 0.0)
    parts = [series(fleet, 1.0, shard, shards) for shard in range(shards)]
    whole = series(fleet, 1.0)
    assert sum(map(len, parts)) == len(whole)
    assert {key for part in parts for key in part} == set(whole)


def test_who_has_an_address_is_scraped_there_and_not_told_here() -> None:
    fleet = Fleet(10)
    for node, address in (
        ("device-2", "192.0.2.7:9108"),
        ("device-1", "[::1]:80"),
        ("device-3", 'x"y:1'),
        ("device-4", "host:99999"),
    ):
        fleet.take(Frame("", node, 5, 0, Telemetry("hall-3", 15.0, "model", address, READ)), 0.0, 0.0)
    assert json.loads(fleet.targets()) == [
        {"targets": ["[::1]:80"], "labels": {"__meta_edgemw_device": "device-1", "__meta_edgemw_site": "hall-3"}},
        {"targets": ["192.0.2.7:9108"], "labels": {"__meta_edgemw_device": "device-2", "__meta_edgemw_site": "hall-3"}},
    ]
    assert {key[1] for key in series(fleet, 1.0) if key[0] == POWER} == {"device-3", "device-4"}
    assert {key[1] for key in series(fleet, 1.0) if key[0] == UP} == {f"device-{n}" for n in (1, 2, 3, 4)}
    moves = fleet.moves
    fleet.take(Frame("", "device-1", 5, 1, Telemetry("hall-3", 15.0, "model", "[::1]:80", READ)), 1.0, 0.0)
    assert fleet.moves == moves


ids = st.text("abc-", min_size=1, max_size=3)
numbers = st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**40), 2**40).map(float))
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(
        Telemetry, ids, st.floats(0, 1e9), ids, st.text(max_size=20), st.dictionaries(st.sampled_from(sorted(PLACES)), numbers)
    ),
    st.builds(Presence, st.sampled_from(["online", "offline", "lost", 'x"\n']), st.just("device"), st.just("fog-0")),
)
frames = st.builds(Frame, st.just(""), ids, st.integers(0, 3), st.integers(0, 5), messages)


@given(st.lists(st.tuples(frames, st.floats(0, 1e5)), max_size=30), st.integers(1, 5))
def test_nothing_that_is_said_breaks_the_exposition_or_makes_it_grow(said: list[tuple[Frame, float]], most: int) -> None:
    fleet, now = Fleet(most), 0.0
    for frame, later in said:
        now += later
        fleet.take(frame, now, now)
        found = series(fleet, now)
        devices = {key[1] for key in found if key[0] == UP}
        assert len(devices) <= most
        assert len(found) <= 20 * most + 2 + 3
        assert all(math.isfinite(value) for value in found.values())
        json.loads(fleet.targets())


# ---- by HTTP


def answers(fleet: Fleet | None) -> Exporter:
    return Exporter(Observer("fog", "fog-0", "hall"), lambda: (True, ""), fleet)


def test_the_fleet_is_asked_for_by_shards() -> None:
    fleet = Fleet(10)
    fleet.take(told(), time.monotonic(), 0.0)
    exporter = answers(fleet)
    status, kind, body = exporter.handle("GET", "/fleet", b"")
    assert (status, POWER.encode() in body) == (200, True)
    assert "0.0.4" in kind
    halves = [exporter.handle("GET", f"/fleet?shard={shard}/2", b"")[2] for shard in (0, 1)]
    assert sorted(POWER.encode() in half for half in halves) == [False, True]
    for wrong in ("2/2", "0/0", "x", "-1/2", "0/9999", "1"):
        assert exporter.handle("GET", f"/fleet?shard={wrong}", b"")[0] == 400
    assert exporter.handle("GET", "/sd", b"")[0] == 503  # Prometheus keeps the list that it has
    fleet.take(Frame("", "device-2", 5, 0, Telemetry("", 15.0, "model", "192.0.2.7:9108", READ)), time.monotonic(), 0.0)
    assert exporter.handle("GET", "/sd", b"")[0] == 200
    assert exporter.handle("POST", "/fleet", b"")[0] == 405


def test_a_device_has_no_fleet() -> None:
    status, _, body = answers(None).handle("GET", "/fleet", b"")
    found: Mapping[str, str] = json.loads(body)
    assert (status, found) == (404, {"error": "no such path: there are /metrics, /healthz"})
