"""The HTTP/1.1 door to predictions, on a TCP address and on a Unix socket: one event loop, no thread per client.

    bytes -> head | body -> handle -> answer      one request after the other on a connection, as its client sent them

Whoever connects can take no more than it is given: a number of connections, a size of head and body, and a time for each
request from its first byte to its last, for reading the answer, and between two requests. A request that breaks the rules is
answered with why, and its connection closed. An answer may come later, as long as the handler likes; one that is not the last to
its request is a chunk of JSON lines, and so is what follows it (RFC 9112, section 7.1).

Rules of the head: RFC 9112, sections 2 to 6 and 9.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket
import stat
import zlib
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

from edgemw.core.address import Address
from edgemw.core.errors import ConfigError
from edgemw.serving.api import MAX_BODY_BYTES, Answer, problem
from edgemw.serving.requests import Handle
from edgemw.serving.turns import GiveUp

MAX_HEAD_BYTES = 16384
MAX_HEADERS = 100
TURN = 16
LINGER_S = 1.0
_SWEEP_S, _BACKLOG = 0.25, 128
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CONTROLS = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_ORIGIN = re.compile(r"\Ahttps?://[^/?]*", re.IGNORECASE)
"""Of a target in absolute form."""
_PHRASES = {status.value: status.phrase for status in HTTPStatus}

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DoorLimits:
    """What one client, and all of them together, may take.

    Attributes:
        body_bytes: largest body of a request, also once it is unpacked.
        connections: at a time; one more is answered 503 and closed.
        timeout_s: for a request to come in, and for an answer to go out.
        idle_s: that a connection may rest between two requests.
    """

    body_bytes: int = MAX_BODY_BYTES
    connections: int = 64
    timeout_s: float = 10.0
    idle_s: float = 60.0


class _Bad(Exception):
    """A request that is not answered by the model, with the status and the reason."""

    def __init__(self, status: int, text: str) -> None:
        self.status = status
        super().__init__(text)


@dataclass(slots=True)
class _Head:
    method: str
    path: str
    close: bool
    old: bool = False  # HTTP/1.0, which knows no chunks
    length: int = 0
    options: set[bytes] = field(default_factory=set)  # of the connection
    continues: bool = False  # the client waits before it sends the body
    packed: str = ""
    json_bytes: int | None = None


class Door:
    """Answers clients from `start` to `stop`, in the loop that started it."""

    def __init__(self, handle: Handle, limits: DoorLimits | None = None) -> None:
        self.handle, self.limits = handle, limits or DoorLimits()
        self.clients: set[_Client] = set()
        self._empty = asyncio.Event()
        self._servers: list[asyncio.Server] = []
        self._socket: Path | None = None
        self._sweeping: asyncio.TimerHandle | None = None

    async def listen(self, address: str, setting: str = "serving.http") -> str:
        """Take clients at "HOST:PORT"; an empty host is every interface of IPv4, port 0 any free one. Returns the URL.

        Raises:
            ConfigError: this is no address, it is in use, not of this machine, or not allowed; it names the setting to change.
        """
        wanted = Address.parse(address, setting)
        try:
            family = socket.AF_INET6 if wanted.is_six else socket.AF_INET
            listening = socket.create_server((wanted.host, wanted.port), family=family, backlog=_BACKLOG)
            server = await asyncio.get_running_loop().create_server(lambda: _Client(self), sock=listening, backlog=_BACKLOG)
        except OSError as error:
            raise wanted.refused(error) from error
        self._begin(server)
        return wanted.url(listening.getsockname()[1])

    async def listen_unix(self, path: Path, setting: str = "serving.socket") -> None:
        """Take clients at a Unix socket, for this user alone; what a dead server has left there is replaced.

        Raises:
            ConfigError: the path cannot be used; it names the setting to change.
        """
        try:
            listening = _unix_socket(path, setting)
            server = await asyncio.get_running_loop().create_unix_server(lambda: _Client(self), sock=listening, backlog=_BACKLOG)
        except OSError as error:
            raise ConfigError(f"cannot listen on {path}: {error.strerror or error}", key=setting) from error
        self._socket = path
        self._begin(server)

    def _begin(self, server: asyncio.Server) -> None:
        self._servers.append(server)
        if self._sweeping is None:
            self._sweep()

    async def stop(self) -> None:
        """Take nobody any more, and close every connection once its answer is out."""
        for server in self._servers:
            server.close()
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
        self._empty.clear()
        for client in list(self.clients):
            client.end()
        if self.clients:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), LINGER_S)
        for client in list(self.clients):
            client.abort()
        self._servers.clear()
        if self._socket is not None:
            self._socket.unlink(missing_ok=True)

    def left(self, client: _Client) -> None:
        """A connection has ended."""
        self.clients.discard(client)
        if not self.clients:
            self._empty.set()

    def _sweep(self) -> None:
        """Cut who is late. One timer for all: a timer for each request would cost more than the request."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        for client in list(self.clients):
            if now > client.deadline:
                client.late()
        self._sweeping = loop.call_later(_SWEEP_S, self._sweep)


@dataclass(slots=True, eq=False)
class _Client(asyncio.Protocol):
    """One connection."""

    door: Door
    deadline: float = 0.0
    _transport: Any = None
    _buffer: bytearray = field(default_factory=bytearray)
    _searched: int = 0  # of the buffer, for the end of the head
    _head: _Head | None = None  # of the request whose body is coming
    _asking: _Head | None = None  # of the request whose answer is awaited
    _inside: bool = False  # the handler has not returned yet
    _give_up: GiveUp | None = None  # told where the client does not wait for it
    _chunked: bool = False  # the first part of that answer is out
    _full: bool = False  # what was written has not been read
    ending: bool = False  # nothing more is answered
    _gone: bool = False

    # -- what asyncio says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        limits, clients = self.door.limits, self.door.clients
        self.deadline = self._now() + limits.timeout_s
        clients.add(self)
        if len(clients) > 2 * limits.connections:
            self.abort()  # who is turned away has to be remembered, too
        elif sum(not client.ending for client in clients) > limits.connections:
            self._refuse(503, f"{limits.connections} connections are open already, no more are taken")

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone = True
        if self._asking is not None and self._give_up is not None:
            self._give_up()
        self.door.left(self)

    def data_received(self, data: bytes) -> None:
        if self.ending:
            return  # read, so that closing does not destroy the answer on its way
        if not self._buffer and self._head is None and data.strip(b"\r\n"):
            self.deadline = self._now() + self.door.limits.timeout_s
        self._buffer += data
        if self._asking is not None and len(self._buffer) > MAX_HEAD_BYTES:
            self._transport.pause_reading()  # the next requests wait with the client
        self._proceed()

    def eof_received(self) -> None:
        """A client that ends while it waits for an answer is taken to have gone."""
        if self._asking is None and not self.ending and (self._buffer or self._head):
            self._refuse(400, "the connection ended within a request")

    def pause_writing(self) -> None:
        self._full = True
        self._transport.pause_reading()
        self.deadline = self._now() + self.door.limits.timeout_s

    def resume_writing(self) -> None:
        self._full = False
        self.deadline = self._now() + self._patience_s
        self._proceed()

    # -- what the door says

    def late(self) -> None:
        """The deadline has passed."""
        if self._asking is not None and not self._full:
            return  # its answer comes, or a refusal
        if self.ending or self._full:
            self.abort()
        elif self._buffer or self._head is not None:
            self._refuse(408, f"the request did not come in within {self.door.limits.timeout_s:g} s")
        elif self._transport.is_closing() or self._transport.get_write_buffer_size():
            self.abort()  # closing would wait for a client that does not read
        else:
            self._transport.close()

    def end(self) -> None:
        """Close once what was written is out."""
        self.ending = True
        if self._asking is not None:
            self._asking.close = True  # its answer still goes out
        else:
            self._transport.close()

    def abort(self) -> None:
        """Close now."""
        self._transport.abort()

    # -- requests

    @property
    def _patience_s(self) -> float:
        """How long the client may take from now on: longer where an answer is on its way to it."""
        is_ending = self.ending and not self._transport.get_write_buffer_size()
        return LINGER_S if is_ending else self.door.limits.timeout_s

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _proceed(self) -> None:
        """Answer what has come in, as long as answers are read; others have their turn between so many requests of one client."""
        try:
            for _ in range(TURN):
                if self._full or self.ending or self._gone or self._asking is not None:
                    return
                if not self._has_request():
                    self._transport.resume_reading()
                    return
                self._answer_one()
        except _Bad as bad:
            self._refuse(bad.status, str(bad))
            return
        self._transport.pause_reading()
        asyncio.get_running_loop().call_soon(self._proceed)

    def _has_request(self) -> bool:
        if self._head is None:
            self._head = self._next_head()
            if self._head is not None and self._head.continues and len(self._buffer) < self._head.length:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return self._head is not None and len(self._buffer) >= self._head.length

    def _next_head(self) -> _Head | None:
        buffer = self._buffer
        while buffer[:2] == b"\r\n":  # some clients put an empty line behind a body
            del buffer[:2]
            self._searched = 0
        end = buffer.find(b"\r\n\r\n", max(0, self._searched - 3))
        if end < 0 and len(buffer) <= MAX_HEAD_BYTES:
            self._searched = len(buffer)
            return None
        if end < 0 or end > MAX_HEAD_BYTES:
            raise _Bad(431, f"the head of the request has more than {MAX_HEAD_BYTES} bytes")
        head = _read_head(bytes(buffer[:end]))
        del buffer[: end + 4]
        self._searched = 0
        if head.length > self.door.limits.body_bytes:
            raise _Bad(413, f"the request has {head.length} bytes, at most {self.door.limits.body_bytes} are accepted")
        return head

    def _answer_one(self) -> None:
        head, self._head = self._head, None
        assert head is not None
        body = bytes(self._buffer[: head.length])
        del self._buffer[: head.length]
        if head.packed:
            body = _unpacked(body, head.packed, self.door.limits.body_bytes)
        self._asking, self._chunked, self._inside = head, False, True
        method = "GET" if head.method == "HEAD" else head.method
        try:
            self._give_up = self.door.handle(method, head.path, body, head.json_bytes, partial(self._reply, head))
        except Exception:
            log.exception("%s %s failed", head.method, head.path[:200])
            self._reply(head, problem(500, "internal error: the log of the server says more"))
        finally:
            self._inside = False

    def _reply(self, head: _Head, answer: Answer) -> None:
        """Send an answer, or a part of it; after the last one the next request has its turn."""
        if self._gone or self._asking is not head:
            return
        if answer.final:
            self._asking = None
            limits = self.door.limits
            self.deadline = self._now() + (limits.timeout_s if self._buffer else limits.idle_s)
        if not answer.final or self._chunked:
            self._reply_in_chunks(head, answer)
        else:
            self._transport.write(_packed(answer, close=head.close, bodiless=head.method == "HEAD"))
        if not answer.final:
            return
        if self.ending:
            self._transport.close()
        elif head.close:
            self._linger()
        elif not self._inside:
            self._proceed()

    def _reply_in_chunks(self, head: _Head, answer: Answer) -> None:
        if head.old or (not answer.final and answer.json_bytes is not None):
            return  # cannot be said in parts: the last answer says it all
        if not self._chunked:
            self._chunked = True
            self._transport.write(_chunked_head(close=head.close))
        line = answer.body[: answer.json_bytes] + b"\n"
        self._transport.write(b"%x\r\n%b\r\n" % (len(line), line) + (b"0\r\n\r\n" if answer.final else b""))

    def _refuse(self, status: int, text: str) -> None:
        """Say why, and close."""
        if self._gone:
            return
        self._transport.write(_packed(problem(status, text), close=True))
        self._linger()

    def _linger(self) -> None:
        """Close once the client has read: closing while it still sends would destroy the answer on its way."""
        self.ending = True
        self._buffer.clear()
        self._transport.resume_reading()
        self.deadline = self._now() + self._patience_s
        with suppress(OSError):  # the client was faster
            self._transport.write_eof()


def _read_head(data: bytes) -> _Head:
    """The request line and the headers that matter."""
    first, *lines = data.split(b"\r\n")
    parts = first.split(b" ")
    if len(parts) != 3 or not _TOKEN.fullmatch(parts[0]):
        raise _Bad(400, "no HTTP request")
    if parts[2] not in (b"HTTP/1.1", b"HTTP/1.0"):
        raise _Bad(505 if parts[2].startswith(b"HTTP/") else 400, "speak HTTP/1.1")
    if _CONTROLS.search(data.replace(b"\r\n", b"")):
        raise _Bad(400, "control characters in the head")
    if len(lines) > MAX_HEADERS:
        raise _Bad(431, f"more than {MAX_HEADERS} headers")
    try:
        path = _ORIGIN.sub("", parts[1].decode("ascii")).split("?", 1)[0]
    except UnicodeDecodeError:
        raise _Bad(400, "the path is not ASCII") from None
    head = _Head(parts[0].decode(), path, close=parts[2] == b"HTTP/1.0", old=parts[2] == b"HTTP/1.0")
    lengths: set[int] = set()
    hosts = 0
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not _TOKEN.fullmatch(name):
            raise _Bad(400, "a header that is none")
        hosts += name.lower() == b"host"
        _note_header(head, name.lower(), value.strip(b" \t"), lengths)
    if len(lengths) > 1:
        raise _Bad(400, "several lengths of the body")
    if hosts > 1 or (hosts == 0 and parts[2] == b"HTTP/1.1"):
        raise _Bad(400, "give one Host")
    head.length = lengths.pop() if lengths else 0
    head.close = b"close" in head.options or (head.close and b"keep-alive" not in head.options)
    return head


def _note_header(head: _Head, name: bytes, value: bytes, lengths: set[int]) -> None:
    match name:
        case b"content-length":
            lengths.add(_number(value, "Content-Length"))
        case b"transfer-encoding":
            raise _Bad(411, "say Content-Length: bodies in chunks are not taken")
        case b"connection":
            head.options |= {option.strip().lower() for option in value.split(b",")}
        case b"expect":
            if value.lower() != b"100-continue":
                raise _Bad(417, "nothing but 100-continue can be expected")
            head.continues = True
        case b"content-encoding":
            head.packed = value.decode("latin-1").lower().replace("identity", "")
            if head.packed not in ("", "gzip", "deflate"):
                raise _Bad(415, "Content-Encoding is gzip, deflate or identity")
        case b"inference-header-content-length":
            head.json_bytes = _number(value, "Inference-Header-Content-Length")


def _number(value: bytes, name: str) -> int:
    if not value.isdigit() or len(value) > 12:
        raise _Bad(400, f"{name} is no number of bytes")
    return int(value)


def _unpacked(body: bytes, how: str, most_bytes: int) -> bytes:
    """The body behind its Content-Encoding, never more than `most_bytes` of it."""
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16 if how == "gzip" else zlib.MAX_WBITS)
    try:
        data = unpacker.decompress(body, most_bytes + 1)
    except zlib.error as error:
        raise _Bad(400, f"the body is not {how}: {error}") from error
    if len(data) > most_bytes:
        raise _Bad(413, f"the request has more than {most_bytes} bytes once it is unpacked")
    if not unpacker.eof or unpacker.unused_data:
        raise _Bad(400, f"the body is not one whole {how} stream")
    return data


def _packed(answer: Answer, *, close: bool, bodiless: bool = False) -> bytes:
    """The answer in one piece, so that it leaves in one packet where it fits."""
    more = "" if answer.json_bytes is None else f"Inference-Header-Content-Length: {answer.json_bytes}\r\n"
    more += "Connection: close\r\n" if close else "Connection: keep-alive\r\n"
    head = (
        f"HTTP/1.1 {answer.status} {_PHRASES.get(answer.status, '')}\r\nContent-Type: {answer.content_type}\r\n"
        f"Content-Length: {len(answer.body)}\r\n{more}X-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n\r\n"
    )
    return head.encode("latin-1") + (b"" if bodiless else answer.body)


def _chunked_head(*, close: bool) -> bytes:
    """Before an answer whose parts are sent as they are there."""
    head = (
        "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n"
        f"Connection: {'close' if close else 'keep-alive'}\r\nX-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n\r\n"
    )
    return head.encode("latin-1")


def _unix_socket(path: Path, setting: str) -> socket.socket:
    """A bound socket that only this user can open."""
    if path.exists():
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise ConfigError(f"{path} is there already and no socket", key=setting)
        if _answers(path):
            raise ConfigError(f"{path} is in use: another server answers there", key=setting)
        path.unlink()
    listening = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        listening.bind(str(path))
    except OSError:
        listening.close()
        raise
    finally:
        os.umask(before)
    return listening


def _answers(path: Path) -> bool:
    """Whether somebody takes connections at a Unix socket."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(1.0)
        try:
            asking.connect(str(path))
        except ConnectionRefusedError:
            return False
        except OSError as error:  # a live server may be busy, or another user's
            log.debug("%s: %s", path, error)
        return True
