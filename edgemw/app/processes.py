"""The processes of a deployment on one machine: started, watched, started again when they crash, stopped at the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgemw.transport import tethered

RESTART_AFTER_S = 1.0
MAX_RESTARTS = 10
STOP_TIMEOUT_S = 15.0
REFUSALS = (2, 3)  # wrong usage, or a file that says something wrong: trying again changes nothing
_TAIL_BYTES = 4000


@dataclass(slots=True)
class Child:
    """One node's process; `failure` is why it could not run, once it is left alone."""

    id: str
    command: list[str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    restarts: int = 0
    restart_at: float | None = None
    stopped: bool = False
    failure: str = ""


class Processes:
    """A set of node processes; every one dies with this process, whatever happens to it."""

    def __init__(self, env: dict[str, str]) -> None:
        self._env = env
        self._children: dict[str, Child] = {}

    def start(self, node: str, arguments: Sequence[str], log: Path) -> None:
        """Start `edgemw ARGUMENTS...` for a node; what it prints goes to the end of `log`."""
        child = Child(node, [sys.executable, "-m", "edgemw", *arguments], log)
        self._children[node] = child
        self._spawn(child)

    @property
    def restarts(self) -> dict[str, int]:
        """How often each node that crashed was started again."""
        return {child.id: child.restarts for child in self._children.values() if child.restarts}

    @property
    def failures(self) -> dict[str, str]:
        """The nodes that could not run, and why."""
        return {child.id: child.failure for child in self._children.values() if child.failure}

    def tend(self) -> Iterator[str]:
        """Start crashed nodes again after a moment; gives a line for each thing that happened."""
        for child in self._children.values():
            code = child.process.poll() if child.process is not None else None
            if code is not None:
                child.process = None
                yield from _after(child, code)
            if child.restart_at is not None and time.monotonic() >= child.restart_at:
                child.restart_at = None
                child.restarts += 1
                self._spawn(child)

    def ended(self, node: str) -> bool:
        """Whether a node has ended for good."""
        child = self._children[node]
        return child.stopped and child.process is None

    def interrupt(self, node: str) -> None:
        """Ask one node to finish what it is doing; one that waits to be started again has nothing in hand and stays down."""
        child = self._children[node]
        child.stopped, child.restart_at = True, None
        if child.process is not None:
            child.process.send_signal(signal.SIGINT)

    def stop(self, *, at_once: bool = False) -> None:
        """Ask all nodes to finish, and end those that do not in time."""
        for child in self._children.values():
            child.stopped, child.restart_at = True, None
            if child.process is not None:
                child.process.send_signal(signal.SIGKILL if at_once else signal.SIGINT)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        for child in self._children.values():
            if child.process is None:
                continue
            try:
                child.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()
            child.process = None

    def _spawn(self, child: Child) -> None:
        tether = [sys.executable, "-I", "-S", tethered.__file__, str(os.getpid())]
        with child.log.open("ab") as log:
            # A session of its own: Ctrl-C in the terminal is for us, and we decide what becomes of the nodes.
            child.process = subprocess.Popen(
                [*tether, *child.command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._env, start_new_session=True
            )


def _after(child: Child, code: int) -> Iterator[str]:
    """What becomes of a child that has ended, as a line where that is worth one."""
    if child.stopped or code == 0:
        child.stopped = True
    elif code in REFUSALS:
        child.stopped, child.failure = True, _last_line(child.log)
        yield f"{child.id} was refused: {child.failure}"
    elif child.restarts < MAX_RESTARTS:
        child.restart_at = time.monotonic() + RESTART_AFTER_S
        yield f"{child.id} ended with {_meaning(code)}; it is started again ({child.log})"
    else:
        child.stopped, child.failure = True, f"ended with {_meaning(code)} too often: {_last_line(child.log)}"
        yield f"{child.id} {child.failure}; it is left alone ({child.log})"


def _last_line(log: Path) -> str:
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        lines = stream.read().decode(errors="replace").strip().splitlines()
    telling = [line for line in lines if " level=info " not in line and " level=debug " not in line]
    return telling[-1].removeprefix("edgemw: ") if telling else f"see {log}"


def _meaning(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
