"""The machine that a node runs on: processor, memory, temperature, battery; read when Prometheus asks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from edgemw.telemetry.energy.battery import charge_of
from edgemw.telemetry.energy.tree import Tree, Unreadable

_ZONES = "class/thermal/thermal_zone*"
_MILLI = 1e-3
_COLDEST, _HOTTEST = -60.0, 200.0  # what lies outside is a sensor that is not there


@dataclass(frozen=True, slots=True)
class Machine:
    """What is known of it now.

    Attributes:
        busy_s: processor time of all cores so far.
        cores: how many it has.
        memory_used_bytes, memory_bytes: what programs could not have any more, and all.
        celsius: of its hottest zone; None where there is none.
        charge: of its battery, 0 to 1, and whether that charges; None without one.
    """

    busy_s: float
    cores: int
    memory_used_bytes: int
    memory_bytes: int
    celsius: float | None = None
    charge: tuple[float, bool] | None = None


def busy_seconds() -> float:
    """Processor time of all cores, without idling, waiting for disks, and what other virtual machines took."""
    times = psutil.cpu_times()
    return float(sum(getattr(times, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq")))


def own_memory_bytes(limit: Path = Path("/sys/fs/cgroup/memory.max")) -> int:
    """The memory that this process may take: that of the machine, or what its container is given of it."""
    total = int(psutil.virtual_memory().total)
    try:
        given = limit.read_text().strip()
    except OSError:
        return total
    return min(total, int(given)) if given.isdecimal() else total


def machine_now(sysfs: Path) -> Machine:
    """Ask the operating system."""
    tree, memory = Tree(sysfs), psutil.virtual_memory()
    used = memory.total - memory.available
    return Machine(busy_seconds(), psutil.cpu_count() or 1, used, memory.total, _hottest(tree), charge_of(tree))


def _hottest(tree: Tree) -> float | None:
    found = []
    for zone in tree.matching(_ZONES):
        try:
            celsius = _MILLI * tree.number(f"{zone}/temp")
        except Unreadable:
            continue
        if _COLDEST < celsius < _HOTTEST:
            found.append(celsius)
    return max(found, default=None)


def machine_families(labels: dict[str, str], machine: Machine) -> Iterator[Metric]:
    """Metrics of a machine, with these labels on all of them."""
    names, values = [*labels], [*labels.values()]
    busy = CounterMetricFamily("edgemw_device_cpu_seconds", "Processor time of the whole device, all cores.", labels=names)
    busy.add_metric(values, machine.busy_s)
    yield busy
    charge, charging = machine.charge if machine.charge is not None else (None, None)
    for name, about, value in (
        ("edgemw_device_cpu_cores", "Cores of the device.", machine.cores),
        ("edgemw_device_memory_used_bytes", "Memory of the device that is in use.", machine.memory_used_bytes),
        ("edgemw_device_memory_bytes", "Memory of the device.", machine.memory_bytes),
        ("edgemw_device_temperature_celsius", "Temperature of the hottest part that has a sensor.", machine.celsius),
        ("edgemw_device_battery_charge_ratio", "How full the battery is.", charge),
        ("edgemw_device_battery_charging", "1 while the battery is charged.", charging),
    ):
        if value is not None:
            gauge = GaugeMetricFamily(name, about, labels=names)
            gauge.add_metric(values, float(value))
            yield gauge
