"""The door to predictions over real sockets: what it answers, and what it does not put up with."""

from __future__ import annotations

import asyncio
import http.client
import logging
import os
import queue
import re
import socket
import stat
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemw.core.errors import ConfigError, LinkError
from edgemw.serving.api import Answer, problem
from edgemw.serving.beside import BesideDoor
from edgemw.serving.door import MAX_HEAD_BYTES, MAX_HEADERS, TURN, DoorLimits
from edgemw.serving.placement import Reply
from edgemw.serving.turns import GiveUp

QUICK = DoorLimits(body_bytes=1000, connections=3, timeout_s=0.4, idle_s=0.8)
LARGE = b"x" * 3_000_000


def echo(method: str, path: str, body: bytes, json_bytes: int | None, reply: Reply) -> None:
    said = f"{method} {path} {json_bytes} ".encode() + body
    match path:
        case "/fail":
            raise ZeroDivisionError("on purpose")
        case "/large":
            reply(Answer(200, "text/plain", LARGE))
        case "/later":
            asyncio.get_running_loop().call_later(0.05, reply, Answer(200, "text/plain", said))
        case "/never-in-time":
            asyncio.get_running_loop().call_later(1.2, reply, Answer(200, "text/plain", said))
        case "/twice":
            reply(Answer(200, "application/json", b'{"early": 1}', final=False))
            asyncio.get_running_loop().call_later(0.05, reply, Answer(200, "application/json", said))
        case _:
            reply(Answer(200, "text/plain", said, json_bytes))


@pytest.fixture
def door() -> Iterator[BesideDoor]:
    with BesideDoor(echo, "127.0.0.1:0", limits=QUICK) as running:
        yield running


@pytest.fixture(scope="module")
def patient() -> Iterator[BesideDoor]:
    with BesideDoor(echo, "127.0.0.1:0", limits=DoorLimits(body_bytes=1000)) as running:
        yield running


def port(door: BesideDoor) -> int:
    return int(door.url.rsplit(":", 1)[1])


def connect(door: BesideDoor) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port(door)), timeout=10)


def everything(connection: socket.socket) -> bytes:
    """All that comes until the door closes."""
    answer = b""
    while data := connection.recv(1 << 16):
        answer += data
    return answer


def raw(door: BesideDoor, *pieces: bytes) -> bytes:
    with connect(door) as connection:
        for piece in pieces:
            connection.sendall(piece)
        return everything(connection)


@contextmanager
def client(door: BesideDoor) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("127.0.0.1", port(door), timeout=10)
    try:
        yield connection
    finally:
        connection.close()


def ask(
    connection: http.client.HTTPConnection, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> tuple[int, bytes]:
    connection.request(method, path, body or None, headers or {})
    response = connection.getresponse()
    return response.status, response.read()


def is_alive(door: BesideDoor) -> bool:
    with client(door) as connection:
        return ask(connection, "GET", "/") == (200, b"GET / None ")


def raw_status(door: BesideDoor) -> int:
    return int(raw(door, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").split(b" ")[1])


# ------------------------------------------------------------------------------------------------------------- what it answers


def test_it_answers_many_requests_over_one_connection(patient: BesideDoor) -> None:
    with client(patient) as connection:
        for n in range(50):
            body = b"b" * (n * 20)
            assert ask(connection, "POST", f"/p/{n}?q=1", body) == (200, f"POST /p/{n} None ".encode() + body)
        assert ask(connection, "HEAD", "/p") == (200, b"")
        assert ask(connection, "GET", "/p") == (200, b"GET /p None ")


def test_requests_that_come_at_once_are_answered_in_order(patient: BesideDoor) -> None:
    count = 5 * TURN + 3
    sent = b"".join(b"POST /%d HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc" % n for n in range(count))
    answer = raw(patient, sent + b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    places = [answer.index(b"POST /%d None abc" % n) for n in range(count)]
    assert places == sorted(places)
    assert answer.count(b"HTTP/1.1 200 OK") == count + 1
    assert answer.endswith(b"GET /last None ")


@pytest.mark.parametrize("size", [1, 7, 30])
def test_a_request_may_come_in_pieces(patient: BesideDoor, size: int) -> None:
    request = b"\r\nPOST /p HTTP/1.1\r\nhost: a\r\ncontent-length:  5 \r\nConnection: close\r\n\r\nhello"
    answer = raw(patient, *(request[start : start + size] for start in range(0, len(request), size)))
    assert answer.endswith(b"\r\n\r\nPOST /p None hello")


def test_how_much_is_json_goes_both_ways(patient: BesideDoor) -> None:
    with client(patient) as connection:
        connection.request("POST", "/p", b"{}abc", {"Inference-Header-Content-Length": "2"})
        response = connection.getresponse()
        assert (response.getheader("Inference-Header-Content-Length"), response.read()) == ("2", b"POST /p 2 {}abc")


@pytest.mark.parametrize(("how", "bits"), [("gzip", zlib.MAX_WBITS | 16), ("deflate", zlib.MAX_WBITS), ("identity", 0)])
def test_a_body_may_be_packed(patient: BesideDoor, how: str, bits: int) -> None:
    packer = zlib.compressobj(wbits=bits) if bits else None
    body = b"a" * 900
    packed = packer.compress(body) + packer.flush() if packer else body
    with client(patient) as connection:
        assert ask(connection, "POST", "/p", packed, {"Content-Encoding": how}) == (200, b"POST /p None " + body)


def test_a_body_is_asked_for_when_the_client_waits_for_that(patient: BesideDoor) -> None:
    with connect(patient) as connection:
        connection.sendall(
            b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
        )
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"abc")
        assert everything(connection).endswith(b"abc")


def test_a_client_of_http_1_0_is_answered_once_unless_it_asks_for_more(patient: BesideDoor) -> None:
    assert raw(patient, b"GET /p HTTP/1.0\r\n\r\n").endswith(b"GET /p None ")
    twice = b"GET /1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /2 HTTP/1.0\r\n\r\n"
    assert raw(patient, twice).endswith(b"GET /2 None ")


def test_a_target_may_name_the_host_and_close_is_heard_among_other_options(patient: BesideDoor) -> None:
    head = b"Host: a\r\nConnection: close\r\nConnection: keep-alive\r\n\r\n"
    assert raw(patient, b"GET http://a:80/p?q HTTP/1.1\r\n" + head).endswith(b"GET /p None ")


def test_a_client_that_says_no_more_is_answered(patient: BesideDoor) -> None:
    with connect(patient) as connection:
        connection.sendall(b"GET /p HTTP/1.1\r\nHost: a\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        assert everything(connection).endswith(b"GET /p None ")


def test_a_large_answer_arrives_whole(patient: BesideDoor) -> None:
    with client(patient) as connection:
        for _ in range(3):
            assert ask(connection, "GET", "/large") == (200, LARGE)


def test_answers_that_take_their_time_come_in_the_order_of_the_requests(patient: BesideDoor) -> None:
    paths = ["/later", "/a", "/later", "/b"]
    requests = [f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n" for path in paths]
    said = raw(patient, "".join([*requests, "GET /c HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"]).encode())
    assert re.findall(rb"GET (\S+) None", said) == [path.encode() for path in [*paths, "/c"]]


def test_whoever_waits_for_an_answer_is_not_cut_for_it(door: BesideDoor) -> None:
    with client(door) as connection:
        assert ask(connection, "GET", "/never-in-time") == (200, b"GET /never-in-time None ")
        assert ask(connection, "GET", "/p") == (200, b"GET /p None ")


def test_an_early_answer_is_the_first_of_two_chunks(patient: BesideDoor) -> None:
    with client(patient) as connection:
        for _ in range(2):
            connection.request("POST", "/twice", b"x")
            response = connection.getresponse()
            assert response.getheader("Transfer-Encoding") == "chunked"
            assert response.readline() == b'{"early": 1}\n'
            assert response.read() == b"POST /twice None x\n"


def test_who_knows_no_chunks_has_the_last_answer_only(patient: BesideDoor) -> None:
    said = raw(patient, b"GET /twice HTTP/1.0\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 200")
    assert said.endswith(b"\r\n\r\nGET /twice None ")


def test_an_answer_that_is_awaited_goes_out_before_the_door_closes() -> None:
    with BesideDoor(echo, "127.0.0.1:0") as door, connect(door) as connection:
        connection.sendall(b"GET /later HTTP/1.1\r\nHost: a\r\n\r\n")
        with client(door) as other:  # so that the door has read what came before
            ask(other, "GET", "/")
        door.stop()
        assert everything(connection).endswith(b"GET /later None ")


def test_a_client_that_goes_away_before_its_answer_makes_room_and_is_given_up() -> None:
    given_up: queue.Queue[str] = queue.Queue()

    def never(method: str, path: str, body: bytes, json_bytes: int | None, reply: Reply) -> GiveUp | None:
        if path == "/":
            echo(method, path, body, json_bytes, reply)
            return None
        return lambda: given_up.put(path)

    with BesideDoor(never, "127.0.0.1:0", limits=QUICK) as door:
        for number in range(2 * QUICK.connections):
            with connect(door) as connection:
                connection.sendall(f"GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            assert given_up.get(timeout=10) == f"/{number}"
        assert is_alive(door)


def test_whoever_waits_when_a_server_stops_is_told_so() -> None:
    waiting: list[Reply] = []
    asked = threading.Event()

    def later(method: str, path: str, body: bytes, json_bytes: int | None, reply: Reply) -> None:
        waiting.append(reply)
        asked.set()

    async def beside() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            for reply in waiting:
                reply(problem(503, "the server stops"))

    with BesideDoor(later, "127.0.0.1:0", beside=beside) as door, connect(door) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert asked.wait(10)
        door.stop()
        assert b"the server stops" in everything(connection)


def test_a_door_whose_company_has_failed_can_be_stopped(caplog: pytest.LogCaptureFixture) -> None:
    async def beside() -> None:
        raise LinkError("refused for good", where="here", hint="")

    door = BesideDoor(echo, "127.0.0.1:0", beside=beside)
    with caplog.at_level(logging.ERROR):
        door.start()
        door.stop()
    assert "refused for good" in caplog.text


def test_an_error_in_the_handler_is_a_500_with_the_traceback_in_the_log(
    patient: BesideDoor, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR), client(patient) as connection:
        status, body = ask(connection, "GET", "/fail")
        assert ask(connection, "GET", "/p")[0] == 200
    assert status == 500
    assert b"on purpose" not in body
    assert "ZeroDivisionError: on purpose" in caplog.text


# ------------------------------------------------------------------------------------------------ what it does not put up with


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
        (b"GET\r\n\r\n", 400),
        (b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"G{T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 505),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nA: b\nContent-Length: 9\r\n\r\n", 400),
        (b"GET / FTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nname : value\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\na: b\r\n folded\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1e3\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: " + b"9" * 30 + b"\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
        (b"POST / HTTP/1.1\r\nHost: a\r\nExpect: miracles\r\n\r\n", 417),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Encoding: br\r\n\r\n", 415),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nInference-Header-Content-Length: x\r\n\r\n", 400),
        (b"GET /" + b"a" * MAX_HEAD_BYTES, 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"a: b\r\n" * (MAX_HEADERS + 1) + b"\r\n", 431),
    ],
    ids=lambda value: value[:60].hex() if isinstance(value, bytes) else None,
)
def test_a_request_that_breaks_the_rules_is_told_so_and_ends_the_connection(
    patient: BesideDoor, request_bytes: bytes, status: int
) -> None:
    answer = raw(patient, request_bytes)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"Connection: close\r\n" in answer
    assert is_alive(patient)


def test_a_bomb_is_not_unpacked(patient: BesideDoor) -> None:
    packed = zlib.compress(bytes(900_000), 9)
    assert len(packed) < 1000
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Encoding: deflate\r\nContent-Length: %d\r\n\r\n" % len(packed)
    assert raw(patient, head + packed).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    "start", [b"", b"GET", b"GET / HTTP/1.1\r\nHost: a\r\nA: b", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc"]
)
def test_a_client_that_is_slow_is_cut(door: BesideDoor, start: bytes) -> None:
    begun = time.monotonic()
    answer = raw(door, start)
    assert 0.3 < time.monotonic() - begun < 5
    assert answer.startswith(b"HTTP/1.1 408 ") if start else not answer


def test_a_byte_now_and_then_buys_no_time(door: BesideDoor) -> None:
    begun = time.monotonic()
    with connect(door) as connection:
        connection.settimeout(0.05)
        answer = b""
        while not answer and time.monotonic() - begun < 8:
            connection.sendall(b"A")
            with suppress(TimeoutError):
                answer = connection.recv(1000)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert time.monotonic() - begun < 5


def test_a_connection_that_rests_is_closed_without_a_word(door: BesideDoor) -> None:
    with connect(door) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = everything(connection)
    assert answer.count(b"HTTP/1.1") == 1


def test_clients_that_never_read_are_cut_and_hold_nobody_up(door: BesideDoor) -> None:
    deaf = [connect(door) for _ in range(QUICK.connections - 1)]
    for connection in deaf:
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n" * 40)
    assert is_alive(door)  # the last place is free
    begun = time.monotonic()
    held = [connect(door)]
    while raw_status(door) != 200:  # and when they are cut, theirs are
        assert time.monotonic() - begun < 5
    assert time.monotonic() - begun > 0.2
    for connection in (*deaf, *held):
        connection.close()


def test_a_slow_reader_of_a_last_answer_gets_all_of_it(patient: BesideDoor) -> None:
    with connect(patient) as connection:
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        answer = b""
        while data := connection.recv(150_000):
            answer += data
            time.sleep(0.1)  # two seconds in all
    assert answer.endswith(LARGE)


def test_a_deaf_client_of_small_answers_is_cut_too(door: BesideDoor) -> None:
    """What waits for it is less than what makes a transport say that it is full."""
    held = [connect(door) for _ in range(QUICK.connections)]
    for connection in held:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(0.2)
        with suppress(TimeoutError, ConnectionError):
            for _ in range(20_000):
                connection.sendall(b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n" % (b"p" * 900))
    begun = time.monotonic()
    while raw_status(door) != 200:
        assert time.monotonic() - begun < 8
    for connection in held:
        connection.close()


def test_connections_beyond_the_limit_are_turned_away(door: BesideDoor) -> None:
    held = [connect(door) for _ in range(QUICK.connections)]
    for connection in held:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert connection.recv(1000)
    assert raw(door).startswith(b"HTTP/1.1 503 ")
    for connection in held:
        connection.close()
    assert is_alive(door)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.binary(max_size=40) | st.sampled_from([b"\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n", b"Content-Length: 5\r\n", b":"]),
        max_size=8,
    )
)
def test_whatever_is_sent_is_answered_or_refused(patient: BesideDoor, pieces: list[bytes]) -> None:
    with connect(patient) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
            connection.shutdown(socket.SHUT_WR)
            answer = everything(connection)
        except OSError:
            answer = b""  # it was refused while more came
    assert not answer or answer.startswith(b"HTTP/1.1 ")
    assert is_alive(patient)


# -------------------------------------------------------------------------------------------------------- starting and stopping


def test_stopping_lets_an_answer_go_out_and_closes_idle_connections() -> None:
    answering, going_on = threading.Event(), threading.Event()

    def slow(method: str, path: str, body: bytes, json_bytes: int | None, reply: Reply) -> None:
        answering.set()
        assert going_on.wait(10)
        reply(Answer(200, "text/plain", b"done"))

    door = BesideDoor(slow, "127.0.0.1:0")
    door.start()
    with connect(door) as idle, connect(door) as busy:
        busy.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert answering.wait(10)
        stopping = threading.Thread(target=door.stop)
        stopping.start()
        going_on.set()
        assert everything(busy).endswith(b"done")
        assert everything(idle) == b""
        stopping.join(10)
    assert not stopping.is_alive()
    door.stop()


def test_it_can_be_started_again_on_the_same_port(door: BesideDoor) -> None:
    address = f"127.0.0.1:{port(door)}"
    assert is_alive(door)
    door.stop()
    with BesideDoor(echo, address) as again:
        assert again.url == f"http://{address}"
        assert is_alive(again)


def test_an_address_in_use_is_named_with_its_setting(door: BesideDoor) -> None:
    with pytest.raises(ConfigError, match=r"serving\.http: cannot listen on 127\.0\.0\.1:\d+: .*; give another address"):
        BesideDoor(echo, f"127.0.0.1:{port(door)}").start()


@pytest.mark.parametrize("address", ["host", "127.0.0.1:99999", "http://a:80", "a:b", "1:2:3:4"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match=r"serving\.http: .* is no address"):
        BesideDoor(echo, address).start()


def test_ipv6() -> None:
    with BesideDoor(echo, "[::1]:0") as door:
        connection = http.client.HTTPConnection("::1", port(door), timeout=10)
        assert door.url.startswith("http://[::1]:")
        assert ask(connection, "GET", "/a") == (200, b"GET /a None ")
        connection.close()


def over_unix(path: Path) -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(path))
        connection.sendall(b"GET /u HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        return everything(connection)


def test_a_unix_socket_is_for_its_user_alone_and_gone_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "door.sock"
    before = os.umask(0)
    try:
        with BesideDoor(echo, "", socket=path) as door:
            assert door.url == ""
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert over_unix(path).endswith(b"GET /u None ")
            with pytest.raises(ConfigError, match="another server answers there"):
                BesideDoor(echo, "", socket=path).start()
            assert over_unix(path).endswith(b"GET /u None ")
    finally:
        os.umask(before)
    assert not path.exists()


def test_the_socket_of_a_dead_server_is_replaced_and_a_file_is_not(tmp_path: Path) -> None:
    path = tmp_path / "door.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with BesideDoor(echo, "", socket=path):
        assert over_unix(path).endswith(b"GET /u None ")
    path.write_text("mine")
    with pytest.raises(ConfigError, match="no socket"):
        BesideDoor(echo, "", socket=path).start()
    assert path.read_text() == "mine"
    with pytest.raises(ConfigError, match="cannot listen"):
        BesideDoor(echo, "", socket=tmp_path / "none" / "door.sock").start()
