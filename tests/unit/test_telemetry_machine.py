"""What is told of the machine that a node runs on."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from edgemw.telemetry.machine import Machine, busy_seconds, machine_families, machine_now, own_memory_bytes
from tests.support.sysfs import battery, plant

ZONE = "class/thermal/thermal_zone"


def test_the_hottest_zone_counts_and_sensors_that_are_not_there_do_not(tmp_path: Path) -> None:
    zones: dict[str, str | int] = {
        f"{ZONE}0/temp": 48_312,
        f"{ZONE}1/temp": 61_500,
        f"{ZONE}2/temp": -274_000,
        f"{ZONE}3/temp": "n/a",
    }
    assert machine_now(plant(tmp_path, zones)).celsius == pytest.approx(61.5)
    assert machine_now(tmp_path / "none").celsius is None


def test_a_battery_tells_its_charge(tmp_path: Path) -> None:
    assert machine_now(plant(tmp_path, battery("Charging"))).charge == (0.73, True)
    plant(tmp_path, {"class/power_supply/BAT0/capacity": 250})
    assert machine_now(tmp_path).charge == (1.0, True)


def test_this_machine_has_cores_memory_and_time_that_goes_on(tmp_path: Path) -> None:
    began = busy_seconds()
    while busy_seconds() == began:  # this loop is what keeps it busy
        pass
    now = machine_now(tmp_path)
    assert now.busy_s > began
    assert now.cores >= 1
    assert 0 < now.memory_used_bytes < now.memory_bytes


def test_what_is_not_known_is_no_metric() -> None:
    names = {family.name for family in machine_families({"device": "a"}, Machine(1.0, 1, 2, 3))}
    assert names == {
        "edgemw_device_cpu_seconds",
        "edgemw_device_cpu_cores",
        "edgemw_device_memory_used_bytes",
        "edgemw_device_memory_bytes",
    }


@pytest.mark.parametrize(("given", "bytes_"), [("268435456\n", 268_435_456), ("max\n", None), (None, None)])
def test_the_memory_of_a_container_is_what_it_is_given(given: str | None, bytes_: int | None, tmp_path: Path) -> None:
    limit = tmp_path / "memory.max"
    if given is not None:
        limit.write_text(given)
    assert own_memory_bytes(limit) == (psutil.virtual_memory().total if bytes_ is None else bytes_)
