"""A small HTTP/1.1 server for machines: /metrics, and the door to predictions.

Whoever connects can take no more than it is given: a number of connections, a size of request, and a time for each request
from its first byte to its last. Answers come from one function of method, path and body.
"""

from __future__ import annotations

import gzip
import io
import json
import logging
import re
import selectors
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from edgemw.core.address import Address

Response = tuple[int, str, bytes]
"""Status, content type, body."""
Handler = Callable[[str, str, bytes], Response]

MAX_LINE_BYTES = 16384
LINGER_S, LINGER_BYTES = 1.0, 1 << 20
PACKED_BYTES = 1400
"""From here on an answer may take more than one packet, and is packed for who takes that."""
GRACE_S = 5.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """What one client, and all of them together, may take.

    Attributes:
        body_bytes: largest body of a request.
        connections: connections at a time; one more is answered 503 and closed.
        timeout_s: how long a request may take to come in, an answer to go out, and a connection to be idle.
    """

    body_bytes: int = 4 << 20
    connections: int = 32
    timeout_s: float = 10.0


class HttpServer:
    """Listens from `start` to `stop`; every connection has a thread. Also a context manager."""

    def __init__(self, address: str, handler: Handler, *, setting: str = "http", limits: HttpLimits | None = None) -> None:
        """Name the address; nothing is opened before `start`.

        Args:
            address: "HOST:PORT"; an empty host is every interface, port 0 any free port.
            handler: gives the answer to method, path (with its query) and body; called in the connection's thread.
            setting: the configuration key to name when the address cannot be used.
            limits: what clients may take.

        Raises:
            ConfigError: this is no address.
        """
        self._address = Address.parse(address, setting)
        self._handler, self._limits = handler, limits or HttpLimits()
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self._wake: socket.socket | None = None

    @property
    def port(self) -> int:
        """The port it listens on, which is not the one asked for where that was 0."""
        return int(self._server.server_address[1]) if self._server is not None else self._address.port

    @property
    def url(self) -> str:
        """Where to find it."""
        return self._address.url(self.port)

    def start(self) -> None:
        """Listen.

        Raises:
            ConfigError: the address is in use, not of this machine, or not allowed; it names the setting to change.
        """
        try:
            family = socket.AF_INET6 if self._address.is_six else socket.AF_INET
            self._server = _Server((self._address.host, self._address.port), family, self._handler, self._limits)
        except OSError as error:
            raise self._address.refused(error) from error
        self._wake, woken = socket.socketpair()
        self._thread = threading.Thread(target=_accept, args=(self._server, woken), name=f"http-{self.port}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Take no more connections, let requests that are being answered finish for a few seconds, and close."""
        server, self._server = self._server, None
        if server is None or self._thread is None or self._wake is None:
            return
        self._wake.close()
        self._thread.join()
        server.server_close()
        server.hang_up()

    def __enter__(self) -> HttpServer:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    timeout = 0  # handle_request is called when a connection waits already
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], family: socket.AddressFamily, handler: Handler, limits: HttpLimits) -> None:
        self.address_family = family
        self.handler, self.limits = handler, limits
        self._open: set[socket.socket] = set()
        self._changed = threading.Condition()
        super().__init__(address, _Connection)

    def server_bind(self) -> None:
        """Bind without the look-up of the host's name that HTTPServer makes: it may wait for a DNS server."""
        if self.allow_reuse_address:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give the connection a thread if there is room."""
        with self._changed:
            room = len(self._open) < self.limits.connections
            if room:
                self._open.add(request)
        if not room:
            request.sendall(_bytes(_problem(503, "too many connections"), close=True))
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread can be started
            self._forget(request)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve one connection, then make room for another."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._forget(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection broke: the client's affair."""
        log.debug("connection from %s broke", client_address[0], exc_info=True)

    def hang_up(self) -> None:
        """Wake whoever waits for a request, let answers finish, then close what is still open."""
        with self._changed:
            for how in (socket.SHUT_RD, socket.SHUT_RDWR):
                for connection in self._open:
                    _shut(connection, how)
                if self._changed.wait_for(lambda: not self._open, GRACE_S):
                    return

    def _forget(self, request: socket.socket) -> None:
        with self._changed:
            self._open.discard(request)
            self._changed.notify_all()


class _TimedReader(io.RawIOBase):
    """What a socket receives, until a deadline that counts for the whole request and not for each piece of it."""

    def __init__(self, connection: socket.socket, timeout_s: float) -> None:
        self._connection, self._timeout_s = connection, timeout_s
        self._deadline, self._idle = 0.0, True

    def next_request(self) -> None:
        """A request may take the timeout, from its first byte on; as long may that byte be waited for."""
        self._deadline, self._idle = time.monotonic() + self._timeout_s, True

    def limit(self, seconds: float) -> None:
        """Read on for at most so long."""
        self._deadline, self._idle = time.monotonic() + seconds, False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        remaining = self._deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError
        self._connection.settimeout(remaining)
        count = self._connection.recv_into(buffer)
        if self._idle:
            self._deadline, self._idle = time.monotonic() + self._timeout_s, False
        return count


class _Refused(Exception):
    """The request gets this answer without its body being read; never leaves the connection."""

    def __init__(self, status: int, text: str) -> None:
        self.status = status
        super().__init__(text)


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.command = ""
        self.rfile.close()
        self._reader = _TimedReader(self.connection, self.server.limits.timeout_s)
        self.rfile: Any = io.BufferedReader(self._reader)

    def handle_one_request(self) -> None:
        self.close_connection = True
        self._reader.next_request()
        try:
            self.raw_requestline = self.rfile.readline(MAX_LINE_BYTES + 1)
            if len(self.raw_requestline) > MAX_LINE_BYTES:
                self._answer(_problem(414, "the request line is too long"))
            elif self.raw_requestline.strip() and self.parse_request():
                self._serve()
        except (TimeoutError, ConnectionError):
            self.close_connection = True

    def _serve(self) -> None:
        try:
            body = self._body()
        except _Refused as refused:
            self._refuse(_problem(refused.status, str(refused)))
            return
        method = "GET" if self.command == "HEAD" else self.command
        try:
            response = self.server.handler(method, self.path, body)
        except Exception:
            log.exception("%s %s failed", self.command, self.path[:200])
            response = _problem(500, "the request failed here; the node's log says why")
        self._answer(response)

    def _body(self) -> bytes:
        lengths = self.headers.get_all("Content-Length", [])
        if self.headers.get("Transfer-Encoding") is not None:
            raise _Refused(411, "send a Content-Length")
        if not lengths:
            return b""
        if len(lengths) > 1 or not re.fullmatch(r"\d{1,18}", lengths[0].strip(), re.ASCII):
            raise _Refused(400, "Content-Length is not a number of bytes")
        length, limit = int(lengths[0]), self.server.limits.body_bytes
        if length > limit:
            raise _Refused(413, f"the body has {length} bytes, at most {limit} are accepted")
        body: bytes = self.rfile.read(length)
        if len(body) < length:
            raise _Refused(400, "the body ended early")
        return body

    def _refuse(self, response: Response) -> None:
        """Answer without having read the body, then read a little on: closing at once would destroy the answer."""
        self.close_connection = True
        self._answer(response)
        _shut(self.connection, socket.SHUT_WR)
        self._reader.limit(LINGER_S)
        left = LINGER_BYTES
        while left > 0 and (piece := self.rfile.read1(65536)):
            left -= len(piece)

    def _answer(self, response: Response) -> None:
        self.connection.settimeout(self.server.limits.timeout_s)
        headers = getattr(self, "headers", None)  # what the base class refuses has none
        packed = headers is not None and _takes_gzip(headers.get("Accept-Encoding", "")) and len(response[2]) >= PACKED_BYTES
        self.wfile.write(_bytes(response, close=self.close_connection, head=self.command == "HEAD", packed=packed))

    def handle_expect_100(self) -> bool:
        """Ask for the body only where it will be taken; the refusal follows in `_serve` otherwise."""
        length = self.headers.get("Content-Length", "")
        if length.isascii() and length.isdigit() and int(length[:19]) <= self.server.limits.body_bytes:
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return True

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the base class refuses while it parses."""
        self.close_connection = True
        self._answer(_problem(code, message or HTTPStatus(code).phrase))

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are counted, not logged."""


def _accept(server: _Server, woken: socket.socket) -> None:
    """Take connections until the other end of `woken` is closed."""
    with woken, selectors.DefaultSelector() as selector:
        selector.register(server, selectors.EVENT_READ)
        selector.register(woken, selectors.EVENT_READ)
        while all(key.fileobj is not woken for key, _ in selector.select()):
            server.handle_request()


def _problem(status: int, text: str) -> Response:
    return status, "application/json", json.dumps({"error": text}).encode()


def _takes_gzip(accepted: str) -> bool:
    """Whether a client says so, and not that it does not (`q=0`)."""
    found = [part.partition(";") for part in accepted.lower().replace(" ", "").split(",")]
    return any(name == "gzip" and more not in ("q=0", "q=0.0", "q=0.00", "q=0.000") for name, _, more in found)


def _bytes(response: Response, *, close: bool, head: bool = False, packed: bool = False) -> bytes:
    """The answer in one piece, so that it leaves in one packet where it fits."""
    status, content_type, body = response
    if packed:
        body = gzip.compress(body, 1)  # the quickest: better ones take ten times as long for a third less
    phrase = HTTPStatus(status).phrase if status in HTTPStatus.__members__.values() else ""
    lines = [
        f"HTTP/1.1 {status} {phrase}",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(body)}",
        "X-Content-Type-Options: nosniff",
        "Cache-Control: no-store",
    ]
    if packed:
        lines += ["Content-Encoding: gzip", "Vary: Accept-Encoding"]
    if close:
        lines.append("Connection: close")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (b"" if head else body)


def _shut(connection: socket.socket, how: int) -> None:
    try:
        connection.shutdown(how)
    except OSError as error:
        log.debug("connection was closed already: %s", error)
