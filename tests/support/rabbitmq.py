"""A RabbitMQ server that runs the files of brokers/rabbitmq as they are, with an epmd of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from edgemw.transport import tethered
from tests.support.certificates import make_certificates
from tests.support.ports import free_ports

FILES = Path(__file__).parents[2] / "brokers" / "rabbitmq"
PATIENCE_S = 120.0


def find_rabbitmq() -> str | None:
    """Path of the start script, which anybody may run; the one on the PATH of Debian is for root and its own user alone."""
    return shutil.which("rabbitmq-server", path="/usr/lib/rabbitmq/bin:/opt/rabbitmq/sbin:/usr/local/sbin")


class RabbitMq:
    """One server; stopped at the end, with all its processes.

    Attributes:
        tls: the folder of the certificates.
        url: where it takes MQTT.
    """

    def __init__(self, folder: Path, nodes: tuple[str, ...]) -> None:
        self._folder = folder
        self.tls = folder / "tls"
        self.tls.mkdir()
        make_certificates(self.tls, nodes)
        (folder / "definitions.json").symlink_to(FILES / "definitions.json")
        self._port, self._epmd_port, self._erlang_port = free_ports(3)
        (folder / "conf.d").mkdir()
        (folder / "conf.d" / "10-port.conf").write_text(f"mqtt.listeners.ssl.default = 127.0.0.1:{self._port}\n")
        self.url = f"mqtts://localhost:{self._port}"
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        program = find_rabbitmq()
        assert program is not None
        env = os.environ | self._environment()
        self._spawn(["epmd"], env)  # else Erlang starts one that stays
        server = self._spawn([program], env)
        deadline = time.monotonic() + PATIENCE_S
        while not self._listens():
            assert server.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.1)
        return self

    def __exit__(self, *exc: object) -> None:
        for process in reversed(self._processes):
            for number in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(20)

    def log(self) -> str:
        """What it has written."""
        return (self._folder / "log").read_text()

    def _environment(self) -> Mapping[str, str]:
        return {
            "HOME": str(self._folder),  # where Erlang keeps its cookie
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": "edgemw@localhost",
            "RABBITMQ_DIST_PORT": str(self._erlang_port),
            "RABBITMQ_MNESIA_BASE": str(self._folder / "data"),
            "RABBITMQ_LOG_BASE": str(self._folder),
            "RABBITMQ_PID_FILE": str(self._folder / "pid"),
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(FILES / "enabled_plugins"),
            "RABBITMQ_CONFIG_FILE": str(FILES / "rabbitmq.conf"),
            "RABBITMQ_CONFIG_FILES": str(self._folder / "conf.d" / "*.conf"),
        }

    def _spawn(self, command: list[str], env: Mapping[str, str]) -> subprocess.Popen[bytes]:
        tether = [sys.executable, "-I", "-S", tethered.__file__, str(os.getpid())]
        with (self._folder / "log").open("ab") as log:
            # A group of its own, so that the helpers that Erlang starts end with it.
            process = subprocess.Popen(
                [*tether, *command],
                cwd=self._folder,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    def _listens(self) -> bool:
        with contextlib.suppress(ConnectionError), socket.create_connection(("127.0.0.1", self._port), timeout=1.0):
            return True
        return False
