"""Numbers that no device has: a slip of a few digits is refused where it is written, not where it is used."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from edgemw.core.config.units import Duration, Size
from edgemw.core.config.words import amount
from edgemw.core.errors import ConfigError
from edgemw.profiles.known import Bytes, Count, Curve, Known, Number, Ratio, Time, numbers

_SANE: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "_v": (0.1, 1e4),
        "_w": (0, 1e6),
        "_hz": (1e3, 1e12),
        "_j": (0, 1e9),
        "_s": (0, 1e5),
        "bytes_per_s": (1e-3, 1e13),
        "steps_per_s": (1e-6, 1e9),
        "macs_per_s": (1, 1e18),
        "flops_per_s": (1, 1e18),
        "j_per_byte": (0, 10),
        "j_per_mac": (0, 1e-3),
        "_ratio": (0, 1),
        "_bytes": (1, 1 << 50),
        "cores": (1, 1 << 20),
        "threads": (1, 256),
        "batch": (1, 10**6),
        "energy.interval": (0.1, 60),
        "telemetry.publish": (1, 3600),
    }
)
"""The least and the most that a number may be, in its unit, by how its key ends."""

_WATTS: Mapping[str, float] = MappingProxyType(
    {"mcu": 10, "accelerator": 1000, "sbc": 200, "phone": 50, "gateway": 500, "server": 1e5}
)
"""The most that a device of a kind draws."""


def sane_range(key: str) -> tuple[float, float]:
    """The least and the most that a number of this key may be: what the longest ending says that fits."""
    return _SANE[max((ending for ending in _SANE if key.endswith(ending)), key=len)]


def _watts(key: str, number: Known) -> float:
    """The most watts that a number says; 0 where it is about something else."""
    if isinstance(number, Curve):
        return number.points[-1][1]
    return number.value if isinstance(number, Number) and key.endswith("_w") else 0.0


def check_sane(profile: object) -> None:
    """Refuse numbers far from what any device has. Raises ConfigError with the key of the first."""
    most_w = _WATTS.get(getattr(profile, "kind", ""), float("inf"))
    for key, number in numbers(profile):
        if (watts := _watts(key, number)) > most_w:
            raise ConfigError(f"{watts:.6g} W cannot be: a device of its kind draws at most {most_w:g}", key=f"{key}.value")
        if not isinstance(number, Number | Ratio | Count | Bytes | Time):
            continue
        low, high = sane_range(key)
        if not low <= number.value <= high:
            hint = Duration if isinstance(number, Time) else Size if isinstance(number, Bytes) else float
            least, most = amount(low, hint), amount(high, hint)
            raise ConfigError(f"{amount(number.value, hint)} cannot be: it is from {least} to {most}", key=f"{key}.value")
