"""What every level of a tree sends: with a byte budget at the fog nodes, and with more or fewer steps of training for each
update. Prints JSON; tables with --text.

    python benchmarks/tiers.py [--tables digits,fsdd,steps] [--seeds 5] [--data DIR] [--text]

    digits   fog nodes with budgets: task, devices and validation of `budget.py`, 60 rounds; a fog node merges four devices
    fsdd     the same on spoken digits, the task and tree of `codecs.py`, 150 rounds; a fog node merges five devices
    steps    spoken digits: 1500 steps of training at each device, in updates of 10 or of 30, with the devices of one speaker
             under each fog node or of five; float32 both ways, and the default

The codec of the first two is lattice:steps=dyadic, in a tree of three levels; with `window.budget` a fog node sends on a coarser
lattice and keeps what is left for its next window.

    budget      largest payload of a fog node, in bytes; 0 is without one
    device b/p  payload bits for each parameter, of an update of a device
    fog b/p     the same of what a fog node sends up
    ratio       the second over the first
    run b/p     payload bits for each parameter that a device, and a fog node, sends up in the whole run
    validation  accuracy on held-out training samples, mean of the last tenth of the rounds
    test        the same on test samples; nothing is chosen by it
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the tasks are those of another script of this folder

from benchmarks.codecs import ROOT, STUDIES, Arrays, fsdd, lay_out
from edgemw.bench.experiment import VALIDATION, Experiment, Request, prepare
from edgemw.bench.settings import REFERENCE, parse_setting
from edgemw.compile.export import compile_task
from edgemw.simulation.learner import Learner
from edgemw.simulation.rounds import Run, run_rounds

QUICKSTART = ROOT / "examples" / "quickstart" / "digits.edge"
MERGING = "lattice:steps=dyadic"
BUDGETS = {"digits": (0, 4000, 2000, 1000), "fsdd": (0, 6000, 3000, 1500, 1000)}
TOTAL_STEPS, STEPS = 1500, (10, 30)
SPEAKERS, DEVICES_EACH = 6, 5


@dataclass(frozen=True, slots=True)
class Case:
    """What a row is of, and how it is run."""

    what: str
    setting: str
    experiment: Experiment
    budget: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """One case, over all seeds."""

    what: str
    setting: str
    rounds: int
    budget: int
    device_bits: float
    fog_bits: float
    device_run_bits: float
    fog_run_bits: float
    validation: float
    test: float
    test_deviation: float

    @property
    def ratio(self) -> float:
        """How much more a fog node sends than a device, in an update."""
        return self.fog_bits / self.device_bits


def main() -> None:
    """Run every case of the tables that are asked for, with every seed."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        names = arguments.tables.split(",")
        tables = {name: [_row(case, arguments.seeds) for case in _cases(name, arguments, Path(folder))] for name in names}
    if arguments.text:
        print("\n\n".join(f"{name}\n{_table(rows)}" for name, rows in tables.items()))
        return
    about = {"seeds": arguments.seeds, "machine": platform.platform()}
    documents = {name: [asdict(row) | {"ratio": row.ratio} for row in rows] for name, rows in tables.items()}
    print(json.dumps(about | documents, indent=2))


def _cases(table: str, arguments: argparse.Namespace, folder: Path) -> Iterator[Case]:
    if table == "steps":
        for steps in STEPS:
            for groups in ("one speaker", "five speakers"):
                rounds = arguments.rounds or TOTAL_STEPS // steps
                settings = (REFERENCE.text, "lattice")
                config = _spoken(arguments, folder, load=fsdd if groups == "one speaker" else _mixed)
                experiment = _experiment(config, settings, rounds, (f"plan.steps={steps}",))
                for setting in settings:
                    yield Case(f"{steps} steps, {groups}", setting, experiment)
        return
    if table == "digits":
        request = Request(settings=(parse_setting(MERGING),), task=QUICKSTART, data="digits", rounds=arguments.rounds or 60)
        experiment = prepare(replace(request, overrides=("data.partition=dirichlet", "data.alpha=0.3")), os.environ)
    else:
        experiment = _experiment(_spoken(arguments, folder, load=fsdd), (MERGING,), arguments.rounds)
    for budget in arguments.budgets or BUDGETS[table]:
        yield Case(f"budget {budget or 'none'}", MERGING, experiment, budget)


def _spoken(arguments: argparse.Namespace, folder: Path, *, load: Callable[[Arrays], Arrays]) -> Path:
    """Samples, task and deployment of spoken digits; the path of the deployment."""
    study, own = replace(STUDIES["fsdd"], load=load), folder / load.__name__
    own.mkdir(exist_ok=True)
    with np.load(arguments.data / study.file, allow_pickle=False) as arrays:
        config = lay_out(study, "fsdd", dict(arrays), own)
    config.with_name("task.edge").write_bytes(compile_task(study.task(), 0).to_bytes())
    return config


def _experiment(config: Path, settings: Sequence[str], rounds: int, overrides: tuple[str, ...] = ()) -> Experiment:
    chosen = tuple(parse_setting(text) for text in settings)
    return prepare(Request(settings=chosen, config=config, rounds=rounds, overrides=overrides), {})


def _mixed(arrays: Arrays) -> Arrays:
    """Devices of a speaker side by side to devices of five speakers side by side."""
    rows = fsdd(arrays)
    return rows | {"client": rows["client"] % DEVICES_EACH * SPEAKERS + rows["client"] // DEVICES_EACH}


def _row(case: Case, seeds: int) -> Row:
    runs = []
    for seed in range(seeds):
        runs.append(_run(case, seed))
        print(f"{case.what}, {case.setting}: seed {seed}, {_last(runs[-1], case):.4f}", file=sys.stderr, flush=True)
    experiment = case.experiment
    size, tree, tests = experiment.bundle.manifest.size, experiment.tree, [_last(run, case) for run in runs]

    def bits(nodes: Sequence[str], *, whole: bool) -> float:
        flows = [run.links[node].up for run in runs for node in nodes]
        return statistics.mean(flow.bits_per_parameter(size) * (flow.vectors if whole else 1) for flow in flows)

    return Row(
        case.what,
        case.setting,
        experiment.rounds,
        case.budget,
        bits(tree.devices, whole=False),
        bits(tree.fogs, whole=False),
        bits(tree.devices, whole=True),
        bits(tree.fogs, whole=True),
        statistics.mean(_last(run, case, VALIDATION) for run in runs),
        statistics.mean(tests),
        statistics.stdev(tests) if len(tests) > 1 else 0.0,
    )


def _run(case: Case, seed: int) -> Run:
    experiment = case.experiment
    options, (shares, refused, _) = experiment.options[case.setting], experiment.shares(seed)
    given = replace(options, window=replace(options.window, budget_bytes=case.budget))
    return run_rounds(experiment.tree, experiment.data, given, Learner(experiment.oracle, shares, refused), seed=seed)


def _last(run: Run, case: Case, prefix: str = "") -> float:
    last = run.rounds[-max(1, len(run.rounds) // 10) :]
    return statistics.mean(float(done.metrics[prefix + case.experiment.metric]) for done in last)


def _table(rows: Sequence[Row]) -> str:
    width = max(len(f"{row.what}, {row.setting}") for row in rows)
    head = f"{'device b/p':>11} {'fog b/p':>9} {'ratio':>6} {'run b/p':>9} {'of a fog':>9} {'validation':>11} {'test':>14}"
    lines = [f"{'':{width}} {head}"]
    for row in rows:
        test = f"{100 * row.test:.1f} +- {100 * row.test_deviation:.1f}"
        rates = f"{row.device_bits:>11.4f} {row.fog_bits:>9.4f} {row.ratio:>6.2f} {row.device_run_bits:>9.1f}"
        figures = f"{rates} {row.fog_run_bits:>9.1f} {100 * row.validation:>11.1f} {test:>14}"
        lines.append(f"{f'{row.what}, {row.setting}':{width}} {figures}")
    return "\n".join(lines)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What every level of a tree sends, on handwritten and spoken digits.")
    parser.add_argument("--tables", default="digits,fsdd,steps", help="which of them (default: digits,fsdd,steps)")
    parser.add_argument("--budgets", type=int, nargs="+", help="largest payloads of a fog node; 0: none")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of the data sets")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=0, help="of every run (default: as each table has them)")
    parser.add_argument("--text", action="store_true", help="tables instead of JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
