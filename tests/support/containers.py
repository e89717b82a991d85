"""Runs services of docker/compose.yaml without Docker: namespaces of mounts and networks, as root, with util-linux and iproute2.

Each has an address of its own and reaches the others by name, a root that it can only read, no capabilities, and its files, secrets
and volumes at the places that compose.yaml gives. It runs in the folder of its image, as `tests.support.images` builds it, under
the image's user; without one on this machine's own programs, as root without capabilities: Python may lie where only root reads.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType

import pytest

from tests.support.compose import ROOT, Service
from tests.support.prometheus import installed

LOCKED = ["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", "--clear-groups"]
ETC = ("passwd", "group", "nsswitch.conf", "ssl", "ld.so.cache", "alternatives")
MACHINE = {  # what stands in for files of the images
    "/opt/edgemw/bin/edgemw": [sys.executable, "-m", "edgemw"],
    "/opt/edgemw/bin/python": [sys.executable],
    "/opt/edgemw/samples.py": [str(ROOT / "docker/samples.py")],
    "/opt/edgemw/quickstart/edgemw.toml": [str(ROOT / "examples/quickstart/edgemw.toml")],
}
UP = "import fcntl, socket, struct; fcntl.ioctl(socket.socket(), 0x8914, struct.pack('16sh', b'lo', 0x49))"


def needs_namespaces() -> None:
    """Skip where they are not allowed."""
    for program in ("unshare", "nsenter", "setpriv", "ip"):
        installed(program)
    bare = ["unshare", "--net", "--mount", "ip", "link", "add", "type", "bridge"]
    if os.geteuid() != 0 or subprocess.run(bare, capture_output=True, check=False).returncode:
        pytest.skip("only root can make namespaces of networks, and not everywhere")


class Pod:
    """Services that hear each other; everything is stopped at the end."""

    def __init__(self, folder: Path, names: Iterable[str], images: Path | None = None) -> None:
        self.folder, self.images = folder, images
        self.addresses = {name: f"10.88.0.{number}" for number, name in enumerate(names, 2)}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.services: dict[str, Service] = {}

    def __enter__(self) -> Pod:
        self.folder.mkdir(parents=True, exist_ok=True)
        hosts = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in self.addresses.items())]
        (self.folder / "hosts").write_text("\n".join(hosts) + "\n")
        switch = "ip link add br0 type bridge && ip address add 10.88.0.1/24 dev br0 && ip link set br0 up && echo && exec cat"
        self._switch = subprocess.Popen(["unshare", "--net", "sh", "-c", switch], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._switch.stdout is not None
        assert self._switch.stdout.readline() == b"\n"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.wait()
        self._switch.kill()
        self._switch.communicate()
        if error is not None:
            for path in sorted(self.folder.glob("*.log")):
                print(f"--- {path.name}\n{path.read_text(errors='replace')[-1500:]}")

    def start(self, service: Service) -> None:
        """Start one, with an address of its own."""
        ready = self.folder / f"{service.name}.ready"
        os.mkfifo(ready)
        words = shlex.join(["chroot", self._root(service), *self._inside(service, service.command)])
        steps = [*self._mounting(service), f"read -r _ < {shlex.quote(str(ready))}", f"exec {words}"]
        with (self.folder / f"{service.name}.log").open("ab") as log:
            process = subprocess.Popen(["unshare", "--net", "--mount", "sh", "-ec", "\n".join(steps)], stdout=log, stderr=log)
        self.services[service.name], self.processes[service.name] = service, process
        self._wire(service.name, process, ready)

    def _wire(self, name: str, process: subprocess.Popen[bytes], ready: Path) -> None:
        """Join its network to the others, and let it begin."""
        end = f"v{len(self.processes)}"
        with ready.open("w") as gate:  # waits until its namespaces are there
            subprocess.run(["nsenter", f"--net=/proc/{process.pid}/ns/net", sys.executable, "-c", UP], check=True)
            lines = [
                f"link add {end} type veth peer name eth0 netns {process.pid}",
                f"link set {end} master br0 up",
            ]
            inside = [f"address add {self.addresses[name]}/24 dev eth0", "link set eth0 up"]
            for place, words in ((self._switch.pid, lines), (process.pid, inside)):
                batch = "\n".join(words).encode()
                subprocess.run(["nsenter", f"--net=/proc/{place}/ns/net", "ip", "-batch", "-"], input=batch, check=True)
            gate.write("\n")
        ready.unlink()

    def execute(self, name: str, command: Sequence[str], timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run something where a service runs, as `docker compose exec` does."""
        process, service = self.processes[name], self.services[name]
        enter = ["nsenter", "--target", str(process.pid), "--net", "--mount", "chroot", self._root(service)]
        words = [*enter, *self._inside(service, command)]
        return subprocess.run(words, capture_output=True, text=True, timeout=timeout_s, check=False)

    def healthy(self, name: str) -> bool:
        """What HEALTHCHECK would say now."""
        return self.execute(name, self.services[name].image.health).returncode == 0

    def volume(self, name: str) -> Path:
        return self.folder / "volumes" / name

    # -- how

    def _root(self, service: Service) -> str:
        return str(self.folder / "roots" / service.name)

    def _on_machine(self, service: Service) -> bool:
        return self.images is None or service.target is None

    def _inside(self, service: Service, command: Sequence[str]) -> list[str]:
        """A command with the user, the privileges and the environment of a service."""
        env, words = service.env, list(command)
        if self._on_machine(service):
            env = env | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
            words = [each for word in words for each in MACHINE.get(word, [word])]
        user, group = self._owner(service)
        variables = [f"{key}={value}" for key, value in env.items()]
        return ["setpriv", f"--reuid={user}", f"--regid={group}", *LOCKED, "env", "-i", *variables, *words]

    def _owner(self, service: Service) -> tuple[str, str]:
        """The user and group that a service runs under."""
        if self._on_machine(service) and service.target is not None:
            return ("mosquitto", "mosquitto") if service.target == "broker" else ("root", "root")
        user, _, group = service.user.partition(":")
        return user, group

    def _mounting(self, service: Service) -> list[str]:
        """Shell lines that make the root of a service."""
        root = self._root(service)
        Path(root).mkdir(parents=True)
        machine = self._on_machine(service)
        lines = self._machine(root) if machine else [f"mount --bind {self.images}/{service.target} {root}"]
        files = [*((mount.source, mount.target, mount.writable) for mount in service.mounts)]
        for source, target, writable in [*files, (str(self.folder / "hosts"), "/etc/hosts", False)]:
            place = f"{root}{target}"
            found = self._volume(source, service) if "/" not in source else Path(source)
            lines.append(f"mkdir -p {place}" if found.is_dir() else f"mkdir -p {Path(place).parent} && touch {place}")
            lines.append(f"mount --bind {found} {place}" + ("" if writable else f" && mount -o remount,bind,ro {place}"))
        lines += [f"mkdir -p {root}/tmp", f"mount -t tmpfs tmpfs {root}/tmp"]
        for kernel in ("proc", "dev", "sys"):
            lines.append(f"mkdir -p {root}/{kernel} && mount --rbind /{kernel} {root}/{kernel}")
        return [*lines, f"mount -o remount,{'' if machine else 'bind,'}ro {root}"]

    def _machine(self, root: str) -> list[str]:
        """This machine's programs, and little of its settings."""
        lines = [f"mount -t tmpfs tmpfs {root}", f"mkdir {root}/etc"]
        programs = [Path(name) for name in ("/usr", "/bin", "/sbin", "/lib", "/lib64")]
        found = [*programs, *(Path("/etc", name) for name in ETC), ROOT, Path(sys.prefix), Path(sys.base_prefix)]
        for path in (path for path in dict.fromkeys(found) if path.exists()):
            lines.append(f"mkdir -p {root}{path}" if path.is_dir() else f"touch {root}{path}")
            lines.append(f"mount --rbind {path} {root}{path} && mount -o remount,bind,ro {root}{path}")
        broker = f"{root}/etc/edgemw"
        lines.append(f"mkdir -p {broker} && cp {ROOT}/brokers/mosquitto/mosquitto.conf {ROOT}/brokers/mosquitto/acl {broker}")
        return lines

    def _volume(self, name: str, service: Service) -> Path:
        """A named volume; like Docker's it belongs to the user of the image that has it first."""
        path = self.volume(name)
        if not path.exists():
            path.mkdir(parents=True, mode=0o700)
            user, group = self._owner(service)
            shutil.chown(path, *(int(each) if each.isdecimal() else each for each in (user, group)))
        return path
