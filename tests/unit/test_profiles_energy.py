"""The energy model: against cases worked out by hand, and what must hold for every profile."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemw.core.errors import ConfigError
from edgemw.profiles.catalogue import load_profile, load_radio, profile_names
from edgemw.profiles.device import Power, Profile
from edgemw.profiles.energy import Usage, energy_j, power_w
from edgemw.profiles.known import Curve, Number
from edgemw.profiles.radio import Radio, RadioEnergy

PROFILES = {name: load_profile(name) for name in profile_names()}
MODELLED = [name for name, profile in PROFILES.items() if profile.power.idle_w is not None]
LTE_M = load_radio("lte-m-nrf9160")
SOURCES = {"s": "a source"}


def number(value: float) -> Number:
    return Number(value=value, how="read", source="s")


def device(**power: Any) -> Profile:
    return Profile(name="d", title="D", kind="sbc", runs="python", power=Power(**power), sources=SOURCES)


def radio(**energy: Number) -> Radio:
    return Radio(name="r", title="R", kind="wifi", energy=RadioEnergy(**energy), sources=SOURCES)


BOARD = device(idle_w=number(2.0), active_w=number(6.0))
CURVED = device(
    idle_w=number(2.0), active_w=number(9.0), curve=Curve(points=((0, 2.0), (0.25, 5.0), (1, 6.5)), how="read", source="s")
)


@pytest.mark.parametrize(("utilisation", "watts"), [(0.0, 2.0), (0.5, 4.0), (0.75, 5.0), (1.0, 6.0)])
def test_power_is_a_line_from_idle_to_active(utilisation: float, watts: float) -> None:
    assert power_w(BOARD, utilisation) == pytest.approx(watts)


@pytest.mark.parametrize(("utilisation", "watts"), [(0.0, 2.0), (0.125, 3.5), (0.25, 5.0), (0.5, 5.5), (1.0, 6.5)])
def test_power_follows_the_curve_where_there_is_one(utilisation: float, watts: float) -> None:
    assert power_w(CURVED, utilisation) == pytest.approx(watts)


def test_of_a_pi_4_for_a_minute() -> None:
    """2.7 W * 60 s = 162 J; (6.4 - 2.7) W * 0.5 * 60 s = 111 J; 2e4 B * 2.3e-7 J/B + 1e6 B * 8.2e-8 J/B = 0.0866 J."""
    usage = Usage(seconds=60, utilisation=0.5, sent_bytes=20_000, received_bytes=1_000_000)
    joules = energy_j(load_profile("raspberry-pi-4b"), usage, load_radio("wifi-sbc"))
    assert joules.idle == pytest.approx(162.0)
    assert joules.cpu == pytest.approx(111.0)
    assert joules.radio == pytest.approx(0.0866)
    assert joules.macs == 0.0
    assert joules.total == pytest.approx(273.0866)


def test_of_a_session_of_an_nrf9160() -> None:
    """An hour idle, one session of NB-IoT with 200 bytes: 3.33e-5 * 3600 + 0.36 + 200 * 4.5e-4 J."""
    usage = Usage(seconds=3600, sent_bytes=200, sessions=1)
    joules = energy_j(load_profile("nrf9160"), usage, load_radio("nb-iot-nrf9160"))
    assert joules.idle == pytest.approx(0.11988)
    assert joules.cpu == 0.0
    assert joules.radio == pytest.approx(0.45)


def test_a_session_ends_with_its_tail() -> None:
    """0.315 J + 1.06 W * 11.576 s = 12.58556 J of LTE in 2012, each time."""
    joules = energy_j(BOARD, Usage(sessions=3), load_radio("lte-phone-2012"))
    assert joules.radio == pytest.approx(3 * 12.58556)


def test_of_an_inference_before_it_runs() -> None:
    """ResNet-8, 12.502e6 MACs at 6.97e-10 J on an STM32H7A3: 8.71 mJ, as measured (8.70728 mJ)."""
    joules = energy_j(load_profile("stm32h7a3"), Usage(macs=12.502e6))
    assert joules.macs == joules.total == pytest.approx(8.70728e-3, rel=0.002)


def test_work_is_counted_as_utilisation_or_as_macs() -> None:
    profile = load_profile("stm32h7a3")
    seconds = 12.502e6 / 230.6e6
    busy = energy_j(profile, Usage(seconds=seconds, utilisation=1.0))
    foreseen = energy_j(profile, Usage(macs=12.502e6))
    assert (busy.macs, foreseen.cpu, foreseen.idle) == (0.0, 0.0, 0.0)
    assert busy.total == pytest.approx(foreseen.total, rel=0.01)  # each alone is all of it


def test_without_a_radio_its_bytes_are_counted_elsewhere() -> None:
    assert energy_j(BOARD, Usage(seconds=1, sent_bytes=1e6, received_bytes=1e6, sessions=9)).radio == 0.0


def test_to_stay_connected_is_in_the_idle_power_already() -> None:
    quiet = radio(connected_w=number(0.5), tx_w=number(1.0), rx_w=number(1.0))
    assert energy_j(BOARD, Usage(seconds=10), quiet).total == pytest.approx(20.0)


@pytest.mark.parametrize(
    ("profile", "usage", "link", "key"),
    [
        (device(active_w=number(1.0)), Usage(seconds=1), None, "power.idle_w"),
        (device(idle_w=number(1.0)), Usage(seconds=1), None, "power.active_w"),
        (BOARD, Usage(macs=1), None, "compute.int8_j_per_mac"),
        (BOARD, Usage(sent_bytes=1), radio(), "energy.tx_j_per_byte"),
        (BOARD, Usage(received_bytes=1), radio(tx_j_per_byte=number(1)), "energy.rx_j_per_byte"),
    ],
)
def test_what_is_not_known_is_an_error_and_not_zero(profile: Profile, usage: Usage, link: Radio | None, key: str) -> None:
    with pytest.raises(ConfigError, match="is not known") as caught:
        energy_j(profile, usage, link)
    assert caught.value.key == key


def test_what_is_not_used_need_not_be_known() -> None:
    assert energy_j(device(), Usage(), radio()).total == 0.0
    assert energy_j(load_profile("gap9"), Usage(macs=1e6)).total == pytest.approx(2.2e-6)


@pytest.mark.parametrize("utilisation", [-0.1, 1.1, float("nan"), float("inf")])
def test_a_utilisation_is_from_0_to_1(utilisation: float) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        power_w(BOARD, utilisation)
    with pytest.raises(ValueError, match="from 0 to 1"):
        Usage(utilisation=utilisation)


@pytest.mark.parametrize("amount", ["seconds", "sent_bytes", "received_bytes", "sessions", "macs"])
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_an_amount_is_finite_and_not_negative(amount: str, value: float) -> None:
    with pytest.raises(ValueError, match="finite and not negative"):
        Usage(**{amount: value})


@pytest.mark.parametrize("name", MODELLED)
def test_power_of_every_device_rises_from_idle_and_stays_below_the_most(name: str) -> None:
    profile = PROFILES[name]
    assert profile.power.idle_w is not None
    assert profile.power.active_w is not None
    watts = [power_w(profile, part / 64) for part in range(65)]
    assert watts == sorted(watts)
    assert watts[0] == profile.power.idle_w.value
    assert watts[-1] <= profile.power.active_w.value * (1 + 1e-12)


AMOUNTS = st.floats(0, 1e6)


@given(st.sampled_from(MODELLED), st.floats(0, 1), AMOUNTS, AMOUNTS, AMOUNTS, st.integers(1, 10))
def test_energy_adds_up_over_time(name: str, use: float, seconds: float, up: float, down: float, parts: int) -> None:
    profile, link = PROFILES[name], LTE_M
    whole = Usage(seconds=seconds, utilisation=use, sent_bytes=up, received_bytes=down, sessions=parts)
    part = replace(whole, seconds=seconds / parts, sent_bytes=up / parts, received_bytes=down / parts, sessions=1)
    assert energy_j(profile, whole, link).total == pytest.approx(parts * energy_j(profile, part, link).total)
