"""`edgemw up` as a person would treat it: interrupted, its processes killed, on the broker of last resort."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from edgemw.transport.broker import start_broker
from tests.system.fleet import ROOT, edgemw, environment

QUICKSTART = ROOT / "examples/quickstart/edgemw.toml"
SMALL = ("tiers.device.count=2", "tiers.fog.count=1", "tiers.fog.window.quorum=1", "window.deadline=2s")
"""Settings with which the quickstart is four processes."""


def flags(*settings: str) -> list[str]:
    """The same as arguments."""
    return [word for setting in settings for word in ("--set", setting)]


class Run:
    """A run in the background whose lines are read as they come."""

    def __init__(self, out: Path, *arguments: str, file: Path = QUICKSTART, env: dict[str, str] | None = None) -> None:
        command = [sys.executable, "-m", "edgemw", "up", str(file), "--json", "--out", str(out), *arguments]
        self._errors = out.parent / "stderr"
        with self._errors.open("wb") as errors:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment() | (env or {})
            )

    @property
    def errors(self) -> str:
        """What it has printed to standard error."""
        return self._errors.read_text()

    def until_release(self, number: int) -> None:
        """Read lines until a release has been reported."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if json.loads(line).get("release", -1) >= number:
                return
        raise AssertionError(f"the run ended early: {self.errors}")

    def summary(self) -> dict[str, Any]:
        """The last line, once the run has ended."""
        out, _ = self.process.communicate(timeout=120)
        assert out, self.errors
        summary: dict[str, Any] = json.loads(out.splitlines()[-1])
        return summary

    def interrupt_twice(self) -> None:
        """Ctrl-C, and again once the first was heard; a device is held, so that the round cannot end between the two."""
        next(process for name, process in self.nodes().items() if name.startswith("device")).suspend()
        self.process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + 60
        while "once more stops at once" not in self.errors:
            assert time.monotonic() < deadline, self.errors
            time.sleep(0.01)
        self.process.send_signal(signal.SIGINT)

    def children(self) -> list[psutil.Process]:
        """The processes that it has started."""
        found: list[psutil.Process] = psutil.Process(self.process.pid).children(recursive=True)
        return found

    def nodes(self) -> dict[str, psutil.Process]:
        """The node processes by id."""
        found = {}
        for child in self.children():
            try:
                line = child.cmdline()
            except psutil.NoSuchProcess:  # it has ended since, or was killed and is not waited for yet
                continue
            if "--config" in line:
                found[Path(line[line.index("--config") + 1]).stem] = child
        return found


def conserved(summary: dict[str, Any]) -> bool:
    """Whether everything that was sent was counted or returned."""
    return bool(
        summary["updates_sent"] == summary["updates_counted"] + summary["updates_returned"]
        and summary["weight_sent"] == summary["weight_counted"] + summary["weight_returned"]
    )


def test_ctrl_c_once_finishes_the_round_and_measures(tmp_path: Path) -> None:
    run = Run(tmp_path / "out", "--set", "task.rounds=1000")
    run.until_release(3)
    run.process.send_signal(signal.SIGINT)
    summary = run.summary()
    assert run.process.returncode == 130
    assert (summary["finished"], summary["interrupted"], summary["rounds_asked"]) == (False, True, 1000)
    assert 3 < summary["rounds"] < 1000
    assert summary["accuracy"] is not None
    assert summary["reasons"] == {}
    assert conserved(summary)
    assert (tmp_path / "out/report.json").exists()


def test_ctrl_c_twice_stops_at_once_and_leaves_nobody_behind(tmp_path: Path) -> None:
    run = Run(tmp_path / "out", "--set", "task.rounds=1000")
    run.until_release(2)
    nodes = list(run.nodes().values())
    assert len(nodes) == 11
    run.interrupt_twice()
    summary = run.summary()
    assert run.process.returncode == 130
    assert (summary["finished"], summary["interrupted"]) == (False, True)
    assert (summary["updates_sent"], summary["weight_sent"], summary["updates_returned"]) == (None, None, None)
    assert summary["updates_counted"] > 0
    _, alive = psutil.wait_procs(nodes, timeout=10)
    assert not alive


def test_killed_nodes_are_started_again_and_everything_is_counted_once(tmp_path: Path) -> None:
    run = Run(tmp_path / "out", "--set", "task.rounds=25")
    for number, victim in ((2, "device-0"), (5, "fog-1"), (8, "top")):
        run.until_release(number)
        run.nodes()[victim].kill()
    summary = run.summary()
    assert run.process.returncode == 0
    assert set(summary["restarts"]) == {"device-0", "fog-1", "top"}
    assert summary["rounds"] == 25
    assert conserved(summary)


def test_the_quickstart_runs_on_amqtt(tmp_path: Path) -> None:
    with start_broker("amqtt", tmp_path / "broker") as broker:
        settings = flags(f"broker.url={broker.url}", "broker.protocol=3.1.1", "task.rounds=3")
        done = edgemw("up", QUICKSTART, "--json", "--out", tmp_path / "out", *settings, timeout_s=150)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["rounds"] == 3
    assert conserved(summary)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["up", "missing.toml"], 3, "missing.toml: cannot be read"),
        (["up", str(QUICKSTART), "--set", "task.roundz=3"], 3, "did you mean 'task.rounds'?"),
        (
            ["up", str(QUICKSTART), "--set", "task.bundle=no.edge"],
            3,
            "no.edge: there is no such file: make it with `edgemw compile`",
        ),
        (["up", str(QUICKSTART), "--set", "broker.url=mqtt://127.0.0.1:1"], 4, "is the broker running"),
        (["up", str(QUICKSTART), "--data", "nowhere.npz"], 3, "nowhere.npz: no such file"),
        (["up", str(QUICKSTART.with_name("device.toml"))], 3, "this is the file of a device: use `edgemw device --config"),
        (["up", str(QUICKSTART.with_name("fog.toml"))], 3, "this is the file of a fog node: use `edgemw fog --config"),
        (["task", "show", str(QUICKSTART)], 3, "edgemw.toml: not a task bundle"),
        (["status", "--broker", "mqtt://127.0.0.1:1", "--net", "x"], 4, "is the broker running"),
        (["status"], 3, "--config FILE"),
        (["predict", "--store", "nowhere", "--json", "[[0]]"], 3, "nowhere"),
    ],
)
def test_refusals_say_what_where_and_what_to_do_in_one_line(tmp_path: Path, arguments: list[str], code: int, says: str) -> None:
    out = tmp_path / "out"
    done = edgemw(*arguments, *(["--out", str(out)] if arguments[0] == "up" else []))
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert code == 4 or not out.exists()
