"""What a simulated fleet of one class of devices is like: speed, link and energy from a profile.

    training  = 3 P n e / rate     P parameters, n samples, e epochs; rate in multiplications with addition per second
    joules    = of the idle device while it runs, of its processor while it works, of its radio for what it carries

One multiplication for each parameter and sample, and twice as many on the way back, is what dense layers need; convolutions need
more. The rate is that of the profile for int8, or half its float64 operations. So a time is an estimate, and a power as good
as its profile says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgemw.core.errors import ConfigError
from edgemw.profiles.catalogue import load_profile, load_radio
from edgemw.profiles.device import Profile
from edgemw.profiles.energy import Usage, energy_j
from edgemw.profiles.radio import Radio
from edgemw.simulation.fleet import Fleet
from edgemw.simulation.links import DIRECT, LinkSpec

_PASSES = 3.0  # forward, and twice that on the way back


@dataclass(frozen=True, slots=True)
class Class:
    """A class of devices with its usual radio, where it has one."""

    profile: Profile
    radio: Radio | None

    @property
    def link(self) -> LinkSpec:
        """The link of its radio: the slower of both directions, without losses; direct where the radio's rate is not known."""
        if self.radio is None:
            return DIRECT
        rate = self.radio.rate
        known = [way.value for way in (rate.up_bytes_per_s, rate.down_bytes_per_s) if way is not None]
        return LinkSpec(min(known), 0.0 if rate.delay_s is None else rate.delay_s.value) if known else DIRECT

    def training_s(self, parameters: int, samples: float, epochs: int) -> float:
        """Seconds of one training.

        Raises:
            ConfigError: the profile does not say how fast the device calculates.
        """
        compute = self.profile.compute
        if compute.int8_macs_per_s is not None:
            rate = compute.int8_macs_per_s.value
        elif compute.fp64_flops_per_s is not None:
            rate = compute.fp64_flops_per_s.value / 2
        else:
            raise ConfigError(
                "its profile does not say how fast it calculates: say --work TIME", key=f"profile {self.profile.name}"
            )
        return _PASSES * parameters * samples * epochs / rate

    def energy(self, net: Fleet, devices: tuple[str, ...], seconds: float) -> dict[str, Any]:
        """Mean joules of a device over a run of so many seconds, with what they went into.

        Raises:
            ConfigError: the profile lacks a number that is needed.
        """
        cores = self.profile.cpu.cores.value if self.profile.cpu.cores is not None else 1
        count = max(len(devices), 1)
        busy_s = sum(net.records[device].busy_s for device in devices) / count
        usage = Usage(
            seconds=seconds,
            utilisation=min(1.0, busy_s / (seconds * cores)) if seconds else 0.0,
            sent_bytes=sum(net.links.sent_bytes(device, "up") for device in devices) / count,
            received_bytes=sum(net.links.sent_bytes(device, "down") for device in devices) / count,
            sessions=sum(net.records[device].answers for device in devices) / count,
        )
        joules = energy_j(self.profile, usage, self.radio)
        ratio = self.profile.uncertainty_ratio
        return {
            "profile": self.profile.name,
            "radio": self.radio.name if self.radio is not None else "",
            "joules_per_device": round(joules.total, 3),
            "idle_joules": round(joules.idle, 3),
            "cpu_joules": round(joules.cpu, 3),
            "radio_joules": round(joules.radio, 6),
            "busy_s": round(busy_s, 3),
            "uncertainty_ratio": ratio.value if ratio is not None else None,
        }


def class_of(name: str) -> Class:
    """A class of devices by the name of its profile, or by the path of a file of one's own.

    Raises:
        ConfigError: there is no such profile, or it is refused.
    """
    profile = load_profile(name)
    return Class(profile, load_radio(profile.radios[0]) if profile.radios else None)
