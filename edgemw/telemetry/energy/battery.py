"""A battery while it discharges: what leaves it is what the whole device takes.

While it charges, or is full on mains, it says nothing about the device, and neither does this reader. `power_now` where there is
one, else volts times amperes; drivers differ in the sign of a current, so it does not count.
"""

from __future__ import annotations

from edgemw.telemetry.energy.reader import Moment, Roots, Unavailable
from edgemw.telemetry.energy.sensors import MICRO
from edgemw.telemetry.energy.totals import Integral
from edgemw.telemetry.energy.tree import Tree, Unreadable

_SUPPLIES = "class/power_supply/*"
DISCHARGING = "Discharging"


class Battery:
    """The batteries of this machine, added; those of mice and pens are not its own."""

    source = "battery"
    uncertainty_ratio = 0.1
    sees_radio = sees_cards = True

    def __init__(self, roots: Roots) -> None:
        """Find them.

        Raises:
            Unavailable: there is none that tells its power.
        """
        self._tree = roots.sys
        self._batteries = [(path, Integral(roots.period_s)) for path in batteries(self._tree)]
        self._batteries = [(path, integral) for path, integral in self._batteries if _tells_power(self._tree, path)]
        if not self._batteries:
            raise Unavailable("missing")

    def joules(self, moment: Moment) -> float | None:
        """Joules since the last call; None unless a battery discharges. Raises Unreadable."""
        parts = [self._since(path, integral, moment.now_s) for path, integral in self._batteries]
        told = [part for part in parts if part is not None]
        return sum(told) if told else None

    def _since(self, path: str, integral: Integral, now_s: float) -> float | None:
        try:
            if self._tree.text(f"{path}/status") != DISCHARGING:
                integral.pause()
                return None
            return integral.since(now_s, _watts(self._tree, path))
        except Unreadable:
            integral.pause()
            raise


def batteries(tree: Tree) -> list[str]:
    """Paths of the batteries that power this machine."""
    supplies = tree.matching(_SUPPLIES)
    return [path for path in supplies if tree.maybe(f"{path}/type") == "Battery" and tree.maybe(f"{path}/scope") != "Device"]


def charge_of(tree: Tree) -> tuple[float, bool] | None:
    """How full the first battery is, from 0 to 1, and whether it charges; None without one that says so."""
    for path in batteries(tree):
        try:
            charge = tree.number(f"{path}/capacity") / 100
        except Unreadable:
            continue
        return min(max(charge, 0.0), 1.0), tree.maybe(f"{path}/status") == "Charging"
    return None


def _tells_power(tree: Tree, path: str) -> bool:
    return any((tree.root / path / name).exists() for name in ("power_now", "current_now"))


def _watts(tree: Tree, path: str) -> float:
    try:
        return MICRO * abs(tree.number(f"{path}/power_now"))
    except Unreadable:
        return abs(MICRO * tree.number(f"{path}/voltage_now") * MICRO * tree.number(f"{path}/current_now"))
