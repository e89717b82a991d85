"""The energy of a node that runs: where its joules are known from, what it uses, and what its status says of them."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from typing import Protocol

import psutil

from edgemw.app.checks import AUTO
from edgemw.app.sections import Energy as EnergySettings
from edgemw.app.sections import Node
from edgemw.profiles.catalogue import load_profile, load_radio
from edgemw.profiles.detect import Machine, detect
from edgemw.profiles.device import ENERGY_SOURCES, Profile
from edgemw.profiles.radio import Radio
from edgemw.telemetry.energy.meter import Energy, Meter, Scope, Usage
from edgemw.telemetry.energy.model import Model, idle_w, of_radio
from edgemw.telemetry.energy.reader import Roots
from edgemw.telemetry.energy.sampler import Sampler, energy_before
from edgemw.telemetry.energy.sources import Found, open_sources
from edgemw.telemetry.machine import busy_seconds

log = logging.getLogger(__name__)


class _Process(Protocol):
    def cpu_s(self) -> float: ...

    def answered(self) -> int: ...


class Used:
    """What a node uses in this life. Training and predictions tell what they take; the rest the operating system knows.

    Attributes:
        service: of predictions, in a process of its own; None where there is none.
    """

    def __init__(self, traffic: Callable[[], tuple[int, int]], threads: int = 1) -> None:
        """Begin with nothing.

        Args:
            traffic: bytes sent and received so far.
            threads: of a training.
        """
        self._traffic, self._threads = traffic, threads
        self._train_s = self._serve_s = 0.0
        self._training: tuple[Callable[[], float], float] | None = None  # the clock of one that goes on, and when it began
        self._predictions = 0
        self._lock = Lock()
        self.service: _Process | None = None

    @contextmanager
    def training(self) -> Iterator[None]:
        """A training goes on in this thread; what it takes can be read from others meanwhile."""
        clock = time.process_time if self._threads > 1 else _clock_of_this_thread()  # helpers of ONNX Runtime are other threads
        with self._lock:
            self._training = clock, clock()
        try:
            yield
        finally:
            with self._lock:
                self._train_s, self._training = self._trained_s(), None

    def _trained_s(self) -> float:
        if self._training is None:
            return self._train_s
        clock, began_s = self._training
        return self._train_s + max(0.0, clock() - began_s)

    @property
    def predictions(self) -> int:
        """Requests answered in this life."""
        return self._predictions + (self.service.answered() if self.service is not None else 0)

    def served(self, seconds: float) -> None:
        """A request was answered, in so many seconds of calculation."""
        self._serve_s += seconds
        self._predictions += 1

    def __call__(self) -> Usage:
        """All of it so far."""
        own = os.times()
        service_s = self.service.cpu_s() if self.service is not None else 0.0
        sent, received = self._traffic()
        with self._lock:
            train_s = self._trained_s()
        return Usage(
            now_s=time.monotonic(),
            busy_s=busy_seconds(),
            own_s=own.user + own.system + service_s,
            train_s=train_s,
            serve_s=self._serve_s + service_s,
            sent_bytes=sent,
            received_bytes=received,
            predictions=self.predictions,
        )


def _clock_of_this_thread() -> Callable[[], float]:
    """Its processor time, for other threads; of the process where the system has no such clock."""
    if not hasattr(time, "pthread_getcpuclockid"):
        return time.process_time
    clock = time.pthread_getcpuclockid(threading.get_ident())
    return lambda: time.clock_gettime(clock)


@dataclass(frozen=True, slots=True)
class Sources:
    """What a machine has to tell joules with.

    Attributes:
        profile: None where nothing is known of it.
        known_by: how its profile was found, or why there is none.
        radio: its usual one, where the profile says what it takes.
        found: readers, and why there are not more.
    """

    profile: Profile | None
    known_by: str
    radio: Radio | None
    found: Found

    @property
    def states(self) -> dict[str, str]:
        """Every source that was asked for, with "" or the word for why it is not there."""
        there = {reader.source: "" for reader in (*self.found.readers, *self.found.cards)}
        return there | {name: error.reason for name, error in self.found.unavailable.items()}


def sources_of(node_profile: str, settings: EnergySettings) -> Sources:
    """Find profile and readers.

    Args:
        node_profile: `node.profile`.
        settings: `[energy]`.
    """
    roots = _roots(settings)
    profile, known_by = profile_of(node_profile, settings)
    radio = _radio_of(profile)
    cores = _cores(profile, settings)
    names = settings.sources or (profile.energy_sources if profile is not None else ENERGY_SOURCES)
    model = None if profile is None else lambda: Model(profile, radio, cores)
    return Sources(profile, known_by or "node.profile is empty", radio, open_sources(names, roots, model))


def profile_of(node_profile: str, settings: EnergySettings) -> tuple[Profile | None, str]:
    """The class of a node, where it is known, and what it was known by.

    Args:
        node_profile: `node.profile`.
        settings: `[energy]`, with where the kernel says what machine this is.

    Raises:
        ConfigError: there is no such profile, or it is refused.
    """
    name, known_by = detect(machine_at(_roots(settings))) if node_profile == AUTO else (node_profile, "node.profile says so")
    return (load_profile(name) if name else None), known_by


def _roots(settings: EnergySettings) -> Roots:
    return Roots(settings.sysfs, settings.procfs, max(float(settings.interval), 0.1))


def machine_at(roots: Roots) -> Machine:
    """What the kernel says of the machine that it runs on."""
    packages = {roots.sys.maybe(path) for path in roots.sys.matching("devices/system/cpu/cpu*/topology/physical_package_id")}
    return Machine(roots.proc.maybe("device-tree/model"), roots.proc.maybe("cpuinfo"), len(packages - {""}))


def _cores(profile: Profile | None, settings: EnergySettings) -> int:
    """Of the device: the machine's own, or those of the class that a node on a shared machine stands for."""
    if settings.scope == "process" and profile is not None:
        return 1 if profile.cpu.cores is None else profile.cpu.cores.value
    return psutil.cpu_count() or 1


def _radio_of(profile: Profile | None) -> Radio | None:
    radio = load_radio(profile.radios[0]) if profile is not None and profile.radios else None
    known = radio is not None and radio.energy.tx_j_per_byte is not None and radio.energy.rx_j_per_byte is not None
    return radio if known else None


@dataclass(frozen=True, slots=True)
class Measured:
    """What is known of a node's energy.

    Attributes:
        life: the totals of this life.
        energy: those of all lives.
        states: of the sources, as `Sources.states`.
        profile: the class of the device; "" where it is not known.
    """

    life: Callable[[], Energy] = Energy
    energy: Callable[[], Energy] = Energy
    states: Mapping[str, str] = field(default_factory=dict)
    profile: str = ""


@contextmanager
def measuring(node: Node, settings: EnergySettings, used: Used) -> Iterator[Measured]:
    """Look at energy while the node runs. With an interval of 0 nothing is looked at."""
    if not float(settings.interval):
        known, _ = profile_of(node.profile, settings)
        yield Measured(profile=known.name if known is not None else "")
        return
    sources = sources_of(node.profile, settings)
    _tell(sources)
    cores = _cores(sources.profile, settings)
    scope = Scope(
        cores=cores,
        machine_cores=psutil.cpu_count() or 1,
        alone=settings.scope == "machine",
        idle_w=idle_w(sources.profile, cores),
        radio=partial(of_radio, sources.radio),
    )
    meter = Meter(sources.found.readers, sources.found.cards, scope, used(), energy_before(node.state))
    sampler = Sampler(meter, used, float(settings.interval), node.state)
    sampler.start()
    try:
        profile = sources.profile.name if sources.profile is not None else ""
        yield Measured(lambda: sampler.life, lambda: sampler.energy, sources.states, profile)
    finally:
        sampler.stop()


def _tell(sources: Sources) -> None:
    names = [reader.source for reader in (*sources.found.readers, *sources.found.cards)]
    profile = sources.profile.name if sources.profile is not None else "-"
    log.info("energy", extra={"facts": {"sources": " ".join(names) or "-", "profile": profile, "because": sources.known_by}})
    for name, error in sources.found.unavailable.items():
        if error.reason == "permission":
            log.warning("energy from %s may not be read: %s", name, error.hint)


def energy_facts(energy: Energy) -> dict[str, int | float | str]:
    """What a node's status says of its energy; nothing where no source has said anything yet."""
    if not energy.joules:
        return {}
    return {
        "energy_j": energy.total_j,
        "energy_idle_j": energy.idle_j,
        **{f"energy_{name}_j": joules for name, joules in energy.components.items()},
        "energy_w": energy.watts,
        "energy_source": energy.source,
        "energy_uncertainty": energy.uncertainty_ratio,
        "energy_bytes": int(energy.carried_bytes),
        "predictions": energy.predictions,
    }
