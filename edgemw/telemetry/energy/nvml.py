"""Graphics cards of NVIDIA, by their driver's own counters; with the package nvidia-ml-py (`pip install 'edgemw[nvml]'`).

A card is not the device: its joules are added to those of a source that does not see it. Where a card has no counter its power is
integrated.
"""

from __future__ import annotations

from typing import Any

from edgemw.telemetry.energy.hwmon import Rail, Since, added, open_all
from edgemw.telemetry.energy.reader import Moment, Roots, Unavailable
from edgemw.telemetry.energy.totals import Odometer
from edgemw.telemetry.energy.tree import Unreadable

MILLI = 1e-3


class Nvml:
    """All cards, added."""

    source = "nvml"
    uncertainty_ratio = 0.05
    sees_radio, sees_cards = False, True

    def __init__(self, roots: Roots) -> None:
        """Find the cards.

        Raises:
            Unavailable: there are none, their driver does not answer, or the package is not installed.
        """
        try:
            import pynvml
        except ImportError:
            raise Unavailable("missing") from None
        self._library: Any = pynvml
        try:
            pynvml.nvmlInit()
            cards = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        except pynvml.NVMLError as error:
            raise Unavailable("no driver") from error
        self._root = roots.procfs / "driver/nvidia"
        self._meters = [self._meter(card, roots.period_s) for card in cards]
        open_all(self._meters)

    def joules(self, moment: Moment) -> float | None:
        """Joules since the last call. Raises Unreadable."""
        return added(self._meters, moment.now_s)

    def _meter(self, card: Any, period_s: float) -> Since:
        try:
            self._library.nvmlDeviceGetTotalEnergyConsumption(card)
        except self._library.NVMLError:
            return Rail(lambda: MILLI * self._ask("nvmlDeviceGetPowerUsage", card), period_s).since
        odometer = Odometer(None)

        def since(now_s: float) -> float | None:
            try:
                moved = odometer.since(self._ask("nvmlDeviceGetTotalEnergyConsumption", card))
            except Unreadable:
                odometer.pause()
                raise
            return None if moved is None else MILLI * moved

        return since

    def _ask(self, question: str, card: Any) -> float:
        try:
            return float(getattr(self._library, question)(card))
        except self._library.NVMLError as error:
            raise Unreadable(self._root, "no data") from error
