"""The profile of a radio, or of another link: what a file of firmware_profiles/radios/ holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from edgemw.core.config.schema import option, required, section
from edgemw.core.errors import ConfigError
from edgemw.profiles.device import check_name
from edgemw.profiles.known import Bytes, Number, Ratio, check_sources, check_titles, known
from edgemw.profiles.sane import check_sane

RadioKind = Literal["wifi", "ble", "lora", "cellular", "ethernet"]
RADIO_KINDS: tuple[str, ...] = get_args(RadioKind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """[rate]: how fast it carries, seen from the device."""

    up_bytes_per_s: Number | None = known("bytes that it sends in a second, of what its user hands over")
    down_bytes_per_s: Number | None = known("bytes that it receives in a second")
    delay_s: Number | None = known("seconds that everything is on its way besides")
    wake_s: Number | None = known("seconds until a sleeping radio can send")
    loss_ratio: Ratio | None = known("part of the packets that it has to send again")


@dataclass(frozen=True, slots=True, kw_only=True)
class RadioEnergy:
    """[energy]: what it costs. Of a session, `session_j + tail_w * tail_s`; of bytes, joules per byte; the watts explain them."""

    tx_j_per_byte: Number | None = known("joules for a byte sent")
    rx_j_per_byte: Number | None = known("joules for a byte received")
    session_j: Number | None = known("joules each time that it wakes up to transfer something")
    tail_w: Number | None = known("watts while it waits for more after a transfer; with tail_s")
    tail_s: Number | None = known("seconds for which it does; with tail_w")
    tx_w: Number | None = known("watts while it sends")
    rx_w: Number | None = known("watts while it receives")
    connected_w: Number | None = known(
        "watts to stay connected; often within idle_w of the device, so that energy_j leaves it out"
    )
    update_j: Number | None = known("joules of a periodic tracking area update, asleep otherwise")
    update_s: Number | None = known("seconds that one takes")

    def __post_init__(self) -> None:
        if (self.tail_w is None) != (self.tail_s is None):
            present, absent = ("tail_s", "tail_w") if self.tail_w is None else ("tail_w", "tail_s")
            raise ConfigError(f"is given without {absent}: a tail is watts for some seconds", key=present)


@dataclass(frozen=True, slots=True, kw_only=True)
class RadioLimits:
    """[limits]: what it takes at once."""

    payload_bytes: Bytes | None = known("largest payload of one message")
    duty_cycle_ratio: Ratio | None = known("part of the time for which it may send")


@dataclass(frozen=True, slots=True, kw_only=True)
class Radio:
    """A radio in one setting, or a cable."""

    schema: Literal[1] = option(1, help="version of this file's format")
    name: str = required(help="name, as the file's without .toml", example='"wifi-esp32"', check=check_name)
    title: str = required(help="what people call it", example='"Wi-Fi of the ESP32"')
    kind: RadioKind = required(help="what sort of link it is")
    note: str = option("", help="what else there is to know")
    uncertainty_ratio: Ratio | None = known("how far the energy that is modelled may be from the true one")
    rate: Rate = section(Rate, help="how fast it carries")
    energy: RadioEnergy = section(RadioEnergy, help="what it costs")
    limits: RadioLimits = section(RadioLimits, help="what it takes at once")
    sources: dict[str, str] = option({}, help="title and public place of every source", check=check_titles)

    def __post_init__(self) -> None:
        check_sources(self, self.sources)
        check_sane(self)
