"""All sources by name, and those of them that this machine has, in the order that was asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from edgemw.telemetry.energy.battery import Battery
from edgemw.telemetry.energy.hwmon import Hwmon
from edgemw.telemetry.energy.jetson import Jetson
from edgemw.telemetry.energy.meter import MODEL
from edgemw.telemetry.energy.nvml import Nvml
from edgemw.telemetry.energy.pmic import Pmic
from edgemw.telemetry.energy.rapl import Rapl
from edgemw.telemetry.energy.reader import Reader, Roots, Unavailable

NVML = "nvml"
READERS: Mapping[str, Callable[[Roots], Reader]] = MappingProxyType(
    {"hwmon": Hwmon, "jetson": Jetson, "pmic": Pmic, "battery": Battery, "rapl": Rapl, NVML: Nvml}
)


@dataclass(frozen=True, slots=True)
class Found:
    """What there is.

    Attributes:
        readers: in order.
        cards: graphics cards, beside them.
        unavailable: why others are not there, by name.
    """

    readers: tuple[Reader, ...]
    cards: tuple[Reader, ...]
    unavailable: Mapping[str, Unavailable]


def open_sources(names: Sequence[str], roots: Roots, model: Callable[[], Reader] | None) -> Found:
    """Open the sources of these names.

    Args:
        names: of `READERS`, or "model".
        model: makes the model's reader; None where nothing is known of the device.
    """
    readers: list[Reader] = []
    cards: list[Reader] = []
    unavailable: dict[str, Unavailable] = {}
    for name in names:
        try:
            (cards if name == NVML else readers).append(_opened(name, roots, model))
        except Unavailable as error:
            unavailable[name] = error
    return Found(tuple(readers), tuple(cards), unavailable)


def _opened(name: str, roots: Roots, model: Callable[[], Reader] | None) -> Reader:
    if name != MODEL:
        return READERS[name](roots)
    if model is None:
        raise Unavailable("profile", "say node.profile: `edgemw profile list` shows all")
    return model()
