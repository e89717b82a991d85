"""`edgemw serve`, started, and who asks it: over HTTP, a Unix socket and MQTT, with about the least that a client can do."""

from __future__ import annotations

import json
import queue
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from benchmarks.serving_windows import ROOT
from edgemw.transport.properties import variable_integer

REST_S = 2.0


class NotAnswered(Exception):
    """A request was refused, or its connection closed."""


def tcp_connection(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


class Server:
    """`edgemw serve`, started."""

    def __init__(self, process: subprocess.Popen[str], port: int, socket_path: Path | None) -> None:
        self.process, self.port, self.path = process, port, socket_path

    def tcp(self) -> socket.socket:
        return tcp_connection(self.port)

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
    return json_post(f"/v2/models/{task}/infer", {"inputs": [tensor]})


def json_post(path: str, value: object) -> bytes:
    text = json.dumps(value).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
    return head.encode() + text


def exchange(connection: socket.socket, request: bytes) -> bytes:
    """Send a request, read its answer; returns the body."""
    connection.sendall(request)
    data = connection.recv(1 << 16)
    while (end := data.find(b"\r\n\r\n")) < 0:
        data += more(connection)
    if not data.startswith(b"HTTP/1.1 200 "):
        raise NotAnswered(f"{data[:300]!r}")
    begin = data[:end].lower().index(b"content-length: ") + 16
    length = int(data[begin : data.index(b"\r\n", begin)])
    while len(data) < end + 4 + length:
        data += more(connection)
    return data[end + 4 :]


def more(connection: socket.socket) -> bytes:
    data = connection.recv(1 << 16)
    if not data:
        raise NotAnswered("the door closed the connection")
    return data


class Asking:
    """Asks one thing again and again over a connection, opened anew where it has rested: servers close those that rest."""

    def __init__(self, connect: Callable[[], socket.socket], request: bytes) -> None:
        self._connect, self._request, self._used = connect, request, time.monotonic()
        self._connection = connect()

    def __call__(self) -> bytes:
        now = time.monotonic()
        if now - self._used > REST_S:
            self.close()
            self._connection = self._connect()
        self._used = now
        return exchange(self._connection, self._request)

    def close(self) -> None:
        self._connection.close()


def release_of(body: bytes) -> int:
    found = re.search(rb'"model_version":"(\d+)"', body)
    if found is None:
        raise NotAnswered(f"{body[:300]!r} names no release")
    return int(found[1])


# ---- over MQTT


def topics(task: str, place: str = "1") -> tuple[str, str]:
    """Of a question to the server that `serving` starts, and of its answer."""
    return f"em1/net/server/pq/asker/{task}", f"em1/net/server/pa/asker/{place}"


def paho_properties() -> Properties:
    return Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho leaves it untyped


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

    def __init__(self, port: int, answers: str, name: str = "slim") -> None:
        self._socket = tcp_connection(port)
        self._data = b""
        self._socket.sendall(packet(0x10, text("MQTT") + b"\x05\x02\x00\x00\x00" + text(name)))  # keep-alive 0: none
        self._packet(0x20)
        self._socket.sendall(packet(0x82, b"\x00\x01\x00" + text(answers) + b"\x00"))
        self._packet(0x90)

    def ask(self, topic: str, payload: bytes, answer: str) -> bytes:
        properties = b"\x08" + text(answer) + b"\x09\x00\x011"
        self._socket.sendall(packet(0x30, text(topic) + variable_integer(len(properties)) + properties + payload))
        return self._packet(0x30)

    def echo(self, topic: str, payload: bytes) -> None:
        """Say the same to whatever is heard, for ever."""
        while self._packet(0x30):
            self._socket.sendall(packet(0x30, text(topic) + b"\x00" + payload))

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
