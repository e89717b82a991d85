"""The profile of a class of devices: what a file of firmware_profiles/ holds. What is not known is absent, not zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgemw.core.config.schema import option, required, section
from edgemw.core.errors import ConfigError
from edgemw.core.ids import valid_id
from edgemw.profiles.known import (
    Bytes,
    Count,
    Curve,
    Names,
    Number,
    Ratio,
    Time,
    check_order,
    check_sources,
    check_titles,
    known,
)
from edgemw.profiles.sane import check_sane

ENERGY_SOURCES = ("hwmon", "jetson", "pmic", "battery", "rapl", "nvml", "model")
"""Where joules are known from, best first: meters on the board, the battery, counters of processors and cards, this profile."""

_RISING = ("sleep_w", "light_sleep_w", "idle_w", "active_w", "peak_w")


def check_name(value: object) -> str:
    """A name that may also stand in settings and labels."""
    return "" if isinstance(value, str) and valid_id(value) else "must be 1 to 40 of a-z, 0-9 and '-'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cpu:
    """[cpu]: its processor."""

    isa: str = option("", help="instruction set or core", example='"cortex-a72"')
    cores: Count | None = known("cores")
    clock_hz: Number | None = known("highest clock")


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """[memory]: how much of it there is."""

    ram_bytes: Bytes | None = known("memory that programs work in; of a microcontroller its SRAM")
    psram_bytes: Bytes | None = known("slower memory beside that")
    flash_bytes: Bytes | None = known("memory that keeps: of a microcontroller its program, of others what a node stores")


@dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    """[power]: of the whole device, in watts; sleep_w <= light_sleep_w <= idle_w <= active_w <= peak_w where they are known."""

    supply_v: Number | None = known("volts that the watts were taken at")
    off_w: Number | None = known("halted, still plugged in")
    sleep_w: Number | None = known("deepest sleep from which it wakes by itself")
    light_sleep_w: Number | None = known("idle, asleep between two beacons of its network")
    idle_w: Number | None = known("on, connected, with nothing to do")
    active_w: Number | None = known("busy; the note says with what")
    peak_w: Number | None = known("the most that was seen")
    cap_w: Number | None = known("limit of its highest power mode")
    battery_j: Number | None = known("joules in its battery when full")
    curve: Curve | None = option(None, help="power over CPU utilisation; without it the line from idle_w to active_w is used")
    per_core: bool = option(False, help="the watts are of one core; a machine with n of them takes n times as much")

    def __post_init__(self) -> None:
        check_order(self, _RISING)
        if self.curve is not None and self.idle_w is not None and self.curve.points[0][1] != self.idle_w.value:
            raise ConfigError(f"must begin at idle_w, {self.idle_w.value:.6g}", key="curve.points")


@dataclass(frozen=True, slots=True, kw_only=True)
class Compute:
    """[compute]: how fast it calculates, and for how much energy. `edgemw profile calibrate` measures the first ones."""

    training_macs_per_s: Number | None = known(
        "multiplications with addition in a second of training: 3 for each parameter and sample"
    )
    training_steps_per_s: Number | None = known("optimiser steps in a second, of the model and batch in the note")
    inference_s: Number | None = known("seconds of a prediction for one sample, median, of the model in the note")
    encode_bytes_per_s: Number | None = known("bytes of float32 that become an update in a second")
    merge_bytes_per_s: Number | None = known("bytes of float32 that the updates stand for which are merged in a second")
    decode_bytes_per_s: Number | None = known("bytes of float32 that an update becomes again in a second")
    int8_macs_per_s: Number | None = known("int8 multiplications with addition in a second, of real networks")
    int8_j_per_mac: Number | None = known("joules of one of them, all that the chip draws meanwhile counted")
    fp64_flops_per_s: Number | None = known("float64 operations in a second, all cores (LINPACK)")
    fp64_j_per_mac: Number | None = known("joules of two of them, all that the board draws meanwhile counted")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """[limits]: what it takes at once."""

    packet_bytes: Bytes | None = known("largest MQTT packet that its client takes whole")
    chunk_bytes: Bytes | None = known("size of the chunks to send it")
    update_bytes: Bytes | None = known("largest update that it can make or take")
    memory_bytes: Bytes | None = known("memory that a node may take; where it is not known, all of ram_bytes")
    batch: Count | None = known("largest batch that it can train with")
    codecs: Names | None = known("codecs that it can afford; where that is not known, all")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingDefaults:
    """[defaults.training]: see [training] of a device."""

    threads: Count | None = known("threads of one training step")
    max_batch: Count | None = known("largest batch")


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyDefaults:
    """[defaults.energy]: see [energy] of a node."""

    interval: Time | None = known("time between two looks at its joules")


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetryDefaults:
    """[defaults.telemetry]: see [telemetry] of a node."""

    publish: Time | None = known("time between two messages to the parent about the node")


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """[defaults]: settings of its nodes, where their files say nothing, by the names that they have there."""

    training: TrainingDefaults = section(TrainingDefaults, help="of a device")
    energy: EnergyDefaults = section(EnergyDefaults, help="joules")
    telemetry: TelemetryDefaults = section(TelemetryDefaults, help="metrics")


def check_energy_sources(value: object) -> str:
    """Names of sources, each once."""
    names = list(value) if isinstance(value, tuple | list) else []
    unknown = next((name for name in names if name not in ENERGY_SOURCES), None)
    if unknown is not None:
        return f"there is no source {unknown!r}: give some of {', '.join(ENERGY_SOURCES)}"
    return "" if len(set(names)) == len(names) else "names a source twice"


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A class of devices."""

    schema: Literal[1] = option(1, help="version of this file's format")
    name: str = required(help="name, as the file's without .toml", example='"raspberry-pi-4b"', check=check_name)
    title: str = required(help="what people call it", example='"Raspberry Pi 4 Model B"')
    kind: Literal["mcu", "accelerator", "sbc", "phone", "gateway", "server"] = required(help="what sort of machine it is")
    runs: Literal["python", "none"] = required(
        help="python: edgemw runs on it; none: it only takes part through another machine, or in a simulation"
    )
    radios: tuple[str, ...] = option((), help="its links, the usual one first: names, or .toml files beside this one")
    energy_sources: tuple[str, ...] = option(
        ENERGY_SOURCES, help="where its joules are known from: the first that answers counts", check=check_energy_sources
    )
    note: str = option("", help="what else there is to know")
    uncertainty_ratio: Ratio | None = known("how far the power that is modelled may be from the true one")
    cpu: Cpu = section(Cpu, help="its processor")
    memory: Memory = section(Memory, help="how much of it there is")
    power: Power = section(Power, help="of the whole device")
    compute: Compute = section(Compute, help="how fast it calculates, and for how much energy")
    limits: Limits = section(Limits, help="what it takes at once")
    defaults: Defaults = section(Defaults, help="settings of its nodes, where their files say nothing")
    sources: dict[str, str] = option({}, help="title and public place of every source", check=check_titles)

    def __post_init__(self) -> None:
        check_sources(self, self.sources)
        check_sane(self)
