"""Accuracy against epsilon: differential privacy of whole devices on updates, and of single samples on small sketches.

Prints JSON; tables with --text, and a picture with --picture FILE (of the tables that are run).

    python benchmarks/privacy.py [--only updates,sketch] [--seeds 3] [--text] [--picture privacy.png] [--data DIR]

    updates  handwritten digits, 50 826 parameters, dealt out evenly to 8, 32 or 128 devices below two fog nodes; 10 releases, 40
             steps of training for each; central and local, at delta 1e-5. On the production state machines, in one process.
             Noise is what epsilon allows for 10 releases. Clips of 0.1 and 0.3 are tried, and the one that is best on
             validation samples is reported: choosing it so is not in epsilon.
    sketch   single samples (`privacy.unit = "sample"`): 650 numbers, means of 64 features by class (`edgemw/compile/sketch.py`),
             learned by the same machines in one release. Handwritten digits, 8 and 32 devices, dealt out unevenly, and spoken
             digits, 30 devices of 80 recordings, whose features are the lowest of a cosine transform, scaled by the training
             samples, as if that were public. central: the top adds the noise; local: every device to its own.

    epsilon  at delta 1e-5; "none" is without privacy, as edgemw learns by default
    test     accuracy on test samples at the end, mean and deviation over the seeds
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from scipy.fft import dctn  # type: ignore[import-untyped]

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the tasks are those of another script of this folder

from benchmarks.codecs import ROOT, fsdd
from edgemw.bench.experiment import VALIDATION, Experiment, Request, prepare
from edgemw.bench.settings import parse_setting
from edgemw.compile.export import compile_task
from edgemw.compile.sketch import ClassMeans, own_class
from edgemw.compile.task import Task
from edgemw.core.accountant import noise_for
from edgemw.fog.privacy import CENTRAL, LOCAL, SAMPLE, Privacy, Promise
from edgemw.simulation.learner import Learner
from edgemw.simulation.rounds import run_rounds

QUICKSTART = ROOT / "examples" / "quickstart" / "digits.edge"
DELTA, RELEASES, STEPS = 1e-5, 10, 40
DEVICES, CLIPS = (8, 32, 128), (0.1, 0.3)
EPSILONS = {"central": (8.0, 4.0, 2.0, 1.0), LOCAL: (64.0, 8.0)}
SKETCH_EPSILONS: tuple[float, ...] = (8.0, 4.0, 2.0, 1.0, 0.5)
TIMES, BANDS, CLASSES, DIGITS_CLIP, SPOKEN_CLIP = 4, 16, 10, 3.5, 4.0
NEXT_TO_NONE = 1e-6


@dataclass(frozen=True, slots=True)
class Row:
    """One case, over all seeds; epsilon None is without privacy."""

    table: str
    how: str
    devices: int
    epsilon: float | None
    clip: float
    noise: float
    bits: float
    tests: tuple[float, ...]

    @property
    def test(self) -> float:
        """Mean."""
        return statistics.mean(self.tests)

    @property
    def deviation(self) -> float:
        """Over the seeds."""
        return statistics.stdev(self.tests) if len(self.tests) > 1 else 0.0


def main() -> None:
    """Run the tables that are asked for."""
    arguments = _arguments()
    rows: list[Row] = []
    for name in arguments.only.split(","):
        for row in {"updates": updates, "sketch": sketches}[name](arguments):
            rows.append(row)
            print(
                f"{row.table}: {row.how}, {row.devices} devices, epsilon {row.epsilon}: {row.test:.4f}",
                file=sys.stderr,
                flush=True,
            )
    if arguments.picture:
        draw(rows, arguments.picture)
    if arguments.text:
        print(table(rows))
        return
    about = {"seeds": arguments.seeds, "delta": DELTA, "machine": platform.platform()}
    print(json.dumps(about | {"rows": [asdict(row) | {"test": row.test, "deviation": row.deviation} for row in rows]}, indent=2))


# ----------------------------------------------------------------------------------------------------------- updates


def updates(arguments: argparse.Namespace) -> Iterator[Row]:
    """Whole devices: what their updates say."""
    for devices in arguments.devices:
        overrides = ("data.partition=iid", f"plan.steps={STEPS}")
        setting = parse_setting("lattice")
        request = Request(
            settings=(setting,), task=QUICKSTART, data="digits", rounds=RELEASES, devices=devices, fogs=2, overrides=overrides
        )
        experiment = prepare(request, os.environ)
        yield _best(experiment, devices, "none", None, arguments.seeds)
        for mode, epsilons in EPSILONS.items():
            for epsilon in epsilons:
                yield _best(experiment, devices, mode, epsilon, arguments.seeds)


def _best(experiment: Experiment, devices: int, mode: str, epsilon: float | None, seeds: int) -> Row:
    """The clip that is best on validation samples."""
    found: list[tuple[float, Row]] = []
    for clip in CLIPS if epsilon is not None else CLIPS[:1]:
        noise = 0.0 if epsilon is None else noise_for(epsilon, DELTA, RELEASES) * (2 if mode == LOCAL else 1)
        privacy = None if epsilon is None else Privacy(Promise(mode, clip, noise), DELTA)
        done = [_run(experiment, privacy, epsilon, seed) for seed in range(seeds)]
        validation = statistics.mean(each[0] for each in done)
        tests, bits = tuple(each[1] for each in done), statistics.mean(each[2] for each in done)
        found.append((validation, Row("updates", mode, devices, epsilon, clip, noise, bits, tests)))
    return max(found, key=lambda each: each[0])[1]


def _run(experiment: Experiment, privacy: Privacy | None, epsilon: float | None, seed: int) -> tuple[float, float, float]:
    """Accuracy on validation and on test samples, and bits for a parameter that a device sends in an update."""
    options = replace(experiment.options["lattice"], privacy=privacy)
    shares, refused, _ = experiment.shares(seed)
    run = run_rounds(experiment.tree, experiment.data, options, Learner(experiment.oracle, shares, refused), seed=seed)
    last = run.rounds[-1].metrics
    if epsilon is not None and abs(float(last["epsilon"]) - epsilon) > 1e-3:
        raise SystemExit(f"the top accounts for {last['epsilon']} where {epsilon} was asked for")
    size = experiment.bundle.manifest.size
    bits = statistics.mean(run.links[device].up.bits_per_parameter(size) for device in experiment.tree.devices)
    return float(last[VALIDATION + experiment.metric]), float(last[experiment.metric]), bits


# ------------------------------------------------------------------------------------------------------------ sketch


def sketches(arguments: argparse.Namespace) -> Iterator[Row]:
    """Single samples: means of classes, learned by nets in one round."""
    digits = Task(
        "means", lambda: ClassMeans(64, CLASSES, DIGITS_CLIP), own_class, (64,), ((), "int64"), ("accuracy",), {"lr": 1.0}
    )
    spoken = replace(digits, module=lambda: ClassMeans(TIMES * BANDS, CLASSES, SPOKEN_CLIP))
    with TemporaryDirectory() as folder:
        for name, task, clip, devices, partition in (
            ("sketch of digits", digits, DIGITS_CLIP, 8, "dirichlet"),
            ("sketch of digits", digits, DIGITS_CLIP, 32, "dirichlet"),
            ("sketch of speech", spoken, SPOKEN_CLIP, 30, "natural"),
        ):
            data = "digits" if task is digits else str(_spoken(arguments.data, Path(folder)))
            bundle = Path(folder) / "means.edge"
            bundle.write_bytes(compile_task(replace(task, classes=CLASSES)).to_bytes())
            request = Request(
                settings=(parse_setting("lattice"),), task=bundle, data=data, rounds=1, devices=devices, fogs=2,
                overrides=(f"data.partition={partition}", "data.alpha=0.3", "release.use=dense"),
            )  # fmt: skip
            experiment = prepare(request, os.environ)
            for mode in (CENTRAL, LOCAL):
                for epsilon in (None, *SKETCH_EPSILONS):
                    yield _sketched(name, experiment, mode, epsilon, math.sqrt(2) * clip, max(5, arguments.seeds))


def _sketched(name: str, experiment: Experiment, mode: str, epsilon: float | None, clip: float, seeds: int) -> Row:
    noise = NEXT_TO_NONE if epsilon is None else noise_for(epsilon, DELTA)
    privacy = Privacy(Promise(mode, clip, noise, SAMPLE), DELTA)
    done = [_run(experiment, privacy, epsilon, seed) for seed in range(seeds)]
    tests, bits = tuple(each[1] for each in done), statistics.mean(each[2] for each in done)
    return Row(name, mode, len(experiment.tree.devices), epsilon, clip, noise if epsilon else 0.0, bits, tests)


def _spoken(folder: Path, into: Path) -> Path:
    """Features of spoken digits as a file of samples, scaled by the training samples."""
    with np.load(folder / "fsdd" / "fsdd.npz", allow_pickle=False) as arrays:
        samples = fsdd(dict(arrays))
    features, training = _features(samples["x"]), samples["split"] == 0
    features = (features - features[training].mean(0)) / features[training].std(0)
    path = into / "spoken.npz"
    np.savez(path, **{**samples, "x": features.astype(np.float32)})
    return path


def _features(x: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The lowest 4 x 16, times by bands, of a cosine transform of a spectrogram."""
    lowest: np.ndarray[Any, np.dtype[np.float64]] = dctn(x.astype(np.float64), axes=(1, 2), norm="ortho")[:, :TIMES, :BANDS]
    return lowest.reshape(len(x), -1)


# ------------------------------------------------------------------------------------------------------------- output


def table(rows: Sequence[Row]) -> str:
    """All of it, a line for each case."""
    lines = [f"{'':16} {'':8} {'devices':>7} {'epsilon':>7} {'clip':>5} {'noise':>6} {'bits':>6} {'test':>13}"]
    for row in rows:
        epsilon = "none" if row.epsilon is None else f"{row.epsilon:g}"
        bits = f"{row.bits:.2f}" if row.bits else ""
        test = f"{100 * row.test:.1f} +- {100 * row.deviation:.1f}"
        case = f"{row.table:16} {row.how:8} {row.devices:>7} {epsilon:>7}"
        lines.append(f"{case} {row.clip:>5g} {row.noise:>6.2f} {bits:>6} {test:>13}")
    return "\n".join(lines)


def draw(rows: Sequence[Row], path: Path) -> None:
    """Accuracy against epsilon; what is without privacy is dotted."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(dict.fromkeys(row.table for row in rows))
    figure, axes = pyplot.subplots(1, len(names), figsize=(6 * len(names), 4.5), squeeze=False)
    for axis, name in zip(axes[0], names, strict=True):
        kinds = list(dict.fromkeys((row.devices, row.how) for row in rows if row.table == name and row.how != "none"))
        colors = {devices: f"C{n}" for n, devices in enumerate(dict.fromkeys(devices for devices, _ in kinds))}
        for devices, how in kinds:
            mine = [row for row in rows if (row.table, row.devices, row.how) == (name, devices, how) and row.epsilon]
            style = "-" if how in ("central", "trusted") else "--"
            axis.errorbar(
                [row.epsilon for row in mine],
                [100 * row.test for row in mine],
                [100 * row.deviation for row in mine],
                fmt=f"o{style}", color=colors[devices], capsize=3, label=f"{devices} devices, {how}",
            )  # fmt: skip
        for row in rows:
            if row.table == name and row.epsilon is None:
                axis.axhline(100 * row.test, color=colors[row.devices], linestyle=":", linewidth=1)
        axis.set_xscale("log", base=2)
        axis.set_xlabel("epsilon at delta 1e-5")
        axis.set_ylabel("accuracy on test samples, %")
        axis.set_title("updates: digits, whole devices" if name == "updates" else f"{name}, single samples")
        axis.set_ylim(0, 100)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Accuracy against epsilon.")
    parser.add_argument("--only", default="updates,sketch", help="which tables (default: updates,sketch)")
    parser.add_argument("--devices", type=int, nargs="+", default=DEVICES, help="fleets of the updates (default: 8 32 128)")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of the data sets")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--text", action="store_true", help="tables instead of JSON")
    parser.add_argument("--picture", type=Path, help="file of a picture")
    return parser.parse_args()


if __name__ == "__main__":
    main()
