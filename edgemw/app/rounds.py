"""What is known of each round: the top's words, one line of a history, and that line as JSON has it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from edgemw.wire.messages import RoundReport

_NO_METRICS = (
    *("measured", "uplink_bytes", "downlink_bytes", "updates_counted", "weight_counted", "children", "uplink", "downlink"),
    *("kappa", "spent_bytes", "release_spent_bytes", "release", "wall_s", "late"),
)


@dataclass(frozen=True, slots=True)
class Round:
    """One line of a history: what was known of a release when the next one was made."""

    release: int
    wall_s: float
    metrics: dict[str, float]
    uplink_bytes: int
    downlink_bytes: int
    updates_counted: int
    weight_counted: int
    late: tuple[str, ...]

    def row(self) -> dict[str, Any]:
        """For JSON."""
        row = asdict(self) | {"wall_s": round(self.wall_s, 3)}
        metrics: dict[str, float] = row.pop("metrics")
        return row | metrics


def round_of(row: dict[str, Any]) -> Round:
    """What `Round.row` made a row of. Raises KeyError for one that lacks something."""
    known = {spec.name for spec in fields(Round)} - {"metrics", "late"}
    metrics = {name: value for name, value in row.items() if name not in known and name != "late"}
    return Round(metrics=metrics, late=tuple(row["late"]), **{name: row[name] for name in known})


def round_told(message: RoundReport, wall_s: float) -> Round:
    """What the top says of a round, at a time."""
    facts = message.facts
    numbers = {name: value for name, value in facts.items() if not isinstance(value, str)}
    return Round(
        release=message.release,
        wall_s=wall_s,
        metrics={name: float(value) for name, value in numbers.items() if name not in _NO_METRICS},
        uplink_bytes=int(numbers.get("uplink_bytes", 0)),
        downlink_bytes=int(numbers.get("downlink_bytes", 0)),
        updates_counted=int(numbers.get("updates_counted", 0)),
        weight_counted=int(numbers.get("weight_counted", 0)),
        late=message.late,
    )
