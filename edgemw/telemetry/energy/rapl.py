"""Energy counters of x86 processors (RAPL), through the kernel's powercap interface.

`psys` is the whole board where the machine has it, and taken alone then. Else packages and their memory are added. What else
there is would be counted twice: `core` and `uncore` are parts of a package, and `intel-rapl-mmio` shows the same package again.

Since Linux 5.10, and in older stable versions, only root may read the counters (CVE-2020-8694: a side channel). Let a group of
its own read them, not everybody.
"""

from __future__ import annotations

from edgemw.telemetry.energy.reader import Moment, Roots, Unavailable
from edgemw.telemetry.energy.totals import Odometer
from edgemw.telemetry.energy.tree import Tree, Unreadable

_ZONES = "class/powercap/intel-rapl:*"
MICRO = 1e-6
PERMISSION = (
    'add the udev rule SUBSYSTEM=="powercap", ACTION=="add", '
    "RUN+=\"/bin/sh -c 'chgrp edgemw-energy /sys%p/energy_uj; chmod 0440 /sys%p/energy_uj'\" and this user to that group, "
    "or AmbientCapabilities=CAP_DAC_READ_SEARCH to its systemd unit"
)


class Rapl:
    """Package and memory energy, or that of the board."""

    source = "rapl"
    uncertainty_ratio = 0.1

    def __init__(self, roots: Roots) -> None:
        """Find the zones.

        Raises:
            Unavailable: there are none, or they may not be read.
        """
        self._tree = roots.sys
        found = self._zones()
        if not found:
            raise Unavailable("missing")
        self.sees_radio = self.sees_cards = found[0][1] == "psys"
        self._counters = [(f"{path}/energy_uj", Odometer(self._span(path))) for path, _ in found]
        try:
            self._moved()
        except Unreadable as error:
            raise Unavailable(error.reason, PERMISSION if error.reason == "permission" else "") from error

    def joules(self, moment: Moment) -> float | None:
        """Joules since the last call. Raises Unreadable."""
        return self._moved()

    def _moved(self) -> float | None:
        try:
            readings = [self._tree.number(path) for path, _ in self._counters]  # all of them, before any counts
        except Unreadable:
            for _, odometer in self._counters:
                odometer.pause()
            raise
        moved = [odometer.since(reading) for (_, odometer), reading in zip(self._counters, readings, strict=True)]
        return None if any(part is None for part in moved) else MICRO * sum(part or 0.0 for part in moved)

    def _zones(self) -> list[tuple[str, str]]:
        """Path and name of each zone to be added."""
        named = [(path, self._tree.maybe(f"{path}/name")) for path in self._tree.matching(_ZONES)]
        board = [zone for zone in named if zone[1] == "psys"]
        return board[:1] or [zone for zone in named if zone[1].startswith("package") or zone[1] == "dram"]

    def _span(self, path: str) -> float | None:
        return _positive(self._tree, f"{path}/max_energy_range_uj")


def _positive(tree: Tree, path: str) -> float | None:
    try:
        value = tree.number(path)
    except Unreadable:
        return None
    return value if value > 0 else None
