"""What robust merging is worth when devices lie, and what it costs when none does. Prints JSON; a table with --text.

    python benchmarks/robustness.py [--seeds 3] [--attacks NAME,...] [--options NAME,...] [--steps N] [--text] [--picture FILE]

Handwritten digits, the task of the quickstart, dealt out to 30 devices by Dirichlet(0.3) over the classes, under 3 fog nodes; 200
rounds in one process, by the state machines of production. The top and the fog nodes have the same `window.robust`.

    attack      what liars do, each from the first round to the last:
                flip x10        send -10 times what they have trained
                scale x10       send 10 times what they have trained
                labels          train with label 9 - y instead of y
                weight          send -1 times what they have trained, for 2^30 examples
                place           put all they may say into one place: 100 times their largest value there, the same for all liars
                careful         know the rule: twice the median weight, 1.5 times the length, against the others
    liars       none, a tenth or a fifth of all devices, the same number under every fog node; "one fog": a fifth of
                all, and all of them under the first fog node. They answer before all others; "last": after them
    accuracy    on test samples of all devices, mean of the last tenth of the rounds, 0 where no device is heard; mean and
                deviation of the seeds
    lost        points less than with the same codec, without liars and without protection
    up          bytes of the payloads that a fog node sends up in a round
    merge       milliseconds for a window of a fog node
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from edgemw.bench.experiment import Experiment, Request, prepare
from edgemw.bench.settings import parse_setting
from edgemw.device.events import Work, Worked
from edgemw.fog.protection import Protected, Protection
from edgemw.learning.dataset import Samples
from edgemw.learning.trainer import Trained
from edgemw.robust.options import RobustOptions
from edgemw.simulation.learner import Learner, Share
from edgemw.simulation.rounds import Run, run_rounds

ROOT = Path(__file__).resolve().parents[1]
QUICKSTART = ROOT / "examples" / "quickstart" / "digits.edge"
DEVICES, FOGS, ROUNDS = 30, 3, 200
OPTIONS: Mapping[str, tuple[str, ...]] = {"lattice": ("", "norm", "krum"), "dense": ("", "norm", "krum", "median", "trimmed")}
CLASSES = 10

Lie = Callable[[Trained], Trained]


def scaled(factor: float) -> Lie:
    """Sends a multiple of what was trained."""
    return lambda trained: replace(trained, delta=trained.delta * np.float32(factor))


def heavy(trained: Trained) -> Trained:
    """Claims to have far more samples than anybody."""
    return replace(trained, delta=-trained.delta, weight=1 << 30)


def one_place(trained: Trained) -> Trained:
    """Says everything at one place."""
    delta = np.zeros_like(trained.delta)
    delta[-1] = 100 * np.abs(trained.delta).max()
    return replace(trained, delta=delta)


def careful(trained: Trained) -> Trained:
    """Just as much as is let through: `weight` times `delta` is 3 times as long as what an honest device says."""
    return replace(trained, delta=np.float32(-1.5) * trained.delta, weight=2 * trained.weight)


ATTACKS: Mapping[str, Lie] = {
    "flip x10": scaled(-10.0),
    "scale x10": scaled(10.0),
    "labels": lambda trained: trained,
    "weight": heavy,
    "place": one_place,
    "careful": careful,
}
NONE = "none"


@dataclass(frozen=True, slots=True)
class Case:
    """One row: who lies, how, and what stands against it."""

    codec: str
    robust: str
    attack: str = NONE
    liars: str = NONE


@dataclass(frozen=True, slots=True)
class Row:
    """A case over all seeds."""

    case: Case
    accuracy: float
    deviation: float
    up_bytes: float
    merge_ms: float
    seeds: Sequence[float] = field(default_factory=tuple)


def main() -> None:
    """Run every case with every seed."""
    arguments = _arguments()
    attacks = [name for name in arguments.attacks.split(",") if name]
    rows = [_row(case, arguments) for case in _cases(attacks, arguments.options, arguments.liars)]
    if arguments.picture:
        _draw(rows, arguments.picture)
    if arguments.text:
        print(_table(rows))
        return
    about = {"seeds": arguments.seeds, "rounds": arguments.rounds, "machine": platform.platform()}
    print(json.dumps(about | {"rows": [asdict(row) for row in rows]}, indent=2))


def _cases(attacks: Sequence[str], options: str, liars: str) -> list[Case]:
    wanted, parts = options.split(","), [part for part in liars.split(",") if part]
    pairs = [(codec, robust) for codec in OPTIONS for robust in OPTIONS[codec] if f"{codec}:{robust or 'sum'}" in wanted]
    calm = [Case(codec, robust) for codec, robust in pairs]
    return calm + [Case(codec, robust, attack, part) for attack in attacks for part in parts for codec, robust in pairs]


def liars_of(experiment: Experiment, liars: str) -> frozenset[str]:
    """Who lies."""
    tree = experiment.tree
    below = [tree.children[fog] for fog in tree.fogs]
    if liars == NONE:
        return frozenset()
    if liars == "one fog":
        return frozenset(below[0][: len(tree.devices) // 5])
    part, _, last = liars.partition(" ")
    each = {"1/10": 10, "1/5": 5}[part]
    return frozenset(node for devices in below for node in (devices[::-1] if last else devices)[: len(devices) // each])


class Devices:
    """The work of all devices, some of which lie about it: what a device says is changed where it leaves its training."""

    def __init__(self, learner: Learner, liars: frozenset[str], lie: Lie) -> None:
        self._learner, self._liars, self._lie = learner, liars, lie

    def __call__(self, node: str, work: Work) -> Worked:
        worked = self._learner(node, work)
        if node not in self._liars or worked.trained is None:
            return worked
        return replace(worked, trained=self._lie(worked.trained))


def run(experiment: Experiment, case: Case, seed: int, bound: float, share: float) -> Run:
    """One run of a case."""
    options = experiment.options[case.codec]
    robust = RobustOptions(case.robust, bound, share)
    options = replace(options, window=replace(options.window, robust=robust))
    shares, refused, _ = experiment.shares(seed)
    lying = liars_of(experiment, case.liars)
    if case.attack == "labels":
        shares = {node: _mislabelled(one) if node in lying else one for node, one in shares.items()}
    lie = ATTACKS.get(case.attack, lambda trained: trained)
    return run_rounds(
        experiment.tree, experiment.data, options, Devices(Learner(experiment.oracle, shares, refused), lying, lie), seed=seed
    )


def _mislabelled(share: Share) -> Share:
    train = share.train
    return replace(share, train=Samples(train.x, (CLASSES - 1 - train.y).astype(train.y.dtype)))


def _row(case: Case, arguments: argparse.Namespace) -> Row:
    experiment = prepared(arguments.rounds, case.codec, arguments.steps)
    accuracies, up = [], []
    clock = _Clock()
    with clock:
        for seed in range(arguments.seeds):
            done = run(experiment, case, seed, arguments.bound, arguments.share)
            last = done.rounds[-max(1, len(done.rounds) // 10) :]
            accuracies.append(100 * statistics.mean(float(one.metrics.get(experiment.metric, 0.0)) for one in last))
            flows = [done.links[fog].up for fog in experiment.tree.fogs]
            up.append(statistics.mean(flow.codec_bytes / max(1, flow.vectors) for flow in flows))
    row = Row(
        case,
        statistics.mean(accuracies),
        statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0,
        statistics.mean(up),
        clock.milliseconds,
        accuracies,
    )
    print(
        f"{case}: {row.accuracy:.1f} +- {row.deviation:.1f}, {row.up_bytes:.0f} B, {row.merge_ms:.2f} ms",
        file=sys.stderr,
        flush=True,
    )
    return row


class _Clock:
    """How long protecting a window takes, on average."""

    def __init__(self) -> None:
        self._spent = self._windows = 0.0

    def __enter__(self) -> None:
        self._own = Protection.protect
        clock = self

        def timed(protection: Protection, *given: Any) -> Protected:
            started = time.perf_counter()
            try:
                return clock._own(protection, *given)
            finally:
                clock._spent += time.perf_counter() - started
                clock._windows += 1

        Protection.protect = timed  # type: ignore[assignment,method-assign]

    def __exit__(self, *_: object) -> None:
        Protection.protect = self._own  # type: ignore[method-assign]

    @property
    def milliseconds(self) -> float:
        """Of one window."""
        return 1000 * self._spent / max(1.0, self._windows)


_PREPARED: dict[tuple[int, str, int], Experiment] = {}


def prepared(rounds: int, codec: str, steps: int) -> Experiment:
    """Task, tree and samples; 0 steps are an epoch."""
    if (rounds, codec, steps) not in _PREPARED:
        plan = (f"plan.steps={steps}",) if steps else ()
        request = Request(
            settings=(parse_setting(codec),), task=QUICKSTART, data="digits", devices=DEVICES, fogs=FOGS, rounds=rounds,
            overrides=("data.partition=dirichlet", "data.alpha=0.3", *plan),
        )  # fmt: skip
        _PREPARED[rounds, codec, steps] = prepare(request, os.environ)
    return _PREPARED[rounds, codec, steps]


def _table(rows: Sequence[Row]) -> str:
    calm = {row.case.codec: row.accuracy for row in rows if row.case.attack == NONE and not row.case.robust}
    lines = [f"{'attack':<12}{'liars':<10}{'codec':<9}{'robust':<9}{'accuracy':>15}{'lost':>7}{'up':>9}{'protect':>11}"]
    for row in rows:
        case = row.case
        lost = f"{calm[case.codec] - row.accuracy:.1f}" if case.codec in calm else "-"
        accuracy, up = f"{row.accuracy:.1f} +- {row.deviation:.1f}", f"{row.up_bytes:.0f} B"
        name = f"{case.attack:<12}{case.liars:<10}{case.codec:<9}{case.robust or 'sum':<9}"
        lines.append(f"{name}{accuracy:>15}{lost:>7}{up:>9}{f'{row.merge_ms:.2f} ms':>11}")
    return "\n".join(lines)


def _draw(rows: Sequence[Row], path: Path) -> None:
    """Accuracy of every option under every attack; one picture for each codec."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    codecs = list(dict.fromkeys(row.case.codec for row in rows))
    figure, axes = pyplot.subplots(len(codecs), 1, figsize=(11, 4.5 * len(codecs)), squeeze=False)
    for axis, codec in zip(axes[:, 0], codecs, strict=True):
        mine = [row for row in rows if row.case.codec == codec]
        attacks = list(dict.fromkeys((row.case.attack, row.case.liars) for row in mine))
        options = list(dict.fromkeys(row.case.robust for row in mine))
        width = 0.8 / len(options)
        for n, robust in enumerate(options):
            found = {(row.case.attack, row.case.liars): row for row in mine if row.case.robust == robust}
            some = [(at, found[name]) for at, name in enumerate(attacks) if name in found]
            axis.bar(
                [at + (n - (len(options) - 1) / 2) * width for at, _ in some], [row.accuracy for _, row in some], width,
                yerr=[row.deviation for _, row in some], capsize=2, label=robust or "sum",
            )  # fmt: skip
        names = [attack if liars == NONE else f"{attack}\n{liars}" for attack, liars in attacks]
        axis.set_xticks(range(len(names)), names, fontsize=8)
        axis.set_ylabel("accuracy on test samples, %")
        axis.set_title(f"codec {codec}")
        axis.set_ylim(0, 100)
        axis.grid(axis="y", alpha=0.3)
        axis.legend(fontsize=8, loc="lower right")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Robust merging against devices that lie, on handwritten digits.")
    parser.add_argument("--attacks", default=",".join(ATTACKS), help=f"of {', '.join(ATTACKS)}")
    every = ",".join(f"{codec}:{robust or 'sum'}" for codec, known in OPTIONS.items() for robust in known)
    parser.add_argument("--options", default=every, help=f"of {every}")
    parser.add_argument("--liars", default="1/10,1/5", help="of 1/10, 1/5, 1/10 last, 1/5 last, one fog")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--steps", type=int, default=0, help="batches of a device in a round; 0: an epoch, one or two batches")
    parser.add_argument("--bound", type=float, default=RobustOptions().bound, help="window.robust_bound")
    parser.add_argument("--share", type=float, default=RobustOptions().share, help="window.robust_share")
    parser.add_argument("--text", action="store_true", help="a table instead of JSON")
    parser.add_argument("--picture", type=Path, help="draw the accuracies to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
