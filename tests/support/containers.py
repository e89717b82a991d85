"""Runs services of docker/compose.yaml without Docker: namespaces of mounts and networks, as root, with util-linux and iproute2.

Each has an address of its own and reaches the others by name, a root that it can only read, no capabilities, and its files,
secrets and volumes at the places that compose.yaml gives. It runs in the folder of its image, as `tests.support.images` builds
it, under the image's user; without one on this machine's own programs, as root without capabilities, since Python may lie where
only root reads.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import IO

import pytest

from tests.support.compose import ROOT, Service
from tests.support.programs import installed

LOCKED = ["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", "--clear-groups"]
ETC = ("passwd", "group", "nsswitch.conf", "ssl", "ld.so.cache", "alternatives")
MACHINE = {  # what stands in for files of the images
    "/opt/edgemw/bin/edgemw": [sys.executable, "-m", "edgemw"],
    "/opt/edgemw/bin/python": [sys.executable],
    "/opt/edgemw/samples.py": [str(ROOT / "docker/samples.py")],
    "/opt/edgemw/quickstart/edgemw.toml": [str(ROOT / "examples/quickstart/edgemw.toml")],
}
SWITCH = "ip link add br0 type bridge && ip address add 10.88.0.1/24 dev br0 && ip link set br0 up && echo && exec cat"


def needs_namespaces() -> None:
    """Skip where they are not allowed."""
    for program in ("unshare", "nsenter", "setpriv", "ip"):
        installed(program)
    bare = ["unshare", "--net", "--mount", "ip", "link", "add", "type", "bridge"]
    if os.geteuid() != 0 or subprocess.run(bare, capture_output=True, check=False).returncode:
        pytest.skip("only root can make namespaces of networks, and not everywhere")


class Pod:
    """Services that hear each other; everything is stopped at the end."""

    def __init__(self, folder: Path, services: Mapping[str, Service], images: Path | None = None) -> None:
        self.folder, self.services, self.images = folder, services, images
        self._addresses = {name: f"10.88.0.{number}" for number, name in enumerate(services, 2)}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._roots: dict[str, Path] = {}
        self._begun = count()

    def __enter__(self) -> Pod:
        self.folder.mkdir(parents=True)
        hosts = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in self._addresses.items())]
        (self.folder / "hosts").write_text("\n".join(hosts) + "\n")
        self._switch = subprocess.Popen(["unshare", "--net", "sh", "-c", SWITCH], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._switch.stdout is not None
        assert self._switch.stdout.readline() == b"\n"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            process.wait()
        self._switch.kill()
        self._switch.communicate()

    # -- as docker compose up, run, exec, kill, stop and logs

    def start(self, name: str) -> None:
        """Start one."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = self._begin(name, [], log, log)

    def run(self, name: str, *more: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run one, with more arguments, to its end."""
        with self._begin(name, more, subprocess.PIPE, subprocess.PIPE) as process:
            try:
                out, err = process.communicate(timeout=timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
            return subprocess.CompletedProcess(process.args, process.returncode, out.decode(), err.decode())

    def execute(self, name: str, command: Sequence[str], timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run something where a service runs."""
        enter = ["nsenter", "--target", str(self._processes[name].pid), "--net", "--mount", "chroot", str(self._roots[name])]
        words = [*enter, *self._inside(self.services[name], command)]
        return subprocess.run(words, capture_output=True, text=True, timeout=timeout_s, check=False)

    def healthy(self, name: str) -> bool:
        """What HEALTHCHECK would say now."""
        return self.execute(name, self.services[name].image.health).returncode == 0

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to one."""
        self._processes[name].send_signal(number)

    def wait(self, name: str, timeout_s: float = 60.0) -> int:
        """Wait until one has ended, and give its exit code."""
        code = self._processes[name].wait(timeout_s)
        del self._processes[name]
        return code

    def log(self, name: str) -> str:
        """What one has written."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    # -- how

    def _begin(self, name: str, more: Sequence[str], out: IO[bytes] | int, err: IO[bytes] | int) -> subprocess.Popen[bytes]:
        service, number = self.services[name], next(self._begun)
        root = self._roots[name] = self.folder / f"root-{number}"
        root.mkdir()
        words = ["chroot", str(root), *self._inside(service, [*service.command, *more])]
        ready, told = os.pipe()
        steps = [*self._mounts(service, root), f"echo >/proc/self/fd/{told}", "read -r _", f"exec {shlex.join(words)} </dev/null"]
        unshared = ["unshare", "--net", "--mount", "sh", "-ec", "\n".join(steps)]
        process = subprocess.Popen(unshared, stdin=subprocess.PIPE, stdout=out, stderr=err, pass_fds=[told])
        os.close(told)
        assert process.stdin is not None
        with os.fdopen(ready) as line, process.stdin as gate:
            if not line.readline():
                process.wait()
                raise AssertionError(f"{name} did not begin: is its image there?")
            self._wire(f"v{number}", process.pid, self._addresses[name])
            gate.write(b"\n")
        process.stdin = None  # `communicate` has nothing to say to it
        return process

    def _wire(self, end: str, pid: int, address: str) -> None:
        """Join the network of a process to the others."""
        switch = [f"link add {end} type veth peer name eth0 netns {pid}", f"link set {end} master br0 up"]
        card = f"02:00:00:00:00:{int(address.rpartition('.')[2]):02x}"  # the same in its next life: others remember it
        inside = ["link set lo up", f"link set eth0 address {card}", f"address add {address}/24 dev eth0", "link set eth0 up"]
        for where, lines in ((self._switch.pid, switch), (pid, inside)):
            words = ["nsenter", f"--net=/proc/{where}/ns/net", "ip", "-batch", "-"]
            subprocess.run(words, input="\n".join(lines).encode(), check=True)

    def _on_machine(self, service: Service) -> bool:
        return self.images is None or service.target is None

    def _owner(self, service: Service) -> tuple[str, str]:
        """The user and group that a service runs under."""
        if self._on_machine(service) and service.target is not None:
            return ("mosquitto", "mosquitto") if service.target == "broker" else ("root", "root")
        user, _, group = service.user.partition(":")
        return user, group

    def _inside(self, service: Service, command: Sequence[str]) -> list[str]:
        """A command with the user, the privileges and the environment of a service."""
        env, words = service.env, list(command)
        if self._on_machine(service):
            env = env | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
            words = [each for word in words for each in MACHINE.get(word, [word])]
        user, group = self._owner(service)
        variables = [f"{key}={value}" for key, value in env.items()]
        return [
            "setpriv",
            f"--reuid={user}",
            f"--regid={group}",
            *LOCKED,
            "env",
            f"--chdir={service.image.folder}",
            "-i",
            *variables,
            *words,
        ]

    def _mounts(self, service: Service, root: Path) -> list[str]:
        """Shell lines that make the root of a service."""
        own = not self._on_machine(service)
        empty = f"mount --bind {self.images}/{service.target} {root}" if own else f"mount -t tmpfs tmpfs {root}"
        lines = [empty, f"mkdir -p {root}/tmp", f"mount -t tmpfs tmpfs {root}/tmp"]  # before what may lie in it
        lines += [] if own else _machine(root)
        for mount in service.mounts:
            source = self._volume(mount.source, service) if mount.is_volume else Path(mount.source)
            lines += _shown(source, f"{root}{mount.target}", writable=mount.writable)
        lines += _shown(self.folder / "hosts", f"{root}/etc/hosts")
        for kernel in ("proc", "dev", "sys"):
            lines += [f"mkdir -p {root}/{kernel}", f"mount --rbind /{kernel} {root}/{kernel}"]
        return [*lines, f"mount -o remount,{'bind,' if own else ''}ro {root}"]

    def _volume(self, name: str, service: Service) -> Path:
        """A named volume; like Docker's it belongs to the user of the image that has it first."""
        path = self.folder / "volumes" / name
        if not path.exists():
            path.mkdir(parents=True, mode=0o755)
            user, group = (int(each) if each.isdecimal() else each for each in self._owner(service))
            shutil.chown(path, user, group)
        return path


def _shown(source: Path, place: str, *, writable: bool = False) -> list[str]:
    """Shell lines that show a file or folder at another place."""
    made = f"mkdir -p {place}" if source.is_dir() else f"mkdir -p {Path(place).parent} && touch {place}"
    return [made, f"mount --bind {source} {place}", *([] if writable else [f"mount -o remount,bind,ro {place}"])]


def _machine(root: Path) -> list[str]:
    """Shell lines that fill a root with this machine's programs, and little of its settings."""
    programs = [Path(name) for name in ("/usr", "/bin", "/sbin", "/lib", "/lib64")]
    found = [*programs, *(Path("/etc", name) for name in ETC), ROOT, Path(sys.prefix), Path(sys.base_prefix)]
    broker, copied = f"{ROOT}/brokers/mosquitto", f"{root}/etc/edgemw"
    lines = [f"mkdir -p {copied}/conf.d"]
    for path in (path for path in dict.fromkeys(found) if path.exists()):
        lines += _shown(path, f"{root}{path}")
    files = [f"cp {broker}/mosquitto.conf {broker}/acl {copied}", f"cp {broker}/tls/listener.conf {copied}/conf.d"]
    return [*lines, *files, f"ln -s /var/lib/edgemw {copied}/state"]
