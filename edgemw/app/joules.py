"""The energy of a fleet, from what the status of every node says of its own."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edgemw.core.plan import LOWER_IS_BETTER
from edgemw.telemetry.energy.meter import COMPONENTS

Facts = Mapping[str, int | float | str]
POINT = 0.01
_MOST = 1e15
_PREFIXES = ((1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"), (1e-12, "p"))


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetEnergy:
    """Joules of all nodes that know theirs, in all their lives.

    Attributes:
        nodes: how many those are.
        joules: all of them.
        idle_joules: what their devices would have taken idle.
        train_joules, serve_joules, communicate_joules, agent_joules: what nodes took beyond that; the rest is of others on their
            devices.
        sources: where they are known from now.
        uncertainty_ratio: the worst of a node.
        carried_bytes: that nodes have sent and received whose radio is modelled.
        predictions: requests that they have answered.
    """

    nodes: int
    joules: float
    idle_joules: float
    train_joules: float
    serve_joules: float
    communicate_joules: float
    agent_joules: float
    sources: tuple[str, ...]
    uncertainty_ratio: float
    carried_bytes: int
    predictions: int

    def document(self, rounds: int, points: float | None) -> dict[str, Any]:
        """All of it, and joules for each thing that was got for them; None where there was none.

        Args:
            rounds: that were made meanwhile.
            points: hundredths of the metric by which the model got better; None where it is none of which a hundredth means
                something.
        """
        megabytes = self.carried_bytes / 1e6
        return asdict(self) | {
            "joules_per_round": _for_each(self.joules, rounds),
            "joules_per_megabyte": _for_each(self.communicate_joules, megabytes),
            "joules_per_prediction": _for_each(self.serve_joules, self.predictions),
            "joules_per_accuracy_point": None if points is None else _for_each(self.joules, points),
        }


def fleet_energy(statuses: Iterable[tuple[str, Facts]]) -> FleetEnergy | None:
    """The sum over nodes; None where no node knows its energy.

    Args:
        statuses: node and facts; one node may say them once for each of its tasks.
    """
    known = {node: facts for node, facts in statuses if _number(facts, "energy_j") > 0}
    if not known:
        return None

    radios = [facts for facts in known.values() if _number(facts, "energy_communicate_j")]

    def total(name: str) -> float:
        return sum(_number(facts, name) for facts in known.values())

    return FleetEnergy(
        nodes=len(known),
        joules=total("energy_j"),
        idle_joules=total("energy_idle_j"),
        **{f"{name}_joules": total(f"energy_{name}_j") for name in COMPONENTS},
        sources=tuple(sorted({str(facts.get("energy_source", "")) for facts in known.values()})),
        uncertainty_ratio=max(_number(facts, "energy_uncertainty") for facts in known.values()),
        carried_bytes=int(sum(_number(facts, "energy_bytes") for facts in radios)),
        predictions=int(total("predictions")),
    )


def points_gained(metric: str, values: Iterable[float]) -> float | None:
    """Hundredths by which a metric is better at the end than at the beginning; None for one that is not a share."""
    measured = list(values)
    if metric in LOWER_IS_BETTER or metric == "loss" or not measured:
        return None
    return max(0.0, (measured[-1] - measured[0]) / POINT)


def fleet_points(statuses: Iterable[Facts]) -> float | None:
    """Hundredths that the runs of all tasks have gained, as tops say it of theirs; None where none says any."""
    gained = []
    for facts in statuses:
        metric, *values = (facts.get(name) for name in ("metric", "metric_first", "metric_last"))
        numbers = [float(value) for value in values if isinstance(value, int | float)]
        if isinstance(metric, str) and len(numbers) == 2:
            gained.append(points_gained(metric, numbers))
    known = [points for points in gained if points is not None]
    return sum(known) if known else None


def fleet_document(energy: FleetEnergy | None, statuses: Sequence[Facts]) -> dict[str, Any] | None:
    """`FleetEnergy.document` for what nodes say of releases and of what was gained; None where no joules are known."""
    releases = [release for facts in statuses if isinstance(release := facts.get("release"), int)]
    return None if energy is None else energy.document(max(releases, default=0), fleet_points(statuses))


def energy_told(document: Mapping[str, Any]) -> str:
    """What `FleetEnergy.document` holds, in one line for people."""
    by = f"{', '.join(document['sources'])}, ± {100 * document['uncertainty_ratio']:.0f} %"
    joules, idle = (prefixed(document[name], "J") for name in ("joules", "idle_joules"))
    told = [f"{joules} by {document['nodes']} nodes ({by}), {idle} of it idle"]
    for name in ("round", "megabyte", "prediction", "accuracy_point"):
        each = document[f"joules_per_{name}"]
        told += [f"{prefixed(each, 'J')} per {name.replace('_', ' ')}"] if each else []
    return ", ".join(told)


def prefixed(value: float, unit: str) -> str:
    """A number of 0 or more in three digits and with a prefix."""
    factor, prefix = next((pair for pair in _PREFIXES if value >= 0.9995 * pair[0]), (1.0, ""))
    return f"{value / factor:.3g} {prefix}{unit}"


def _for_each(amount: float, times: float) -> float | None:
    each = amount / times if times > 0 else math.inf
    return each if math.isfinite(each) else None


def _number(facts: Facts, name: str) -> float:
    """What a node says; 0 where that is no number, or none that can be."""
    value = facts.get(name, 0.0)
    return float(value) if isinstance(value, int | float) and 0 <= value < _MOST else 0.0
