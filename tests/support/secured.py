"""A mosquitto that runs what `edgemw pki` and `edgemw broker config` have made, and everybody's way to it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

from edgemw.app.places import identity_files
from edgemw.app.settings import Broker, Tls
from edgemw.cli.main import main
from edgemw.core.config.units import duration
from edgemw.transport import tethered
from edgemw.transport.broker import find_mosquitto
from tests.support.ports import free_ports

START_S = 10.0


def carried_out(*words: str | Path) -> None:
    """Run a command of edgemw in this process."""
    assert main([*map(str, words)]) == 0, words


class Secured:
    """One broker in `folder/broker`, with the authority in `folder/pki`.

    What is added to the generated files: who it runs as where root runs the tests, and that it logs what it denies.
    """

    def __init__(self, folder: Path, deployment: Path, *flags: str) -> None:
        self.folder, self.pki, self.port = folder / "broker", folder / "pki", free_ports(1)[0]
        self._deployment, self._flags = deployment, flags
        self._process: subprocess.Popen[bytes] | None = None
        if not self.pki.exists():
            carried_out("pki", "init", self.pki, "--for", deployment, "--host", "localhost", *flags)
        self.configure()
        extra = ["log_type debug", "log_type information", *(["user root"] if os.geteuid() == 0 else [])]
        (self.folder / "conf.d/test.conf").write_text("\n".join([*extra, ""]))

    def configure(self) -> None:
        """Write the broker's files, as they follow from the authority now."""
        port, kind = ("--port", str(self.port), "--listen", "127.0.0.1"), ("--for", "mosquitto", "--pki", self.pki)
        carried_out("broker", "config", self._deployment, *kind, "--out", self.folder, *port, *self._flags)

    @property
    def url(self) -> str:
        """Where nodes connect."""
        return f"mqtts://localhost:{self.port}"

    def login(self, user: str, pki: Path | None = None) -> Broker:
        """What a file of somebody says of this broker."""
        return Broker(url=self.url, tls=Tls(**identity_files(pki or self.pki, user)), keepalive=duration("5s"))

    @property
    def log(self) -> str:
        """What it has said so far."""
        return (self.folder / "broker.log").read_text()

    @property
    def denied(self) -> list[str]:
        """What it has refused to take."""
        return [line for line in self.log.splitlines() if "Denied" in line]

    def hang_up(self) -> None:
        """Tell it to read its files again, and wait until it has."""
        assert self._process is not None
        before = self.log.count("Reloading config")
        self._process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + START_S
        while self.log.count("Reloading config") == before:
            assert time.monotonic() < deadline, self.log
            time.sleep(0.01)

    def __enter__(self) -> Self:
        program = find_mosquitto()
        assert program is not None
        # Without a child between: a signal has to reach the broker itself.
        tether = [sys.executable, "-I", "-S", tethered.__file__, str(os.getpid())]
        with (self.folder / "broker.log").open("ab") as log:
            self._process = subprocess.Popen([*tether, program, "-c", "mosquitto.conf"], cwd=self.folder, stdout=log, stderr=log)
        deadline = time.monotonic() + START_S
        while not self._listens():
            assert self._process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.02)
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(10)

    def _listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1.0):
            return True
        return False
