"""Every reader of energy on trees of machines that are not here."""

from __future__ import annotations

import errno
import os
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemw.profiles.catalogue import load_profile, load_radio
from edgemw.telemetry.energy.battery import Battery, charge_of
from edgemw.telemetry.energy.hwmon import Hwmon
from edgemw.telemetry.energy.jetson import Jetson
from edgemw.telemetry.energy.model import Model
from edgemw.telemetry.energy.nvml import Nvml
from edgemw.telemetry.energy.pmic import OFFSET_W, SLOPE, Pmic
from edgemw.telemetry.energy.rapl import Rapl
from edgemw.telemetry.energy.reader import Moment, Reader, Roots, Unavailable
from edgemw.telemetry.energy.sources import open_sources
from edgemw.telemetry.energy.totals import Integral, Odometer
from edgemw.telemetry.energy.tree import Tree, Unreadable
from tests.support.sysfs import RAPL, battery, ina3221, plant, two_sockets, zone

ADC = """     3V7_WL_SW_A current(0)=0.20000000A
     VDD_CORE_A current(7)=1.50000000A
     3V7_WL_SW_V volt(8)=3.70000000V
     VDD_CORE_V volt(15)=0.80000000V
     EXT5V_V volt(24)=5.10000000V
"""


def roots(path: Path) -> Roots:
    return Roots(path / "sys", path / "proc", 1.0)


def at(now_s: float, seconds: float = 1.0, utilisation: float = 0.0) -> Moment:
    return Moment(now_s, seconds, utilisation)


def joules_of_a_second(reader: Reader) -> float | None:
    """From the first look to the second."""
    reader.joules(at(1))
    return reader.joules(at(2))


# ---- from readings to joules


@given(st.lists(st.floats(0, 40), max_size=40), st.floats(0, 100))
def test_an_odometer_says_what_was_driven_however_often_it_wraps(steps: list[float], begin: float) -> None:
    span = 100.0
    odometer, reading = Odometer(span), begin % span
    assert odometer.since(reading) is None
    for step in steps:
        reading = (reading + step) % span
        assert odometer.since(reading) == pytest.approx(step, abs=1e-9)


def test_what_a_wrap_hides_from_prometheus_is_counted() -> None:
    odometer = Odometer(100.0)
    moved = [odometer.since(reading) or 0.0 for reading in (80, 90, 5, 15, 25)]
    assert sum(moved) == 45.0


def test_a_driver_that_starts_again_counts_from_zero() -> None:
    for span in (None, 1000.0):
        odometer = Odometer(span)
        odometer.since(300.0)
        assert odometer.since(7.0) == 7.0


def test_power_is_integrated_and_what_happened_in_a_long_pause_is_not_made_up() -> None:
    integral = Integral(period_s=1.0)
    assert integral.since(0.0, 2.0) is None
    assert integral.since(1.0, 4.0) == 3.0
    assert integral.since(7.0, 4.0) is None
    assert integral.since(8.0, 4.0) == 4.0
    integral.pause()
    assert integral.since(9.0, 4.0) is None


# ---- RAPL


def test_packages_and_their_memory_are_added_and_parts_and_duplicates_are_not(tmp_path: Path) -> None:
    tree = plant(tmp_path / "sys", two_sockets())
    reader = Rapl(roots(tmp_path))
    plant(tree, {f"{RAPL}:0/energy_uj": 240_432_366_267, f"{RAPL}:1/energy_uj": 118_005_000_000})
    plant(tree, {f"{RAPL}:0:1/energy_uj": 1_500_000, "class/powercap/intel-rapl-mmio:0/energy_uj": 240_432_366_267})
    plant(tree, {f"{RAPL}:0:0/energy_uj": 130_000_000_000})
    assert reader.joules(at(1)) == pytest.approx(10.0 + 5.0 + 0.5)
    assert not reader.sees_radio


def test_the_board_is_taken_alone(tmp_path: Path) -> None:
    tree = plant(tmp_path / "sys", two_sockets() | zone(f"{RAPL}:2", "psys", 5_000_000, 262_143_328_850))
    reader = Rapl(roots(tmp_path))
    plant(tree, {f"{RAPL}:2/energy_uj": 25_000_000, f"{RAPL}:0/energy_uj": 250_000_000_000})
    assert reader.joules(at(1)) == pytest.approx(20.0)
    assert reader.sees_radio


def test_a_counter_that_wraps_loses_nothing(tmp_path: Path) -> None:
    tree = plant(tmp_path / "sys", two_sockets(first=262_143_000_000))
    reader = Rapl(roots(tmp_path))
    plant(tree, {f"{RAPL}:0/energy_uj": 9_671_150})
    assert reader.joules(at(1)) == pytest.approx(10.0)


def test_what_a_counter_would_say_of_a_time_that_others_have_counted_is_not_counted_again(tmp_path: Path) -> None:
    tree = plant(tmp_path / "sys", two_sockets())
    reader, file = Rapl(roots(tmp_path)), tmp_path / "sys" / f"{RAPL}:1/energy_uj"
    file.unlink()
    with pytest.raises(Unreadable):
        reader.joules(at(1))
    plant(tree, {f"{RAPL}:0/energy_uj": 250_000_000_000, f"{RAPL}:1/energy_uj": 128_000_000_000})
    assert reader.joules(at(2)) is None
    plant(tree, {f"{RAPL}:0/energy_uj": 250_005_000_000})
    assert reader.joules(at(3)) == pytest.approx(5.0)


def test_who_may_not_read_is_told_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(tmp_path / "sys", two_sockets())
    really = os.open

    def refusing(path: Any, *args: Any) -> int:
        if str(path).endswith("energy_uj"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return really(path, *args)

    monkeypatch.setattr(os, "open", refusing)
    with pytest.raises(Unavailable) as refused:
        Rapl(roots(tmp_path))
    assert refused.value.reason == "permission"
    assert "udev" in refused.value.hint
    assert "CAP_DAC_READ_SEARCH" in refused.value.hint


# ---- meters on boards


def test_an_ina2xx_tells_its_power_whatever_its_number(tmp_path: Path) -> None:
    chip = "class/hwmon/hwmon4"
    files: dict[str, str | int] = {
        f"{chip}/name": "ina226",
        f"{chip}/power1_input": 5_000_000,
        f"{chip}/in0_input": 3,
        f"{chip}/in1_input": 12_000,
    }
    tree = plant(tmp_path / "sys", files | {"class/hwmon/hwmon0/name": "coretemp", "class/hwmon/hwmon1/name": "nvme"})
    reader = Hwmon(roots(tmp_path))
    assert reader.joules(at(1)) is None
    plant(tree, {f"{chip}/power1_input": 7_000_000})
    assert reader.joules(at(2)) == pytest.approx(6.0)


def test_rails_of_an_ina3221_are_volts_times_amperes_without_shunts_sums_and_nc(tmp_path: Path) -> None:
    rails = {"VDD_CPU": (5000, 400), "VDD_SOC": (5000, 200), "NC": (5000, 9000)}
    plant(tmp_path / "sys", ina3221("class/hwmon/hwmon2", rails))
    reader = Hwmon(roots(tmp_path))
    assert joules_of_a_second(reader) == pytest.approx(3.0)


def test_a_channel_that_is_off_is_no_rail(tmp_path: Path) -> None:
    chip = "class/hwmon/hwmon2"
    tree = plant(tmp_path / "sys", ina3221(chip, {"VDD_CPU": (5000, 400), "CAM": (5000, 100)}) | {f"{chip}/in2_enable": 0})
    for name in ("in2_input", "curr2_input"):
        (tree / chip / name).unlink()
        (tree / chip / name).mkdir()  # the kernel says ENODATA
    reader = Hwmon(roots(tmp_path))
    assert joules_of_a_second(reader) == pytest.approx(2.0)


def test_the_input_of_one_chip_has_the_rails_of_another_behind_it(tmp_path: Path) -> None:
    chips = ina3221("class/hwmon/hwmon0", {"VDD_SYS_GPU": (5000, 400), "VDD_SYS_SOC": (5000, 200)})
    plant(tmp_path / "sys", chips | ina3221("class/hwmon/hwmon1", {"VDD_IN": (19000, 500), "VDD_SYS_CPU": (5000, 300)}))
    reader = Hwmon(roots(tmp_path))
    assert joules_of_a_second(reader) == pytest.approx(9.5)


def test_meters_without_labels_are_added(tmp_path: Path) -> None:
    files: dict[str, str | int] = {}
    for number in (0, 3):
        files |= {f"class/hwmon/hwmon{number}/name": "ina226", f"class/hwmon/hwmon{number}/power1_input": 1_500_000}
    plant(tmp_path / "sys", files)
    reader = Hwmon(roots(tmp_path))
    assert joules_of_a_second(reader) == pytest.approx(3.0)


def test_a_rail_that_all_others_are_behind_is_taken_alone(tmp_path: Path) -> None:
    rails = {"VDD_IN": (5000, 1000), "VDD_CPU_GPU_CV": (5000, 400), "VDD_SOC": (5000, 300)}
    plant(tmp_path / "sys", ina3221("bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3", rails))
    reader = Jetson(roots(tmp_path))
    assert joules_of_a_second(reader) == pytest.approx(5.0)
    assert reader.uncertainty_ratio == 0.5


def test_rails_of_an_older_jetson_are_in_milliwatts(tmp_path: Path) -> None:
    chip = "bus/i2c/drivers/ina3221x/6-0040/iio:device0"
    files: dict[str, str | int] = {
        f"{chip}/rail_name_0": "POM_5V_GPU",
        f"{chip}/in_power0_input": 800,
        f"{chip}/rail_name_1": "NC",
    }
    files |= {f"{chip}/rail_name_2": "POM_5V_CPU", f"{chip}/in_power2_input": 1200}
    plant(tmp_path / "sys", files)
    reader = Jetson(roots(tmp_path))
    assert joules_of_a_second(reader) == pytest.approx(2.0)


def test_a_chip_that_counts_energy_is_believed_before_its_power(tmp_path: Path) -> None:
    chip = "class/hwmon/hwmon1"
    files: dict[str, str | int] = {
        f"{chip}/name": "ltc2947",
        f"{chip}/energy1_input": 1_000_000,
        f"{chip}/power1_input": 99_000_000,
    }
    tree = plant(tmp_path / "sys", files)
    reader = Hwmon(roots(tmp_path))
    plant(tree, {f"{chip}/energy1_input": 3_500_000})
    assert reader.joules(at(1)) == pytest.approx(2.5)


def test_a_sensor_that_fails_for_a_while_begins_anew(tmp_path: Path) -> None:
    chip = "class/hwmon/hwmon0"
    tree = plant(tmp_path / "sys", {f"{chip}/name": "ina260", f"{chip}/power1_input": 4_000_000})
    reader = Hwmon(roots(tmp_path))
    reader.joules(at(1))
    (tree / chip / "power1_input").unlink()
    (tree / chip / "power1_input").mkdir()  # a file that cannot be read, whoever asks
    with pytest.raises(Unreadable, match="no data"):
        reader.joules(at(2))
    (tree / chip / "power1_input").rmdir()
    plant(tree, {f"{chip}/power1_input": 4_000_000})
    assert reader.joules(at(3)) is None
    assert reader.joules(at(4)) == pytest.approx(4.0)


@pytest.mark.parametrize("text", ["", "n/a", "nan", "inf", "12 W"])
def test_what_is_no_number_is_not_taken_for_one(tmp_path: Path, text: str) -> None:
    plant(tmp_path, {"value": text})
    with pytest.raises(Unreadable, match="damaged"):
        Tree(tmp_path).number("value")


# ---- the Raspberry Pi 5


def test_the_power_chip_of_a_pi_5_counts_rails_that_have_both(tmp_path: Path) -> None:
    plant(tmp_path / "proc", {"device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0"})
    reader = Pmic(roots(tmp_path), lambda: ADC)
    assert joules_of_a_second(reader) == pytest.approx(SLOPE * (0.2 * 3.7 + 1.5 * 0.8) + OFFSET_W)


def test_older_boards_and_firmware_that_does_not_answer_are_left_alone(tmp_path: Path) -> None:
    def absent() -> str:
        raise FileNotFoundError("vcgencmd")

    for model, command, reason in (
        ("Raspberry Pi 4 Model B Rev 1.4", lambda: ADC, "missing"),
        ("Raspberry Pi 5 Model B Rev 1.0", absent, "no data"),
        ("Raspberry Pi 5 Model B Rev 1.0", lambda: "error=1 error_msg=...", "damaged"),
    ):
        plant(tmp_path / "proc", {"device-tree/model": model})
        with pytest.raises(Unavailable) as refused:
            Pmic(roots(tmp_path), command)
        assert refused.value.reason == reason


# ---- batteries


def test_a_battery_speaks_while_it_discharges_whatever_the_sign_of_its_current(tmp_path: Path) -> None:
    tree = plant(tmp_path / "sys", battery("Discharging"))
    reader = Battery(roots(tmp_path))
    assert reader.joules(at(1)) is None
    assert reader.joules(at(2)) == pytest.approx(3.8 * 0.992)
    plant(tree, battery("Charging"))
    assert reader.joules(at(3)) is None
    plant(tree, battery("Discharging", microwatts=2_000_000))
    assert reader.joules(at(4)) is None
    assert reader.joules(at(5)) == pytest.approx(2.0)
    assert charge_of(Tree(tree)) == (0.73, False)


def test_the_battery_of_a_mouse_is_not_the_machine_s(tmp_path: Path) -> None:
    plant(tmp_path / "sys", battery("Discharging") | {"class/power_supply/BAT0/scope": "Device"})
    with pytest.raises(Unavailable):
        Battery(roots(tmp_path))


# ---- graphics cards


class Card(types.ModuleType):
    """Stands for NVIDIA's library: one card with a counter, and one without."""

    class NVMLError(Exception):
        pass

    def __init__(self) -> None:
        super().__init__("pynvml")
        self.millijoules, self.milliwatts, self.broken = 5_000_000, 60_000, False

    def nvmlInit(self) -> None:
        if self.broken:
            raise self.NVMLError("Driver Not Loaded")

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetTotalEnergyConsumption(self, card: int) -> int:
        if card or self.broken:
            raise self.NVMLError("Not Supported")
        return self.millijoules

    def nvmlDeviceGetPowerUsage(self, card: int) -> int:
        if self.broken:
            raise self.NVMLError("GPU is lost")
        return self.milliwatts


def test_cards_tell_their_counter_or_else_their_power(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = Card()
    monkeypatch.setitem(sys.modules, "pynvml", library)
    reader = Nvml(roots(tmp_path))
    reader.joules(at(1))
    library.millijoules += 20_000
    assert reader.joules(at(2)) == pytest.approx(20.0 + 60.0)
    library.broken = True
    with pytest.raises(Unreadable):
        reader.joules(at(3))
    with pytest.raises(Unavailable) as refused:
        Nvml(roots(tmp_path))
    assert refused.value.reason == "no driver"


# ---- the model


def test_the_model_is_the_profile_s(tmp_path: Path) -> None:
    board, radio = load_profile("raspberry-pi-4b"), load_radio("wifi-sbc")
    model: Reader = Model(board, radio, cores=4)
    assert model.joules(Moment(1, 60.0, 0.5, 20_000.0)) == pytest.approx(273.0046)
    per_core = Model(load_profile("x86-vcpu"), None, cores=2)
    assert per_core.joules(Moment(1, 10.0, 1.0)) == pytest.approx(70.0)


def test_a_profile_that_does_not_know_its_power_is_no_model() -> None:
    with pytest.raises(Unavailable) as refused:
        Model(load_profile("gap9"), None, cores=1)
    assert "idle_w" in refused.value.hint


# ---- together


def test_sources_are_opened_in_order_and_what_is_not_there_says_why(tmp_path: Path) -> None:
    plant(tmp_path / "sys", two_sockets() | battery("Full"))
    board = load_profile("raspberry-pi-4b")
    found = open_sources(board.energy_sources, roots(tmp_path), lambda: Model(board, None, 4))
    assert [reader.source for reader in found.readers] == ["battery", "rapl", "model"]
    reasons = {name: error.reason for name, error in found.unavailable.items()}
    assert reasons == dict.fromkeys(("hwmon", "jetson", "pmic", "nvml"), "missing")


def test_a_machine_without_anything_has_no_source(tmp_path: Path) -> None:
    found = open_sources(("hwmon", "rapl", "battery", "model"), roots(tmp_path), None)
    assert not found.readers
    assert "node.profile" in found.unavailable["model"].hint
