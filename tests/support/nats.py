"""A cluster of three NATS servers that run the files of brokers/nats as they are."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any, Self

from edgemw.transport import tethered
from tests.support.certificates import BOTH_SIDES, make_certificate, make_certificates
from tests.support.ports import free_ports

CONFIG = Path(__file__).parents[2] / "brokers" / "nats" / "nats.conf"
NAMES = ("nats-1", "nats-2", "nats-3")
PATIENCE_S = 60.0


def find_nats() -> str | None:
    """Path of the program, also where it is not on the PATH of ordinary users."""
    return shutil.which("nats-server") or shutil.which("nats-server", path="/usr/sbin:/usr/local/sbin")


class Cluster:
    """Three servers, each with a working directory of its own; stopped at the end.

    Attributes:
        tls: the folder of the certificates.
        urls: where each server takes MQTT.
    """

    def __init__(self, folder: Path, nodes: tuple[str, ...]) -> None:
        self._folder = folder
        self.tls = folder / "tls"
        self.tls.mkdir()
        make_certificates(self.tls, nodes)
        make_certificate(self.tls, "cluster-ca", "authority of the cluster", None, "")
        make_certificate(self.tls, "cluster", "localhost", "cluster-ca", BOTH_SIDES)
        ports = iter(free_ports(4 * len(NAMES)))
        self._ports = {name: {kind: next(ports) for kind in ("MQTT", "CLIENTS", "MONITOR", "CLUSTER")} for name in NAMES}
        self.urls = {name: f"mqtts://localhost:{self._ports[name]['MQTT']}" for name in NAMES}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def url(self) -> str:
        """All of them, for `broker.url`."""
        return ",".join(self.urls.values())

    def port(self, name: str, kind: str) -> int:
        """One of the ports of a server, by what the environment calls it."""
        return self._ports[name][kind]

    def __enter__(self) -> Self:
        for name in NAMES:
            self.start(name)
        for name in NAMES:
            self.wait_until_well(name)
        return self

    def __exit__(self, *exc: object) -> None:
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            process.wait()

    def start(self, name: str) -> None:
        """Start one server, in the folder of its name."""
        folder = self._folder / name
        folder.mkdir(exist_ok=True)
        if not (folder / "tls").exists():
            (folder / "tls").symlink_to(self.tls)
        addresses = {f"NATS_{kind}": f"127.0.0.1:{port}" for kind, port in self._ports[name].items()}
        routes = [f"nats-route://localhost:{ports['CLUSTER']}" for ports in self._ports.values()]
        env = os.environ | addresses | {"NATS_SERVER": name, "NATS_ROUTES": json.dumps(routes)}
        program = find_nats()
        assert program is not None
        with (folder / "log").open("ab") as log:
            tether = [sys.executable, "-I", "-S", tethered.__file__, str(os.getpid())]
            command = [*tether, program, "-c", str(CONFIG)]
            self._processes[name] = subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log)

    def kill(self, name: str) -> None:
        """SIGKILL, as a power cut."""
        process = self._processes.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def wait_until_well(self, name: str) -> None:
        """Until a server says that it and its share of what is stored are well."""
        deadline = time.monotonic() + PATIENCE_S
        while not self._is_well(name):
            log = self.log(name)
            assert self._processes[name].poll() is None, log
            assert time.monotonic() < deadline, log
            time.sleep(0.05)

    def log(self, name: str) -> str:
        """What a server has written."""
        return (self._folder / name / "log").read_text()

    def _is_well(self, name: str) -> bool:
        with contextlib.suppress(OSError):  # also an answer that is not 200
            return str(self._get(name, "/healthz")["status"]) == "ok"
        return False

    def _get(self, name: str, path: str) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self._ports[name]['MONITOR']}{path}"
        with urllib.request.urlopen(url, timeout=5) as answer:
            found: dict[str, Any] = json.load(answer)
            return found
