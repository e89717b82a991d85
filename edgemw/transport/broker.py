"""A broker of one's own on this machine: for tests, for `edgemw up`, for a first try.

mosquitto where it is installed, otherwise amqtt (pure Python, see `amqtt_child.py` for what it lacks). It listens on a
loopback address only, lets everyone on this machine in, and dies with the process that started it.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import importlib.util
import ipaddress
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Literal, Self

from edgemw.core.errors import ConfigError, LinkError

Kind = Literal["auto", "mosquitto", "amqtt"]

START_TIMEOUT_S = 15.0
STOP_TIMEOUT_S = 5.0
PORT_ATTEMPTS = 5
MAX_PACKET_BYTES = 2_000_000
MAX_QUEUED_MESSAGES = 20_000
MAX_QUEUED_BYTES = 256 * 1024 * 1024
_LOG_TAIL_BYTES = 2000
# CONNECT of MQTT 3.1.1: clean session, keep-alive 10 s, client id "edgemw-probe".
_CONNECT = b"\x10\x18\x00\x04MQTT\x04\x02\x00\x0a\x00\x0cedgemw-probe"
_CONNACK = b"\x20\x02\x00\x00"
_DISCONNECT = b"\xe0\x00"


class Broker:
    """A broker process; a context manager, sync or async, that stops it at the end.

    Attributes:
        kind: which program runs.
        host: the loopback address that it listens on.
        port: its port, the same across `restart`.
        log_path: what the program wrote; kept after it stopped.
    """

    def __init__(
        self, kind: Literal["mosquitto", "amqtt"], command: Sequence[str], directory: Path, host: str, port: int
    ) -> None:
        self.kind = kind
        self.host = host
        self.port = port
        self.log_path = directory / f"{kind}.log"
        self._command = list(command)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where to connect, as `MqttSettings.url` takes it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"mqtt://{host}:{self.port}"

    @property
    def pid(self) -> int:
        """The process id.

        Raises:
            LinkError: it is not running.
        """
        if self._process is None:
            raise LinkError("the broker is stopped", where=self.url, hint="call restart()")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the process and wait until it accepts a connection.

        Raises:
            LinkError: it ended, or did not answer in time; the end of its log is in the hint.
        """
        if self._process is not None:
            return
        with self.log_path.open("ab") as log_file:
            self._process = _spawn(self._command, log_file)
        atexit.register(self.stop)
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not _answers(self.host, self.port):
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                what = "the broker did not answer in time" if self._process.poll() is None else "the broker ended at once"
                self.stop()
                raise LinkError(what, where=self.url, hint=f"its log ends with: {self._log_tail()}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End the process: SIGTERM, so that it saves its state, and SIGKILL if that does not help."""
        process, self._process = self._process, None
        atexit.unregister(self.stop)
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def kill(self) -> None:
        """End the process with SIGKILL, as a power cut would."""
        if self._process is not None:
            self._process.kill()
        self.stop()

    def restart(self) -> None:
        """Stop if running and start again on the same port, with what was saved."""
        self.stop()
        self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await asyncio.to_thread(self.stop)

    def _log_tail(self) -> str:
        tail = self.log_path.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace")
        return " | ".join(tail.split("\n")[-6:]).strip(" |") or "(empty)"


def start_broker(
    kind: Kind = "auto", directory: Path | str = ".", port: int = 0, host: str = "127.0.0.1", *, extra: Sequence[str] = ()
) -> Broker:
    """Start a broker for this machine and wait until it answers; blocks for some 50 ms.

    Args:
        kind: `auto` takes mosquitto when it is installed and amqtt otherwise.
        directory: for its configuration, log and saved state; made if missing. A second start finds the state again.
        port: 0 finds a free one.
        extra: further lines for mosquitto.conf, such as another listener.

    Raises:
        ConfigError: `host` is not a loopback address, or the program is not installed.
        LinkError: it does not start.
    """
    if not ipaddress.ip_address(host).is_loopback:
        raise ConfigError(f"{host} is not a loopback address: this broker lets everyone in", key="host", suggestion="127.0.0.1")
    path = Path(directory).resolve()
    path.mkdir(parents=True, exist_ok=True)
    chosen = _choose(kind)
    for attempt in range(PORT_ATTEMPTS):
        broker = _prepare(chosen, path, host, port or _free_port(host), extra)
        try:
            broker.start()
        except LinkError:
            if port or attempt == PORT_ATTEMPTS - 1 or not _is_taken(host, broker.port):
                raise  # only a port that somebody took between the choice and the start is worth another try
        else:
            return broker
    raise AssertionError("the last attempt returns or raises")


def find_mosquitto() -> str | None:
    """Path of the mosquitto program, also where it is not on the PATH of ordinary users."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin")


def _choose(kind: Kind) -> Literal["mosquitto", "amqtt"]:
    has_mosquitto = find_mosquitto() is not None
    if kind not in ("auto", "mosquitto", "amqtt"):
        raise ConfigError(f"{kind!r} is not one of auto, mosquitto, amqtt", key="broker")
    if kind == "mosquitto" and not has_mosquitto:
        raise ConfigError("mosquitto is not installed", key="broker", suggestion="auto")
    if kind == "mosquitto" or (kind == "auto" and has_mosquitto):
        return "mosquitto"
    if importlib.util.find_spec("amqtt") is None:
        raise ConfigError("no broker is installed: install mosquitto, or edgemw[broker] for the one in Python", key="broker")
    return "amqtt"


def _prepare(kind: Literal["mosquitto", "amqtt"], path: Path, host: str, port: int, extra: Sequence[str]) -> Broker:
    if kind == "amqtt":
        return Broker(kind, [sys.executable, "-m", "edgemw.transport.amqtt_child", host, str(port)], path, host, port)
    program = find_mosquitto()
    assert program is not None
    config = path / "mosquitto.conf"
    config.write_text("\n".join([*_mosquitto_lines(path, host, port), *extra, ""]))
    return Broker(kind, [program, "-c", str(config)], path, host, port)


def _mosquitto_lines(path: Path, host: str, port: int) -> list[str]:
    lines = [
        f"listener {port} {host}",
        "allow_anonymous true",
        "set_tcp_nodelay true",
        "persistence true",
        f"persistence_location {path}/",
        "autosave_interval 30",
        "max_inflight_messages 20",
        # Never 0: some 2.0 releases then drop everything. The default, 1000, drops acknowledged messages silently.
        f"max_queued_messages {MAX_QUEUED_MESSAGES}",
        f"max_queued_bytes {MAX_QUEUED_BYTES}",
        f"max_packet_size {MAX_PACKET_BYTES}",
        "log_dest stderr",
        "log_type error",
        "log_type warning",
        "log_type notice",
        "sys_interval 0",
    ]
    if os.geteuid() == 0:
        lines.append("user root")  # else it becomes a user who cannot write the directory
    return lines


def _spawn(command: Sequence[str], log_file: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start a child that dies with this process.

    The kernel sends the signal when the *thread* that forked ends, so a thread is kept for as long as the child lives.
    """
    tether = [sys.executable, "-I", "-S", str(Path(__file__).with_name("tethered.py")), str(os.getpid())]
    started: list[subprocess.Popen[bytes] | OSError] = []
    ready = threading.Event()

    def hold() -> None:
        try:
            # A session of its own: Ctrl-C in the terminal is for the program that started us, not for the broker.
            process = subprocess.Popen(
                [*tether, *command], stdin=subprocess.DEVNULL, stdout=log_file, stderr=log_file, start_new_session=True
            )
        except OSError as error:
            started.append(error)
            ready.set()
            return
        started.append(process)
        ready.set()
        process.wait()

    threading.Thread(target=hold, name="broker child", daemon=True).start()
    ready.wait()
    if isinstance(started[0], OSError):
        raise LinkError(f"the broker cannot be started ({started[0]})", where=command[0], hint="is it executable?")
    return started[0]


def _answers(host: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1.0) as probe:
        probe.sendall(_CONNECT)
        answer = b""
        while len(answer) < len(_CONNACK) and (part := probe.recv(len(_CONNACK) - len(answer))):
            answer += part
        if answer == _CONNACK:
            probe.sendall(_DISCONNECT)
            return True
    return False


def _free_port(host: str) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _is_taken(host: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1.0):
        return True
    return False
