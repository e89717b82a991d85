"""A net of real processes in a temporary folder: node files, `edgemw device` and `edgemw fog`, asked over MQTT."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np

from edgemw.app.census import NodeStatus
from edgemw.app.console import open_console
from edgemw.app.settings import Broker
from edgemw.transport import tethered

ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / "examples/quickstart/digits.edge"
PATIENCE_S = 60.0

T = TypeVar("T")


def environment() -> dict[str, str]:
    """The environment of every process."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def edgemw(*arguments: str | Path, timeout_s: float = PATIENCE_S, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    command = [sys.executable, "-m", "edgemw", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, env=environment(), check=False, cwd=cwd)


def when(look: Callable[[], T], right: Callable[[T], bool]) -> T:
    """What is seen once it is right; fails with the last of it if it never is."""
    deadline = time.monotonic() + PATIENCE_S
    while not right(seen := look()):
        assert time.monotonic() < deadline, seen
        time.sleep(0.05)
    return seen


class Fleet:
    """Processes by node id; everything is stopped at the end."""

    def __init__(self, folder: Path, url: str, net: str = "test", watcher: Broker | None = None) -> None:
        """Nodes of a net in a folder; `watcher` is how their broker is asked about them, where the URL alone does not do."""
        self.folder, self.url, self.net, self.bundle = folder, url, net, BUNDLE
        self.watcher = watcher or Broker(url=url)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.wait()
        if error is not None:
            for path in sorted(self.folder.glob("*.log")):
                print(f"--- {path.name}\n{path.read_text()[-2000:]}")

    # -- files

    def fog(self, node: str, parent: str = "", /, **tables: Mapping[str, Any]) -> Path:
        """Write a fog node's file."""
        default: dict[str, Mapping[str, Any]] = {"window": {"deadline": "5s"}}
        if not parent:
            default["task"] = {"bundle": str(BUNDLE), "rounds": 0}
            default["plan"] = {"steps": 2}
        return self._write(node, parent, default | tables)

    def device(self, node: str, parent: str, /, data: Path | None = None, **tables: Mapping[str, Any]) -> Path:
        """Write a device's file."""
        path = data or self.samples(node)
        text = f'\n[[data]]\npath = "{path}"\nsplit = "split"\n' if path else ""
        return self._write(node, parent, {"serving": {"http": "127.0.0.1:0"}} | tables, text)

    def samples(self, name: str, rows: int = 40) -> Path:
        """Write samples that fit the digits task."""
        rng = np.random.default_rng(len(name))
        y = rng.integers(0, 10, rows)
        x = (rng.random((rows, 64)) + np.eye(64, dtype=np.float64)[y * 6]).astype(np.float32)
        path = self.folder / f"{name}.npz"
        np.savez(path, x=x, y=y, split=np.arange(rows) % 4 == 0)
        return path

    def _write(self, node: str, parent: str, tables: Mapping[str, Mapping[str, Any]], more: str = "") -> Path:
        own = {"id": node, "state": str(self.folder / node)} | ({"parent": parent} if parent else {})
        everything: dict[str, Mapping[str, Any]] = {
            "broker": {"url": self.url, "keepalive": "5s"},
            "telemetry": {"http": "127.0.0.1:0"},
        }
        lines = ["schema = 1", f'net = "{self.net}"']
        for name, table in {**everything, **tables, "node": {**own, **tables.get("node", {})}}.items():
            lines.append(f"[{name}]")
            lines += [f"{key} = {json.dumps(value)}" for key, value in table.items()]
        path = self.folder / f"{node}.toml"
        path.write_text("\n".join(lines) + "\n" + more)
        return path

    # -- processes

    def start(self, *nodes: str) -> None:
        """Start nodes whose files have been written."""
        for node in nodes:
            path = self.folder / f"{node}.toml"
            role = "device" if "[serving]" in path.read_text() else "fog"
            with (self.folder / f"{node}.log").open("ab") as log:
                tether = [sys.executable, "-I", "-S", tethered.__file__, str(os.getpid())]  # to whoever runs the test
                command = [*tether, sys.executable, "-m", "edgemw", role, "--config", str(path)]
                self.processes[node] = subprocess.Popen(command, stdout=log, stderr=log, env=environment())

    def signal(self, node: str, number: signal.Signals) -> None:
        """Send a signal."""
        self.processes[node].send_signal(number)

    def said(self, node: str, text: str) -> None:
        """Wait until a node has logged something."""
        path = self.folder / f"{node}.log"
        deadline = time.monotonic() + PATIENCE_S
        while text not in path.read_text():
            assert time.monotonic() < deadline, f"{path} never said {text!r}"
            time.sleep(0.01)

    def kill(self, node: str) -> None:
        """kill -9, and wait until it is gone."""
        self.processes[node].kill()
        self.processes.pop(node).wait()
        for note in (self.folder / node).glob("*.address"):
            note.unlink()  # a killed node cannot take its notes away

    def wait(self, node: str, timeout_s: float = PATIENCE_S) -> int:
        """Wait until a node has ended and give its exit code."""
        code = self.processes[node].wait(timeout_s)
        del self.processes[node]
        return code

    # -- asking

    def status(self) -> dict[str, NodeStatus]:
        """Everybody's status by node."""

        async def ask() -> list[NodeStatus]:
            async with open_console(self.watcher, self.net, {}) as console:
                return await console.ask(2.0)

        return {status.node: status for status in asyncio.run(ask())}

    def until(self, true: Callable[[dict[str, NodeStatus]], bool], timeout_s: float = PATIENCE_S) -> dict[str, NodeStatus]:
        """Ask until something is true; fails with the last answers if it never is."""
        deadline = time.monotonic() + timeout_s
        while True:
            statuses = self.status()
            if true(statuses):
                return statuses
            if time.monotonic() > deadline:
                raise AssertionError("\n".join(map(str, statuses.values())) or "nobody answered")

    def address(self, node: str, door: str) -> str:
        """The address that a node wrote down for a door ("serving" or "telemetry"), waiting until it has."""
        path = self.folder / node / f"{door}.address"
        deadline = time.monotonic() + PATIENCE_S
        while not (path.exists() and path.read_text().endswith("\n")):
            assert time.monotonic() < deadline, f"{path} was never written"
            time.sleep(0.05)
        return path.read_text().strip()

    def get(self, node: str, door: str, path: str) -> str:
        """GET from a node's door."""
        with urllib.request.urlopen(self.address(node, door) + path, timeout=10) as answer:
            return str(answer.read().decode())


def fact(status: NodeStatus, name: str) -> float:
    """A number out of a status, -1 where it is not there."""
    return float(status.status.facts.get(name, -1))
