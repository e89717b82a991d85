"""The HTTP server over real sockets: what it answers, and what it does not put up with."""

from __future__ import annotations

import gzip
import http.client
import json
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from edgemw.cli import predict as command
from edgemw.core.bundle import read_bundle
from edgemw.core.errors import ConfigError, DataError, LinkError
from edgemw.serving.api import Api
from edgemw.serving.beside import BesideDoor
from edgemw.serving.requests import Requests
from edgemw.serving.session import open_inference
from edgemw.serving.slot import Served, Slot
from edgemw.serving.turns import Turns
from edgemw.transport.http import HttpLimits, HttpServer, Response

DIGITS = Path(__file__).parents[2] / "examples" / "quickstart" / "digits.edge"
QUICK = HttpLimits(body_bytes=1000, connections=2, timeout_s=0.3)


def echo(method: str, path: str, body: bytes) -> Response:
    if path == "/fail":
        raise ZeroDivisionError("on purpose")
    return 200, "text/plain", f"{method} {path} ".encode() + body


@pytest.fixture
def server() -> Iterator[HttpServer]:
    with HttpServer("127.0.0.1:0", echo, limits=QUICK) as running:
        yield running


@contextmanager
def client(server: HttpServer) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        yield connection
    finally:
        connection.close()


def raw(server: HttpServer, *pieces: bytes) -> bytes:
    """All that comes back until the server closes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        for piece in pieces:
            connection.sendall(piece)
        answer = b""
        while data := connection.recv(65536):
            answer += data
    return answer


def test_long_answers_are_packed_for_who_takes_that() -> None:
    text = b"edgemw_device_up 1\n" * 1000

    def long(method: str, path: str, body: bytes) -> Response:
        return 200, "text/plain", text if path == "/long" else b"short"

    with HttpServer("127.0.0.1:0", long) as server, client(server) as connection:
        for path, accepted, packed in (
            ("/long", "gzip, deflate", True),
            ("/long", "deflate;q=0.5, GZIP;q=1.0", True),
            ("/long", "gzip;q=0", False),
            ("/long", "identity", False),
            ("/short", "gzip", False),
        ):
            connection.request("GET", path, headers={"Accept-Encoding": accepted})
            answer = connection.getresponse()
            body = answer.read()
            assert (answer.headers.get("Content-Encoding") == "gzip") == packed
            assert int(answer.headers["Content-Length"]) == len(body)
            assert (gzip.decompress(body) if packed else body) == (text if path == "/long" else b"short")


def test_it_answers_many_requests_over_one_connection(server: HttpServer) -> None:
    with client(server) as connection:
        for n in range(3):
            connection.request("POST", f"/a/{n}?q=1", b"body")
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (200, f"POST /a/{n}?q=1 body".encode())
            assert answer.headers["Content-Type"] == "text/plain"
        connection.request("HEAD", "/a")
        answer = connection.getresponse()
        assert (answer.headers["Content-Length"], answer.read()) == ("7", b"")
        connection.request("BREW", "/a")
        assert connection.getresponse().read() == b"BREW /a "


def test_the_port_and_address_can_be_read(server: HttpServer) -> None:
    assert server.port > 0
    assert server.url == f"http://127.0.0.1:{server.port}"


def test_an_error_in_the_handler_is_a_500_with_the_traceback_in_the_log(
    server: HttpServer, caplog: pytest.LogCaptureFixture
) -> None:
    with client(server) as connection:
        connection.request("GET", "/fail")
        answer = connection.getresponse()
        assert answer.status == 500
        assert b"ZeroDivisionError" not in answer.read()
        connection.request("GET", "/next")
        assert connection.getresponse().status == 200
    assert "ZeroDivisionError: on purpose" in caplog.text


def test_nothing_is_written_to_stderr(server: HttpServer, capfd: pytest.CaptureFixture[str]) -> None:
    with client(server) as connection:
        connection.request("GET", "/a")
        connection.getresponse().read()
    raw(server, b"nonsense\r\n\r\n")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"POST / HTTP/1.1\r\nContent-Length: 1001\r\n\r\n" + b"x" * 1001, 413),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
        (b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 5000\r\n\r\n", 413),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n", 431),
        (b"GET / HTTP/3.7\r\n\r\n", 505),
        (b"one two three four\r\n\r\n", 400),
    ],
)
def test_a_request_that_is_refused_ends_the_connection(server: HttpServer, request_bytes: bytes, status: int) -> None:
    answer = raw(server, request_bytes)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"Connection: close" in head
    assert "error" in json.loads(body)


def test_a_body_is_asked_for_when_the_client_waits_for_that(server: HttpServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(b"POST /a HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\nConnection: close\r\n\r\n")
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"body")
        answer = b""
        while data := connection.recv(1000):
            answer += data
    assert answer.endswith(b"POST /a body")


@pytest.mark.parametrize("start", [b"", b"GET / HT", b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc"])
def test_a_client_that_is_slow_is_cut(server: HttpServer, start: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(start)
        assert connection.recv(100) == b""


def _cut(connection: socket.socket) -> bool:
    """Send a byte, wait a moment; whether the server has had enough."""
    try:
        connection.sendall(b"G")
        return connection.recv(100) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def test_a_byte_now_and_then_buys_no_time(server: HttpServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=0.05) as connection:
        sent = 0
        while sent < 200 and not _cut(connection):  # a byte every 0.05 s: 10 s, unless it is cut
            sent += 1
        assert 2 <= sent < 60


def test_connections_beyond_the_limit_are_turned_away(server: HttpServer) -> None:
    with client(server) as first, client(server) as second:
        for connection in (first, second):
            connection.request("GET", "/a")
            connection.getresponse().read()
        assert raw(server).startswith(b"HTTP/1.1 503 ")
        first.close()
        for _ in range(100):  # the place is free once the server has seen the end of it
            with client(server) as third:
                third.request("GET", "/a")
                if third.getresponse().status == 200:
                    return
    pytest.fail("no place became free")


def test_requests_are_answered_side_by_side() -> None:
    together = threading.Barrier(2, timeout=10)

    def handler(method: str, path: str, body: bytes) -> Response:
        together.wait()
        return 200, "text/plain", b""

    with HttpServer("127.0.0.1:0", handler) as server, client(server) as first, client(server) as second:
        first.request("GET", "/")
        second.request("GET", "/")
        assert (first.getresponse().status, second.getresponse().status) == (200, 200)


def test_stopping_lets_an_answer_finish_and_closes_idle_connections() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def handler(method: str, path: str, body: bytes) -> Response:
        begun.set()
        assert go_on.wait(10)
        return 200, "text/plain", b"done"

    server = HttpServer("127.0.0.1:0", handler)
    server.start()
    with client(server) as busy, socket.create_connection(("127.0.0.1", server.port), timeout=10) as idle:
        busy.request("GET", "/")
        assert begun.wait(10)
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        assert idle.recv(1) == b""
        go_on.set()
        assert busy.getresponse().read() == b"done"
        stopping.join(10)
        assert not stopping.is_alive()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("http-")]
    server.stop()  # once more does nothing


def test_it_can_be_started_again_on_the_same_port() -> None:
    with HttpServer("127.0.0.1:0", echo) as server, client(server) as connection:
        connection.request("GET", "/a")
        connection.getresponse().read()
        port = server.port
    with HttpServer(f"127.0.0.1:{port}", echo) as again:
        assert again.port == port


def test_an_address_in_use_is_named_with_its_setting(server: HttpServer) -> None:
    with pytest.raises(ConfigError, match=f"telemetry.http: cannot listen on 127.0.0.1:{server.port}: Address already in use"):
        HttpServer(f"127.0.0.1:{server.port}", echo, setting="telemetry.http").start()


@pytest.mark.parametrize("address", ["", "host", "127.0.0.1:99999", "http://a:80", "a:b", "1:2:3:4"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match=r"serving\.http"):
        HttpServer(address, echo, setting="serving.http")


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"cannot listen on 192\.0\.2\.1:0"):
        HttpServer("192.0.2.1:0", echo).start()


def test_ipv6() -> None:
    with HttpServer("[::1]:0", echo) as server:
        assert server.url == f"http://[::1]:{server.port}"
        connection = http.client.HTTPConnection("::1", server.port, timeout=10)
        connection.request("GET", "/a")
        assert connection.getresponse().read() == b"GET /a "
        connection.close()


# -- through the door: server, protocol and command together


@pytest.fixture(scope="module")
def device() -> Iterator[str]:
    bundle = read_bundle(DIGITS.read_bytes())
    slots = {"digits": Slot(), "empty": Slot()}
    session = open_inference(bundle.infer, bundle.theta0, size=bundle.manifest.size)
    slots["digits"].install(Served(session.run, "digits", 3, bundle.manifest))
    with BesideDoor(Requests(Api(slots), Turns()).take, "127.0.0.1:0") as door:
        yield door.url


@pytest.mark.parametrize("shape", [(64,), (2, 64)])
def test_the_command_asks_a_device(device: str, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).random(shape)
    bundle = read_bundle(DIGITS.read_bytes())
    expected = open_inference(bundle.infer, bundle.theta0, size=bundle.manifest.size).run(x.reshape(-1, 64).astype(np.float32))
    prediction = command._ask(device, "digits", x)
    assert (prediction.release, prediction.classes) == (3, 10)
    np.testing.assert_array_equal(prediction.outputs, expected)


def test_the_command_says_why_a_device_does_not_answer(device: str, server: HttpServer) -> None:
    x = np.zeros(64)
    with pytest.raises(DataError, match="served here: digits, empty"):
        command._ask(device, "other", x)
    with pytest.raises(DataError, match="the model takes"):
        command._ask(device, "digits", np.zeros((1, 3)))
    with pytest.raises(LinkError, match="no release yet"):
        command._ask(device, "empty", x)
    with pytest.raises(LinkError, match="not JSON"):
        command._ask(server.url, "digits", x)
    server.stop()
    with pytest.raises(LinkError, match="is the device running"):
        command._ask(f"http://127.0.0.1:{server.port}", "digits", x)
    with pytest.raises(ConfigError, match="no http"):
        command._ask("file:///etc", "digits", x)


def test_log_of_a_broken_connection_is_for_debugging_only(server: HttpServer, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        raw(server, b"\x16\x03\x01\x02\x00\x01\x00\n\n")
    assert caplog.records == []
