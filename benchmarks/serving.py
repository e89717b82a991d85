"""Predictions beside raw ONNX Runtime: every door, new releases under load, memory and start. Prints JSON; --text a few lines.

    python benchmarks/serving.py [--requests N] [--turns N] [--swaps N] [--text]

doors      the MLP (561-128-6) and the 1-D CNN of examples/har, batch 1. `raw` is `InferenceSession.run` of onnxruntime on the
           same graph with the same weights; `program` is `edgemw.Predictor`, in process; `http` and `unix` are `edgemw serve`,
           another process, with binary tensors and one blocking client; `json` is the same over HTTP with JSON. Variants take
           turns, so that whatever else the machine does falls on all of them; microseconds are medians over turns of the p50
           and p99 of a turn. Closed loop; `paced` is 200 requests a second.
mqtt       the MLP over a mosquitto of its own, binary tensors, QoS 0, one question at a time, response topics, correlation data:
           `serve` is `edgemw serve` and a client on a bare socket, `serve, paho` the same with paho-mqtt as the client, `paho` is
           paho-mqtt at both ends with onnxruntime behind it, each end a process. `times` is the p50 over that of `paho`.
swaps      releases of a model of 1 000 000 parameters, saved one after the other: `first_answer_ms` from the return of `save`
           to the end of the first answer that names it, median. Then --swaps releases of the MLP under load from one client:
           requests whose answer is not, bit for bit, that of the release it names (`wrong`), that were refused or not answered
           (`dropped`), and p99 beside that without swaps.
process    memory of `edgemw serve` with the MLP after its first answers, and seconds from the start of its process to the first
           answer, beside those of a Python that only imports numpy. Median of several.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import queue
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import psutil
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from torch import nn

import edgemw
from edgemw import Task
from edgemw.compile.export import compile_task
from edgemw.compile.load import load_task
from edgemw.core.bundle import WEIGHTS_FILE, Bundle, Vector, read_bundle
from edgemw.serving.session import open_inference
from edgemw.serving.store import ReleaseStore
from edgemw.transport.broker import start_broker
from edgemw.transport.properties import variable_integer

ROOT = Path(__file__).resolve().parents[1]
PACE_S = 1 / 200
STARTS = 5
Report = dict[str, Any]


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(561, 128), nn.ReLU(), nn.Linear(128, 6))


def wide() -> nn.Module:
    return nn.Sequential(nn.Linear(561, 1024), nn.ReLU(), nn.Linear(1024, 416), nn.ReLU(), nn.Linear(416, 6))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--requests", type=int, default=400, help="of each variant in a turn (default 400)")
    parser.add_argument("--turns", type=int, default=9, help="default 9")
    parser.add_argument("--swaps", type=int, default=100, help="releases under load (default 100)")
    parser.add_argument("--text", action="store_true", help="a few lines instead of JSON")
    asked = parser.parse_args()
    bundles = {
        "mlp": compile_task(Task("mlp", mlp, loss="cross_entropy", input=(561,))),
        "cnn": compile_task(load_task(f"{ROOT / 'examples/har/task.py'}:task")),
    }
    found: Report = {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "versions": {"onnxruntime": onnxruntime.__version__, "python": platform.python_version()},
    }
    with tempfile.TemporaryDirectory() as folder:
        found["doors"] = {name: doors(Path(folder) / name, bundle, asked) for name, bundle in bundles.items()}
        found["mqtt"] = over_mqtt(Path(folder) / "mlp", bundles["mlp"], asked)
        large = compile_task(Task("wide", wide, loss="cross_entropy", input=(561,)))
        found["swaps"] = first_answers(Path(folder) / "wide", large) | under_load(
            Path(folder) / "load", bundles["mlp"], asked.swaps
        )
        found["process"] = process(Path(folder) / "mlp")
    if not asked.text:
        print(json.dumps(found, indent=1))
        return
    for model, rows in found["doors"].items():
        for door, row in rows.items():
            print(f"{model:<6}{door:<16}" + "  ".join(f"{name} {value}" for name, value in row.items()))
    for door, row in found["mqtt"].items():
        print(f"mqtt  {door:<16}" + "  ".join(f"{name} {value}" for name, value in row.items()))
    for part in ("swaps", "process"):
        print(f"{part:<22}" + "  ".join(f"{name} {value}" for name, value in found[part].items()))


# ---- doors


def doors(folder: Path, bundle: Bundle, asked: argparse.Namespace) -> Report:
    store = ReleaseStore(folder, 3)
    store.save(bundle.manifest.name, bundle, 1, 0, bundle.theta0)
    x = np.random.default_rng(0).random((1, *bundle.manifest.input.shape), np.float32)
    predictor = edgemw.Predictor(folder)
    session = raw_session(bundle)
    name = bundle.manifest.name
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
        turns = [{name: window(run, asked.requests) for name, run in variants.items()} for _ in range(asked.turns)]
        paced = [
            {name: window(variants[name], asked.requests // 4, PACE_S) for name in ("raw", "program")} for _ in range(asked.turns)
        ]
    rows = {name: summary([turn[name] for turn in turns], [turn["raw"] for turn in turns]) for name in variants}
    for name in ("raw", "program"):
        rows[f"{name}, paced"] = summary([turn[name] for turn in paced], [turn["raw"] for turn in paced])
    return rows


def window(run: Callable[[], object], count: int, pace_s: float = 0.0) -> tuple[float, float]:
    """p50 and p99 of so many calls, in seconds."""
    spent, due = [], time.perf_counter()
    for _ in range(count):
        if pace_s:
            due += pace_s
            time.sleep(max(0.0, due - time.perf_counter()))
        start = time.perf_counter()
        run()
        spent.append(time.perf_counter() - start)
    spent.sort()
    return spent[count // 2], spent[min(count - 1, int(0.99 * count))]


def summary(windows: list[tuple[float, float]], raw: list[tuple[float, float]]) -> Report:
    """Medians over the turns; `times` is the p50 over that of raw in the same turn."""
    return {
        "p50_us": round(1e6 * statistics.median(p50 for p50, _ in windows), 1),
        "p99_us": round(1e6 * statistics.median(p99 for _, p99 in windows), 1),
        "times": round(statistics.median(p50 / own for (p50, _), (own, _) in zip(windows, raw, strict=True)), 2),
    }


def raw_session(bundle: Bundle) -> Any:
    """As somebody who writes against onnxruntime alone would have it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    theta = np.ascontiguousarray(bundle.theta0)
    options.add_external_initializers_from_files_in_memory([WEIGHTS_FILE], [theta], [theta.nbytes])
    return onnxruntime.InferenceSession(bundle.infer, options, providers=["CPUExecutionProvider"])


# ---- the other process


class NotAnswered(Exception):
    """A request was refused, or its connection closed."""


class Server:
    """`edgemw serve`, started."""

    def __init__(self, process: subprocess.Popen[str], port: int, socket_path: Path | None) -> None:
        self.process, self.port, self.path = process, port, socket_path

    def tcp(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def unix(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(self.path))
        return connection


@contextmanager
def serving(folder: Path, socket_path: Path | None = None, broker: str = "") -> Iterator[Server]:
    more = ["--socket", str(socket_path)] if socket_path is not None else []
    more += ["--broker", broker, "--net", "net", "--node", "server"] if broker else []
    command = [sys.executable, "-m", "edgemw", "serve", str(folder), "--http", "127.0.0.1:0", *more]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert process.stderr is not None
        port = next(int(found[1]) for line in process.stderr if (found := re.search(r"http=http://127\.0\.0\.1:(\d+)", line)))
        if socket_path is not None:
            next(line for line in process.stderr if "socket=" in line)
        if broker:
            next(line for line in process.stderr if "answering over MQTT" in line)
        threading.Thread(target=process.stderr.read, daemon=True).start()  # a full pipe would stop it
        yield Server(process, port, socket_path)
    finally:
        process.terminate()
        process.wait()


def binary_request(task: str, x: np.ndarray[Any, Any]) -> bytes:
    data = x.tobytes()
    tensor = {"name": "x", "shape": list(x.shape), "datatype": "FP32", "parameters": {"binary_data_size": len(data)}}
    text = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}, separators=(",", ":")).encode()
    head = f"POST /v2/models/{task}/infer HTTP/1.1\r\nHost: a\r\nInference-Header-Content-Length: {len(text)}\r\n"
    return f"{head}Content-Length: {len(text) + len(data)}\r\n\r\n".encode() + text + data


def json_request(task: str, x: np.ndarray[Any, Any]) -> bytes:
    tensor = {"name": "x", "shape": list(x.shape), "datatype": "FP32", "data": x.ravel().tolist()}
    text = json.dumps({"inputs": [tensor]}).encode()
    return f"POST /v2/models/{task}/infer HTTP/1.1\r\nHost: a\r\nContent-Length: {len(text)}\r\n\r\n".encode() + text


def exchange(connection: socket.socket, request: bytes) -> bytes:
    """Send a request, read its answer; returns the body."""
    connection.sendall(request)
    data = connection.recv(1 << 16)
    while (end := data.find(b"\r\n\r\n")) < 0:
        data += more(connection)
    if not data.startswith(b"HTTP/1.1 200 "):
        raise NotAnswered(f"{data[:300]!r}")
    begin = data.index(b"Content-Length: ") + 16
    length = int(data[begin : data.index(b"\r\n", begin)])
    while len(data) < end + 4 + length:
        data += more(connection)
    return data[end + 4 :]


def more(connection: socket.socket) -> bytes:
    data = connection.recv(1 << 16)
    if not data:
        raise NotAnswered("the door closed the connection")
    return data


def release_of(body: bytes) -> int:
    found = re.search(rb'"model_version":"(\d+)"', body)
    if found is None:
        raise NotAnswered(f"{body[:300]!r} names no release")
    return int(found[1])


# ---- over MQTT


QUESTION, ANSWER, OTHER_ANSWER = "em1/net/server/pq/asker/mlp", "em1/net/server/pa/asker/1", "em1/net/server/pa/asker/2"
PAHO_QUESTION, PAHO_ANSWER = "paho/question", "paho/answer"


def over_mqtt(folder: Path, bundle: Bundle, asked: argparse.Namespace) -> Report:
    x = np.random.default_rng(0).random((1, *bundle.manifest.input.shape), np.float32)
    expected = raw_session(bundle).run(["y"], {"x": x})[0].tobytes()
    question = binary_request(bundle.manifest.name, x).partition(b"\r\n\r\n")[2]
    context = multiprocessing.get_context("spawn")
    with start_broker("mosquitto", folder.with_suffix(".broker")) as broker:
        port = int(broker.url.rsplit(":", 1)[1])
        ready = context.Event()
        peer = context.Process(target=paho_server, args=(bundle.to_bytes(), port, ready), daemon=True)
        peer.start()
        ready.wait(60)
        with serving(folder, broker=broker.url):
            slim, clients = SlimClient(port), [PahoClient(port, place) for place in (OTHER_ANSWER, PAHO_ANSWER)]
            variants: dict[str, Callable[[], bytes]] = {
                "serve": lambda: slim.ask(QUESTION, question, ANSWER),
                "serve, paho": lambda: clients[0].ask(QUESTION, question, OTHER_ANSWER),
                "paho": lambda: clients[1].ask(PAHO_QUESTION, x.tobytes(), PAHO_ANSWER),
            }
            for name, ask in variants.items():
                if not ask().endswith(expected):
                    raise SystemExit(f"{name} answers something else than the model")
            turns = [{name: window(ask, asked.requests) for name, ask in variants.items()} for _ in range(asked.turns)]
        peer.terminate()
    return {name: summary([turn[name] for turn in turns], [turn["paho"] for turn in turns]) for name in variants}


def paho_properties() -> Properties:
    return Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho leaves it untyped


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


class PahoClient:
    """paho-mqtt with its own thread; one question at a time."""

    def __init__(self, port: int, answers: str) -> None:
        self._answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        subscribed = threading.Event()
        self._client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        self._client.on_message = lambda client, userdata, message: self._answers.put(bytes(message.payload))
        self._client.on_subscribe = lambda *said: subscribed.set()
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        self._client.subscribe(answers)
        subscribed.wait(10)

    def ask(self, topic: str, payload: bytes, answer: str) -> bytes:
        properties = paho_properties()
        properties.ResponseTopic, properties.CorrelationData = answer, b"1"
        self._client.publish(topic, payload, properties=properties)
        return self._answers.get(timeout=10)


class SlimClient:
    """MQTT 5 at QoS 0 on a bare socket: about the least that a client can do."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._data = b""
        self._socket.sendall(packet(0x10, text("MQTT") + b"\x05\x02\x00\x3c\x00" + text("slim")))
        self._packet(0x20)
        self._socket.sendall(packet(0x82, b"\x00\x01\x00" + text(ANSWER) + b"\x00"))
        self._packet(0x90)

    def ask(self, topic: str, payload: bytes, answer: str) -> bytes:
        properties = b"\x08" + text(answer) + b"\x09\x00\x011"
        self._socket.sendall(packet(0x30, text(topic) + variable_integer(len(properties)) + properties + payload))
        return self._packet(0x30)

    def _packet(self, kind: int) -> bytes:
        """The next packet without its header, which is of this kind."""
        while True:
            length, at, shift = 0, 1, 0
            while at < len(self._data):
                length |= (self._data[at] & 127) << shift
                at, shift = at + 1, shift + 7
                if self._data[at - 1] < 128:
                    if len(self._data) >= at + length:
                        body, first = self._data[at : at + length], self._data[0]
                        self._data = self._data[at + length :]
                        if first & 0xF0 != kind:
                            raise NotAnswered(f"a packet of kind {first:#x}")
                        return body
                    break
            self._data += more(self._socket)


def packet(kind: int, body: bytes) -> bytes:
    return bytes([kind]) + variable_integer(len(body)) + body


def text(value: str) -> bytes:
    return len(value).to_bytes(2, "big") + value.encode()


# ---- releases


def first_answers(folder: Path, bundle: Bundle) -> Report:
    store, name = ReleaseStore(folder, 2), bundle.manifest.name
    store.save(name, bundle, 1, 0, bundle.theta0)
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
    name, size = bundle.manifest.name, bundle.manifest.size
    x = np.random.default_rng(1).random((1, 561), np.float32)
    expected = [outputs(bundle, theta_of(number, size), x) for number in range(swaps + 1)]
    request = binary_request(name, x)
    context = multiprocessing.get_context("spawn")
    telling, told = context.Pipe()
    saver = context.Process(target=save_when_told, args=(folder, bundle.to_bytes(), told), daemon=True)
    saver.start()

    def save(number: int) -> None:
        telling.send(number)
        telling.recv()

    save(0)
    answers: list[tuple[float, bytes]] = []
    dropped: list[str] = []
    with serving(folder) as server, server.tcp() as connection:
        calm = window(lambda: exchange(connection, request), 2000)
        done = threading.Event()

        def ask() -> None:
            own = server.tcp()
            while not done.is_set():
                start = time.perf_counter()
                try:
                    body = exchange(own, request)
                    answers.append((time.perf_counter() - start, body))
                except (NotAnswered, OSError) as error:
                    dropped.append(str(error))
                    own.close()
                    own = server.tcp()
            own.close()

        asking = threading.Thread(target=ask)
        asking.start()
        for number in range(1, swaps + 1):
            save(number)
            while not answers or release_of(answers[-1][1]) != number:
                time.sleep(0.001)
        done.set()
        asking.join()
    telling.send(-1)
    saver.join()
    wrong = sum(not body.endswith(expected[release_of(body)]) for _, body in answers)
    times = sorted(spent for spent, _ in answers)
    return {
        "swaps": swaps,
        "answers": len(answers),
        "releases_seen": len({release_of(body) for _, body in answers}),
        "wrong": wrong,
        "dropped": len(dropped),
        "p99_us": round(1e6 * times[int(0.99 * len(times))], 1),
        "p99_times": round(times[int(0.99 * len(times))] / calm[1], 2),
    }


def outputs(bundle: Bundle, theta: Vector, x: np.ndarray[Any, Any]) -> bytes:
    return open_inference(bundle.infer, theta, size=bundle.manifest.size).run(x).tobytes()


# ---- process


def process(folder: Path) -> Report:
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


if __name__ == "__main__":
    main()
