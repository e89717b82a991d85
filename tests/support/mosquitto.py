"""mosquitto on the files of brokers/mosquitto: as they are, but for the lines that they ask their reader to edit."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Self

from edgemw.app.settings import Broker, Tls
from edgemw.core.config.secret import Secret
from edgemw.core.config.units import duration
from edgemw.transport import tethered
from edgemw.transport.broker import find_mosquitto
from tests.support.certificates import make_certificate, openssl
from tests.support.ports import free_ports

SHIPPED = Path(__file__).parents[2] / "brokers" / "mosquitto"
START_S = 10.0
CA_CONFIG = (
    "[ca]\ndefault_ca = test\n[test]\ndatabase = index.txt\ncrlnumber = number\ndefault_md = sha256\ndefault_crl_days = 1\n"
)


class Authority:
    """Certificates of a fleet, and the list of those that were revoked, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        make_certificate(folder, "ca", "test authority", None, "")
        make_certificate(folder, "server", "localhost", "ca", "subjectAltName=DNS:localhost\n")
        (folder / "ca.conf").write_text(CA_CONFIG)
        (folder / "index.txt").write_text("")
        (folder / "number").write_text("01\n")
        self._write_list()

    def admit(self, *nodes: str) -> None:
        """Make a key and a certificate for each of some nodes."""
        for node in nodes:
            make_certificate(self.folder, node, node, "ca", "extendedKeyUsage=clientAuth\n")

    def revoke(self, node: str) -> None:
        """Put a node on the list; brokers have copies of it."""
        self._use("-revoke", f"{node}.crt")
        self._write_list()

    def tls(self, node: str) -> Tls:
        """What a node's file says."""
        return Tls(ca=self.folder / "ca.crt", cert=self.folder / f"{node}.crt", key=self.folder / f"{node}.key")

    def _write_list(self) -> None:
        self._use("-gencrl", "-out", "crl.pem")

    def _use(self, *arguments: str) -> None:
        openssl(self.folder, "ca", "-config", "ca.conf", "-cert", "ca.crt", "-keyfile", "ca.key", *arguments)


class Mosquitto:
    """One broker, in a work folder that holds what its files name."""

    def __init__(self, folder: Path, listener: Literal["single", "tls"], authority: Authority | None = None) -> None:
        self.folder, self.port, self._scheme = folder, free_ports(1)[0], "mqtt" if listener == "single" else "mqtts"
        self._authority = authority
        self._process: subprocess.Popen[bytes] | None = None
        for name in ("state", "conf.d"):
            (folder / name).mkdir(parents=True)
        for name in ("mosquitto.conf", "acl"):
            shutil.copyfile(SHIPPED / name, folder / name)
        (folder / "acl").chmod(0o600)
        said = "listener 1883 127.0.0.1" if listener == "single" else "listener 8883"
        self._put("listener.conf", edited(SHIPPED / listener / "listener.conf", {said: f"listener {self.port} 127.0.0.1"}))
        if authority is not None:
            for name in ("ca.crt", "server.crt", "server.key", "crl.pem"):
                shutil.copyfile(authority.folder / name, folder / name)
        if os.geteuid() == 0:
            self._put("user.conf", "user root\n")  # else it becomes a user who cannot look into a test's folder

    @property
    def url(self) -> str:
        """Where nodes connect."""
        return f"{self._scheme}://localhost:{self.port}"

    def login(self, node: str) -> Broker:
        """What a node's file says of this broker."""
        keepalive = duration("5s")
        if self._authority is not None:
            return Broker(url=self.url, tls=self._authority.tls(node), keepalive=keepalive)
        password = Secret(file=f"{node}.pass", beside=str(self.folder))
        return Broker(url=self.url, username=node, password=password, keepalive=keepalive)

    def admit(self, *nodes: str) -> None:
        """Give each of some nodes a password, known from its file."""
        path = self.folder / "passwords"
        path.touch(mode=0o600)
        for node in nodes:
            secret = self.folder / f"{node}.pass"
            secret.write_text(f"{node}'s password\n")
            secret.chmod(0o600)
            add = ["mosquitto_passwd", "-b", str(path), node, f"{node}'s password"]
            subprocess.run(add, check=True, capture_output=True, timeout=30)

    def bridge(self, child: str, parent: str, above: Mosquitto) -> None:
        """Bridge the domain of a fog node to that of its parent, on the broker above."""
        assert self._authority is not None
        for name in (f"{child}.crt", f"{child}.key"):
            shutil.copyfile(self._authority.folder / name, self.folder / name)
        text = edited(SHIPPED / "bridge" / "bridge.conf", {"address region.example:8883": f"address localhost:{above.port}"})
        names = {"region": parent, "site-1": child}
        self._put("bridge.conf", re.sub(r"\b(region|site-1)\b", lambda found: names[found[0]], text))

    def start(self) -> None:
        """Start it and wait until it listens."""
        program = find_mosquitto()
        assert program is not None
        tether = [sys.executable, "-I", "-S", tethered.__file__, str(os.getpid())]
        with (self.folder / "broker.log").open("ab") as log:
            command = [*tether, program, "-c", "mosquitto.conf"]
            self._process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)
        deadline = time.monotonic() + START_S
        while not self._listens():
            assert self._process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.02)

    def kill(self) -> None:
        """End it with SIGKILL, as a power cut would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def stop(self) -> None:
        """End it, if it runs."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    @property
    def log(self) -> str:
        """What it has said so far."""
        return (self.folder / "broker.log").read_text()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def _put(self, name: str, text: str) -> None:
        (self.folder / "conf.d" / name).write_text(text)

    def _listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1.0):
            return True
        return False


def edited(path: Path, changes: Mapping[str, str]) -> str:
    """The text of a file in which each of some lines, which stands there once, is another one."""
    lines = path.read_text().splitlines()
    for old, new in changes.items():
        assert lines.count(old) == 1, f"{path} has {lines.count(old)} lines {old!r}"
        lines[lines.index(old)] = new
    return "\n".join(lines) + "\n"


def started(brokers: Sequence[Mosquitto]) -> contextlib.ExitStack:
    """Start brokers, each after those before it; all are stopped at the end."""
    with contextlib.ExitStack() as stack:
        for broker in brokers:
            stack.enter_context(broker)
        return stack.pop_all()
