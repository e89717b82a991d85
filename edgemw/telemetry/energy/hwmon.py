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

from edgemw.telemetry.energy.reader import Moment, Roots, Unavailable
from edgemw.telemetry.energy.totals import Integral, Odometer
from edgemw.telemetry.energy.tree import Tree, Unreadable

_CHIP = re.compile(r"(ina2\d\d|ina3221|ltc294\d|ltc4282)\w*\Z")
_CHIPS = "class/hwmon/hwmon*"
_RAILS = (1, 2, 3)
MICRO, MILLI = 1e-6, 1e-3
INPUT_RAILS = ("VDD_IN", "POM_5V_IN")
"""Rails that have all others behind them, by their labels on Jetson boards."""

Since = Callable[[float], float | None]


class Hwmon:
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
        self._meters = meters_of(tree, chips, roots.period_s)
        open_all(self._meters)

    def joules(self, moment: Moment) -> float | None:
        """Joules since the last call. Raises Unreadable."""
        return added(self._meters, moment.now_s)


class Rail:
    """Power of one rail, by the function that reads it."""

    def __init__(self, watts: Callable[[], float], period_s: float) -> None:
        self._watts, self._integral = watts, Integral(period_s)

    def since(self, now_s: float) -> float | None:
        """Joules since the last call; None at the first. Raises Unreadable."""
        try:
            watts = self._watts()
        except Unreadable:
            self._integral.pause()
            raise
        return self._integral.since(now_s, watts)


class Count:
    """Energy that a chip counts itself."""

    def __init__(self, tree: Tree, path: str) -> None:
        self._tree, self._path, self._odometer = tree, path, Odometer(None)

    def since(self, now_s: float) -> float | None:
        """Joules since the last call; None at the first. Raises Unreadable."""
        try:
            moved = self._odometer.since(self._tree.number(self._path))
        except Unreadable:
            self._odometer.pause()
            raise
        return None if moved is None else MICRO * moved


def meters_of(tree: Tree, chips: Sequence[str], period_s: float) -> list[Since]:
    """The meters of chips; where one of them has the rail that all others are behind, that alone."""
    counts = [path for chip in chips if _there(tree, path := f"{chip}/energy1_input")]
    rails = [rail for chip in chips if f"{chip}/energy1_input" not in counts for rail in _rails(tree, chip)]
    whole = [watts for label, watts in rails if label in INPUT_RAILS]
    if whole:
        return [Rail(whole[0], period_s).since]
    meters: list[Since] = [Count(tree, path).since for path in counts]
    return meters + [Rail(watts, period_s).since for _, watts in rails]


def not_connected(label: str) -> bool:
    """Whether a rail is none."""
    return "NC" in label.upper().replace("_", " ").split()


def added(meters: list[Since], now_s: float) -> float | None:
    """Their joules since the last call; all are asked, also where one has nothing to say. Raises Unreadable."""
    parts: list[float | None] = []
    failed: Unreadable | None = None
    for since in meters:
        try:
            parts.append(since(now_s))
        except Unreadable as error:
            failed = error
    if failed is not None:
        raise failed
    return None if any(part is None for part in parts) else sum(part or 0.0 for part in parts)


def open_all(meters: list[Since]) -> None:
    """Try meters once. Raises Unavailable where there are none, or one cannot be read."""
    if not meters:
        raise Unavailable("missing")
    try:
        added(meters, float("-inf"))
    except Unreadable as error:
        hint = f"let this user read {error.path}" if error.reason == "permission" else ""
        raise Unavailable(error.reason, hint) from error


def _rails(tree: Tree, chip: str) -> Iterator[tuple[str, Callable[[], float]]]:
    """Label and power of each rail that is on; chip and number stand for labels that there are not."""
    for number in _RAILS:
        label = tree.maybe(f"{chip}/in{number}_label") or tree.maybe(f"{chip}/power{number}_label")
        power = next((name for name in (f"power{number}_input", f"power{number}_average") if _there(tree, f"{chip}/{name}")), "")
        if not_connected(label) or tree.maybe(f"{chip}/in{number}_enable") == "0":
            continue
        if power:
            yield label or f"{chip} {number}", partial(_power, tree, f"{chip}/{power}")
        elif _there(tree, f"{chip}/in{number}_input") and _there(tree, f"{chip}/curr{number}_input"):
            yield label or f"{chip} {number}", partial(_product, tree, chip, number)


def _power(tree: Tree, path: str) -> float:
    return MICRO * abs(tree.number(path))


def _product(tree: Tree, chip: str, number: int) -> float:
    volts = MILLI * tree.number(f"{chip}/in{number}_input")
    return abs(volts * MILLI * tree.number(f"{chip}/curr{number}_input"))


def _there(tree: Tree, path: str) -> bool:
    return (tree.root / path).exists()
