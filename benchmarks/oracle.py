"""The exported training step against torch: time of a step, import time, resident memory. Prints JSON.

    python benchmarks/oracle.py [--steps N] [--threads N]

Each model runs on random batches of 32. The variants take turns step by step, so that whatever else the machine does
falls on all of them; figures are medians. `onnx` is loss and gradient; `onnx_sgd` adds theta -= lr * grad in numpy; `torch` is
forward and backward of the author's module; `torch_sgd` adds torch.optim.SGD. Import time and memory come from a fresh
process each, medians of several.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch.nn import functional

from edgemw.compile.export import compile_task
from edgemw.compile.load import load_task
from edgemw.compile.task import Task
from edgemw.core.bundle import Bundle
from edgemw.serving.session import TrainingSession

ROOT = Path(__file__).resolve().parents[1]
MODELS = {"digits-mlp": "examples/quickstart/task.py", "har-cnn": "examples/har/task.py"}
BATCH = 32
LR = 0.01
PROCESSES = 5

DEVICE_START = """
from edgemw.core.bundle import read_bundle
from edgemw.serving.session import TrainingSession, open_inference
bundle = read_bundle(open({path!r}, "rb").read())
train = TrainingSession(bundle.train)
serve = open_inference(bundle.infer, bundle.theta0, size=bundle.manifest.size)
"""
TORCH_START = """
import torch
from torch import nn
module = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10))
optimiser = torch.optim.SGD(module.parameters(), 0.1)
"""
MEASURED = """
import json, time
start = time.perf_counter()
{code}
spent = time.perf_counter() - start
import psutil
print(json.dumps([spent, psutil.Process().memory_info().rss / 2**20]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=500, help="steps per variant and model (default 500)")
    parser.add_argument("--threads", type=int, default=1, help="compute threads of either side (default 1)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    report: dict[str, Any] = {
        "machine": platform.machine(),
        "versions": {"onnxruntime": onnxruntime.__version__, "torch": torch.__version__, "numpy": np.__version__},
        "batch": BATCH,
        "steps": arguments.steps,
        "threads": arguments.threads,
        "step_us": {},
    }
    for name, path in MODELS.items():
        task = load_task(str(ROOT / path))
        bundle = compile_task(task)
        report["step_us"][name] = compare(task, bundle, arguments.steps, arguments.threads)
        if name == "digits-mlp":
            report["start"] = starts(bundle)
    print(json.dumps(report, indent=1))


def compare(task: Task, bundle: Bundle, steps: int, threads: int) -> dict[str, float]:
    """Median microseconds of each variant, and the ratios onnx / torch (below 1: onnx is faster)."""
    variants = step_variants(task, bundle, threads)
    spent: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(steps + 20):
        for name, run in variants.items():
            start = time.perf_counter()
            run()
            if turn >= 20:
                spent[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) * 1e6 for name, values in spent.items()}
    ratios = {"ratio": medians["onnx"] / medians["torch"], "ratio_sgd": medians["onnx_sgd"] / medians["torch_sgd"]}
    return {name: round(value, 3 if name.startswith("ratio") else 1) for name, value in (medians | ratios).items()}


def step_variants(task: Task, bundle: Bundle, threads: int) -> dict[str, Callable[[], object]]:
    """Each way of making one training step, on the same batch."""
    assert bundle.train is not None
    manifest, session, theta = bundle.manifest, TrainingSession(bundle.train, threads=threads), bundle.theta0.copy()
    rng = np.random.default_rng(0)
    x = rng.standard_normal((BATCH, *manifest.input.shape), np.float32)
    y = rng.integers(0, manifest.classes or 2, BATCH)
    module = task.program().module.train()
    optimiser = torch.optim.SGD(module.parameters(), LR)
    inputs, labels = torch.from_numpy(x), torch.from_numpy(y)

    def onnx() -> object:
        return session.step(theta, x, y, 0)

    def onnx_sgd() -> None:
        grad = session.step(theta, x, y, 0)[1]
        grad *= np.float32(LR)
        np.subtract(theta, grad, out=theta)

    def torch_step() -> float:
        module.zero_grad()
        loss = functional.cross_entropy(module(inputs), labels)
        torch.autograd.backward(loss)
        return loss.item()

    def torch_sgd() -> None:
        torch_step()
        optimiser.step()

    return {"onnx": onnx, "torch": torch_step, "onnx_sgd": onnx_sgd, "torch_sgd": torch_sgd}


def starts(bundle: Bundle) -> dict[str, dict[str, float]]:
    """Seconds to import and build, and resident MiB afterwards, each in fresh processes that take turns."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "task.edge"
        path.write_bytes(bundle.to_bytes())
        codes = {"numpy+onnxruntime+sessions": DEVICE_START.format(path=str(path)), "torch+module": TORCH_START}
        rows: dict[str, list[list[float]]] = {name: [] for name in codes}
        for _ in range(PROCESSES):
            for name, code in codes.items():
                command = [sys.executable, "-c", MEASURED.format(code=code)]
                rows[name].append(json.loads(subprocess.run(command, check=True, capture_output=True, cwd=ROOT).stdout))
    medians = {name: [statistics.median(column) for column in zip(*measured, strict=True)] for name, measured in rows.items()}
    return {name: {"seconds": round(seconds, 3), "resident_mib": round(mib, 1)} for name, (seconds, mib) in medians.items()}


if __name__ == "__main__":
    main()
