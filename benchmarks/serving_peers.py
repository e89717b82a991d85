"""What a user would take instead, beside edgemw; as a program of its own, torch in eager mode.

python -m benchmarks.serving_peers MODEL FOLDER
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import torch

import edgemw
from benchmarks.serving_clients import Asking, binary_request, json_post, json_request, serving, tcp_connection
from benchmarks.serving_models import TASKS, compiled, raw_session, sample, stored
from benchmarks.serving_windows import Ended, Report, Window, Worker, obey_windows, say, summary, times, window
from edgemw.core.bundle import WEIGHTS_FILE, Bundle

LITERT_MODELS = ("mlp",)
Timed = Callable[[int], Window]


def peers(folder: Path, asked: argparse.Namespace) -> Report:
    return {model: beside_peers(model, folder, asked) for model in asked.models}


def beside_peers(model: str, folder: Path, asked: argparse.Namespace) -> Report:
    bundle = compiled(model)
    files = write_files(folder / f"{model}-files", bundle)
    with ExitStack() as stack:
        variants, left_out = ours(stack, stored(folder / model, bundle), bundle), {}
        workers = {"torch": [sys.executable, "-m", "benchmarks.serving_peers", model, str(files)]}
        if asked.peer_python is None:
            left_out["fastapi, litert"] = "no --peer-python"
        else:
            for peer in ("fastapi", "litert"):
                workers[peer] = [asked.peer_python, "-m", "benchmarks.serving_peer_workers", peer, str(files)]
            if model not in LITERT_MODELS:
                del workers["litert"]
                left_out["litert"] = "no one operator of LiteRT is group normalisation or a GRU: it needs the converter"
        versions = {}
        for peer, command in workers.items():
            try:
                worker = stack.enter_context(Worker(*command))
            except Ended as error:
                left_out[peer] = str(error)
                continue
            if "left_out" in worker.about:
                left_out[peer] = worker.about["left_out"]
                continue
            versions[peer] = worker.about["version"]
            variants[peer] = fastapi(stack, worker.about["port"], bundle) if peer == "fastapi" else worker.window
        turns = []
        for turn in range(asked.turns):
            say(f"peers, {model}: turn {turn + 1} of {asked.turns}")
            turns.append({name: run(asked.requests) for name, run in variants.items()})
    windows = {name: [turn[name] for turn in turns] for name in variants}
    rows: Report = {name: summary(own) | {"times": times(own, windows["raw"])} for name, own in windows.items()}
    if "fastapi" in windows:
        for name in ("http", "json"):
            rows[name]["of_fastapi"] = times(windows[name], windows["fastapi"])
    return rows | {"left out": left_out, "versions": versions}


def write_files(folder: Path, bundle: Bundle) -> Path:
    """The model as ONNX Runtime reads it from a folder, its tensors one by one, and a question with its answer."""
    folder.mkdir()
    (folder / "infer.onnx").write_bytes(bundle.infer)
    (folder / WEIGHTS_FILE).write_bytes(bundle.theta0.astype("<f4").tobytes())
    x = sample(bundle)
    np.savez(folder / "question.npz", x=x, y=raw_session(bundle).run(["y"], {"x": x})[0])
    ends = [(slot, slot.offset + slot.size) for slot in bundle.manifest.layout]
    tensors = {slot.name: bundle.theta0[slot.offset : end].reshape(slot.shape) for slot, end in ends}
    np.savez(folder / "tensors.npz", **tensors)  # type: ignore[arg-type]  # names are keywords of its own for mypy
    return folder


def ours(stack: ExitStack, store: Path, bundle: Bundle) -> dict[str, Timed]:
    x, name, session, predictor = sample(bundle), bundle.manifest.name, raw_session(bundle), edgemw.Predictor(store)
    server, requests = stack.enter_context(serving(store)), (binary_request(name, x), json_request(name, x))
    binary, numbers = (stack.enter_context(closing(Asking(server.tcp, request))) for request in requests)
    return {
        "raw": lambda count: window(lambda: session.run(["y"], {"x": x}), count),
        "program": lambda count: window(lambda: predictor.predict(x), count),
        "http": lambda count: window(binary, count),
        "json": lambda count: window(numbers, count),
    }


def fastapi(stack: ExitStack, port: int, bundle: Bundle) -> Timed:
    request = json_post("/predict", {"x": sample(bundle).tolist()})
    ask = stack.enter_context(closing(Asking(lambda: tcp_connection(port), request)))
    expected = raw_session(bundle).run(["y"], {"x": sample(bundle)})[0]
    np.testing.assert_allclose(json.loads(ask())["y"], expected, rtol=1e-3, atol=1e-5)
    return lambda count: window(ask, count)


# ---- torch's process


def main() -> None:
    model, folder = sys.argv[1], Path(sys.argv[2])
    torch.set_num_threads(1)
    module = TASKS[model]().program(0).module.eval()
    with np.load(folder / "question.npz") as question:
        x, expected = question["x"], question["y"]

    def predict() -> Any:
        with torch.inference_mode():
            return module(torch.from_numpy(x)).numpy()

    np.testing.assert_allclose(predict(), expected, rtol=1e-3, atol=1e-5)
    obey_windows({"version": torch.__version__}, predict)


if __name__ == "__main__":
    main()
