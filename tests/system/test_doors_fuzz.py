"""Requests that were damaged at random, to the doors of a real service: HTTP, Unix socket and MQTT.

Each of them is answered as the protocol has it or closed, none with an internal error; nobody else's answer changes, the process
lives, and does not grow. `make fuzz-doors CASES=1000000` goes on for longer; a failure names its seed and its case, and those
are the same request again: `--door-seed S --door-case N`.
"""

from __future__ import annotations

import http.client
import json
import random
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from edgemw.core.bundle import read_bundle
from edgemw.transport.broker import start_broker
from tests.system.test_serve import BODY, DIGITS, HEAD, Serving, infer, save, serving
from tests.system.test_serve_mqtt import OWN, QUESTION, Asking, asking, correlation_of

MOST_GROWTH_BYTES = 40 << 20
PATIENCE_S = 30.0
X = np.random.default_rng(1).random((2, 64)).astype("<f4")
TOKENS = [
    *(
        b"\r\n",
        b"\r\n\r\n",
        b"\0",
        b"\xff\xfe",
        b'"',
        b"\\u0000",
        b"\\ud800",
        b"{",
        b"}",
        b"[" * 2000,
        b"]",
        b",",
        b":",
        b" " * 5000,
    ),
    *(b"NaN", b"-Infinity", b"1e999", b"-1", b"0", b"null", b"true", b"1" * 400, b"2147483648", b"18446744073709551616"),
    *(b'"binary_data_size": 7', b'"shape": [1000000000, 64]', b'"datatype": "FP64"', b'"outputs": [{"name": "y"}]', b'"id": "7"'),
    *(
        b'"parameters": {"timeout": 1}',
        b'"parameters": {"classification": 99}',
        b"Content-Length: 5\r\n",
        b"Expect: 100-continue\r\n",
    ),
    *(
        b"Transfer-Encoding: chunked\r\n",
        b"Content-Encoding: gzip\r\n",
        b"HTTP/1.0",
        b"GET ",
        b"/versions/4",
        b"%2e%2e/",
        b"?a=b",
    ),
]


def request(method: str, path: str, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: a", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def question(**more: object) -> bytes:
    return json.dumps(
        {"inputs": [{"name": "x", "shape": [2, 64], "datatype": "FP32", "data": X.ravel().tolist()}], **more}
    ).encode()


QUESTIONS = [
    question(),
    question(id="7", parameters={"timeout": 10_000_000, "early": True}),
    question(outputs=[{"name": "y", "parameters": {"classification": 3}}]),
    HEAD + BODY,
]
REQUESTS = [
    *(request("POST", "/v2/models/digits/infer", body) for body in QUESTIONS[:3]),
    request("POST", "/v2/models/digits/infer", HEAD + BODY, f"Inference-Header-Content-Length: {len(HEAD)}"),
    request("GET", "/v2/models/digits"),
    request("GET", "/v2/models/digits/versions/4/config"),
    request("GET", "/metrics"),
    request("POST", "/v2/repository/index"),
    request("GET", "/v2/health/ready") * 3,
]


ODD: list[Any] = [None, True, 0, -1, 1e308, 10**400, "", "x", [], {}, [[]], [[0.5], 0.5], {"a": 1}, "\ud800", [0.5] * 128, 2**63]


def altered(rng: random.Random, question: bytes) -> bytes:
    """A question of JSON alone with another value somewhere in it."""
    document = json.loads(question)
    place: Any = document
    while True:
        key = rng.choice(list(place) if isinstance(place, dict) else range(len(place)))
        if isinstance(place[key], dict | list) and place[key] and rng.random() < 0.8:
            place = place[key]
            continue
        place[key] = rng.choice(ODD)
        return json.dumps(document).encode()


def asked(rng: random.Random) -> bytes:
    """A question, as it should be or not."""
    return altered(rng, rng.choice(QUESTIONS[:3])) if rng.random() < 0.3 else damaged(rng, rng.choice(QUESTIONS), QUESTIONS)


def damaged(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """The same with a few things wrong, sometimes none."""
    changed = bytearray(data)
    for _ in range(rng.choice([0, 1, 1, 1, 2, 3, 5])):
        at, end = sorted((rng.randrange(len(changed) + 1), rng.randrange(len(changed) + 1)))
        match rng.randrange(8):
            case 0 if changed:
                changed[rng.randrange(len(changed))] = rng.randrange(256)
            case 1:
                del changed[at : at + rng.randrange(20)]
            case 2:
                changed[at:at] = changed[at:end]
            case 3:
                changed[at:at] = rng.randbytes(rng.randrange(30))
            case 4 | 5:
                changed[at:at] = rng.choice(TOKENS)
            case 6:
                del changed[at:]
            case _:
                changed[at:] = rng.choice(others)[at:]
    return bytes(changed)


@dataclass
class Doors:
    """A running service, and what its answer to a good request is."""

    server: Serving
    port: int
    path: Path
    asking: Asking
    log: list[str] = field(default_factory=list)

    def check(self) -> None:
        """It lives, and said nothing of itself being wrong."""
        assert self.server.process.poll() is None
        wrong = [line for line in self.log if "Traceback" in line or "could not be dealt with" in line or "failed" in line]
        assert not wrong, wrong[:3]

    def good(self) -> tuple[int, bytes]:
        """What is answered to a request with nothing wrong."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            return infer(connection)
        finally:
            connection.close()

    def bytes_used(self) -> int:
        return int(psutil.Process(self.server.process.pid).memory_info().rss)

    def send(self, rng: random.Random, data: bytes) -> bytes:
        """To the HTTP door or the Unix socket, at once or in two pieces; all that is answered."""
        over_unix = rng.random() < 0.3
        family, address = (socket.AF_UNIX, str(self.path)) if over_unix else (socket.AF_INET, ("127.0.0.1", self.port))
        with socket.socket(family) as connection:
            connection.settimeout(PATIENCE_S)
            connection.connect(address)
            answer = b""
            try:
                half = rng.randrange(len(data) + 1) if rng.random() < 0.3 else len(data)
                connection.sendall(data[:half])
                connection.sendall(data[half:])
                connection.shutdown(socket.SHUT_WR)
                while more := connection.recv(65536):
                    answer += more
            except ConnectionError:
                pass  # it was refused while more came
            return answer

    def ask(self, rng: random.Random, number: int, data: bytes) -> bytes:
        """Over MQTT; the last answer."""
        topic = QUESTION if rng.random() < 0.9 else QUESTION.replace("digits", rng.choice(["nix", "x" * 20, "no-such"]))
        where: dict[str, Any] = {} if rng.random() < 0.3 else {"ResponseTopic": OWN + str(number)}
        mark = struct.pack(">I", number)
        self.asking.ask(data, topic=topic, CorrelationData=mark, **where)
        while True:
            message = self.asking.answers.get(timeout=PATIENCE_S)
            assert correlation_of(message) == mark
            document, _ = json.JSONDecoder().raw_decode(message.payload.decode("latin-1"))
            if document.get("parameters", {}).get("final") is not False:
                return bytes(message.payload)


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    folder = tmp_path_factory.mktemp("doors")
    with start_broker("mosquitto", folder / "broker") as broker:
        yield from opened(folder, broker.url)


def opened(folder: Path, url: str) -> Iterator[Doors]:
    save(folder / "store", read_bundle(DIGITS.read_bytes()), 4)
    path = folder / "door.sock"
    where = ("--broker", url, "--net", "line-3", "--node", "device-0")
    with (
        serving(str(folder / "store"), "--http", "127.0.0.1:0", "--socket", str(path), *where) as server,
        asking(url) as client,
    ):
        port = server.connect().port
        server.until("answering over MQTT")
        doors = Doors(server, port, path, client)
        assert server.process.stderr is not None
        reader = threading.Thread(target=doors.log.extend, args=(server.process.stderr,), daemon=True)
        reader.start()
        yield doors
        server.process.terminate()
        reader.join(20)


def run(doors: Doors, config: pytest.Config, part: float, case: Callable[[random.Random, int], None]) -> None:
    """Several cases, and whether others notice."""
    seed, only = config.getoption("--door-seed"), config.getoption("--door-case")
    cases = range(max(1, int(part * config.getoption("--door-cases")))) if only is None else range(only, only + 1)
    good, before = doors.good(), 0
    for number in cases:
        try:
            case(random.Random(f"{seed}/{number}"), number)
        except Exception as error:
            raise AssertionError(f"--door-seed {seed} --door-case {number}") from error
        if number == cases[len(cases) // 3]:  # what is kept for good is there by now
            before = doors.bytes_used()
    assert doors.good() == good
    assert doors.bytes_used() - before < MOST_GROWTH_BYTES
    doors.check()


def test_no_request_harms_the_http_door(doors: Doors, pytestconfig: pytest.Config) -> None:
    answered: list[bool] = []

    def case(rng: random.Random, number: int) -> None:
        whole = request("POST", "/v2/models/digits/infer", asked(rng)) if rng.random() < 0.3 else b""
        data = whole or damaged(rng, rng.choice(REQUESTS), REQUESTS)
        answer = doors.send(rng, data)
        assert not answer or answer.startswith(b"HTTP/1."), (data, answer)
        assert b"internal error" not in answer, (data, answer)
        answered.append(bool(answer))

    run(doors, pytestconfig, 0.75, case)
    assert len(answered) < 100 or sum(answered) > len(answered) / 2


def test_no_question_harms_the_mqtt_door(doors: Doors, pytestconfig: pytest.Config) -> None:
    def case(rng: random.Random, number: int) -> None:
        data = asked(rng)
        answer = doors.ask(rng, number, data)
        document, _ = json.JSONDecoder().raw_decode(answer.decode("latin-1"))
        assert ("error" in document) != ("outputs" in document or "inputs" in document), (data, answer)
        assert "internal error" not in str(document.get("error")), (data, answer)

    run(doors, pytestconfig, 0.25, case)
