"""Rails of NVIDIA Jetson boards: INA3221 chips, as hwmon from JetPack 5 on, and as an IIO device before.

The rail that all others are behind (VDD_IN, POM_5V_IN) is taken alone; without one all are added, but those labelled NC.
The sensors show too little, by up to half of the true power (Khoshsirat et al. 2023, who come to 3 % with a regression).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from edgemw.telemetry.energy.hwmon import Labelled, in_front, not_connected, sensors_of
from edgemw.telemetry.energy.reader import Roots
from edgemw.telemetry.energy.sensors import MILLI, Rail, Sensors, magnitude
from edgemw.telemetry.energy.tree import Tree

_NEW, _OLD = "bus/i2c/drivers/ina3221/*/hwmon/hwmon*", "bus/i2c/drivers/ina3221x/*/iio:device*"
_RAILS = (0, 1, 2)


class Jetson(Sensors):
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
        found = sensors_of(tree, tree.matching(_NEW), roots.period_s)
        super().__init__(found or [Rail(watts, roots.period_s) for _, watts in in_front(list(_old(tree)))])


def _old(tree: Tree) -> Iterator[Labelled]:
    """Rails of an IIO device, in milliwatts."""
    for chip in tree.matching(_OLD):
        for number in _RAILS:
            label = tree.maybe(f"{chip}/rail_name_{number}")
            if label and not not_connected(label):
                yield label, partial(magnitude, tree, f"{chip}/in_power{number}_input", MILLI)
