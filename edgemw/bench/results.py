"""What came out: runs of one setting, and what they say together."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass

from edgemw.bench.experiment import VALIDATION
from edgemw.bench.sampling import Sample, mean_of
from edgemw.core.plan import LOWER_IS_BETTER
from edgemw.simulation.rounds import Run
from edgemw.simulation.traffic import Traffic
from edgemw.simulation.tree import Tree

TAIL = 0.1
"""The last part of the releases, whose mean is the result: a single release wanders."""


@dataclass(frozen=True, slots=True)
class Stop:
    """A release on the way: what a device had moved by then, up and down, and how good the release is (NaN: not measured)."""

    release: int
    device_bytes: float
    validation: float
    test: float


@dataclass(frozen=True, slots=True)
class Level:
    """The links of nodes that are as far from the top: means over them.

    Attributes:
        up_bits, down_bits: of codec payload, per parameter and update or release.
        up_bytes, down_bytes: everything, in a whole run.
    """

    up_bits: float
    down_bits: float
    up_bytes: float
    down_bytes: float


@dataclass(frozen=True, slots=True)
class Trial:
    """One run.

    Attributes:
        seed: of the run.
        path: every release, in order.
        levels: from the top; the last is the devices'.
        sample: some of its updates, looked at closely; None where nobody trained.
        conserved: whether what was counted is what was sent.
        wall_s, training_s: all of it, and the part that was training and measuring.
    """

    seed: int
    path: tuple[Stop, ...]
    levels: tuple[Level, ...]
    sample: Sample | None
    conserved: bool
    wall_s: float
    training_s: float


@dataclass(frozen=True, slots=True)
class Score:
    """Mean over the seeds, and their standard deviation (0 for one)."""

    mean: float
    spread: float
    seeds: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """All runs of one setting, at least one."""

    setting: str
    trials: tuple[Trial, ...]

    @property
    def device_bytes(self) -> float:
        """What a device moves in a whole run, up and down."""
        return statistics.fmean(trial.path[-1].device_bytes for trial in self.trials)

    @property
    def levels(self) -> tuple[Level, ...]:
        """As in a trial; means over the seeds."""
        return tuple(Level(*map(statistics.fmean, zip(*map(astuple, same), strict=True))) for same in self._by_level())

    def _by_level(self) -> Iterator[tuple[Level, ...]]:
        return zip(*(trial.levels for trial in self.trials), strict=True)

    @property
    def sample(self) -> Sample | None:
        """As in a trial; the mean of what was seen in each run."""
        samples = [trial.sample for trial in self.trials if trial.sample is not None]
        return mean_of(samples) if samples else None

    @property
    def conserved(self) -> bool:
        """Whether every run counted what was sent."""
        return all(trial.conserved for trial in self.trials)

    def validation(self, stops: int | None = None) -> Score:
        """How good the model is on validation samples, after that many releases (None: all)."""
        return _score([_tail([stop.validation for stop in trial.path[:stops]]) for trial in self.trials])

    def test(self, stops: int | None = None) -> Score:
        """How good the model is on test samples: to be reported, never to choose by."""
        return _score([_tail([stop.test for stop in trial.path[:stops]]) for trial in self.trials])

    def within(self, budget_bytes: float) -> int:
        """How many releases all runs get to before a device has moved more than that."""
        return min(sum(stop.device_bytes <= budget_bytes for stop in trial.path) for trial in self.trials)

    def path(self) -> list[Stop]:
        """Every release, the mean over the seeds."""
        columns = zip(*(trial.path for trial in self.trials), strict=True)
        return [
            Stop(
                stops[0].release,
                statistics.fmean(stop.device_bytes for stop in stops),
                statistics.fmean(stop.validation for stop in stops),
                statistics.fmean(stop.test for stop in stops),
            )
            for stops in columns
        ]


def trial_of(run: Run, tree: Tree, metric: str, size: int, seed: int) -> Trial:
    """What is kept of a run; times and the sample are for its caller to fill in."""
    path = tuple(
        Stop(
            done.release,
            statistics.fmean(done.links[device].wire_bytes for device in tree.devices) if done.links else 0.0,
            _number(done.metrics.get(VALIDATION + metric)),
            _number(done.metrics.get(metric)),
        )
        for done in run.rounds
    )
    return Trial(
        seed=seed,
        path=path,
        levels=tuple(_level([run.links[node] for node in nodes], size) for nodes in tree.levels),
        sample=None,
        conserved=run.accounts.conserved,
        wall_s=0.0,
        training_s=0.0,
    )


def better(one: float, other: float, metric: str) -> bool:
    """Whether a value of a metric is better than another; one that is not a number is never."""
    if math.isnan(one):
        return False
    return math.isnan(other) or (one < other if metric in LOWER_IS_BETTER else one > other)


def _level(links: Sequence[Traffic], size: int) -> Level:
    total = sum(links, Traffic())
    bits = total.up.bits_per_parameter(size), total.down.bits_per_parameter(size)
    return Level(*bits, total.up.wire_bytes / len(links), total.down.wire_bytes / len(links))


def _tail(values: Sequence[float]) -> float:
    if not values:
        return math.nan
    return statistics.fmean(values[-math.ceil(TAIL * len(values)) :])


def _score(values: list[float]) -> Score:
    mean = statistics.fmean(values)
    known = not math.isnan(mean)  # stdev takes no NaN
    return Score(mean, statistics.stdev(values) if known and len(values) > 1 else 0.0, tuple(values))


def _number(value: int | float | str | None) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
