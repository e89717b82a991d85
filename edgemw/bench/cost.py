"""What simulated nodes of a class are like: speed, link and energy from a profile.

    training  = 3 P n / rate       P parameters, n samples over all epochs; rate in multiplications with addition per second
    joules    = of the idle device while it runs, of its processor while it works, of its radio for what it carries

One multiplication for each parameter and sample, and twice as many on the way back, is what dense layers need; convolutions need
more. The rate is what `edgemw profile calibrate` has measured, else the profile's for int8, else that of one core of those that
the profile's float64 operations are of: half as many multiplications with addition, and twice as many of float32. So a time is
an estimate, and a power as good as its profile says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgemw.core.errors import ConfigError
from edgemw.profiles.catalogue import load_profile, load_radio
from edgemw.profiles.device import Profile
from edgemw.profiles.energy import Joules, Usage, energy_j
from edgemw.profiles.radio import Radio
from edgemw.simulation.fleet import Fleet
from edgemw.simulation.links import DIRECT, LinkSpec

PASSES = 3.0
"""Forward, and twice that on the way back."""


@dataclass(frozen=True, slots=True)
class Class:
    """A class of devices with its usual radio, where it has one."""

    profile: Profile
    radio: Radio | None

    @property
    def cores(self) -> int:
        """How many it has; one where that is not known."""
        return 1 if self.profile.cpu.cores is None else self.profile.cpu.cores.value

    @property
    def link(self) -> LinkSpec:
        """The link of its radio, as far as that is known; one way is as fast as the other where only that one is known."""
        if self.radio is None:
            return DIRECT
        rate = self.radio.rate
        up, down = rate.up_bytes_per_s or rate.down_bytes_per_s, rate.down_bytes_per_s or rate.up_bytes_per_s
        delay_s, loss = (0.0 if known is None else known.value for known in (rate.delay_s, rate.loss_ratio))
        if up is not None and down is not None:
            return LinkSpec(up.value, delay_s, loss, down_rate=down.value)
        return LinkSpec(delay_s=delay_s, loss=loss) if delay_s or loss else DIRECT

    def training_s(self, parameters: int, samples: float) -> float:
        """Seconds of one training with so many samples, those of every epoch counted.

        Raises:
            ConfigError: the profile does not say how fast the device calculates.
        """
        compute = self.profile.compute
        known = compute.training_macs_per_s or compute.int8_macs_per_s
        if known is not None:
            return PASSES * parameters * samples / known.value
        if compute.fp64_flops_per_s is None:
            reason = "its profile does not say how fast it calculates: say --work TIME, or measure: `edgemw profile calibrate`"
            raise ConfigError(reason, key=f"profile {self.profile.name}")
        return PASSES * parameters * samples / (compute.fp64_flops_per_s.value / self.cores)

    @property
    def training_cores(self) -> int:
        """How many cores a training takes: those threads that its speed was measured with."""
        threads = self.profile.defaults.training.threads
        if threads is None or self.profile.compute.training_macs_per_s is None:
            return 1
        return min(threads.value, self.cores)

    def joules(self, usage: Usage) -> Joules:
        """Energy of one device.

        Args:
            usage: with the utilisation that a training would be on a device that has just the cores for it.

        Raises:
            ConfigError: the profile lacks a number that is needed.
        """
        on_all = replace(usage, utilisation=usage.utilisation * self.training_cores / self.cores)
        found, times = energy_j(self.profile, on_all, self.radio), self.cores if self.profile.power.per_core else 1
        return Joules(times * found.idle, times * found.cpu, found.radio, found.macs)


@dataclass(frozen=True, slots=True)
class Group:
    """The nodes of a tier whose class is known.

    Attributes:
        tier: its name.
        kind: its class.
        nodes: their ids.
        trains: whether they are devices.
    """

    tier: str
    kind: Class
    nodes: tuple[str, ...]
    trains: bool


def class_of(name: str) -> Class:
    """A class of devices by the name of its profile, or by the path of a file of one's own.

    Raises:
        ConfigError: there is no such profile, or it is refused.
    """
    profile = load_profile(name)
    return Class(profile, load_radio(profile.radios[0]) if profile.radios else None)


def links_of(groups: Sequence[Group]) -> dict[str, LinkSpec]:
    """The link of every node whose class is known."""
    return {node: link for group in groups for link in [group.kind.link] for node in group.nodes}


def times_of(groups: Sequence[Group], parameters: int, samples: Mapping[str, float]) -> dict[str, float]:
    """Mean seconds of a training, of every device whose class is known.

    Args:
        samples: of every device, those of every epoch counted; one where it is not among them.

    Raises:
        ConfigError: a profile does not say how fast the device calculates.
    """
    return {
        node: samples.get(node, 1.0) * each_s
        for group in groups
        if group.trains
        for each_s in [group.kind.training_s(parameters, 1.0)]
        for node in group.nodes
    }


def energy_of(net: Fleet, groups: Sequence[Group], seconds: float) -> dict[str, Any] | None:
    """Mean joules of a device over a run of so many seconds, with what they went into, for all and for each class.

    None where no class of devices is known.
    """
    classes = [_of_group(net, group, seconds) for group in groups if group.trains]
    known = [each for each in classes if each["joules_per_device"] is not None]
    if not classes:
        return None
    devices = sum(each["devices"] for each in known)
    means = {
        name: round(sum(each[name] * each["devices"] for each in known) / devices, 6) if devices else None
        for name in ("joules_per_device", "idle_joules", "cpu_joules", "radio_joules", "busy_s")
    }
    ratios = [each["uncertainty_ratio"] for each in known if each["uncertainty_ratio"] is not None]
    words = {name: ", ".join(dict.fromkeys(each[name] for each in known if each[name])) for name in ("profile", "radio")}
    joules = round(sum(each["joules"] for each in known), 3)
    return {**words, "joules": joules, **means, "uncertainty_ratio": max(ratios, default=None), "classes": classes}


def _of_group(net: Fleet, group: Group, seconds: float) -> dict[str, Any]:
    """Of one class; joules are None, with a reason, where its profile lacks a number that is needed."""
    count, profile, radio = len(group.nodes), group.kind.profile, group.kind.radio
    busy_s = sum(net.records[node].busy_s for node in group.nodes) / count
    about = {"tier": group.tier, "profile": profile.name, "radio": radio.name if radio is not None else "", "devices": count}
    usage = Usage(
        seconds=seconds,
        utilisation=min(1.0, busy_s / seconds) if seconds else 0.0,
        sent_bytes=sum(net.links.sent_bytes(node, "up") for node in group.nodes) / count,
        received_bytes=sum(net.links.sent_bytes(node, "down") for node in group.nodes) / count,
        sessions=sum(net.records[node].answers for node in group.nodes) / count,
    )
    try:
        joules = group.kind.joules(usage)
    except ConfigError as error:
        return about | {"joules_per_device": None, "reason": str(error), "busy_s": round(busy_s, 3)}
    ratio = profile.uncertainty_ratio
    return about | {
        "joules": round(joules.total * count, 3),
        "joules_per_device": round(joules.total, 3),
        "idle_joules": round(joules.idle, 3),
        "cpu_joules": round(joules.cpu, 3),
        "radio_joules": round(joules.radio, 6),
        "busy_s": round(busy_s, 3),
        "uncertainty_ratio": ratio.value if ratio is not None else None,
    }
