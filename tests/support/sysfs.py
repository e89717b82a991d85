"""Folders that look like sysfs and procfs of machines that are not here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

RAPL = "class/powercap/intel-rapl"


def plant(root: Path, files: Mapping[str, str | int]) -> Path:
    """Write values to files below a folder; what is there already gets the new value."""
    for path, value in files.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{value}\n")
    return root


def two_sockets(first: int = 240_422_366_267, second: int = 118_000_000_000) -> dict[str, str | int]:
    """A server with memory counters, parts of packages, and the first package again as mmio."""
    span = 262_143_328_850
    zones: dict[str, str | int] = {}
    for number, energy in enumerate((first, second)):
        zones |= zone(f"{RAPL}:{number}", f"package-{number}", energy, span)
        zones |= zone(f"{RAPL}:{number}:0", "core", energy // 2, span)
        zones |= zone(f"{RAPL}:{number}:1", "dram", 1_000_000 * (number + 1), 65_712_999_613)
    return zones | zone("class/powercap/intel-rapl-mmio:0", "package-0", first, span)


def zone(path: str, name: str, energy_uj: int, span_uj: int) -> dict[str, str | int]:
    """One zone of powercap."""
    return {f"{path}/name": name, f"{path}/energy_uj": energy_uj, f"{path}/max_energy_range_uj": span_uj}


def ina3221(path: str, rails: Mapping[str, tuple[int, int]]) -> dict[str, str | int]:
    """A chip whose channels 1 to 3 have a label, millivolts and milliamperes; the others are shunts and sums."""
    files: dict[str, str | int] = {f"{path}/name": "ina3221"}
    for number, (label, (millivolts, milliamperes)) in enumerate(rails.items(), 1):
        files[f"{path}/in{number}_label"] = label
        files[f"{path}/in{number}_input"] = millivolts
        files[f"{path}/curr{number}_input"] = milliamperes
        files[f"{path}/in{number + 3}_input"] = 5
    return files | {f"{path}/in7_input": 15, f"{path}/curr4_input": sum(rail[1] for rail in rails.values())}


def battery(
    status: str, microwatts: int | None = None, microvolts: int = 3_800_000, microamperes: int = -992_000
) -> dict[str, str | int]:
    """A battery whose current is negative while it discharges, and which may tell its power."""
    path = "class/power_supply/BAT0"
    files: dict[str, str | int] = {f"{path}/type": "Battery", f"{path}/status": status, f"{path}/capacity": 73}
    files |= {f"{path}/voltage_now": microvolts, f"{path}/current_now": microamperes, f"{path}/present": 1}
    return files | ({} if microwatts is None else {f"{path}/power_now": microwatts})
