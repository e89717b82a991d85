"""Numbers that others keep already, read when Prometheus asks: link, channel, machines, process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from edgemw.telemetry.energy.families import energy_families
from edgemw.telemetry.energy.meter import Energy
from edgemw.telemetry.labels import Bounded
from edgemw.telemetry.machine import Machine, machine_families
from edgemw.telemetry.process import Usage

MachineState = tuple[str, str, str, Mapping[str, int | float | str]]
"""Task, state, reason, facts."""
_LINK = (
    ("sent_bytes", "edgemw_link_sent_bytes", "Bytes of MQTT PUBLISH packets sent."),
    ("received_bytes", "edgemw_link_received_bytes", "Bytes of MQTT PUBLISH packets received."),
    ("sent_messages", "edgemw_link_sent_messages", "MQTT PUBLISH packets sent."),
    ("received_messages", "edgemw_link_received_messages", "MQTT PUBLISH packets received."),
    ("reconnects", "edgemw_link_reconnects", "Times that the connection to the broker was made again after it was lost."),
    ("dropped", "edgemw_link_dropped_messages", "Messages that arrived and were thrown away unread."),
)
_CHANNEL = (
    ("sent", "edgemw_channel_sent_bytes", "channel", "Payload bytes sent, by channel of the topic tree."),
    ("received", "edgemw_channel_received_bytes", "channel", "Payload bytes received, by channel of the topic tree."),
    ("refused", "edgemw_channel_refused_messages", "reason", "Arrivals refused as malformed or unexpected, and sends given up."),
)
_MACHINE = (
    ("release", "edgemw_release_number", "Number of the release in use."),
    ("children", "edgemw_fog_children", "Children that are there."),
    ("window", "edgemw_fog_window_updates", "Updates that wait to be merged."),
    ("suspects", "edgemw_fog_suspect_children", "Children that brought too much in at least half of their last windows."),
    ("awaited", "edgemw_fog_awaited_children", "Children that have not answered the present release yet."),
    ("remainder_bytes", "edgemw_fog_remainder_bytes", "Bytes on disk of what window.budget left out and the next window sends."),
    ("tokens_bytes", "edgemw_uplink_tokens_bytes", "Bytes that may be sent now about updates, where uplink.rate limits them."),
    (
        "mass_imbalance",
        "edgemw_learning_mass_imbalance_ratio",
        "Worst difference between what was trained or merged here and what was sent or kept, as a part of it.",
    ),
    ("updates_pending", "edgemw_learning_pending_updates", "Updates made here whose outcome is not known yet."),
)
_BOOKS = ("taken", "counted", "waiting", "returned", "refused", "bounded", "unaccounted")


class LinkTraffic(Protocol):
    """Totals of a link; `edgemw.transport.traffic.Traffic` is one."""

    @property
    def sent_bytes(self) -> int:
        """Bytes handed to the socket."""
        ...

    @property
    def received_bytes(self) -> int:
        """Bytes that came in."""
        ...

    @property
    def sent_messages(self) -> int:
        """Publications handed to the socket."""
        ...

    @property
    def received_messages(self) -> int:
        """Publications that came in."""
        ...

    @property
    def reconnects(self) -> int:
        """Times the link came up again."""
        ...

    @property
    def dropped(self) -> int:
        """Arrivals thrown away."""
        ...


@dataclass(slots=True)
class Sources:
    """Where to read; what is None is not there."""

    process: Callable[[], Usage]
    link: Callable[[], LinkTraffic] | None = None
    channel: dict[str, Mapping[str, int]] = field(default_factory=dict)
    machines: Callable[[], Iterable[MachineState]] | None = None
    machine: Callable[[], Machine] | None = None
    energy: Callable[[], Energy] | None = None
    energy_budget_w: float = 0.0
    energy_sources: Mapping[str, str] = field(default_factory=dict)


class Pulled(Collector):
    """Makes metrics of the sources; `names` and `values` are the labels that stand on all of them."""

    def __init__(self, names: tuple[str, ...], values: tuple[str, ...], sources: Sources) -> None:
        self._names, self._values, self._sources = names, values, sources
        self._word = {"channel": Bounded(16), "reason": Bounded(48)}
        self._task, self._state = Bounded(32), Bounded(16)
        self._releases: dict[str, int] = {}
        self._totals: dict[tuple[str, str], dict[str, float]] = {}
        self._lock = Lock()

    def release(self, task: str, number: int) -> None:
        """Note the release in use; what a machine says later goes first."""
        with self._lock:
            self._releases[self._task(task)] = number

    def total(self, name: str, about: str, task: str, value: float) -> None:
        """Note a total that somebody else counts."""
        with self._lock:
            self._totals.setdefault((name, about), {})[self._task(task)] = value

    def describe(self) -> list[Metric]:
        """Nothing: what there is depends on the sources."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Read every source."""
        usage = self._sources.process()
        about = "Processor time of this process and those that it has started."
        yield self._counter("edgemw_process_cpu_seconds", about, {(): usage.cpu_s})
        about = "Resident memory of this process and those that it has started."
        yield self._gauge("edgemw_process_resident_memory_bytes", about, {(): usage.resident_bytes})
        if self._sources.link is not None:
            traffic = self._sources.link()
            for attribute, name, about in _LINK:
                yield self._counter(name, about, {(): getattr(traffic, attribute)})
        yield from self._channel()
        yield from self._machines()
        labels = dict(zip(self._names, self._values, strict=True))
        if self._sources.machine is not None:
            yield from machine_families(labels, self._sources.machine())
        if self._sources.energy is not None:
            yield from energy_families(
                labels, self._sources.energy(), self._sources.energy_budget_w, self._sources.energy_sources
            )
        with self._lock:
            totals = [(name, about, dict(tasks)) for (name, about), tasks in self._totals.items()]
        for name, about, tasks in totals:
            yield self._counter(name, about, {(task,): value for task, value in tasks.items()}, "task")

    def _channel(self) -> Iterator[Metric]:
        for source, name, label, about in _CHANNEL:
            counts: dict[tuple[str, ...], float] = {}
            for key, count in sorted(dict(self._sources.channel.get(source, {})).items()):
                value = (self._word[label](key),)
                counts[value] = counts.get(value, 0.0) + count
            yield self._counter(name, about, counts, label)

    def _machines(self) -> Iterator[Metric]:
        machines = [] if self._sources.machines is None else list(self._sources.machines())
        samples: dict[str, dict[tuple[str, ...], float]] = {name: {} for name, _, _ in _MACHINE}
        with self._lock:
            samples["release"] |= {(task,): number for task, number in self._releases.items()}
        for task, _, _, facts in machines:
            for name, numbers in samples.items():
                value = facts.get(name)
                if isinstance(value, int | float):
                    numbers[self._task(task),] = value
        for name, metric, about in _MACHINE:
            yield self._gauge(metric, about, samples[name], "task")
        for unit, what in (("updates", "Device updates"), ("weight", "Training examples")):
            about = f"{what} of this training run by what became of them: taken is the sum of all but refused, else unaccounted."
            yield self._gauge(f"edgemw_fog_books_{unit}", about, self._books(machines, unit), "task", "book")
        states: dict[tuple[str, ...], float] = {(self._task(task), self._state(state)): 1.0 for task, state, _, _ in machines}
        yield self._gauge("edgemw_task_state", "1 for the state that a task is in.", states, "task", "state")
        problems: dict[tuple[str, ...], float] = {(self._task(task),): float(bool(reason)) for task, _, reason, _ in machines}
        yield self._gauge("edgemw_task_problem", "1 where something is not right; the node's status says what.", problems, "task")

    def _books(self, machines: Iterable[MachineState], unit: str) -> dict[tuple[str, ...], float]:
        """What fog nodes say of one unit, by task and book; devices keep other books."""
        return {
            (self._task(task), book): float(value)
            for task, _, _, facts in machines
            for book in _BOOKS
            if "weight_taken" in facts and isinstance(value := facts.get(f"{unit}_{book}"), int | float)
        }

    def _counter(self, name: str, about: str, samples: Mapping[tuple[str, ...], float], *labels: str) -> Metric:
        family = CounterMetricFamily(name, about, labels=(*self._names, *labels))
        for key, value in samples.items():
            family.add_metric((*self._values, *key), value)
        return family

    def _gauge(self, name: str, about: str, samples: Mapping[tuple[str, ...], float], *labels: str) -> Metric:
        family = GaugeMetricFamily(name, about, labels=(*self._names, *labels))
        for key, value in samples.items():
            family.add_metric((*self._values, *key), value)
        return family
