"""Meters on the board that the kernel shows as hwmon: INA219 to INA260, INA3221, and chips that count energy themselves.

Chips are known by their `name`, since numbers of hwmon change from start to start. A chip's energy counter goes before its power,
and that before volts times amperes. Of an INA3221, which has no power file, channels 1 to 3 are the rails; 4 to 6 are voltages of
shunts, and 7 with current 4 sums of the others. in0 of an INA2xx is its shunt, too. A rail labelled NC is not connected.

`shunt_resistor` scales everything: a wrong one there is wrong here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from edgemw.telemetry.energy.reader import Roots
from edgemw.telemetry.energy.sensors import MICRO, MILLI, Count, Rail, Sensor, Sensors, magnitude
from edgemw.telemetry.energy.tree import Tree

_CHIP = re.compile(r"(ina2\d\d|ina3221|ltc294\d|ltc4282)\w*\Z")
_CHIPS = "class/hwmon/hwmon*"
_RAILS = (1, 2, 3)
INPUT_RAILS = ("VDD_IN", "POM_5V_IN")
"""Rails that have all others behind them, by their labels on Jetson boards."""

Labelled = tuple[str, Callable[[], float]]
"""A rail, and the function that reads its watts."""


class Hwmon(Sensors):
    """All meters of the board, added."""

    source = "hwmon"
    uncertainty_ratio = 0.05
    sees_radio = sees_cards = True

    def __init__(self, roots: Roots) -> None:
        """Find the chips.

        Raises:
            Unavailable: there are none, or none can be read.
        """
        tree = roots.sys
        chips = [path for path in tree.matching(_CHIPS) if _CHIP.match(tree.maybe(f"{path}/name"))]
        super().__init__(sensors_of(tree, chips, roots.period_s))


def sensors_of(tree: Tree, chips: Sequence[str], period_s: float) -> list[Sensor]:
    """The sensors of chips; where one of them has the rail that all others are behind, that alone."""
    counts = [path for chip in chips if _there(tree, path := f"{chip}/energy1_input")]
    rails = [rail for chip in chips if f"{chip}/energy1_input" not in counts for rail in _rails(tree, chip)]
    if any(label in INPUT_RAILS for label, _ in rails):
        counts = []
    counted: list[Sensor] = [Count(partial(magnitude, tree, path, MICRO)) for path in counts]
    return counted + [Rail(watts, period_s) for _, watts in in_front(rails)]


def in_front(rails: list[Labelled]) -> list[Labelled]:
    """The rail that all others are behind, or all of them where there is none."""
    return [rail for rail in rails if rail[0] in INPUT_RAILS][:1] or rails


def not_connected(label: str) -> bool:
    """Whether a rail is none."""
    return "NC" in label.upper().replace("_", " ").split()


def _rails(tree: Tree, chip: str) -> Iterator[Labelled]:
    """Label and power of each rail that is on; chip and number stand for labels that there are not."""
    for number in _RAILS:
        label = tree.maybe(f"{chip}/in{number}_label") or tree.maybe(f"{chip}/power{number}_label")
        power = next((name for name in (f"power{number}_input", f"power{number}_average") if _there(tree, f"{chip}/{name}")), "")
        if not_connected(label) or tree.maybe(f"{chip}/in{number}_enable") == "0":
            continue
        if power:
            yield label or f"{chip} {number}", partial(magnitude, tree, f"{chip}/{power}", MICRO)
        elif _there(tree, f"{chip}/in{number}_input") and _there(tree, f"{chip}/curr{number}_input"):
            yield label or f"{chip} {number}", partial(_product, tree, chip, number)


def _product(tree: Tree, chip: str, number: int) -> float:
    volts = MILLI * tree.number(f"{chip}/in{number}_input")
    return abs(volts * MILLI * tree.number(f"{chip}/curr{number}_input"))


def _there(tree: Tree, path: str) -> bool:
    return (tree.root / path).exists()
