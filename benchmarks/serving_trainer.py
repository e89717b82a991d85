"""Predictions beside a trainer on the same cores; as a program of its own, the trainer.

    python -m benchmarks.serving_trainer STORE TASK

The trainer is what a device's process is made of, without its messages: the oracle that a device opens (the exported training
step in ONNX Runtime, as many threads as `training.threads` gives), in one worker thread with the niceness of `training.nice`,
which measures the release on held-out samples and trains from it by the task's plan, round after round. A second worker thread
is not niced; one of the two trains at a time. The process has a device's own HTTP door too.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import edgemw
from benchmarks.serving_clients import Asking, SlimClient, binary_request, serving, tcp_connection, topics
from benchmarks.serving_windows import PACE_S, Report, Window, Worker, obey, say, summary, window
from edgemw.app.sections import Training
from edgemw.app.wiring import open_oracle
from edgemw.core.bundle import Bundle
from edgemw.core.plan import plan_of
from edgemw.learning.dataset import Samples
from edgemw.learning.trainer import evaluate, train
from edgemw.serving.api import Api
from edgemw.serving.beside import BesideDoor
from edgemw.serving.keeper import Keeper
from edgemw.serving.requests import Requests
from edgemw.serving.store import ReleaseStore
from edgemw.serving.turns import Turns
from edgemw.transport.broker import start_broker

SAMPLES, HELD_OUT = 2048, 512
QUIET, NICENESS = "quiet", {"niced": Training().nice, "not niced": 0}


def beside_trainer(folder: Path, asked: argparse.Namespace) -> Report:
    """Every door of the CNN at 200 requests a second, without a trainer, beside one, and beside one that is not niced."""
    from benchmarks.serving_models import compiled, raw_session, sample, stored  # with torch, which a trainer has not

    bundle = compiled("cnn")
    store, turns = stored(folder / "cnn", bundle), (asked.turns + 1) // 2
    x = sample(bundle)
    session = raw_session(bundle)
    with on_cores(asked.cores), ExitStack() as stack:
        command = sys.executable, "-m", "benchmarks.serving_trainer", str(store), bundle.manifest.name
        trainer = stack.enter_context(Worker(*command))
        variants: dict[str, Callable[[], Any]] = {"raw": lambda: session.run(["y"], {"x": x})[0]}
        variants |= doors(stack, store, bundle, x, trainer.about["port"])
        expected = variants["raw"]().tobytes()
        for name, run in variants.items():
            answer = run()
            if not (answer if isinstance(answer, bytes) else answer.tobytes()).endswith(expected):
                raise SystemExit(f"{name} answers something else than the model")
        windows: dict[str, dict[str, list[Window]]] = {state: {name: [] for name in variants} for state in (QUIET, *NICENESS)}
        rates: dict[str, list[float]] = {state: [] for state in NICENESS}
        for turn in range(turns):
            for name, run in variants.items():
                say(f"trainer, {name}: turn {turn + 1} of {turns}")
                for state, found in windows.items():
                    if state in NICENESS:
                        trainer.ask(state=state, go=True)
                    found[name].append(window(run, asked.requests, PACE_S))
                    if state in NICENESS:
                        rates[state].append(trainer.ask(state=state, go=False)["steps_per_s"])
    report: Report = {
        state: {name: compared(own, windows[QUIET][name]) for name, own in by.items()} for state, by in windows.items()
    }
    for state, by in rates.items():
        report[state]["trainer"] = {"steps_per_s": round(statistics.median(by), 1)}
    return report


def compared(windows: list[Window], quiet: list[Window]) -> Report:
    """Medians over the turns, and over those of the same door without a trainer."""
    row, base = summary(windows), summary(quiet)
    if windows is quiet:
        return row
    return row | {name.replace("_us", "_times"): round(row[name] / base[name], 2) for name in ("p50_us", "p99_us")}


def doors(stack: ExitStack, store: Path, bundle: Bundle, x: np.ndarray[Any, Any], own_port: int) -> dict[str, Callable[[], Any]]:
    """Every door of the store, opened, as functions that ask it once; `device` is the one of the trainer's own process."""
    task = bundle.manifest.name
    broker = stack.enter_context(start_broker("mosquitto", store.with_suffix(".trainer-broker")))
    path = store.with_suffix(".trainer.sock")
    server = stack.enter_context(serving(store, socket_path=path, broker=broker.url))
    predictor, request = edgemw.Predictor(store), binary_request(task, x)
    connects = server.tcp, server.unix, lambda: tcp_connection(own_port)
    tcp, unix, own = (stack.enter_context(closing(Asking(connect, request))) for connect in connects)
    question, answer = topics(task)
    slim, body = SlimClient(int(broker.url.rsplit(":", 1)[1]), answer), request.partition(b"\r\n\r\n")[2]
    return {
        "program": lambda: predictor.predict(x),
        "http": tcp,
        "unix": unix,
        "mqtt": lambda: slim.ask(question, body, answer),
        "device": own,
    }


@contextmanager
def on_cores(count: int) -> Iterator[None]:
    """This process, and those that it starts, on so many cores only, where the system can do that."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


# ---- the trainer's process


class Trainer:
    """Trains in a worker thread while it is told to."""

    def __init__(self, bundle: Bundle, nice: int) -> None:
        self._bundle = bundle
        # the session belongs to the thread as on a device: threads of its own have that thread's niceness
        self._worker = ThreadPoolExecutor(1, initializer=lower_priority, initargs=(nice,))
        self._oracle = self._worker.submit(open_oracle, bundle, Training().threads).result()
        rng, manifest = np.random.default_rng(0), bundle.manifest
        x = rng.normal(0, 0.3, (SAMPLES + HELD_OUT, *manifest.input.shape)).astype(np.float32)
        y = rng.integers(0, manifest.classes or 2, SAMPLES + HELD_OUT)
        self._train, self._test = Samples(x[:SAMPLES], y[:SAMPLES]), Samples(x[SAMPLES:], y[SAMPLES:])
        self._begun, self._enough = threading.Event(), threading.Event()
        self._run: Future[float] | None = None

    def tell(self, go: bool) -> Report:
        """Begin, and say so once it trains; or end, and say how many steps a second there were."""
        if go:
            self._begun.clear()
            self._enough.clear()
            self._run = self._worker.submit(self._rounds)
            self._begun.wait()
            return {}
        assert self._run is not None
        self._enough.set()
        return {"steps_per_s": self._run.result()}

    def stop(self) -> None:
        """Let the process end, also where whoever started it is gone."""
        self._enough.set()

    def _rounds(self) -> float:
        manifest, theta, plan = self._bundle.manifest, self._bundle.theta0, plan_of(self._bundle.manifest.training)
        steps, rounds, started = 0, 0, time.perf_counter()
        self._begun.set()
        while not self._enough.is_set():
            evaluate(self._oracle.predictor(theta), manifest, self._test)
            steps += train(self._oracle, theta, self._train, plan, rounds, self._enough.is_set).steps
            rounds += 1
        return steps / (time.perf_counter() - started)


def lower_priority(nice: int) -> None:
    """As a device does it: the thread's own niceness, where threads have one."""
    if nice and hasattr(os, "sched_setscheduler"):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice)


def main() -> None:
    store, task = ReleaseStore(Path(sys.argv[1]), 3), sys.argv[2]
    release = store.latest(task)
    assert release is not None
    trainers = {state: Trainer(release.bundle, nice) for state, nice in NICENESS.items()}
    keeper = Keeper(store)
    keeper.look()
    with BesideDoor(Requests(Api(keeper.slots), Turns()).take, "127.0.0.1:0") as door:
        try:
            obey({"port": int(door.url.rsplit(":", 1)[1])}, lambda state, go: trainers[state].tell(go))
        finally:
            for trainer in trainers.values():
                trainer.stop()


if __name__ == "__main__":
    main()
