"""Whole training runs over a broker, beside the same runs in virtual time. Prints JSON; a table with --text.

    python benchmarks/over_broker.py [--tasks har,fsdd] [--codecs A,B,...] [--seeds 5] [--data DIR] [--text]

The tasks, trees and settings are those of `codecs.py`, whose tables are made of frames that are packed and read in one process.
Here the first run of each pair is `edgemw up`: every device, fog node and top a process of its own, an MQTT client of mosquitto.
The second is `edgemw simulate` of the same file with the same seed. Both train on all training samples, so that nothing is held
out, and measure on the test samples of each device.

    accuracy      mean over the last tenth of the releases, as in those tables; mean and standard deviation over the seeds
    up_kb         what a device has sent in the whole run: PUBLISH packets with frames, headers and topics, counted at its link
    down_kb       what it has received, the task in it
    counted       updates that releases of all runs have counted, of those that devices have sent
    wall_s        of a run over the broker, mean
    simulated_*   the same of the runs in virtual time; `up_ratio` and `down_ratio` are the broker's bytes over these

A seed says with which weights the task begins. Runs over a broker are never the same twice all the same: a run has random numbers
of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the tasks are those of another script of this folder

from benchmarks.codecs import ROOT, STUDIES, Study, lay_out
from edgemw.app.report import REPORT
from edgemw.bench.settings import Setting, parse_setting
from edgemw.compile.export import compile_task

CODECS = ("dense:release=dense", "lattice", "lattice:rounding=nearest:kappa=4", "topk:k=0.01")
PATIENT = ("window.deadline=600s", "telemetry.http=127.0.0.1:0")  # a small machine starts a hundred processes slowly
LIMIT_S = 3600.0
COLUMNS = (
    "task",
    "setting",
    "runs",
    "accuracy",
    "simulated_accuracy",
    "up_kb",
    "simulated_up_kb",
    "up_ratio",
    "down_kb",
    "simulated_down_kb",
    "down_ratio",
    "counted",
    "wall_s",
)


@dataclass(frozen=True, slots=True)
class Run:
    """What one run has left in its report."""

    accuracy: float
    up_kb: float
    down_kb: float
    sent: int
    counted: int
    wall_s: float


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", default="har,fsdd", help=f"of {', '.join(STUDIES)} (default: har,fsdd)")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of the data sets")
    parser.add_argument("--seeds", type=int, default=5, help="pairs of runs of every setting (default 5)")
    parser.add_argument("--rounds", type=int, default=0, help="of every run (default: as each task has them)")
    parser.add_argument("--codecs", default=",".join(CODECS), help="settings, as for `edgemw bench codec`")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="changes to every deployment")
    parser.add_argument("--text", action="store_true", help="print a table")
    options = parser.parse_args()
    settings = [parse_setting(text) for text in options.codecs.split(",")]
    rows = [row for name in options.tasks.split(",") for row in study(name, settings, options)]
    if options.text:
        print(table(rows))
        return
    print(json.dumps({"machine": platform.machine(), "cores": os.cpu_count(), "rows": rows}, indent=1))


def study(name: str, settings: list[Setting], options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A row for each setting on one task."""
    found = STUDIES[name]
    with tempfile.TemporaryDirectory() as folder, np.load(options.data / found.file, allow_pickle=False) as arrays:
        config = lay_out(found, name, dict(arrays), Path(folder))
        for seed in range(options.seeds):
            config.with_name(f"task-{seed}.edge").write_bytes(compile_task(found.task(), seed).to_bytes())
        overrides = (*PATIENT, *options.set, *((f"task.rounds={options.rounds}",) if options.rounds else ()))
        for setting in settings:
            pairs = []
            for seed in range(options.seeds):
                bundle = f"task.bundle={config.with_name(f'task-{seed}.edge')}"
                pairs.append(pair(config, found, (*overrides, *setting.overrides, bundle), seed))
                over, simulated = pairs[-1]
                told = (
                    f"{over.accuracy:.4f} in {over.wall_s:.0f} s, simulated {simulated.accuracy:.4f} in {simulated.wall_s:.0f} s"
                )
                print(f"{name}, {setting.text}, seed {seed}: {told}", file=sys.stderr, flush=True)
            yield row_of(name, setting, pairs)


def pair(config: Path, found: Study, overrides: tuple[str, ...], seed: int) -> tuple[Run, Run]:
    """The same deployment over a broker and in virtual time."""
    said = [part for override in overrides for part in ("--set", override)]
    return (
        ran(["up", str(config), *said], found.devices),
        ran(["simulate", str(config), *said, "--seed", str(seed)], found.devices),
    )


def ran(command: list[str], devices: int) -> Run:
    """Run one to its end, in a folder of its own."""
    with tempfile.TemporaryDirectory() as out:
        began = time.monotonic()
        call = [sys.executable, "-m", "edgemw.cli.main", *command, "--out", f"{out}/run"]
        done = subprocess.run(call, capture_output=True, text=True, timeout=LIMIT_S, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(call)}\nended with {done.returncode}:\n{done.stderr[-2000:]}")
        summary = json.loads(Path(out, "run", REPORT).read_text())
        measured = [release["accuracy"] for release in summary["rounds_history"] if "accuracy" in release]
        if not measured:
            raise SystemExit(f"{' '.join(call)}\nmeasured nothing:\n{done.stdout[-2000:]}")
        return Run(
            statistics.fmean(measured[-max(1, summary["rounds"] // 10) :]),
            summary["uplink_bytes"] / devices / 1e3,
            summary["downlink_bytes"] / devices / 1e3,
            summary["updates_sent"] or 0,
            summary["updates_counted"],
            time.monotonic() - began,
        )


def row_of(task: str, setting: Setting, pairs: list[tuple[Run, Run]]) -> dict[str, Any]:
    over, simulated = ([asdict(run) for run in side] for side in zip(*pairs, strict=True))
    up, down, up_simulated, down_simulated = (mean(side, key) for side in (over, simulated) for key in ("up_kb", "down_kb"))
    return {
        "task": task,
        "setting": setting.text,
        "runs": len(pairs),
        "accuracy": spread(over, "accuracy"),
        "simulated_accuracy": spread(simulated, "accuracy"),
        "up_kb": round(up, 1),
        "simulated_up_kb": round(up_simulated, 1),
        "up_ratio": round(up / up_simulated, 3),
        "down_kb": round(down, 1),
        "simulated_down_kb": round(down_simulated, 1),
        "down_ratio": round(down / down_simulated, 3),
        "counted": f"{sum(run['counted'] for run in over)} of {sum(run['sent'] for run in over)}",
        "wall_s": round(mean(over, "wall_s")),
        "over_broker": over,
        "simulated": simulated,
    }


def mean(side: list[dict[str, Any]], key: str) -> float:
    return statistics.fmean(run[key] for run in side)


def spread(side: list[dict[str, Any]], key: str) -> str:
    values = [run[key] for run in side]
    return f"{statistics.fmean(values):.4f} ± {statistics.stdev(values) if len(values) > 1 else 0:.4f}"


def table(rows: list[dict[str, Any]]) -> str:
    lines = [COLUMNS, *(tuple(str(row[column]) for column in COLUMNS) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(COLUMNS))]
    return "\n".join("  ".join(part.ljust(width) for part, width in zip(line, widths, strict=True)) for line in lines)


if __name__ == "__main__":
    main()
