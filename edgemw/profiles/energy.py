"""Energy from a profile, for devices without a meter and for what has not happened yet.

    P(u) = the curve of the profile, piecewise linear in the CPU utilisation u, else P_idle + (P_active - P_idle) u
    E    = P_idle dt + (P(u) - P_idle) dt + e_tx B_tx + e_rx B_rx + N_session e_session + e_mac N_mac

Nothing may be counted twice: the same work is in u or in N_mac, never in both; and there is no radio term where another meter,
or the power of the device itself, already has the radio in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from edgemw.core.errors import ConfigError
from edgemw.profiles.device import Profile
from edgemw.profiles.known import Number
from edgemw.profiles.radio import Radio


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a device did in a stretch of time through which its utilisation was even.

    Attributes:
        seconds: how long it was.
        utilisation: of all cores together, 0 to 1.
        sent_bytes, received_bytes: over the radio, headers included.
        sessions: how often the radio woke up.
        macs: int8 multiplications with addition that `utilisation` does not have in it: on a GPU or NPU, or foreseen.
    """

    seconds: float = 0.0
    utilisation: float = 0.0
    sent_bytes: float = 0.0
    received_bytes: float = 0.0
    sessions: float = 0.0
    macs: float = 0.0

    def __post_init__(self) -> None:
        _check_utilisation(self.utilisation)
        amounts = (self.seconds, self.sent_bytes, self.received_bytes, self.sessions, self.macs)
        if not all(0 <= amount < float("inf") for amount in amounts):
            raise ValueError(f"what was used is finite and not negative: {self}")


@dataclass(frozen=True, slots=True)
class Joules:
    """Energy, by what it went into; `cpu` is what a busy processor takes beyond `idle`."""

    idle: float
    cpu: float
    radio: float
    macs: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.idle + self.cpu + self.radio + self.macs


def power_w(profile: Profile, utilisation: float) -> float:
    """Watts of a device without its radio at a CPU utilisation of 0 to 1.

    P(u) is the profile's curve, linear between its points; without one P(u) = idle_w + (active_w - idle_w) u.

    Raises:
        ConfigError: the profile has no curve, and lacks idle_w or active_w.
        ValueError: the utilisation is not within 0 to 1.
    """
    _check_utilisation(utilisation)
    if profile.power.curve is not None:
        return _on_line(profile.power.curve.points, utilisation)
    idle, active = _needed(profile, "power.idle_w"), _needed(profile, "power.active_w")
    return idle + (active - idle) * utilisation


def energy_j(profile: Profile, usage: Usage, radio: Radio | None = None) -> Joules:
    """Joules of a device for what it did.

    idle = P(0) dt; cpu = (P(u) - P(0)) dt; macs = int8_j_per_mac N; and with a radio
    tx_j_per_byte B_tx + rx_j_per_byte B_rx + (session_j + tail_w tail_s) N_session, where an unknown session or tail is 0.
    Joules per MAC have in them what the chip draws idle meanwhile, so `seconds` are those in which it did something else.

    Args:
        radio: None where the radio is counted elsewhere already.

    Raises:
        ConfigError: a number is needed that the profile, or the radio, does not have.
    """
    idle = cpu = 0.0
    if usage.seconds:
        idle = power_w(profile, 0.0) * usage.seconds
        cpu = (power_w(profile, usage.utilisation) - power_w(profile, 0.0)) * usage.seconds
    macs = usage.macs * _needed(profile, "compute.int8_j_per_mac") if usage.macs else 0.0
    return Joules(idle, cpu, 0.0 if radio is None else radio_j(radio, usage), macs)


def radio_j(radio: Radio, usage: Usage) -> float:
    """Joules of a radio alone, as in `energy_j`. Raises ConfigError where it lacks a number that is needed."""
    sent = usage.sent_bytes * _needed(radio, "energy.tx_j_per_byte") if usage.sent_bytes else 0.0
    received = usage.received_bytes * _needed(radio, "energy.rx_j_per_byte") if usage.received_bytes else 0.0
    wake, watts, seconds = (
        _value(number) or 0.0 for number in (radio.energy.session_j, radio.energy.tail_w, radio.energy.tail_s)
    )
    return sent + received + usage.sessions * (wake + watts * seconds)


def _on_line(points: Sequence[Sequence[float]], at: float) -> float:
    """Piecewise linear interpolation; `points` rise from 0 to 1."""
    (x0, y0), (x1, y1) = next(pair for pair in pairwise(points) if at <= pair[1][0])
    return y0 + (y1 - y0) * (at - x0) / (x1 - x0)


def _check_utilisation(utilisation: float) -> None:
    if not 0 <= utilisation <= 1:
        raise ValueError(f"utilisation is from 0 to 1, not {utilisation}")


def _value(number: Number | None) -> float | None:
    return None if number is None else number.value


def _needed(profile: Profile | Radio, key: str) -> float:
    section, _, name = key.partition(".")
    value = _value(getattr(getattr(profile, section), name))
    if value is None:
        raise ConfigError("is not known: give it in a profile of your own", file=f"profile {profile.name}", key=key)
    return value
