"""What a comparison of codecs says: a table for people, `codecs.json` for scripts."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgemw.app.report import amount
from edgemw.bench.choice import Choice, affordable, cheapest, frontier, rising
from edgemw.bench.experiment import Experiment
from edgemw.bench.results import Outcome, Score

FILE = "codecs.json"
_ABOUT = ("task", "metric", "parameters", "nodes", "how", "rounds", "participation", "budget_bytes")


@dataclass(frozen=True, slots=True)
class Comparison:
    """All settings, and which one to take.

    Attributes:
        task, metric, parameters: of the bundle.
        nodes: how many there are on each level below the top; the last level is the devices.
        how: how the samples were dealt out.
        rounds: of every run.
        participation: the chance that a device trained in a round.
        outcomes: the reference first.
        budget_bytes: that a device may move in a run; 0 is no limit.
    """

    task: str
    metric: str
    parameters: int
    nodes: tuple[int, ...]
    how: str
    rounds: int
    outcomes: tuple[Outcome, ...]
    budget_bytes: int = 0
    participation: float = 1.0

    @classmethod
    def of(cls, experiment: Experiment, outcomes: tuple[Outcome, ...], how: str, budget_bytes: int = 0) -> Comparison:
        """What came out of an experiment."""
        manifest = experiment.bundle.manifest
        return cls(
            task=manifest.name,
            metric=experiment.metric,
            parameters=manifest.size,
            nodes=tuple(len(level) for level in experiment.tree.levels),
            how=how,
            rounds=experiment.rounds,
            outcomes=outcomes,
            budget_bytes=budget_bytes,
            participation=experiment.participation,
        )

    @property
    def choice(self) -> Choice | None:
        """The recommendation; None where nothing stays within the budget, or nothing was learned."""
        if not self.learned:
            return None
        if self.budget_bytes:
            return affordable(self.outcomes, self.metric, self.budget_bytes)
        return cheapest(self.outcomes, self.metric)

    @property
    def learned(self) -> bool:
        """Whether anybody trained, and the chosen metric could be measured at all."""
        return any(outcome.sample is not None and not math.isnan(outcome.validation().mean) for outcome in self.outcomes)

    def document(self) -> dict[str, Any]:
        """Everything, for scripts; what could not be measured is null."""
        on, choice = frontier(self.outcomes, self.metric), self.choice
        seeds = [trial.seed for trial in self.outcomes[0].trials]
        about = {name: getattr(self, name) for name in _ABOUT}
        rows = [self._row(outcome) | {"frontier": outcome.setting in on} for outcome in self.outcomes]
        recommendation = None
        if choice is not None:
            after = self.outcomes[0].path()[choice.stops - 1].release
            recommendation = {
                "setting": choice.setting,
                "rounds": after,
                "device_bytes": choice.device_bytes,
                "why": choice.why,
            }
        document = {**about, "seeds": seeds, "reference": self.outcomes[0].setting}
        cleaned: dict[str, Any] = clean(document | {"recommendation": recommendation, "settings": rows})
        return cleaned

    def write(self, folder: Path) -> Path:
        """Write codecs.json and give its path."""
        path = folder / FILE
        path.write_text(json.dumps(self.document(), indent=1) + "\n")
        return path

    def screen(self, files: list[Path]) -> str:
        """The table and the recommendation, for people."""
        return "\n".join([*self._table(), "", *self._words(), *(f"  {path.name:<14}{path}" for path in files)])

    def _row(self, outcome: Outcome) -> dict[str, Any]:
        sample, (*fogs, device) = outcome.sample, outcome.levels
        return {
            "setting": outcome.setting,
            "up_bits": device.up_bits,
            "fog_bits": [fog.up_bits for fog in fogs],
            "down_bits": device.down_bits,
            "device_bytes": outcome.device_bytes,
            "levels": [{"nodes": nodes, **asdict(level)} for nodes, level in zip(self.nodes, outcome.levels, strict=True)],
            "validation": asdict(outcome.validation()),
            "test": asdict(outcome.test()),
            "sample": None if sample is None else asdict(sample),
            "conserved": outcome.conserved,
            "wall_s": sum(trial.wall_s for trial in outcome.trials),
            "training_s": sum(trial.training_s for trial in outcome.trials),
            "path": [asdict(stop) for stop in outcome.path()],
        }

    def _table(self) -> Iterator[str]:
        fogs, width = len(self.nodes) - 1, max(len(outcome.setting) for outcome in self.outcomes)
        names = ["fog"] if fogs == 1 else [f"fog {level}" for level in range(fogs, 0, -1)]
        head = f"{'':<{width + 2}}{'up':>8}{''.join(f'{name:>8}' for name in names)}{'down':>8}{'a device':>11}"
        yield head + f"{'validation':>17}{'test':>17}{'left out':>10}{'encode':>8}{'merge':>8}{'decode':>8}"
        head = f"{'':<{width + 2}}{'bits for each parameter':>{8 * (fogs + 2)}}{'moves':>11}"
        yield head + f"{self.metric:>17}{self.metric:>17}{'of norm':>10}{'ms':>8}{'ms':>8}{'ms':>8}"
        on, choice = frontier(self.outcomes, self.metric), self.choice
        for outcome in self.outcomes:
            *_, device = levels = outcome.levels
            bits = [*(level.up_bits for level in reversed(levels)), device.down_bits]
            line = f"{'*' if outcome.setting in on else ' '} {outcome.setting:<{width}}" + "".join(f"{b:>8.3f}" for b in bits)
            line += f"{amount(outcome.device_bytes):>11}{_scored(outcome.validation()):>17}{_scored(outcome.test()):>17}"
            if outcome.sample is not None:
                left_out = outcome.sample.left_out
                line += f"{'-':>10}" if left_out is None else f"{left_out:>10.3f}"
                line += f"{outcome.sample.encode_ms:>8.2f}{outcome.sample.merge_ms:>8.2f}{outcome.sample.decode_ms:>8.2f}"
            yield line + ("  <- take this" if choice is not None and choice.setting == outcome.setting else "")

    def _words(self) -> Iterator[str]:
        seeds = len(self.outcomes[0].trials)
        over = f"mean +- standard deviation over {seeds} seeds" if seeds > 1 else "one seed: give more to see how far it varies"
        yield f"* nothing else is both cheaper and better on validation samples; {over}"
        if not all(outcome.conserved for outcome in self.outcomes):
            yield "not every update that was sent was counted: see conserved in codecs.json"
        if not self.learned:
            yield "nothing was learned, so none of these can be recommended"
            return
        choice = self.choice
        if choice is None:
            needs = amount(min(outcome.path()[0].device_bytes for outcome in self.outcomes))
            yield f"nothing stays within {amount(self.budget_bytes)}: getting the task and answering once takes {needs}"
            return
        yield f"take {choice.setting}: {choice.why}"
        if rising(self.outcomes[0], self.metric):
            yield f"{self.outcomes[0].setting} was still getting better: give more --rounds before you rely on this"
        if any(math.isnan(stop.test) for stop in self.outcomes[0].path()):
            yield "there are no test samples: nothing confirms this choice"


def _scored(score: Score) -> str:
    if math.isnan(score.mean):
        return "-"
    return f"{score.mean:.4f}" + (f" +-{score.spread:.4f}" if len(score.seeds) > 1 else "")


def clean(value: Any) -> Any:
    """The same with null for what is not a number."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {key: clean(item) for key, item in value.items()}
        case list() | tuple():
            return [clean(item) for item in value]
        case _:
            return value
