"""Rails of NVIDIA Jetson boards: INA3221 chips, as hwmon from JetPack 5 on, and as an IIO device before.

The rail that all others are behind (VDD_IN, POM_5V_IN) is taken alone; without one all are added, but those labelled NC.
The sensors show too little, by up to half of the true power (Khoshsirat et al. 2023, who come to 3 % with a regression).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from edgemw.telemetry.energy.hwmon import INPUT_RAILS, MILLI, Rail, Since, added, meters_of, not_connected, open_all
from edgemw.telemetry.energy.reader import Moment, Roots
from edgemw.telemetry.energy.tree import Tree

_NEW, _OLD = "bus/i2c/drivers/ina3221/*/hwmon/hwmon*", "bus/i2c/drivers/ina3221x/*/iio:device*"
_RAILS = (0, 1, 2)


class Jetson:
    """Power of the board."""

    source = "jetson"
    uncertainty_ratio = 0.5
    sees_radio = sees_cards = True

    def __init__(self, roots: Roots) -> None:
        """Find the rails.

        Raises:
            Unavailable: there are none, or none can be read.
        """
        tree = roots.sys
        self._meters = meters_of(tree, tree.matching(_NEW), roots.period_s) or _old(tree, roots.period_s)
        open_all(self._meters)

    def joules(self, moment: Moment) -> float | None:
        """Joules since the last call. Raises Unreadable."""
        return added(self._meters, moment.now_s)


def _old(tree: Tree, period_s: float) -> list[Since]:
    rails: dict[str, Callable[[], float]] = {}
    for chip in tree.matching(_OLD):
        for number in _RAILS:
            label = tree.maybe(f"{chip}/rail_name_{number}")
            if label and not not_connected(label):
                rails[label] = partial(_power, tree, f"{chip}/in_power{number}_input")
    whole = next((label for label in rails if label in INPUT_RAILS), None)
    return [Rail(watts, period_s).since for label, watts in rails.items() if whole in (None, label)]


def _power(tree: Tree, path: str) -> float:
    return MILLI * abs(tree.number(path))
