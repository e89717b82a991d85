"""Graphics cards of NVIDIA, by their driver's own counters; with the package nvidia-ml-py (`pip install 'edgemw[nvml]'`).

A card is not the device: its joules are added to those of a source that does not see it. Where a card has no counter its power is
integrated.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from edgemw.telemetry.energy.reader import Roots, Unavailable
from edgemw.telemetry.energy.sensors import MILLI, Count, Rail, Sensor, Sensors
from edgemw.telemetry.energy.tree import Unreadable


class Nvml(Sensors):
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
        super().__init__([self._sensor(card, roots.period_s) for card in cards])

    def _sensor(self, card: Any, period_s: float) -> Sensor:
        try:
            self._library.nvmlDeviceGetTotalEnergyConsumption(card)
        except self._library.NVMLError:
            return Rail(partial(self._ask, "nvmlDeviceGetPowerUsage", card), period_s)
        return Count(partial(self._ask, "nvmlDeviceGetTotalEnergyConsumption", card))

    def _ask(self, question: str, card: Any) -> float:
        """Watts or joules: the library has thousandths of both."""
        try:
            return MILLI * float(getattr(self._library, question)(card))
        except self._library.NVMLError as error:
            raise Unreadable(self._root, "no data") from error
