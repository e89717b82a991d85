"""Energy as metrics: joules are counters of our own, which wrap with no hardware, and always carry their source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from edgemw.telemetry.energy.meter import NONE, Energy

Labels = dict[str, str]


def energy_families(labels: Labels, energy: Energy, budget_w: float, sources: Mapping[str, str]) -> Iterator[Metric]:
    """Metrics of a node.

    Args:
        labels: of all of them.
        energy: the totals.
        budget_w: what its owner allows it; 0 is no limit.
        sources: that were asked for, with "" or the word for why each is not there.
    """
    names, values = [*labels], [*labels.values()]
    joules = CounterMetricFamily("edgemw_device_energy_joules", "Energy of the device, by source.", labels=[*names, "source"])
    for source, amount in energy.joules.items():
        joules.add_metric([*values, source], amount)
    yield joules
    idle = CounterMetricFamily(
        "edgemw_device_energy_idle_joules", "Of that, what the device would have taken idle.", labels=names
    )
    idle.add_metric(values, energy.idle_j)
    yield idle
    parts = CounterMetricFamily(
        "edgemw_process_energy_joules", "Energy of this node beyond idle, by what for.", labels=[*names, "component"]
    )
    for component, amount in energy.components.items():
        parts.add_metric([*values, component], amount)
    yield parts
    gaps = CounterMetricFamily("edgemw_device_energy_gaps", "Stretches of time of which no source knew anything.", labels=names)
    gaps.add_metric(values, energy.gaps)
    yield gaps
    known = energy.source != NONE
    for name, about, value in (
        ("edgemw_device_power_watts", "Power of the device at the last look.", energy.watts if known else None),
        (
            "edgemw_device_energy_uncertainty_ratio",
            "How far its joules may be from the true ones, as a part of them.",
            energy.uncertainty_ratio if known else None,
        ),
        ("edgemw_device_power_budget_watts", "Mean power that the device is allowed.", budget_w or None),
    ):
        if value is not None:
            gauge = GaugeMetricFamily(name, about, labels=names)
            gauge.add_metric(values, value)
            yield gauge
    available = GaugeMetricFamily(
        "edgemw_energy_source_available", "1 where a source of energy can be read.", labels=[*names, "source", "reason"]
    )
    for source, reason in sources.items():
        available.add_metric([*values, source, reason], float(not reason))
    yield available
