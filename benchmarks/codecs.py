"""Codecs on real data: bits, error, times and accuracy of each, over whole training runs. Prints JSON; tables with --text.

    python benchmarks/codecs.py [--tasks har,fsdd,writers] [--data DIR] [--seeds 5] [--codecs A,B,...] [--out DIR] [--text]
    python benchmarks/codecs.py --tasks deep --codecs lattice,lattice:kappa=4,lattice:kappa=32 --seeds 3

    har       uci_har, 30 people = 30 devices under 5 fog nodes, 1-D CNN with 12 358 parameters (examples/har)
    fsdd      spoken digits, 6 speakers x 5 devices, a fog node for each speaker, MLP with 63 170 parameters
    writers   mnist_writers, 100 of 836 writers = 100 devices under 10 fog nodes, MLP with 79 510 parameters
    deep      uci_har, 10 people = 10 devices under 2 fog nodes, a residual 1-D CNN with GroupNorm and about a million parameters

Every run is a whole federated training with the state machines of production (`edgemw.simulation`), every frame packed and
counted. A fifth of every device's training samples is held out for validation; what is chosen is chosen by those. The test split
is only reported. The default is `lattice` with nothing set; the reference is float32 both ways. Bits are those of codec payloads
per parameter: up from a device, up from a fog node, down to a device; `device_bytes` is everything with frames and MQTT. Ctrl-C
ends a task with the seeds that every setting has run with.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from edgemw import __version__
from edgemw.bench.experiment import Request, prepare
from edgemw.bench.picture import draw
from edgemw.bench.report import Comparison
from edgemw.bench.runner import Progress, compare
from edgemw.bench.settings import parse_setting
from edgemw.compile.export import compile_task
from edgemw.compile.load import load_task
from edgemw.compile.task import Task

ROOT = Path(__file__).resolve().parents[1]
CODECS = (
    "lattice",
    "lattice:kappa=4",
    "lattice:kappa=32",
    "lattice:rounding=nearest:kappa=12",
    "dense:dtype=float16",
    "topk:k=0.01",
    "qsgd",
    "signsgd",
    "powersgd:rank=2",
)
REPORT_EVERY_S = 20.0
SAMPLES = "samples.npz"

Arrays = dict[str, npt.NDArray[Any]]


class Scaled(nn.Module):
    """Raw samples to numbers around zero: the scaling travels with the task."""

    def __init__(self, mean: float, scale: float) -> None:
        super().__init__()
        self.mean, self.scale = mean, scale

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) * self.scale


class Residual(nn.Module):
    """Two convolutions with GroupNorm beside a short cut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        parts = [nn.Conv1d(width, width, 3, padding=1), nn.GroupNorm(8, width), nn.ReLU()]
        self.body = nn.Sequential(*parts, nn.Conv1d(width, width, 3, padding=1), nn.GroupNorm(8, width))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.body(x))


class ChannelsFirst(nn.Module):
    """[B, time, channels] to [B, channels, time]."""

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)


def deep() -> nn.Module:
    """About a million parameters in 13 convolutions."""
    width = 160
    stem = [ChannelsFirst(), nn.Conv1d(9, width, 5, stride=2, padding=2), nn.GroupNorm(8, width), nn.ReLU(), nn.MaxPool1d(2)]
    tail = [nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(width, 6)]
    return nn.Sequential(
        *stem, *(Residual(width) for _ in range(3)), nn.MaxPool1d(2), *(Residual(width) for _ in range(3)), *tail
    )


@dataclass(frozen=True, slots=True)
class Study:
    """One data set with its task, tree and plan.

    Attributes:
        file: below the folder of the data.
        load: from the arrays of that file to x, y, client (0 to devices - 1) and split.
        task: what is learned.
        devices, fogs, rounds: of every run.
        sections: of the deployment file: how devices and server train.
    """

    file: str
    load: Callable[[Arrays], Arrays]
    task: Callable[[], Task]
    devices: int
    fogs: int
    rounds: int
    sections: str


def har(arrays: Arrays, people: int = 30) -> Arrays:
    return _rows(arrays, arrays["client"] < people)


def fsdd(arrays: Arrays) -> Arrays:
    """Speaker s has devices 5 s to 5 s + 4; each gets every fifth of the speaker's recordings of a digit.

    Every feature is in deviations from its mean over the training samples.
    """
    chosen = _rows(arrays, np.ones(len(arrays["y"]), bool))
    x, training = chosen["x"], chosen["split"] == 0
    x = (x - x[training].mean(0)) / (x[training].std(0) + 5)
    return chosen | {"x": x, "client": 5 * arrays["client"].astype(np.int64) + arrays["index"] % 5}


def writers(arrays: Arrays) -> Arrays:
    """A hundred writers, drawn once for all seeds."""
    drawn = np.sort(np.random.default_rng(0).choice(np.unique(arrays["client"]), 100, replace=False))
    chosen = _rows(arrays, np.isin(arrays["client"], drawn))
    return chosen | {"client": np.searchsorted(drawn, chosen["client"])}


def _rows(arrays: Arrays, mask: npt.NDArray[np.bool_]) -> Arrays:
    named = {name: arrays[name][mask] for name in ("x", "y", "client", "split")}
    return named | {"x": named["x"].astype(np.float32), "y": named["y"].astype(np.int64)}


def _mlp_task(name: str, shape: tuple[int, ...], hidden: int, scaled: nn.Module, **training: int | float | str) -> Task:
    size = int(np.prod(shape))

    def module() -> nn.Module:
        return nn.Sequential(scaled, nn.Flatten(), nn.Linear(size, hidden), nn.ReLU(), nn.Linear(hidden, 10))

    return Task(name, module, loss="cross_entropy", input=shape, training=training)


STUDIES = {
    "har": Study(
        "uci_har/uci_har.npz",
        har,
        lambda: load_task(f"{ROOT / 'examples' / 'har' / 'task.py'}:task"),
        30,
        5,
        100,
        '[plan]\nlr = 0.05\nmomentum = 0.9\nepochs = 1\n[server]\noptimizer = "momentum"\nlr = 0.6\nmomentum = 0.8\n',
    ),
    "fsdd": Study(
        "fsdd/fsdd.npz", fsdd, lambda: _mlp_task("fsdd", (49, 32), 40, nn.Identity(), lr=0.05, epochs=4), 30, 6, 150, ""
    ),
    "writers": Study(
        "mnist_writers/mnist_writers.npz",
        writers,
        lambda: _mlp_task("writers", (28, 28), 100, Scaled(35.0, 1 / 80), lr=0.05, epochs=3),
        100,
        10,
        40,
        "",
    ),
    "deep": Study(
        "uci_har/uci_har.npz",
        lambda arrays: har(arrays, 10),
        lambda: Task("deep", deep, loss="cross_entropy", input=(128, 9), training={"lr": 0.05, "batch_size": 32, "epochs": 1}),
        10,
        2,
        40,
        "",
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", default="har,fsdd,writers", help=f"of {', '.join(STUDIES)} (default: the first three)")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of the data sets")
    parser.add_argument("--seeds", type=int, default=5, help="runs of every setting (default 5)")
    parser.add_argument("--rounds", type=int, default=0, help="of every run (default: as each task has them)")
    parser.add_argument("--participation", type=float, default=1.0, help="chance that a device trains in a round (default 1)")
    parser.add_argument("--codecs", default=",".join(CODECS), help="settings beside float32, as for `edgemw bench codec`")
    parser.add_argument("--out", type=Path, help="a folder for codecs.json and picture of each task")
    parser.add_argument("--text", action="store_true", help="print tables")
    options = parser.parse_args()
    report: dict[str, object] = {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "versions": {"edgemw": __version__, "python": platform.python_version(), "numpy": np.__version__},
    }
    for name in options.tasks.split(","):
        comparison, checksum = study(name, options)
        report[name] = {"sha256": checksum, **comparison.document()}
        if options.text:
            runs = len(comparison.outcomes[0].trials)
            print(f"\n{name}: {comparison.parameters} parameters, {comparison.rounds} rounds, {runs} seeds")
            print(comparison.screen([]), flush=True)
        if options.out is not None:
            folder = options.out / name
            folder.mkdir(parents=True, exist_ok=True)
            comparison.write(folder)
            draw(comparison, folder)
    if not options.text:
        print(json.dumps(report, indent=1))


def study(name: str, options: argparse.Namespace) -> tuple[Comparison, str]:
    """All settings on one task; also the checksum of its data."""
    found = STUDIES[name]
    path: Path = options.data / found.file
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    with tempfile.TemporaryDirectory() as folder, np.load(path, allow_pickle=False) as arrays:
        config = lay_out(found, name, dict(arrays), Path(folder))
        config.with_name("task.edge").write_bytes(compile_task(found.task(), 0).to_bytes())
        settings = tuple(map(parse_setting, options.codecs.split(",")))
        request = Request(settings=settings, seeds=options.seeds, config=config, rounds=options.rounds)
        request = replace(request, participation=options.participation)
        experiment = prepare(request, {})
        notes: list[str] = []
        outcomes = compare(experiment, options.seeds, _Progress(name), notes.append)
    return Comparison.of(experiment, outcomes, notes[0].replace(str(config.with_name(SAMPLES)), path.name)), checksum


def lay_out(found: Study, name: str, arrays: Arrays, folder: Path) -> Path:
    """Write samples and deployment of a study; the path of the deployment, beside which task.edge is to be."""
    np.savez(folder / SAMPLES, **found.load(arrays))  # type: ignore[arg-type]  # numpy types its keyword arguments as one
    config = folder / "edgemw.toml"
    config.write_text(deployment(found, name))
    return config


def deployment(found: Study, name: str) -> str:
    data = '[data]\npath = "samples.npz"\npartition = "natural"\nsplit = "split"\n'
    task = f'[task]\nbundle = "task.edge"\nrounds = {found.rounds}\n'
    fog = f'[tiers.fog]\nrole = "fog"\nparent = "top"\ncount = {found.fogs}\n'
    device = f'[tiers.device]\nrole = "device"\nparent = "fog"\ncount = {found.devices}\n'
    return f'schema = 1\nname = "{name}"\n{data}{task}{found.sections}[tiers.top]\nrole = "fog"\n{fog}{device}'


class _Progress:
    """A line on standard error for every run that is over, and now and then in between."""

    def __init__(self, name: str) -> None:
        self._name, self._told_s = name, time.monotonic()

    def __call__(self, at: Progress) -> None:
        if at.done is None and time.monotonic() - self._told_s < REPORT_EVERY_S:
            return
        self._told_s = time.monotonic()
        ended = f" in {at.done.wall_s:.1f} s" if at.done is not None else ""
        text = f"{self._name}: run {at.run} of {at.runs}, {at.setting}, seed {at.seed}, round {at.release} of {at.rounds}"
        print(f"{text}: {at.value:.4f}{ended}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
