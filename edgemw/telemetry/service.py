"""Metrics of a prediction service, made when Prometheus asks: who is not asked pays nothing, not even the import of this."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

TEXT_FORMAT = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Served:
    """What a service has done for one task.

    Attributes:
        task: its name.
        release: that answers; -1 is none.
        canary: the release that answers a share of the requests; -1 is none.
        releases: how many have answered, one after the other.
        requests: answered.
        samples: in those.
        seconds: that they took.
        taking: how many took at most each of the bounds, and none of the shorter ones; the last is longer.
        refused: whether the release that is to be served is not, for a reason that the log tells.
    """

    task: str
    release: int
    canary: int
    releases: int
    requests: int
    samples: int
    seconds: float
    taking: Sequence[int]
    refused: bool


def service_metrics(
    node: str, served: Iterable[Served], refused: Mapping[int, int], placed: Mapping[str, int], bounds_s: Sequence[float]
) -> bytes:
    """The text that Prometheus reads, format 0.0.4.

    Args:
        node: the label `device`.
        served: by task.
        refused: requests, by HTTP status.
        placed: requests, by what became of them where another service may be asked.
        bounds_s: of `Served.taking`, in seconds.
    """
    registry = CollectorRegistry()
    registry.register(_Collected(_families(node, list(served), refused, placed, bounds_s)))
    return generate_latest(registry)


class _Collected(Collector):
    def __init__(self, families: Iterator[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterator[Metric]:
        yield from self._families


def _families(
    node: str, served: list[Served], refused: Mapping[int, int], placed: Mapping[str, int], bounds_s: Sequence[float]
) -> Iterator[Metric]:
    labels = ("device", "task")
    release = GaugeMetricFamily("edgemw_serving_release", "Number of the release that answers.", labels=labels)
    canary = GaugeMetricFamily("edgemw_serving_canary", "Number of the release that answers a share only.", labels=labels)
    releases = CounterMetricFamily("edgemw_serving_releases", "Releases that have come to answer.", labels=labels)
    requests = CounterMetricFamily("edgemw_serving_requests", "Prediction requests answered.", labels=labels)
    samples = CounterMetricFamily("edgemw_serving_samples", "Samples in those requests.", labels=labels)
    held_back = GaugeMetricFamily(
        "edgemw_serving_release_refused", "1 where the release that is to be served failed a check.", labels=labels
    )
    latency = HistogramMetricFamily("edgemw_serving_latency_seconds", "Time to answer a prediction request.", labels=labels)
    for each in served:
        whose = (node, each.task)
        if each.release >= 0:
            release.add_metric(whose, each.release)
        if each.canary >= 0:
            canary.add_metric(whose, each.canary)
        for family, value in ((releases, each.releases), (requests, each.requests), (samples, each.samples)):
            family.add_metric(whose, value)
        held_back.add_metric(whose, float(each.refused))
        names = [*(f"{bound:g}" for bound in bounds_s), "+Inf"]
        latency.add_metric(whose, list(zip(names, map(float, accumulate(each.taking)), strict=True)), each.seconds)
    errors = CounterMetricFamily("edgemw_serving_refused_requests", "Requests that were refused.", labels=("device", "status"))
    for status, count in sorted(refused.items()):
        errors.add_metric((node, str(status)), count)
    decisions = CounterMetricFamily(
        "edgemw_serving_placed_requests", "Requests, by whose answer was sent.", labels=("device", "decision")
    )
    for decision, count in sorted(placed.items()):
        decisions.add_metric((node, decision), count)
    yield from (release, canary, releases, requests, samples, held_back, latency, errors, decisions)
