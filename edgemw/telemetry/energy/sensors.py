"""Sensors that are added: counters of energy, and power that is looked at. What one cannot tell, another source tells for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from edgemw.telemetry.energy.reader import Moment, Unavailable
from edgemw.telemetry.energy.totals import Integral, Odometer
from edgemw.telemetry.energy.tree import Tree, Unreadable

MICRO, MILLI = 1e-6, 1e-3


class Sensor(Protocol):
    """One of them."""

    def since(self, now_s: float) -> float | None:
        """Joules since the last call; None at the first, and after it could not be read. Raises Unreadable."""
        ...


class Rail:
    """Power, by the function that reads it."""

    def __init__(self, watts: Callable[[], float], period_s: float) -> None:
        self._watts, self._integral = watts, Integral(period_s)

    def since(self, now_s: float) -> float | None:
        """See `Sensor`."""
        try:
            watts = self._watts()
        except Unreadable:
            self._integral.pause()
            raise
        return self._integral.since(now_s, watts)


class Count:
    """Energy that hardware counts, by the function that reads it in joules; `span_j` is behind which it begins anew."""

    def __init__(self, joules: Callable[[], float], span_j: float | None = None) -> None:
        self._joules, self._odometer = joules, Odometer(span_j)

    def since(self, now_s: float) -> float | None:
        """See `Sensor`."""
        try:
            reading = self._joules()
        except Unreadable:
            self._odometer.pause()
            raise
        return self._odometer.since(reading)


class Sensors:
    """The joules of several sensors: what readers that only add are made of."""

    def __init__(self, sensors: Sequence[Sensor], permission: str = "") -> None:
        """Try them once.

        Args:
            permission: what to do where they may not be read; "" names the file.

        Raises:
            Unavailable: there are none, or one cannot be read.
        """
        if not sensors:
            raise Unavailable("missing")
        self._sensors = sensors
        try:
            self._added(float("-inf"))
        except Unreadable as error:
            hint = permission or f"let this user read {error.path}"
            raise Unavailable(error.reason, hint if error.reason == "permission" else "") from error

    def joules(self, moment: Moment) -> float | None:
        """Joules since the last call. Raises Unreadable."""
        return self._added(moment.now_s)

    def _added(self, now_s: float) -> float | None:
        """All are asked, also where one has nothing to say."""
        parts: list[float | None] = []
        failed: Unreadable | None = None
        for sensor in self._sensors:
            try:
                parts.append(sensor.since(now_s))
            except Unreadable as error:
                failed = error
        if failed is not None:
            raise failed
        return None if any(part is None for part in parts) else sum(part or 0.0 for part in parts)


def magnitude(tree: Tree, path: str, unit: float) -> float:
    """What a file holds in a unit, without its sign, which says in which direction a shunt was soldered. Raises Unreadable."""
    return unit * abs(tree.number(path))
