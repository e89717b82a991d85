"""What our readers make of a tree, beside what Prometheus's node exporter reads in the same one."""

from __future__ import annotations

import re
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgemw.telemetry.energy.battery import Battery
from edgemw.telemetry.energy.hwmon import Hwmon
from edgemw.telemetry.energy.rapl import Rapl
from edgemw.telemetry.energy.reader import Moment, Roots
from tests.support.programs import installed
from tests.support.sysfs import RAPL, battery, ina3221, plant, two_sockets
from tests.unit.test_telemetry_observer import SEQUENCES

_LINE = re.compile(r"(\w+)\{([^}]*)\} (\S+)")
_URL = re.compile(r"127\.0\.0\.1:(\d+)")


@contextmanager
def exporting(sysfs: Path) -> Iterator[str]:
    """The metrics of the node exporter for a tree, which it has read once."""
    binary = installed("prometheus-node-exporter")
    words = [f"--path.sysfs={sysfs}", "--collector.disable-defaults", "--web.listen-address=127.0.0.1:0"]
    words += [f"--collector.{name}" for name in ("rapl", "hwmon", "powersupplyclass")]
    process = subprocess.Popen([binary, *words], stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        port = next(found[1] for line in process.stderr if (found := _URL.search(line)) and found[1] != "0")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            yield answer.read().decode()
    finally:
        process.kill()
        process.communicate()


def series(text: str, name: str) -> dict[str, float]:
    """Values of a metric by their labels."""
    return {labels: float(value) for found, labels, value in _LINE.findall(text) if found == name}


def test_packages_of_a_server_move_as_the_exporter_says(tmp_path: Path) -> None:
    tree = plant(tmp_path, two_sockets())
    reader = Rapl(Roots(tree))
    with exporting(tree) as text:
        before = series(text, "node_rapl_package_joules_total")
    plant(tree, {f"{RAPL}:0/energy_uj": 240_442_366_267, f"{RAPL}:1/energy_uj": 118_030_000_000})
    with exporting(tree) as text:
        after = series(text, "node_rapl_package_joules_total")
    moved = {labels: after[labels] - before[labels] for labels in before if "mmio" not in labels}
    assert reader.joules(Moment(1.0, 1.0, 0.0)) == pytest.approx(sum(moved.values()), abs=1e-3)


def test_rails_of_a_board_are_the_exporter_s_volts_and_amperes(tmp_path: Path) -> None:
    rails = {"VDD_CPU": (4984, 992), "VDD_SOC": (5008, 310)}
    tree = plant(tmp_path, ina3221("class/hwmon/hwmon0", rails))
    reader = Hwmon(Roots(tree))
    with exporting(tree) as text:
        volts, amperes = series(text, "node_hwmon_in_volts"), series(text, "node_hwmon_curr_amps")
    watts = sum(_rail(volts, f"in{n}") * _rail(amperes, f"curr{n}") for n in (1, 2))
    reader.joules(Moment(1.0, 1.0, 0.0))
    assert reader.joules(Moment(2.0, 1.0, 0.0)) == pytest.approx(watts)


def _rail(values: dict[str, float], sensor: str) -> float:
    return next(value for labels, value in values.items() if f'sensor="{sensor}"' in labels)


def test_a_battery_is_the_exporter_s_volts_and_amperes(tmp_path: Path) -> None:
    tree = plant(tmp_path, battery("Discharging"))
    reader = Battery(Roots(tree))
    with exporting(tree) as text:
        (volts,) = series(text, "node_power_supply_voltage_volt").values()
        (amperes,) = series(text, "node_power_supply_current_ampere").values()
    reader.joules(Moment(1.0, 1.0, 0.0))
    assert reader.joules(Moment(2.0, 1.0, 0.0)) == pytest.approx(volts * abs(amperes))


@pytest.mark.parametrize("role", ["device", "fog"])
def test_promtool_finds_nothing_to_say_of_the_metrics_of_a_node(role: str) -> None:
    words = [installed("promtool"), "check", "metrics"]
    done = subprocess.run(words, input=SEQUENCES[role]().render(), capture_output=True, check=False)
    assert (done.returncode, done.stderr.decode()) == (0, "")
