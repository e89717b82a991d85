"""What a device takes of memory, beside what `edgemw check` says that it needs. Prints JSON; a few lines with --text.

    python benchmarks/room.py [--text]

Every row is a net of one fog node and one device, as real processes over mosquitto, that learns scikit-learn's digits for ROUNDS
rounds; `peak_mib` is the most that the device's process has had (VmHWM), `said_mib` what the formula of `app/room.py` gives.
The models are compiled first, which takes torch.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from edgemw.app.room import Load, memory_bytes
from edgemw.app.sections import Codec, Serving
from edgemw.core.bundle import read_bundle

ROUNDS = 4
TASKS = """\
from torch import nn
from edgemw import Task


def mlp(*widths):
    layers = [layer for a, b in zip(widths, widths[1:]) for layer in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


class Convolution(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(4096, 10),
        )

    def forward(self, x):
        return self.layers(x.view(-1, 1, 8, 8))


def task(name, module):
    return Task(name, module, loss="cross_entropy", input=(64,), training={"lr": 0.05, "batch_size": 32, "epochs": 1})


tiny = task("tiny", lambda: mlp(64, 16, 10))
large = task("large", lambda: mlp(64, 1000, 900, 10))
larger = task("larger", lambda: mlp(64, 2000, 1900, 10))
convolution = task("convolution", Convolution)
"""
DEPLOYMENT = """\
name = "room"
broker.url = "embedded"
task = {{ bundle = "{bundle}", rounds = {rounds} }}
data.source = "digits"
plan.batch_size = {batch}
codec.use = "{codec}"
tiers.top = {{ role = "fog" }}
tiers.device = {{ role = "device", parent = "top" }}
"""
ROWS = (
    *((task, "lattice", 32) for task in ("tiny", "large", "larger", "convolution")),
    *(("large", codec, 32) for codec in ("dense", "topk", "qsgd", "powersgd")),
    *((task, "lattice", 512) for task in ("large", "convolution")),
)


def main() -> None:
    """Measure every row."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--text", action="store_true", help="a line for each row instead of JSON")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "tasks.py").write_text(TASKS)
        for task in dict.fromkeys(task for task, _, _ in ROWS):
            _run("compile", f"{folder / 'tasks.py'}:{task}", "-o", folder / f"{task}.edge")
        found = [row(folder, *each) for each in ROWS]
    if not asked.text:
        print(json.dumps(found, indent=1))
        return
    for each in found:
        print("  ".join(f"{name} {value}" for name, value in each.items()))


def row(folder: Path, task: str, codec: str, batch: int) -> dict[str, Any]:
    """One net."""
    bundle = folder / f"{task}.edge"
    data = bundle.read_bytes()
    manifest = read_bundle(data).manifest
    said = memory_bytes(Load(manifest, batch, Codec(use=codec), len(data)), Serving())
    file = folder / f"{task}-{codec}-{batch}.toml"
    file.write_text(DEPLOYMENT.format(bundle=bundle, rounds=ROUNDS, batch=batch, codec=codec))
    peak = _peak_bytes(file, folder / f"{task}-{codec}-{batch}")
    about = {"task": task, "parameters": manifest.size, "codec": codec, "batch": batch}
    return about | {"peak_mib": round(peak / 2**20, 1), "said_mib": round(said / 2**20, 1), "ratio": round(peak / said, 2)}


def _peak_bytes(file: Path, out: Path) -> int:
    """The most memory of the device's process, looked at until its net has ended."""
    command = [sys.executable, "-m", "edgemw", "up", str(file), "--out", str(out)]
    name, process, peak = str(out).encode(), subprocess.Popen(command, stdout=subprocess.DEVNULL), 0
    while process.poll() is None:
        peak = max([peak, *(_high_water(path, name) for path in Path("/proc").glob("[0-9]*"))])
        time.sleep(0.02)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return peak


def _high_water(process: Path, run: bytes) -> int:
    """Of the process of `edgemw device` in the folder of a run, 0 of others, and of one that has gone meanwhile."""
    try:
        command = (process / "cmdline").read_bytes()
        found = (
            re.search(r"VmHWM:\s+(\d+) kB", (process / "status").read_text())
            if b"\0device\0" in command and run in command
            else None
        )
    except OSError:
        return 0
    return int(found[1]) << 10 if found else 0


def _run(*words: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "edgemw", *map(str, words)], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
