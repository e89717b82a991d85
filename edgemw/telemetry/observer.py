"""The observer: the one place where facts become metrics.

Roles return facts and know no metric; shells report what only they know (times); what is counted elsewhere already is read
when Prometheus asks. Every series carries `device` and `site`; all other labels have few values (see `labels`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from edgemw import __version__
from edgemw.core.events import Fact
from edgemw.telemetry.energy.meter import Energy
from edgemw.telemetry.labels import OTHER, Bounded, reason_label
from edgemw.telemetry.machine import Machine
from edgemw.telemetry.process import ProcessUsage, Usage
from edgemw.telemetry.pulled import LinkTraffic, MachineState, Pulled, Sources

Values = Mapping[str, int | float | str]
LABELS = ("device", "site")
STALENESS_RELEASES = (0, 1, 2, 4, 8, 16)
LATENCY_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5)
_FLEET = (
    ("uplink_bytes", "edgemw_fleet_uplink_bytes", "Bytes that the whole fleet has sent upwards in this training run."),
    ("downlink_bytes", "edgemw_fleet_downlink_bytes", "Bytes that the whole fleet has received in this training run."),
    ("updates_counted", "edgemw_fleet_updates", "Device updates inside the releases of this training run."),
    ("weight_counted", "edgemw_fleet_examples", "Training examples behind the releases of this training run."),
)
_NOT_MEASURES = frozenset(
    (
        *(name for name, _, _ in _FLEET),
        *("measured", "children", "release", "uplink", "downlink", "refused"),
        *("kappa", "spent_bytes", "release_spent_bytes", "epsilon"),
    )
)


class _Unexpected(Exception):
    """A fact lacks a value, or it is of another type; never leaves `observe`."""


class Observer:
    """Turns facts into metrics; its methods may be called from several threads."""

    def __init__(self, role: str, node: str, site: str, *, process: Callable[[], Usage] | None = None) -> None:
        """Make the metrics of a node.

        Args:
            role: device or fog.
            node: its id, the label `device`.
            site: where it stands, the label `site`.
            process: reads the process's usage; the operating system is asked where it is not given.
        """
        self._labels = (node, site)
        self._registry = CollectorRegistry()
        self._sources = Sources(process if process is not None else ProcessUsage())
        self._pulled = Pulled(LABELS, self._labels, self._sources)
        self._task, self._codec, self._measure = Bounded(32), Bounded(8), Bounded(16)
        self._make_node_metrics(role)
        self._make_learning_metrics()
        self._make_fog_metrics()
        self._registry.register(self._pulled)
        self._takers: dict[str, Callable[[str, Values], None]] = {
            "trained": self._on_trained,
            "update_refused": self._on_refused("update"),
            "release_refused": self._on_refused("release"),
            "task_refused": self._on_refused("task"),
            "settled": self._on_settled,
            "update_taken": self._on_update_taken,
            "duplicate": self._on_duplicate,
            "window_closed": self._on_window_closed,
            "window_bounded": self._on_window_bounded,
            "masks": self._on_masks,
            "release": self._on_release,
            "round": self._on_round,
        }

    # -- what roles and shells report

    def observe(self, task: str, fact: Fact) -> None:
        """Count a fact of a task. One that is not known, or not as it should be, is counted as such and does no harm."""
        taker = self._takers.get(fact.name)
        try:
            if taker is None:
                raise _Unexpected(fact.name)
            taker(self._task(task), fact.values)
        except _Unexpected:
            self._unknown_facts.labels(*self._labels).inc()

    def trained_seconds(self, seconds: float) -> None:
        """Training took so long."""
        self._train_seconds.labels(*self._labels).inc(max(0.0, seconds))

    def served(self, seconds: float) -> None:
        """A prediction request was answered after so long."""
        self._requests.labels(*self._labels).inc()
        self._latency.labels(*self._labels).observe(seconds)

    # -- what is read when Prometheus asks

    def watch_link(self, traffic: Callable[[], LinkTraffic]) -> None:
        """Read a link's totals on every scrape, in the scrape's thread."""
        self._sources.link = traffic

    def watch_channel(self, sent: Mapping[str, int], received: Mapping[str, int], refused: Mapping[str, int]) -> None:
        """Read a channel's counts on every scrape: payload bytes by channel, refused messages by reason."""
        self._sources.channel = {"sent": sent, "received": received, "refused": refused}

    def watch_machines(self, machines: Callable[[], Iterable[MachineState]]) -> None:
        """Read task, state, reason and facts of every machine on every scrape.

        Args:
            machines: called in the scrape's thread; it gives what was taken in the loop's.
        """
        self._sources.machines = machines

    def watch_machine(self, machine: Callable[[], Machine], profile: str, arch: str) -> None:
        """Read the machine on every scrape; its class, "" where nobody knows it, and its architecture stay the same."""
        self._sources.machine = machine
        info = self._gauge("edgemw_device_info", "1; the class of the device, and its processors.", "profile", "arch")
        info.labels(*self._labels, profile, arch).set(1)

    def watch_energy(self, energy: Callable[[], Energy], sources: Mapping[str, str], budget_w: float = 0.0) -> None:
        """Read energy on every scrape; of every source the word for why it is not there, or ""; 0 watts are no limit."""
        self._sources.energy, self._sources.energy_sources, self._sources.energy_budget_w = energy, sources, budget_w

    def render(self) -> bytes:
        """All metrics that have a value, in Prometheus's text format 0.0.4."""
        return generate_latest(_Filled(self._registry))

    # -- the metrics

    def _make_node_metrics(self, role: str) -> None:
        info = self._gauge("edgemw_node_info", "1; what this node is.", "role", "version")
        info.labels(*self._labels, role, __version__).set(1)
        self._unknown_facts = self._counter("edgemw_telemetry_unknown_facts", "Facts that could not be counted.")
        self._unknown_facts.labels(*self._labels)
        self._requests = self._counter("edgemw_serving_requests", "Prediction requests answered.")
        self._latency = self._histogram("edgemw_serving_latency_seconds", "Time to answer a prediction request.", LATENCY_S)

    def _make_learning_metrics(self) -> None:
        self._train_seconds = self._counter("edgemw_learning_train_seconds", "Time spent on training.")
        self._updates = self._counter("edgemw_learning_updates", "Updates trained here.", "task")
        self._loss = self._gauge("edgemw_learning_loss", "Mean training loss of the last update.", "task")
        self._update_bytes = self._counter(
            "edgemw_update_bytes",
            "Encoded bytes of updates made here (out) and taken from children (in).",
            "task",
            "codec",
            "direction",
        )
        self._refused = self._counter("edgemw_refused", "Updates, releases and tasks refused here.", "task", "what", "reason")
        self._settled = self._counter(
            "edgemw_learning_settled_updates", "Updates made here that were counted or returned.", "task", "outcome", "reason"
        )

    def _make_fog_metrics(self) -> None:
        self._taken = self._counter("edgemw_fog_updates", "Updates taken from children.", "task", "codec")
        self._staleness = self._histogram(
            "edgemw_fog_staleness_releases", "Releases that a taken update was behind.", STALENESS_RELEASES, "task"
        )
        self._duplicates = self._counter("edgemw_fog_duplicates", "Updates that came again and were not counted again.", "task")
        self._groups = self._counter(
            "edgemw_fog_groups", "Groups of devices whose sum lost its masks, or was given up.", "task", "outcome", "reason"
        )
        self._dropouts = self._counter("edgemw_fog_group_dropouts", "Devices that dropped out of such sums.", "task")
        self._windows = self._counter("edgemw_fog_windows", "Windows merged and sent to the parent.", "task")
        self._merged = self._counter("edgemw_fog_merged_updates", "Updates in the windows sent to the parent.", "task")
        self._missing = self._counter("edgemw_fog_missing_children", "Children that a closed window was without.", "task")
        self._bounded = self._counter(
            "edgemw_fog_bounded_children",
            "Children of closed windows that brought too much (bounded) or were too far from the others (left_out).",
            "task",
            "how",
        )
        self._releases = self._counter("edgemw_releases", "Releases made or brought down here.", "task")
        self._step = self._gauge("edgemw_release_step", "Lattice step that the current release asks for.", "task")
        self._epsilon = self._gauge("edgemw_privacy_epsilon", "What the releases that are out have cost of privacy.", "task")
        self._kappa = self._gauge(
            "edgemw_release_kappa", "Lattice step over the root mean square of what training moved.", "task"
        )
        self._spent = self._gauge(
            "edgemw_budget_spent_bytes", "Bytes of one device that count against a budget.", "task", "direction"
        )
        self._rounds = self._counter("edgemw_rounds", "Rounds that the top has finished.", "task")
        self._measured = self._gauge("edgemw_round_measure", "What devices measured, over the fleet.", "task", "measure")
        self._measured_on = self._gauge("edgemw_round_measured_release", "Release that the measures are of.", "task")

    # -- one method per fact: everything is read before anything is counted

    def _on_trained(self, task: str, values: Values) -> None:
        release, size_bytes = _whole(values, "release"), _count(values, "bytes")
        loss = _real(values, "loss") if "loss" in values else None  # which nobody is told under privacy
        codec = _text(values, "codec", OTHER)
        self._updates.labels(*self._labels, task).inc()
        if loss is not None:
            self._loss.labels(*self._labels, task).set(loss)
        self._update_bytes.labels(*self._labels, task, self._codec(codec), "out").inc(size_bytes)
        self._pulled.release(task, release)

    def _on_refused(self, what: str) -> Callable[[str, Values], None]:
        def take(task: str, values: Values) -> None:
            self._refused.labels(*self._labels, task, what, reason_label(_text(values, "reason"))).inc()

        return take

    def _on_settled(self, task: str, values: Values) -> None:
        counted, reason = bool(_real(values, "counted")), _text(values, "reason", "")
        outcome = ("counted", "") if counted else ("returned", reason_label(reason))
        self._settled.labels(*self._labels, task, *outcome).inc()

    def _on_update_taken(self, task: str, values: Values) -> None:
        staleness, codec = _count(values, "staleness"), self._codec(_text(values, "codec"))
        size_bytes = _count(values, "bytes") if "bytes" in values else None
        self._taken.labels(*self._labels, task, codec).inc()
        self._staleness.labels(*self._labels, task).observe(staleness)
        if size_bytes is not None:
            self._update_bytes.labels(*self._labels, task, codec, "in").inc(size_bytes)

    def _on_duplicate(self, task: str, values: Values) -> None:
        self._duplicates.labels(*self._labels, task).inc()

    def _on_window_closed(self, task: str, values: Values) -> None:
        updates, late = _count(values, "updates"), _count(values, "late")
        self._windows.labels(*self._labels, task).inc()
        self._merged.labels(*self._labels, task).inc(updates)
        self._missing.labels(*self._labels, task).inc(late)

    def _on_window_bounded(self, task: str, values: Values) -> None:
        counts = {how: _count(values, how) for how in ("bounded", "left_out")}
        for how, count in counts.items():
            self._bounded.labels(*self._labels, task, how).inc(count)

    def _on_masks(self, task: str, values: Values) -> None:
        dropped, reason = _count(values, "dropped"), _text(values, "reason", "")
        outcome = "unmasked" if _text(values, "outcome") == "unmasked" else "given-up"
        self._groups.labels(*self._labels, task, outcome, reason_label(reason) if reason else "").inc()
        self._dropouts.labels(*self._labels, task).inc(dropped)

    def _on_release(self, task: str, values: Values) -> None:
        release = _whole(values, "release")
        step = _real(values, "step") if "step" in values else None
        epsilon = _real(values, "epsilon") if "epsilon" in values else None
        self._releases.labels(*self._labels, task).inc()
        self._pulled.release(task, release)
        if step is not None:
            self._step.labels(*self._labels, task).set(step)
        if epsilon is not None:
            self._epsilon.labels(*self._labels, task).set(epsilon)

    def _on_round(self, task: str, values: Values) -> None:
        numbers = {name: number for name, value in values.items() if (number := _float(value)) is not None}
        self._rounds.labels(*self._labels, task).inc()
        for name, metric, about in _FLEET:
            if name in numbers:
                self._pulled.total(metric, about, task, numbers[name])
        if "measured" in numbers:
            self._measured_on.labels(*self._labels, task).set(numbers["measured"])
        if "kappa" in numbers:
            self._kappa.labels(*self._labels, task).set(numbers["kappa"])
        for name, direction in (("spent_bytes", "up"), ("release_spent_bytes", "down")):
            if name in numbers:
                self._spent.labels(*self._labels, task, direction).set(numbers[name])
        for name in sorted(numbers.keys() - _NOT_MEASURES):
            measure = self._measure(name)
            if measure != OTHER:
                self._measured.labels(*self._labels, task, measure).set(numbers[name])

    # -- making

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(name, about, (*LABELS, *labels), registry=self._registry)

    def _gauge(self, name: str, about: str, *labels: str) -> Gauge:
        return Gauge(name, about, (*LABELS, *labels), registry=self._registry)

    def _histogram(self, name: str, about: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(name, about, (*LABELS, *labels), registry=self._registry, buckets=buckets)


class _Filled(Collector):
    """A registry without metrics that have no value yet, and without the time series of when each counter was made."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            if metric.samples:
                yield metric


def _float(value: object) -> float | None:
    """The number that a value is; None where it is none, or too large to be a metric."""
    if not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def _real(values: Values, name: str) -> float:
    value = _float(values.get(name))
    if value is None:
        raise _Unexpected(name)
    return value


def _whole(values: Values, name: str) -> int:
    value = _real(values, name)
    if not math.isfinite(value):
        raise _Unexpected(name)
    return int(value)


def _count(values: Values, name: str) -> float:
    value = _real(values, name)
    if not 0 <= value < math.inf:
        raise _Unexpected(name)
    return value


def _text(values: Values, name: str, default: str | None = None) -> str:
    value = values.get(name, default)
    if not isinstance(value, str):
        raise _Unexpected(name)
    return value
