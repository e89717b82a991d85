"""Predictions beside raw ONNX Runtime: every door, a trainer, peers, new releases, memory. Prints JSON; --text a few lines.

    python benchmarks/serving.py [--requests N] [--turns N] [--swaps N] [--only PART ...] [--models MODEL ...] [--cores N]
                                 [--peer-python PATH] [--text]

doors      the MLP (561-128-6), the 1-D CNN of examples/har (128 x 9) and a GRU (168 hours of one value to the next 24, 14 424
           parameters), batch 1. `raw` is `InferenceSession.run` of onnxruntime on the same graph with the same weights; `program`
           is `edgemw.Predictor`, in process; `http` and `unix` are `edgemw serve`, another process, with binary tensors and one
           blocking client; `json` is the same over HTTP with JSON. Variants take turns, so that whatever else the machine does
           falls on all of them; microseconds are medians over turns of the p50 and p99 of a turn, `times` is the p50 over that of
           `raw` in the same turn. Closed loop; `paced` is 200 requests a second of each, by turns: both come after a pause.
mqtt       the MLP over a mosquitto of its own, binary tensors, QoS 0, one question at a time, response topics, correlation data:
           `serve` is `edgemw serve` and a client on a bare socket, `serve, paho` the same with paho-mqtt as the client, `paho` is
           paho-mqtt at both ends with onnxruntime behind it, each end a process; `nothing` is a bare socket at both ends and no
           model, which is what the broker and the kernel take. `times` is the p50 over that of `paho`.
trainer    the CNN at 200 requests a second, all on --cores cores: `quiet`, `niced` beside a device's trainer that trains the CNN
           (serving_trainer.py) with the niceness that a device gives it, `not niced` beside the same with none. `device` is the
           HTTP door in the trainer's own process, the others as above. Windows of the three alternate, door by door; `p99_times`
           is the median of their p99s over that of the quiet ones. `steps_per_s` shows that it trained. Linux weighs niceness
           among processes of one session or control group only; here all are in one.
peers      closed loop, beside what one would take instead: `torch` in eager mode (`inference_mode`, in a process of its own);
           with --peer-python also `fastapi` (pydantic, onnxruntime, uvicorn, another process, JSON, the same blocking client) and
           `litert` (the MLP, in a process of its own). One thread each. `of_fastapi` is the p50 over FastAPI's in the same turn.
swaps      releases of a model of 1 000 000 parameters, saved one after the other: `first_answer_ms` from the return of `save`
           to the end of the first answer that names it, median. Then --swaps releases of the MLP, saved by another process, under
           load from one client: requests whose answer is not, bit for bit, that of the release it names (`wrong`), that were
           refused or not answered (`dropped`), and p99 beside that without releases (`p99_times`), where the next release is
           saved as soon as the one before has answered, so that a core does nothing else, and after 0.2 s (`_spaced`).
process    memory of `edgemw serve` with the MLP after its first answers, and seconds from the start of its process to the first
           answer, beside those of a Python that only imports numpy. Median of several.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import psutil
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the parts of this benchmark are modules of this folder

import edgemw
from benchmarks.serving_clients import (
    NotAnswered,
    PahoClient,
    Server,
    SlimClient,
    binary_request,
    exchange,
    json_request,
    paho_properties,
    release_of,
    serving,
    topics,
)
from benchmarks.serving_models import MODELS, compiled, raw_session, sample, stored
from benchmarks.serving_peers import peers
from benchmarks.serving_trainer import beside_trainer
from benchmarks.serving_windows import PACE_S, Report, Window, alternating, say, summary, times, window
from edgemw.core.bundle import Bundle, Vector, read_bundle
from edgemw.serving.session import open_inference
from edgemw.serving.store import ReleaseStore
from edgemw.transport.broker import start_broker

STARTS = 5
REST_S = 0.2
GOALS = {
    **{f"doors/mlp/program{how}/times": 1.3 for how in ("", ", paced")},
    **{f"doors/{model}/program{how}/times": 1.1 for model in ("cnn", "gru") for how in ("", ", paced")},
    "mqtt/serve/times": 0.5,
    **{f"trainer/niced/{door}/p99_times": 1.25 for door in ("program", "http", "unix", "mqtt")},
    **{f"peers/{model}/http/of_fastapi": 0.33 for model in ("mlp", "cnn")},
    "swaps/first_answer_ms": 20.0,
    "swaps/wrong": 0.0,
    "swaps/dropped": 0.0,
    "swaps/p99_times": 1.5,
    "swaps/p99_times_spaced": 1.5,
    "process/resident_mib": 80.0,
    "process/first_answer_s": 0.5,
}
"""What a figure may be at most, by its place in the report."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--requests", type=int, default=400, help="of each variant in a turn (default 400)")
    parser.add_argument("--turns", type=int, default=9, help="default 9; beside the trainer about half as many")
    parser.add_argument("--swaps", type=int, default=100, help="releases under load (default 100)")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--cores", type=int, default=2, help="that predictions and trainer share (default 2)")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS, help="for doors and peers (default all)")
    parser.add_argument("--peer-python", metavar="PATH", help="a Python with fastapi, uvicorn, onnxruntime, ai-edge-litert")
    parser.add_argument("--text", action="store_true", help="a few lines instead of JSON")
    asked = parser.parse_args()
    if asked.peer_python is not None and shutil.which(asked.peer_python) is None:
        parser.error(f"--peer-python {asked.peer_python} cannot be run")
    found: Report = {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "versions": {"onnxruntime": onnxruntime.__version__, "python": platform.python_version()},
    }
    with tempfile.TemporaryDirectory() as folder:
        for part in PARTS:
            if part in asked.only:
                found[part] = PARTS[part](Path(folder), asked)
    if asked.text:
        print("\n".join(lines(found)))
    else:
        print(json.dumps(found | {"goals": GOALS}, indent=1))


def lines(found: Report, place: str = "") -> Iterator[str]:
    """A line for each row of the report, with goals behind its figures."""
    figures = {name: value for name, value in found.items() if not isinstance(value, dict)}
    if place and figures:
        yield f"{place:<28}" + "  ".join(f"{name} {value}{goal(f'{place}/{name}', value)}" for name, value in figures.items())
    for name, value in found.items():
        if isinstance(value, dict) and (place or name in PARTS):
            yield from lines(value, f"{place}/{name}" if place else name)


def goal(place: str, value: float) -> str:
    if place not in GOALS:
        return ""
    return f" (goal {GOALS[place]:g}{'' if value <= GOALS[place] else ', missed'})"


# ---- doors


def doors(folder: Path, asked: argparse.Namespace) -> Report:
    return {model: doors_of(stored(folder / model, compiled(model)), compiled(model), asked) for model in asked.models}


def doors_of(folder: Path, bundle: Bundle, asked: argparse.Namespace) -> Report:
    x, name = sample(bundle), bundle.manifest.name
    predictor, session = edgemw.Predictor(folder), raw_session(bundle)
    with serving(folder, socket_path=folder.with_suffix(".sock")) as server, server.tcp() as tcp, server.unix() as unix:
        binary, numbers = binary_request(name, x), json_request(name, x)
        expected = session.run(["y"], {"x": x})[0].tobytes()
        for connection in (tcp, unix):
            if not exchange(connection, binary).endswith(expected):
                raise SystemExit("the door answers something else than the model")
        variants: dict[str, Callable[[], object]] = {
            "raw": lambda: session.run(["y"], {"x": x}),
            "program": lambda: predictor.predict(x),
            "http": lambda: exchange(tcp, binary),
            "unix": lambda: exchange(unix, binary),
            "json": lambda: exchange(tcp, numbers),
        }
        turns, paced = [], []
        for turn in range(asked.turns):
            say(f"doors, {name}: turn {turn + 1} of {asked.turns}")
            turns.append({name: window(run, asked.requests) for name, run in variants.items()})
            paced.append(alternating({name: variants[name] for name in ("raw", "program")}, asked.requests // 2, PACE_S))
    return rows(turns, "raw") | {f"{name}, paced": row for name, row in rows(paced, "raw").items()}


def rows(turns: list[dict[str, Window]], base: str) -> Report:
    """Of each variant its times, and `times` over those of `base`."""
    windows = {name: [turn[name] for turn in turns] for name in turns[0]}
    return {name: summary(own) | {"times": times(own, windows[base])} for name, own in windows.items()}


# ---- over MQTT


PAHO_QUESTION, PAHO_ANSWER = "paho/question", "paho/answer"
ECHO_QUESTION, ECHO_ANSWER = "echo/question", "echo/answer"


def over_mqtt(folder: Path, asked: argparse.Namespace) -> Report:
    folder, bundle = stored(folder / "mlp", compiled("mlp")), compiled("mlp")
    x = sample(bundle)
    expected = raw_session(bundle).run(["y"], {"x": x})[0].tobytes()
    body = binary_request(bundle.manifest.name, x).partition(b"\r\n\r\n")[2]
    (question, answer), (_, other_answer) = topics("mlp", "1"), topics("mlp", "2")
    context = multiprocessing.get_context("spawn")
    with start_broker("mosquitto", folder.with_suffix(".broker")) as broker:
        port = int(broker.url.rsplit(":", 1)[1])
        peers = []
        for server, what in ((paho_server, bundle.to_bytes()), (echo_server, expected)):
            ready = context.Event()
            peers.append(context.Process(target=server, args=(what, port, ready), daemon=True))
            peers[-1].start()
            ready.wait(60)
        with serving(folder, broker=broker.url):
            slim, bare = SlimClient(port, answer), SlimClient(port, ECHO_ANSWER, "bare")
            clients = [PahoClient(port, place) for place in (other_answer, PAHO_ANSWER)]
            variants: dict[str, Callable[[], bytes]] = {
                "serve": lambda: slim.ask(question, body, answer),
                "serve, paho": lambda: clients[0].ask(question, body, other_answer),
                "paho": lambda: clients[1].ask(PAHO_QUESTION, x.tobytes(), PAHO_ANSWER),
                "nothing": lambda: bare.ask(ECHO_QUESTION, body, ECHO_ANSWER),
            }
            for name, ask in variants.items():
                if not ask().endswith(expected):
                    raise SystemExit(f"{name} answers something else than the model")
            turns = []
            for turn in range(asked.turns):
                say(f"mqtt: turn {turn + 1} of {asked.turns}")
                turns.append({name: window(ask, asked.requests) for name, ask in variants.items()})
        for peer in peers:
            peer.terminate()
    return rows(turns, "paho")


def echo_server(answer: bytes, port: int, ready: Any) -> None:
    """Answers at once, and always the same."""
    client = SlimClient(port, ECHO_QUESTION, "echo")
    ready.set()
    client.echo(ECHO_ANSWER, answer)


def paho_server(data: bytes, port: int, ready: Any) -> None:
    """What somebody writes who has paho-mqtt and onnxruntime: tensors are bytes, one callback, one loop."""
    session = raw_session(read_bundle(data))

    def on_message(client: Client, userdata: object, message: MQTTMessage) -> None:
        x = np.frombuffer(message.payload, "<f4").reshape(1, -1)
        properties, asked = paho_properties(), vars(message.properties)
        properties.CorrelationData = asked["CorrelationData"]
        client.publish(asked["ResponseTopic"], session.run(["y"], {"x": x})[0].tobytes(), properties=properties)

    client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
    client.on_message = on_message
    client.on_subscribe = lambda *said: ready.set()
    client.connect("127.0.0.1", port)
    client.subscribe(PAHO_QUESTION)
    client.loop_forever()


# ---- releases


def swaps(folder: Path, asked: argparse.Namespace) -> Report:
    return first_answers(folder / "wide", compiled("wide")) | under_load(folder / "load", compiled("mlp"), asked.swaps)


def first_answers(folder: Path, bundle: Bundle) -> Report:
    store, name = ReleaseStore(stored(folder, bundle, keep=2), 2), bundle.manifest.name
    request = binary_request(name, np.zeros((1, 561), np.float32))
    spent = []
    with serving(folder) as server, server.tcp() as connection:
        exchange(connection, request)
        for number in range(1, 16):
            store.save(name, bundle, 1, number, bundle.theta0 * np.float32(1 + number / 100))
            start = time.perf_counter()
            while release_of(exchange(connection, request)) != number:
                time.sleep(0.0005)
            spent.append(time.perf_counter() - start)
    return {"parameters": bundle.manifest.size, "first_answer_ms": round(1e3 * statistics.median(spent), 1)}


def theta_of(number: int, size: int) -> Vector:
    return np.random.default_rng(number).normal(0, 0.1, size).astype(np.float32)


def save_when_told(folder: Path, data: bytes, told: Connection) -> None:
    """What a device does, in a process of its own: save release after release."""
    store, bundle = ReleaseStore(folder, 3), read_bundle(data)
    while (number := told.recv()) >= 0:
        store.save(bundle.manifest.name, bundle, 1, number, theta_of(number, bundle.manifest.size))
        told.send(number)


def under_load(folder: Path, bundle: Bundle, swaps: int) -> Report:
    """Asked by one client without pause, while releases come: as fast as they go, and with a rest after each."""
    name, size = bundle.manifest.name, bundle.manifest.size
    x = np.random.default_rng(1).random((1, 561), np.float32)
    expected = [outputs(bundle, theta_of(number, size), x) for number in range(2 * swaps + 1)]
    request = binary_request(name, x)
    context = multiprocessing.get_context("spawn")
    telling, told = context.Pipe()
    saver = context.Process(target=save_when_told, args=(folder, bundle.to_bytes(), told), daemon=True)
    saver.start()
    telling.send(0)
    telling.recv()
    report: Report = {"swaps": swaps, "answers": 0, "releases_seen": 0, "wrong": 0, "dropped": 0}
    with serving(folder) as server:
        calm = window(partial(exchange, server.tcp(), request), 2000)[1]
        for number, (kind, rest_s) in enumerate((("", 0.0), ("_spaced", REST_S))):
            say(f"swaps: {swaps} releases under load{', spaced' * bool(rest_s)}")
            wanted = range(1 + number * swaps, 1 + (number + 1) * swaps)
            answers, dropped = asked_meanwhile(server, request, telling, wanted, rest_s)
            times = sorted(spent for spent, _ in answers)
            seen = [release_of(body) for _, body in answers]
            report["answers"] += len(answers)
            report["releases_seen"] += len(set(seen) & set(wanted))
            report["wrong"] += sum(not body.endswith(expected[of]) for of, (_, body) in zip(seen, answers, strict=True))
            report["dropped"] += dropped
            report[f"p99_us{kind}"] = round(1e6 * times[int(0.99 * len(times))], 1)
            report[f"p99_times{kind}"] = round(times[int(0.99 * len(times))] / calm, 2)
    telling.send(-1)
    saver.join()
    return report


def asked_meanwhile(
    server: Server, request: bytes, telling: Connection, wanted: range, rest_s: float
) -> tuple[list[tuple[float, bytes]], int]:
    """Seconds and body of every answer until the last of these releases has answered, and how many requests had none."""
    answers: list[tuple[float, bytes]] = []
    dropped, own, coming = 0, server.tcp(), list(wanted)
    awaited, due = -1, 0.0
    while coming or awaited >= 0:
        if awaited < 0 and time.perf_counter() >= due:
            awaited = coming.pop(0)
            telling.send(awaited)
        start = time.perf_counter()
        try:
            body = exchange(own, request)
        except (NotAnswered, OSError):
            dropped += 1
            own.close()
            own = server.tcp()
            continue
        answers.append((time.perf_counter() - start, body))
        if release_of(body) == awaited:
            telling.recv()
            awaited, due = -1, time.perf_counter() + rest_s
    own.close()
    return answers, dropped


def outputs(bundle: Bundle, theta: Vector, x: np.ndarray[Any, Any]) -> bytes:
    return open_inference(bundle.infer, theta, size=bundle.manifest.size).run(x).tobytes()


# ---- process


def process(folder: Path, asked: argparse.Namespace) -> Report:
    folder = stored(folder / "mlp", compiled("mlp"))
    say(f"process: {STARTS} starts")
    starts, bare, memory = [], [], []
    request = binary_request("mlp", np.zeros((1, 561), np.float32))
    for _ in range(STARTS):
        begun = time.perf_counter()
        with serving(folder) as server, server.tcp() as connection:
            exchange(connection, request)
            starts.append(time.perf_counter() - begun)
            for _ in range(100):
                exchange(connection, request)
            memory.append(psutil.Process(server.process.pid).memory_info().rss)
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import numpy"], check=True)
        bare.append(time.perf_counter() - begun)
    return {
        "resident_mib": round(statistics.median(memory) / 2**20, 1),
        "first_answer_s": round(statistics.median(starts), 2),
        "numpy_s": round(statistics.median(bare), 2),
        "times": round(statistics.median(starts) / statistics.median(bare), 1),
    }


PARTS: dict[str, Callable[[Path, argparse.Namespace], Report]] = {
    "doors": doors,
    "mqtt": over_mqtt,
    "trainer": beside_trainer,
    "peers": peers,
    "swaps": swaps,
    "process": process,
}

if __name__ == "__main__":
    main()
