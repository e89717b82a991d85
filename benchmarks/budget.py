"""Budgets met: what a device was allowed to send, what it sent, and the accuracy that came of it. Prints JSON;
a table with --text.

    python benchmarks/budget.py [--seeds 5] [--rounds 60] [--text]

The quickstart's task (handwritten digits, MLP with 50 826 parameters, top, two fogs, eight devices with label-Dirichlet(0.3)
parts) in one process, with the state machines of production; releases go by their default. A fifth of every device's training
samples is held out for validation.

    budget      bytes that a device may send in a round, on average
    spent       bytes that a device's link carried upwards in the whole run over the budget of the run: PUBLISH packets with
                topics and headers, acknowledgements, the device's birth, the measurement at the end
    b/p         payload bits for each parameter, of an update
    validation  accuracy on held-out training samples, mean of the last five rounds
    test        the same on test samples; nothing is chosen by it
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from edgemw.bench.experiment import VALIDATION, Experiment, Request, prepare
from edgemw.bench.settings import parse_setting
from edgemw.fog.rate import Budget
from edgemw.fog.release import TopOptions
from edgemw.simulation.learner import Learner
from edgemw.simulation.rounds import Run, run_rounds

BUNDLE = Path(__file__).parents[1] / "examples" / "quickstart" / "digits.edge"
LATTICE = "lattice"
BUDGETS = (400, 600, 800, 1200, 2000, 3500, 6500)
LAST = 5


@dataclass(frozen=True, slots=True)
class Row:
    """One budget, over all seeds; 0 is without one, on the default kappa."""

    budget: int
    spent: tuple[float, ...]
    bytes_per_round: float
    bits_per_parameter: float
    validation: float
    test: float
    test_deviation: float
    kappa: float


def main() -> None:
    """Run every budget with every seed."""
    arguments = _arguments()
    request = Request(settings=(parse_setting(LATTICE),), task=BUNDLE, data="digits", rounds=arguments.rounds)
    experiment = prepare(replace(request, overrides=("data.partition=dirichlet", "data.alpha=0.3")), os.environ)
    rows = list(_rows(experiment, arguments.budgets, arguments.seeds))
    if arguments.text:
        _print(rows)
    else:
        about = {"rounds": experiment.rounds, "seeds": arguments.seeds, "machine": platform.platform()}
        print(json.dumps(about | {"rows": [asdict(row) for row in rows]}, indent=2))


def _rows(experiment: Experiment, budgets: Sequence[int], seeds: int) -> Iterator[Row]:
    options = experiment.options[LATTICE]
    for budget in budgets:
        given = Budget(round_bytes=budget, rounds=experiment.rounds) if budget else Budget()
        yield _row(experiment, budget, [_run(experiment, replace(options, budget=given), seed) for seed in range(seeds)])


def _run(experiment: Experiment, options: TopOptions, seed: int) -> Run:
    shares, refused, _ = experiment.shares(seed)
    return run_rounds(experiment.tree, experiment.data, options, Learner(experiment.oracle, shares, refused), seed=seed)


def _row(experiment: Experiment, budget: int, runs: Sequence[Run]) -> Row:
    devices, rounds = experiment.tree.devices, experiment.rounds
    up = [sum((run.links[device].up.wire_bytes for device in devices), 0) / len(devices) for run in runs]
    bits = [run.links[device].up.bits_per_parameter(experiment.bundle.manifest.size) for run in runs for device in devices]
    test = [_last(run, experiment.metric) for run in runs]
    return Row(
        budget,
        tuple(sent / (budget * rounds) for sent in up) if budget else (),
        statistics.mean(up) / rounds,
        statistics.mean(bits),
        statistics.mean(_last(run, VALIDATION + experiment.metric) for run in runs),
        statistics.mean(test),
        statistics.stdev(test) if len(test) > 1 else 0.0,
        statistics.mean(_number(run.rounds[-1].metrics, "kappa") for run in runs),
    )


def _last(run: Run, name: str) -> float:
    return statistics.mean(_number(done.metrics, name) for done in run.rounds[-LAST:])


def _number(facts: Mapping[str, int | float | str], name: str) -> float:
    return float(facts[name])


def _print(rows: Sequence[Row]) -> None:
    print(f"{'budget':>8} {'spent (least to most)':>22} {'B/round':>9} {'b/p':>7} {'validation':>10} {'test':>14} {'kappa':>8}")
    for row in rows:
        spent = f"{min(row.spent):.3f} to {max(row.spent):.3f}" if row.spent else "-"
        test = f"{100 * row.test:.1f} +- {100 * row.test_deviation:.1f}"
        figures = f"{row.bytes_per_round:>9.0f} {row.bits_per_parameter:>7.4f} {100 * row.validation:>10.1f} {test:>14}"
        print(f"{row.budget or 'none':>8} {spent:>22} {figures} {row.kappa:>8.1f}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Budgets met, on handwritten digits.")
    parser.add_argument("--budgets", type=int, nargs="+", default=[0, *BUDGETS], help="bytes per device and round; 0: none")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--text", action="store_true", help="a table instead of JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
