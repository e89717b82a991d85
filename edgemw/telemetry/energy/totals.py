"""From what a sensor says now to joules since the last time: counters that wrap, and power that is looked at now and then."""

from __future__ import annotations

MOST_PERIODS = 5
"""Of sampling, between two looks at a power: what happened in a longer pause, as when the machine slept, is not known."""


class Odometer:
    """A counter of hardware, which starts again at 0 behind its range, and whenever its driver does."""

    def __init__(self, span: float | None) -> None:
        """Begin without a reading.

        Args:
            span: the reading behind which it starts again, in its own unit; None where nobody says.
        """
        self._span = span
        self._last: float | None = None

    def since(self, reading: float) -> float | None:
        """How far it has moved since the last reading, never less than 0; None at the first.

        A reading below the last one is a wrap where that is a move of less than half the span. Else the counter was started
        again, and what it shows is what is known.
        """
        last, self._last = self._last, reading
        if last is None:
            return None
        if reading >= last:
            return reading - last
        wrapped = reading + self._span - last if self._span is not None else None
        return wrapped if wrapped is not None and 0 <= wrapped < self._span / 2 else max(0.0, reading)  # type: ignore[operator]

    def pause(self) -> None:
        """It cannot be read now: whoever else is asked meanwhile has counted what it would say next."""
        self._last = None


class Integral:
    """Joules of a power that is sampled: the trapezoid between two samples."""

    def __init__(self, period_s: float) -> None:
        """Begin without a sample.

        Args:
            period_s: between samples as they are meant; a pause of more than five of it is a gap.
        """
        self._longest_s = MOST_PERIODS * period_s
        self._last: tuple[float, float] | None = None

    def since(self, now_s: float, watts: float) -> float | None:
        """Joules since the last sample; None at the first, and behind a gap.

        Args:
            now_s: of a clock that never goes back.
            watts: 0 or more.
        """
        last, self._last = self._last, (now_s, watts)
        if last is None or now_s - last[0] > self._longest_s:
            return None
        return (now_s - last[0]) * (last[1] + watts) / 2

    def pause(self) -> None:
        """There is no sample now: the next one begins anew."""
        self._last = None
