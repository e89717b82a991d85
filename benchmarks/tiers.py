"""What fog nodes send up with a budget of their own: the rate on every level of the tree, and the accuracy. Prints JSON;
a table with --text.

    python benchmarks/tiers.py [--seeds 5] [--rounds 60] [--budgets 0 4000 2000 1000] [--text]

Task, devices and validation are those of `budget.py`, the codec is lattice:steps=dyadic, in a tree of three levels. A fog node
merges four devices; with `window.budget` it sends that on a coarser lattice and keeps what is left for its next window.

    budget      largest payload of a fog node, in bytes; 0 is without one
    device b/p  payload bits for each parameter, of an update of a device
    fog b/p     the same of what a fog node sends up
    ratio       the second over the first
    validation  accuracy on held-out training samples, mean of the last five rounds
    test        the same on test samples; nothing is chosen by it
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from edgemw.bench.experiment import VALIDATION, Experiment, Request, prepare
from edgemw.bench.settings import parse_setting
from edgemw.simulation.learner import Learner
from edgemw.simulation.rounds import Run, run_rounds

BUNDLE = Path(__file__).parents[1] / "examples" / "quickstart" / "digits.edge"
CODEC = "lattice:steps=dyadic"
BUDGETS = (0, 4000, 2000, 1000)
LAST = 5


@dataclass(frozen=True, slots=True)
class Row:
    """One budget, over all seeds."""

    budget: int
    device_bits: float
    fog_bits: float
    validation: float
    test: float
    test_deviation: float

    @property
    def ratio(self) -> float:
        """How much more a fog node sends than a device."""
        return self.fog_bits / self.device_bits


def main() -> None:
    """Run every budget with every seed."""
    arguments = _arguments()
    request = Request(settings=(parse_setting(CODEC),), task=BUNDLE, data="digits", rounds=arguments.rounds)
    experiment = prepare(replace(request, overrides=("data.partition=dirichlet", "data.alpha=0.3")), os.environ)
    rows = list(_rows(experiment, arguments.budgets, arguments.seeds))
    if arguments.text:
        print(f"{'budget':>8} {'device b/p':>11} {'fog b/p':>9} {'ratio':>7} {'validation':>11} {'test':>14}")
        for row in rows:
            test = f"{100 * row.test:.1f} +- {100 * row.test_deviation:.1f}"
            figures = f"{row.device_bits:>11.4f} {row.fog_bits:>9.4f} {row.ratio:>7.2f} {100 * row.validation:>11.1f} {test:>14}"
            print(f"{row.budget or 'none':>8} {figures}")
        return
    about = {"rounds": experiment.rounds, "seeds": arguments.seeds, "machine": platform.platform()}
    print(json.dumps(about | {"rows": [asdict(row) | {"ratio": row.ratio} for row in rows]}, indent=2))


def _rows(experiment: Experiment, budgets: Sequence[int], seeds: int) -> Iterator[Row]:
    for budget in budgets:
        runs = []
        for seed in range(seeds):
            runs.append(_run(experiment, budget, seed))
            print(f"budget {budget}: seed {seed} done", file=sys.stderr, flush=True)
        yield _row(experiment, budget, runs)


def _run(experiment: Experiment, budget: int, seed: int) -> Run:
    options, (shares, refused, _) = experiment.options[CODEC], experiment.shares(seed)
    given = replace(options, window=replace(options.window, budget_bytes=budget))
    return run_rounds(experiment.tree, experiment.data, given, Learner(experiment.oracle, shares, refused), seed=seed)


def _row(experiment: Experiment, budget: int, runs: Sequence[Run]) -> Row:
    size, metric = experiment.bundle.manifest.size, experiment.metric
    tests = [_last(run, metric) for run in runs]

    def bits(nodes: Sequence[str]) -> float:
        return statistics.mean(run.links[node].up.bits_per_parameter(size) for run in runs for node in nodes)

    return Row(
        budget,
        bits(experiment.tree.devices),
        bits(experiment.tree.fogs),
        statistics.mean(_last(run, VALIDATION + metric) for run in runs),
        statistics.mean(tests),
        statistics.stdev(tests) if len(tests) > 1 else 0.0,
    )


def _last(run: Run, name: str) -> float:
    return statistics.mean(float(done.metrics[name]) for done in run.rounds[-LAST:])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Fog nodes with a budget, on handwritten digits.")
    parser.add_argument("--budgets", type=int, nargs="+", default=BUDGETS, help="largest payload of a fog node; 0: none")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--text", action="store_true", help="a table instead of JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
