"""Energy counters of x86 processors (RAPL), through the kernel's powercap interface.

`psys` is the whole board where the machine has it, and taken alone then. Else packages and their memory are added. What else
there is would be counted twice: `core` and `uncore` are parts of a package, and `intel-rapl-mmio` shows the same package again.

Since Linux 5.10, and in older stable versions, only root may read the counters (CVE-2020-8694: a side channel). Let a group of
its own read them, not everybody.
"""

from __future__ import annotations

from functools import partial

from edgemw.telemetry.energy.reader import Roots
from edgemw.telemetry.energy.sensors import MICRO, Count, Sensors, magnitude
from edgemw.telemetry.energy.tree import Tree, Unreadable

_ZONES = "class/powercap/intel-rapl:*"
PERMISSION = (
    'add the udev rule SUBSYSTEM=="powercap", ACTION=="add", '
    "RUN+=\"/bin/sh -c 'chgrp edgemw-energy /sys%p/energy_uj; chmod 0440 /sys%p/energy_uj'\" and this user to that group, "
    "or AmbientCapabilities=CAP_DAC_READ_SEARCH to its systemd unit"
)


class Rapl(Sensors):
    """Package and memory energy, or that of the board."""

    source = "rapl"
    uncertainty_ratio = 0.1

    def __init__(self, roots: Roots) -> None:
        """Find the zones.

        Raises:
            Unavailable: there are none, or they may not be read.
        """
        tree = roots.sys
        zones = _zones(tree)
        self.sees_radio = self.sees_cards = zones[:1] != [] and zones[0][1] == "psys"
        counts = [Count(partial(magnitude, tree, f"{path}/energy_uj", MICRO), _span_j(tree, path)) for path, _ in zones]
        super().__init__(counts, PERMISSION)


def _zones(tree: Tree) -> list[tuple[str, str]]:
    """Path and name of each zone to be added."""
    named = [(path, tree.maybe(f"{path}/name")) for path in tree.matching(_ZONES)]
    board = [zone for zone in named if zone[1] == "psys"]
    return board[:1] or [zone for zone in named if zone[1].startswith("package") or zone[1] == "dram"]


def _span_j(tree: Tree, path: str) -> float | None:
    """Behind which a zone begins anew; None where it does not say."""
    try:
        return MICRO * tree.number(f"{path}/max_energy_range_uj") or None
    except Unreadable:
        return None
