"""The energy of a node that runs: its sources, its totals from life to life, and the fleet's."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest

from edgemw.app.doctor import check_energy
from edgemw.app.energy import Used, energy_facts, measuring, sources_of
from edgemw.app.joules import energy_told, fleet_energy, fleet_points, points_gained, prefixed
from edgemw.app.sections import Energy as EnergySettings
from edgemw.app.sections import Node
from edgemw.core.config.named import NameOrFile
from edgemw.core.config.units import duration
from edgemw.profiles.catalogue import profile_names
from edgemw.profiles.detect import Machine, detect
from edgemw.telemetry.energy.meter import Energy, Meter, Scope, Usage
from edgemw.telemetry.energy.reader import Moment
from edgemw.telemetry.energy.sampler import FILE, Sampler, energy_before
from edgemw.telemetry.observer import Observer
from tests.support.sysfs import RAPL, plant, two_sockets

X86 = "processor\t: 0\nmodel name\t: AMD EPYC\nflags\t\t: fpu sse2 hypervisor avx2\n"


def settings(path: Path, **changes: object) -> EnergySettings:
    """Of a machine that is planted below a folder."""
    return replace(EnergySettings(sysfs=path / "sys", procfs=path / "proc"), **changes)  # type: ignore[arg-type]


# ---- which machine this is


@pytest.mark.parametrize(
    ("board", "cpuinfo", "sockets", "name"),
    [
        ("Raspberry Pi 5 Model B Rev 1.0", "", 0, "raspberry-pi-5"),
        ("Raspberry Pi 4 Model B Rev 1.4", "", 1, "raspberry-pi-4b"),
        ("Raspberry Pi 3 Model B Plus Rev 1.3", "", 1, "raspberry-pi-3b-plus"),
        ("Raspberry Pi 3 Model B Rev 1.2", "", 1, "raspberry-pi-3b"),
        ("Raspberry Pi Zero 2 W Rev 1.0", "", 1, "raspberry-pi-zero-2w"),
        ("NVIDIA Jetson Nano Developer Kit", "", 1, "jetson-nano"),
        ("NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super", "", 1, "jetson-orin-nano-8gb"),
        ("Pine64 RockPro64 v2.1", X86, 1, ""),
        ("", X86, 2, "x86-vcpu"),
        ("", "model name : Intel(R) N100\nflags : fpu\n", 1, "n100-gateway"),
        ("", "model name : Intel(R) Xeon(R) Gold 6130\nflags : fpu\n", 2, "x86-server"),
        ("", "model name : Intel(R) Core(TM) i7\nflags : fpu\n", 1, ""),
        ("", "", 0, ""),
    ],
)
def test_a_machine_is_known_by_what_its_kernel_says(board: str, cpuinfo: str, sockets: int, name: str) -> None:
    found, why = detect(Machine(board, cpuinfo, sockets))
    assert found == name
    assert why
    assert not name or name in profile_names()


def test_sources_are_those_of_the_class_that_was_detected(tmp_path: Path) -> None:
    plant(tmp_path / "proc", {"device-tree/model": "NVIDIA Jetson Nano Developer Kit\0"})
    sources = sources_of("auto", settings(tmp_path))
    assert sources.profile is not None
    assert sources.profile.name == "jetson-nano"
    assert sources.states == {"jetson": "missing", "hwmon": "missing", "model": ""}


def test_who_asks_for_other_sources_gets_those(tmp_path: Path) -> None:
    plant(tmp_path / "sys", two_sockets())
    sources = sources_of("raspberry-pi-4b", settings(tmp_path, sources=("rapl",)))
    assert sources.states == {"rapl": ""}


def test_the_doctor_says_which_meter_there_is_and_how_one_may_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(tmp_path / "sys", two_sockets())
    plant(tmp_path / "proc", {"cpuinfo": X86})
    checks = {check.name: check for check in check_energy("auto", settings(tmp_path))}
    assert checks["profile"].found == "x86-vcpu: a virtual machine on AMD EPYC"
    assert checks["energy"].found.startswith("rapl, then model (hwmon missing")
    opened = os.open

    def refusing(path: object, *args: int) -> int:
        if str(path).endswith("energy_uj"):
            raise PermissionError(13, "Permission denied")
        return opened(path, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refusing)
    checks = {check.name: check for check in check_energy("auto", settings(tmp_path))}
    assert checks["energy"].found.startswith("model (")
    assert checks["energy: rapl"].found == "there, but permission"
    assert "udev" in checks["energy: rapl"].hint


def test_a_machine_of_which_nothing_is_known_is_told_what_to_say(tmp_path: Path) -> None:
    checks = {check.name: check for check in check_energy("auto", settings(tmp_path))}
    assert {check.level for check in checks.values()} == {"warn"}
    assert "edgemw profile list" in checks["profile"].hint


# ---- from life to life


class Told:
    """A source of 2 W, which says when it was asked."""

    source, uncertainty_ratio, sees_radio, sees_cards = "hwmon", 0.05, True, True

    def __init__(self) -> None:
        self.asked = Event()

    def joules(self, moment: Moment) -> float | None:
        self.asked.set()
        return 2.0 * moment.seconds


def seconds() -> Iterator[float]:
    now = 0.0
    while True:
        yield now
        now += 1.0


def sampler_of(reader: Told, folder: Path) -> Sampler:
    """One that has looked, and was stopped: one life of a node."""
    clock = seconds()

    def usage() -> Usage:
        return Usage(next(clock), 0.0, 0.0)

    meter = Meter([reader], [], Scope(cores=1, machine_cores=1), usage(), energy_before(folder))
    sampler = Sampler(meter, usage, 0.01, folder)
    sampler.start()
    assert reader.asked.wait(10)
    sampler.stop()
    return sampler


def test_totals_go_on_in_the_next_life(tmp_path: Path) -> None:
    first, second = (sampler_of(Told(), tmp_path).energy for _ in range(2))
    assert second.total_j > first.total_j >= 4.0
    assert energy_before(tmp_path).total_j == pytest.approx(second.total_j)
    assert energy_before(tmp_path).watts == 0.0


def test_a_reader_that_fails_in_an_unforeseen_way_is_told_of_and_the_totals_are_saved(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Told):
        def joules(self, moment: Moment) -> float | None:
            if self.asked.is_set():
                raise ZeroDivisionError("on purpose")
            return super().joules(moment)

    sampler_of(Broken(), tmp_path)
    assert energy_before(tmp_path).total_j == 2.0
    assert caplog.text.count("cannot be looked at") == 1


def test_a_sensor_that_hangs_does_not_keep_a_node_from_ending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = Event()

    class Hanging(Told):
        def joules(self, moment: Moment) -> float | None:
            self.asked.set()
            release.wait()
            return None

    monkeypatch.setattr("edgemw.telemetry.energy.sampler.STOP_S", 0.05)
    sampler_of(Hanging(), tmp_path)
    release.set()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"joules": {"model": -1}}',
        '{"joules": {"model": NaN}}',
        '{"joules": {"model": "much"}}',
        '{"joules": [1]}',
        '{"spent": 3}',
        '{"components": {"train": 1}}',
        '{"idle_j": 1e999}',
        "0" * 9000,
    ],
)
def test_a_damaged_file_begins_at_nothing_and_says_so(tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / FILE).write_text(text)
    assert energy_before(tmp_path) == Energy()
    assert "begins at 0" in caplog.text


def test_a_node_is_measured_while_it_runs_and_not_without_an_interval(tmp_path: Path) -> None:
    node = Node(id="device-0", parent="top", state=tmp_path, profile=NameOrFile("raspberry-pi-4b"))
    used = Used(lambda: (1000, 2000))
    with measuring(node, settings(tmp_path, interval=duration("0s")), used) as measured:
        assert (measured.energy(), dict(measured.states)) == (Energy(), {})
        assert energy_facts(measured.energy()) == {}
    began = time.monotonic()
    with measuring(node, settings(tmp_path, sources=("model",)), used) as measured:
        with used.training():
            work_for(0.05)
        used.served(0.001)
    facts = energy_facts(measured.energy())
    assert dict(measured.states) == {"model": ""}
    assert 0 < float(facts["energy_j"]) <= 6.4 * (time.monotonic() - began)
    assert facts["predictions"] == 1
    assert facts["energy_source"] == "model"
    assert float(facts["energy_train_j"]) > 0


def work_for(cpu_s: float) -> None:
    """Keep this thread busy."""
    began = time.thread_time()
    while time.thread_time() - began < cpu_s:
        pass


def test_what_a_training_takes_is_known_while_it_goes_on() -> None:
    used = Used(lambda: (0, 0))
    with used.training():
        work_for(0.02)
        assert used().train_s >= 0.02
        so_far = used().train_s
        work_for(0.02)
        with ThreadPoolExecutor(1) as other:  # the meter looks from a thread of its own
            assert other.submit(used).result().train_s >= so_far + 0.02
    over = used().train_s
    work_for(0.02)
    assert used().train_s == over


# ---- metrics


def test_prometheus_gets_joules_with_their_source_and_why_others_are_not_there() -> None:
    observer = Observer("device", "device-0", "hall")
    energy = replace(
        Energy(), joules={"battery": 7.5, "model": 1.0}, idle_j=2.0, watts=3.0, source="battery", uncertainty_ratio=0.1
    )
    observer.watch_energy(lambda: energy, {"battery": "", "rapl": "permission"})
    lines = observer.render().decode().splitlines()
    labels = 'device="device-0",site="hall"'
    for line in (
        f'edgemw_device_energy_joules_total{{{labels},source="battery"}} 7.5',
        f'edgemw_device_energy_joules_total{{{labels},source="model"}} 1.0',
        f"edgemw_device_energy_idle_joules_total{{{labels}}} 2.0",
        f"edgemw_device_power_watts{{{labels}}} 3.0",
        f'edgemw_process_energy_joules_total{{component="train",{labels}}} 0.0',
        f'edgemw_energy_source_available{{{labels},reason="permission",source="rapl"}} 0.0',
    ):
        assert line in lines or _unordered(line) in map(_unordered, lines), line


def _unordered(line: str) -> tuple[str, ...]:
    """A line of the text format, whatever the order of its labels."""
    name, _, rest = line.partition("{")
    labels, _, value = rest.partition("}")
    return (name, *sorted(labels.split(",")), value)


# ---- a fleet


def facts(joule: float, **more: int | float | str) -> dict[str, int | float | str]:
    parts: dict[str, int | float | str] = {
        f"energy_{name}_j": joule / 10 for name in ("idle", "train", "serve", "communicate", "agent")
    }
    return parts | {"energy_j": joule, "energy_source": "model"} | more


def test_a_fleet_s_joules_are_those_of_every_node_once() -> None:
    several = facts(20.0, energy_bytes=2_000_000, predictions=4, energy_uncertainty=0.3)
    fleet = fleet_energy([("a", several), ("a", several), ("b", facts(10.0, energy_source="rapl")), ("c", {})])
    assert fleet is not None
    assert (fleet.nodes, fleet.joules, fleet.sources, fleet.uncertainty_ratio) == (2, 30.0, ("model", "rapl"), 0.3)
    document = fleet.document(rounds=10, points=5.0)
    assert document["joules_per_round"] == 3.0
    assert document["joules_per_megabyte"] == pytest.approx(1.5)
    assert document["joules_per_prediction"] == pytest.approx(0.75)
    assert document["joules_per_accuracy_point"] == 6.0
    assert json.loads(json.dumps(document))["train_joules"] == pytest.approx(3.0)
    assert energy_told(document).startswith("30 J by 2 nodes (model, rapl, ± 30 %), 3 J of it idle, 3 J per round")


def test_points_of_a_fleet_are_those_that_tops_tell() -> None:
    top: dict[str, int | float | str] = {"metric": "accuracy", "metric_first": 0.25, "metric_last": 0.75}
    assert fleet_points([top, {"energy_j": 3.0}]) == pytest.approx(50)
    assert fleet_points([top, top | {"metric_last": 0.5}]) == pytest.approx(75)
    for nothing in ({}, top | {"metric": "mse"}, top | {"metric_last": "good"}, top | {"metric": 7}):
        assert fleet_points([nothing]) is None


def test_numbers_that_no_device_has_spoil_no_sum() -> None:
    absurd = facts(5.0) | {"energy_communicate_j": 1e308, "energy_bytes": 1, "energy_serve_j": 1e308}
    fleet = fleet_energy([("a", absurd), ("b", facts(1e308)), ("c", facts(5.0))])
    assert fleet is not None
    assert fleet.joules == 10.0
    json.dumps(fleet.document(rounds=1, points=5e-324), allow_nan=False)


def test_what_was_not_got_has_no_price() -> None:
    assert fleet_energy([("a", {}), ("b", {"energy_j": "much"})]) is None
    fleet = fleet_energy([("a", facts(5.0))])
    assert fleet is not None
    prices = {key: value for key, value in fleet.document(0, None).items() if key.startswith("joules_per_")}
    assert set(prices.values()) == {None}


def test_points_are_of_shares_only() -> None:
    assert points_gained("accuracy", [0.1, 0.5, 0.6]) == pytest.approx(50.0)
    assert points_gained("accuracy", [0.6, 0.5]) == 0.0
    assert points_gained("mae", [3.0, 1.0]) is None
    assert points_gained("accuracy", []) is None


@pytest.mark.parametrize(
    ("amount", "text"), [(0, "0 J"), (2e-5, "20 µJ"), (0.25, "250 mJ"), (81.2, "81.2 J"), (5400, "5.4 kJ"), (3.6e6, "3.6 MJ")]
)
def test_joules_for_people(amount: float, text: str) -> None:
    assert prefixed(amount, "J") == text


def test_a_server_s_counters_reach_the_status(tmp_path: Path) -> None:
    tree = plant(tmp_path / "sys", two_sockets())
    node = Node(id="fog-0", parent="top", state=tmp_path, profile=NameOrFile(""))
    with measuring(node, settings(tmp_path, sources=("rapl",)), Used(lambda: (0, 0))) as measured:
        plant(tree, {f"{RAPL}:0/energy_uj": 240_432_366_267})
    assert energy_facts(measured.energy())["energy_j"] == pytest.approx(10.0)
