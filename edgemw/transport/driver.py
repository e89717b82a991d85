"""Lets the event loop drive an MQTT client that has no thread of its own.

Readable: read, and hand on packet by packet. Something to send: write once per turn of the loop, and wait for the socket only
when its buffer is full. A tick keeps the client's pings going and notices a broker that has gone silent.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Protocol

from edgemw.transport.packets import Incoming

READ_BYTES = 1 << 16
PACKETS_A_TURN = 8
"""That are handed on before others in the loop, such as who reads them, have their turn."""
READ_AGAIN_S = 0.05
"""Where TLS has to send something before it reads on, and cannot."""
SILENCE_KEEPALIVES = 1.5
MAX_TICK_S = 1.0

log = logging.getLogger(__name__)


class Steps(Protocol):
    """What is driven: the part of paho's client for a foreign event loop."""

    @property
    def keepalive(self) -> int:
        """Seconds; 0 for none. The broker may have changed what was asked for."""
        ...

    def heard(self, now_s: float) -> None:
        """Something has come, by the monotonic clock."""
        ...

    def lost(self, error: OSError | None) -> int:
        """Nothing more can be read: the other side is done, or there was an error."""
        ...

    def loop_write(self) -> int:
        """Send as much as the socket takes."""
        ...

    def loop_misc(self) -> int:
        """Ping when it is time."""
        ...

    def want_write(self) -> bool:
        """Whether something is left to send."""
        ...


class SocketDriver:
    """Drives one client over one socket until either is lost."""

    def __init__(
        self,
        steps: Steps,
        *,
        take: Callable[[bytes], object],
        most_packet_bytes: int,
        sent: Callable[[], None],
        end: Callable[[str], None],
        progressed: Callable[[], None],
        overdue: Callable[[], bool],
    ) -> None:
        """Prepare.

        Args:
            take: called with every packet that arrives, whole.
            most_packet_bytes: a larger one ends the connection.
            sent: called when the rest of a packet that `send` could not send at once has gone.
            end: called with a reason when the connection must be given up.
            progressed: called when a socket that was full takes more.
            overdue: asked at each tick whether the broker owes an answer for too long.
        """
        self._steps = steps
        self._take, self._sent = take, sent
        self._end = end
        self._progressed = progressed
        self._overdue = overdue
        self._loop = asyncio.get_running_loop()
        self._socket: socket.socket | None = None
        self._incoming = Incoming(most_packet_bytes)
        self._handing_on: asyncio.Handle | None = None
        self._unsent = b""
        self._write_planned = False
        self._blocked = False
        self._reading = False
        self._ticker: asyncio.TimerHandle | None = None
        self._heard_s = self._ticked_s = self._loop.time()

    @property
    def attached(self) -> bool:
        """Whether there is a socket."""
        return self._socket is not None

    def attach(self, opened: socket.socket) -> None:
        """Begin to drive."""
        self._socket = opened
        self._heard_s = self._ticked_s = self._loop.time()
        self.resume_reading()
        self._write()
        self._tick()

    def detach(self) -> socket.socket | None:
        """Let go of the socket, which is returned open; None when it was gone already."""
        opened, self._socket = self._socket, None
        for planned in (self._ticker, self._handing_on):
            if planned is not None:
                planned.cancel()
        self._handing_on = None
        if opened is not None:
            self._loop.remove_reader(opened)
            self._loop.remove_writer(opened)
        self._blocked = False
        return opened

    def pause_reading(self) -> None:
        """Leave what arrives in the socket."""
        self._reading = False
        if self._socket is not None:
            self._loop.remove_reader(self._socket)

    def resume_reading(self) -> None:
        """Read again."""
        self._reading = True
        if self._handing_on is None:
            self._go_on()

    @property
    def idle(self) -> bool:
        """Whether there is a socket, and nothing waits to be sent."""
        return self._socket is not None and not self._blocked and not self._steps.want_write()

    def send(self, packet: bytes) -> bool:
        """Send a packet while `idle`; what the socket does not take now goes before anything else. Whether it took all."""
        self._unsent = packet
        self._write()
        return not self._unsent

    def plan_write(self) -> None:
        """Something is to be sent: in this turn of the loop, with whatever else comes up in it."""
        if self._socket is not None and not self._write_planned and not self._blocked:
            self._write_planned = True
            self._loop.call_soon(self._write)

    def _on_readable(self) -> None:
        self._heard_s = self._loop.time()
        self._steps.heard(self._heard_s)
        self._run(self._read)
        self._read_what_tls_holds()

    def _read(self) -> None:
        if self._socket is None:
            return
        try:
            data = self._socket.recv(READ_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except ssl.SSLWantWriteError:
            self._loop.call_later(READ_AGAIN_S, self._on_readable)
            return
        except OSError as error:
            self._steps.lost(error)
            return
        if not data:
            self._steps.lost(None)
            return
        self._incoming.feed(data)
        self._hand_on()

    def _hand_on(self) -> None:
        if self._handing_on is not None:
            return  # in its turn
        for _ in range(PACKETS_A_TURN):
            if not self._reading or self._socket is None or (packet := self._incoming.next()) is None:
                return
            self._take(packet)
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._handing_on = self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._handing_on = None
        self._run(self._hand_on)
        if self._may_read and self._socket is not None:
            self._loop.add_reader(self._socket, self._on_readable)
            self._read_what_tls_holds()

    def _read_what_tls_holds(self) -> None:
        # Decrypted bytes wait in the TLS layer, where the loop cannot see them.
        while self._may_read and isinstance(self._socket, ssl.SSLSocket) and self._socket.pending():
            self._run(self._read)

    @property
    def _may_read(self) -> bool:
        return self._reading and self._handing_on is None

    def _on_writable(self) -> None:
        self._heard_s = self._loop.time()  # a full buffer has drained, so the other side is there
        self._progressed()
        self._write()

    def _write(self) -> None:
        self._write_planned = False
        if self._socket is not None:
            self._run(self._send_all)
        if self._socket is None:
            return
        was_blocked, self._blocked = self._blocked, bool(self._unsent) or self._steps.want_write()
        if self._blocked and not was_blocked:
            self._loop.add_writer(self._socket, self._on_writable)
        elif was_blocked and not self._blocked:
            self._loop.remove_writer(self._socket)

    def _send_all(self) -> None:
        if self._unsent and self._socket is not None:
            try:
                sent = self._socket.send(self._unsent)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            except OSError as error:
                self._steps.lost(error)
                return
            self._unsent = self._unsent[sent:]
            if not self._unsent:
                self._sent()
        if not self._unsent and self._steps.want_write():
            self._steps.loop_write()

    def _tick(self) -> None:
        now_s = self._loop.time()
        keepalive_s = self._steps.keepalive
        tick_s = min(MAX_TICK_S, max(keepalive_s, 1) / 20)
        self._heard_s += max(0.0, now_s - self._ticked_s - 2 * tick_s)  # a blocked loop hears nothing: that is not silence
        self._ticked_s = now_s
        self._run(self._steps.loop_misc)
        if keepalive_s and now_s - self._heard_s > SILENCE_KEEPALIVES * keepalive_s:
            self._end(f"nothing heard from the broker for {SILENCE_KEEPALIVES * keepalive_s:g} s")
        elif self._overdue():
            self._end("the broker does not acknowledge")
        if self._socket is not None:
            self._ticker = self._loop.call_later(tick_s, self._tick)

    def _run(self, step: Callable[[], object]) -> None:
        try:
            step()
        except Exception as error:
            # The client parses what the network sends; whatever it stumbles on ends this connection, not the loop.
            log.exception("the MQTT client failed")
            self._end(f"the client failed on what it received ({type(error).__name__}: {error})")
