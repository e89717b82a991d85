"""Which setting to take, by what validation samples say; test samples are not asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgemw.bench.results import Outcome, better
from edgemw.core.plan import LOWER_IS_BETTER

POINT = 0.005
"""What a cheaper setting may be worse than the reference: half a point of a share, 0.5 % of an error."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The recommendation.

    Attributes:
        setting: its name.
        stops: releases after which its run is to end, release 0 among them.
        device_bytes: what a device then has moved.
        why: one sentence.
    """

    setting: str
    stops: int
    device_bytes: float
    why: str


def rising(outcome: Outcome, metric: str) -> bool:
    """Whether a setting has got better by more than half a point in the last quarter of its releases."""
    stops = len(outcome.trials[0].path)
    return better(outcome.validation().mean, _allowed(outcome.validation(max(1, 3 * stops // 4)).mean, metric, -POINT), metric)


def _allowed(mean: float, metric: str, tolerance: float) -> float:
    """What is worse than a mean by as much as is tolerated."""
    return mean * (1 + tolerance) if metric in LOWER_IS_BETTER else mean - tolerance


def cheapest(outcomes: Sequence[Outcome], metric: str) -> Choice:
    """The setting that moves the fewest bytes among those as good as the first, which is the reference, to half a point."""
    least = _allowed(outcomes[0].validation().mean, metric, POINT)
    good = [outcome for outcome in outcomes if not better(least, outcome.validation().mean, metric)] or [outcomes[0]]
    chosen = min(good, key=lambda outcome: outcome.device_bytes)
    saved = outcomes[0].device_bytes / chosen.device_bytes
    margin = "0.5 % of" if metric in LOWER_IS_BETTER else "0.5 point of"
    why = f"the cheapest within {margin} {outcomes[0].setting} on validation samples: {saved:.1f} times fewer bytes"
    if chosen is outcomes[0]:
        why = f"no cheaper setting is within {margin} it on validation samples"
    return Choice(chosen.setting, len(chosen.trials[0].path), chosen.device_bytes, why)


def affordable(outcomes: Sequence[Outcome], metric: str, budget_bytes: float) -> Choice | None:
    """The best setting among those that stay within a budget per device, ended early where that is needed; None without any."""
    best: tuple[Outcome, int] | None = None
    for outcome in outcomes:
        stops = outcome.within(budget_bytes)
        if stops and (best is None or better(outcome.validation(stops).mean, best[0].validation(best[1]).mean, metric)):
            best = outcome, stops
    if best is None:
        return None
    chosen, stops = best
    last, rounds = chosen.path()[stops - 1], chosen.path()[-1].release
    why = f"the best on validation samples within {budget_bytes:.0f} bytes per device, after {last.release} of {rounds} rounds"
    return Choice(chosen.setting, stops, last.device_bytes, why)


def frontier(outcomes: Sequence[Outcome], metric: str) -> frozenset[str]:
    """The settings that no other is both as cheap and better than, on validation samples."""
    on = []
    for outcome in outcomes:
        mean, cost = outcome.validation().mean, outcome.device_bytes
        beaten = any(
            (other.device_bytes <= cost and better(other.validation().mean, mean, metric))
            or (other.device_bytes < cost and not better(mean, other.validation().mean, metric))
            for other in outcomes
        )
        if not beaten:
            on.append(outcome.setting)
    return frozenset(on)
