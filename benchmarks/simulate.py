"""How many devices, and how much training, a simulation carries. Prints JSON; a few lines with --text.

    python benchmarks/simulate.py [--devices 100000] [--clients 100] [--workers 2] [--flower-python PATH] [--text]

scale      --devices in a tree of three levels (a fog node for 250 of them, one above 20 of those), one virtual hour with one
           round, links of 250 kbit/s with 40 ms and 1 % loss, devices that appear within five minutes and answer after a minute,
           without training. `wall_s` of all of it, `device_rounds_per_s`, `peak_mib` of the process; goal: 60 s and 1 GiB for
           100 000 devices on two cores.
training   --clients that train the quickstart's model (MLP with 50 826 parameters) on their part of digits, one epoch of SGD in
           each of five rounds, under 10 fog nodes; `clients_per_s` is trainings in a second, with updates encoded, merged and
           released, and releases measured. Also that the digests of model and events are the same with 0 and with --workers
           processes.
flower     the same clients in Flower's simulation engine, where --flower-python names a Python that has flwr[simulation]==1.41.0,
           torch==2.13.0 and psutil: `flower_simulation.py`, as many actors as there are cores, nobody measures, and the first
           round, in which actors import torch, is left out. `times` is edgemw's clients in a second, in one process, over
           Flower's; edgemw runs before and after it, and the slower of the two is taken. Goal: 30 times.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from edgemw.bench.scenario import Scenario, scenario_of, untrained
from edgemw.fog.release import TopOptions
from edgemw.fog.server import ServerOptions
from edgemw.fog.window import WindowOptions
from edgemw.simulation.fleet import Conditions, Fleet, Outcome
from edgemw.simulation.links import LinkSpec
from edgemw.simulation.toy import toy_bundle
from edgemw.simulation.tree import Tree

QUICKSTART = Path(__file__).parents[1] / "examples" / "quickstart" / "edgemw.toml"
LINK = LinkSpec(31_250.0, 0.04, 0.01)
ROUNDS = 5
FLOWER_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0"}
SCHEDULE = ("plan.optimizer=sgd", "plan.lr=0.1", "plan.batch_size=32", "plan.epochs=1")


def main() -> None:
    """Measure both."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--devices", type=int, default=100_000, help="of the part without training; 0 leaves it out")
    parser.add_argument("--clients", type=int, default=100, help="of the part with training; 0 leaves it out")
    parser.add_argument("--workers", type=int, default=2, help="processes that train beside this one")
    parser.add_argument("--flower-python", type=Path, help="a Python with flwr[simulation]==1.41.0 torch==2.13.0 psutil")
    parser.add_argument("--text", action="store_true", help="a few lines instead of JSON")
    asked = parser.parse_args()
    found: dict[str, Any] = {"machine": platform.machine(), "cores": os.cpu_count(), "load": os.getloadavg()}
    if asked.devices:
        found["scale"] = scale(asked.devices)
    if asked.clients:
        found["training"] = training(asked.clients, asked.workers)
    if asked.clients and asked.flower_python:
        found["flower"] = flower(asked.flower_python, asked.clients, found["training"]["clients_per_s"])
    if not asked.text:
        print(json.dumps(found, indent=1))
        return
    for name in ("scale", "training", "flower"):
        for key, value in found.get(name, {}).items():
            print(f"{name:<10}{key:<24}{value}")


def scale(devices: int) -> dict[str, Any]:
    """A fleet that only answers."""
    fogs = max(1, devices // 250)
    middle = max(1, fogs // 20)
    parents = {f"middle-{n}": "top" for n in range(middle)}
    parents |= {f"fog-{n}": f"middle-{n * middle // fogs}" for n in range(fogs)}
    parents |= {f"device-{n}": f"fog-{n * fogs // devices}" for n in range(devices)}
    children = Counter(parents.values())
    windows = {fog: WindowOptions(deadline_s=600.0, children=count, max_children=count) for fog, count in children.items()}
    top = TopOptions(windows.pop("top"), ServerOptions(), {}, rounds=1)
    conditions = Conditions(link=LINK, work_s=60.0, join_s=300.0)
    started = time.perf_counter()
    net = Fleet(Tree(parents), toy_bundle(1000).to_bytes(), {"top": top, **windows}, untrained, conditions)
    built_s = time.perf_counter() - started
    outcome = net.run_for(3600.0)
    wall_s = time.perf_counter() - started
    return {
        "devices": devices,
        "virtual_s": outcome.at_s,
        "finished": outcome.finished,
        "built_s": round(built_s, 2),
        "wall_s": round(wall_s, 2),
        "events": outcome.events,
        "device_rounds_per_s": round(2 * devices / wall_s, 1),  # release 0 and release 1 are both answered
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }


def training(clients: int, workers: int) -> dict[str, Any]:
    """Real training, in this process and in others."""
    alone, alone_s = _trained(clients, 0)
    shared, shared_s = _trained(clients, workers)
    return {
        "clients": clients,
        "rounds": ROUNDS,
        "clients_per_s": round(clients * ROUNDS / alone_s, 1),
        f"clients_per_s_with_{workers}": round(clients * ROUNDS / shared_s, 1),
        "same_digests": (alone.events_digest, alone.model_digest) == (shared.events_digest, shared.model_digest),
    }


def flower(python: Path, clients: int, before: float) -> dict[str, Any]:
    """The same work in Flower's simulation engine."""
    scenario = _scenario(clients)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "samples.npz"
        parts = [share.train for share in scenario.shares.values()]
        owner = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        np.savez(path, x=np.concatenate([part.x for part in parts]), y=np.concatenate([part.y for part in parts]), client=owner)
        command = [
            str(python),
            str(Path(__file__).with_name("flower_simulation.py")),
            str(path),
            str(clients),
            str(ROUNDS + 1),
            "1",
        ]
        said = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | FLOWER_ENVIRONMENT).stdout
    measured = json.loads(said.splitlines()[-1])
    theirs = clients / statistics.median(measured["rounds_s"][1:])
    after = clients * ROUNDS / _trained(clients, 0)[1]
    return {
        "clients_per_s": round(theirs, 1),
        "peak_mib": round(measured["peak_mib"], 1),
        "clients_per_s_of_edgemw": [round(rate, 1) for rate in (before, after)],
        "peak_mib_of_edgemw": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "times": round(min(before, after) / theirs, 1),
    }


def _scenario(clients: int) -> Scenario:
    said = [f"task.rounds={ROUNDS}", "tiers.fog.count=10", "data.partition=iid", "window.deadline=600s", *SCHEDULE]
    return scenario_of(QUICKSTART, None, clients, {}, said, train=True)


def _trained(clients: int, workers: int) -> tuple[Outcome, float]:
    scenario = _scenario(clients)
    with scenario.working(workers) as begin:
        started = time.perf_counter()
        net = Fleet(scenario.tree, scenario.data, scenario.options, begin, Conditions(link=LINK, work_s=10.0))
        outcome = net.run_for()
        return outcome, time.perf_counter() - started


if __name__ == "__main__":
    main()
