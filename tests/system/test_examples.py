"""The examples as a reader runs them: the quickstart from the command line, and every command that a README shows."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgemw.app.deployment import load_deployment
from edgemw.cli.main import parser
from edgemw.transport import tethered
from tests.system.fleet import PATIENCE_S, ROOT, edgemw, environment

ROUNDS = 3
EXAMPLES = ROOT / "examples"
FACTS = {
    "accuracy",
    "rounds",
    "wall_s",
    "uplink_bytes",
    "downlink_bytes",
    "updates_sent",
    "updates_counted",
    "updates_returned",
    "weight_sent",
    "weight_counted",
    "weight_returned",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """A short run of the quickstart: its folder, and the lines that it printed."""
    out = tmp_path_factory.mktemp("quickstart")
    changes = ("--set", f"task.rounds={ROUNDS}", "--set", "telemetry.http=127.0.0.1:0")
    done = edgemw("up", EXAMPLES / "quickstart/edgemw.toml", *changes, "--json", "--out", out, timeout_s=240.0)
    assert done.returncode == 0, done.stderr
    assert "broker: mosquitto" in done.stderr
    return out, [json.loads(line) for line in done.stdout.splitlines()]


def test_the_last_line_says_how_the_run_went(run: tuple[Path, list[dict[str, Any]]]) -> None:
    summary = run[1][-1]
    assert summary.keys() >= FACTS
    assert summary["finished"]
    assert summary["rounds"] == ROUNDS
    assert summary["devices"] == 8
    assert 0.0 < summary["accuracy"] <= 1.0
    assert summary["uplink_bytes"] > 0
    assert summary["downlink_bytes"] > summary["uplink_bytes"]
    assert summary["restarts"] == {}


def test_every_update_and_every_example_is_accounted_for(run: tuple[Path, list[dict[str, Any]]]) -> None:
    summary = run[1][-1]
    assert summary["updates_sent"] >= ROUNDS
    assert summary["updates_sent"] == summary["updates_counted"] + summary["updates_returned"]
    assert summary["weight_sent"] == summary["weight_counted"] + summary["weight_returned"]


def test_there_is_a_line_for_every_release(run: tuple[Path, list[dict[str, Any]]]) -> None:
    lines = run[1][:-1]
    assert [line["release"] for line in lines] == list(range(ROUNDS + 1))
    assert all(line["train_loss"] > 0 for line in lines[:-1])
    for name in ("wall_s", "uplink_bytes", "downlink_bytes"):
        values = [line[name] for line in lines]
        assert values == sorted(values)


def test_the_report_and_its_picture_are_written(run: tuple[Path, list[dict[str, Any]]]) -> None:
    out, lines = run
    report = json.loads((out / "report.json").read_text())
    assert report.items() >= lines[-1].items()
    assert len(report["rounds_history"]) == ROUNDS + 1
    assert {node["node"] for node in report["nodes"]} == {"top", "fog-0", "fog-1", *(f"device-{n}" for n in range(8))}
    assert (out / "report.png").read_bytes().startswith(b"\x89PNG")


def code_blocks(readme: Path) -> list[str]:
    return re.findall(r"^```\w*\n(.*?)^```", readme.read_text(), re.MULTILINE | re.DOTALL)


def commands(readme: Path) -> Iterator[str]:
    """The `edgemw` commands in the code blocks of a README; a backslash at the end of a line continues it."""
    for block in code_blocks(readme):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("edgemw "):
                yield line


def shown() -> list[tuple[str, str]]:
    readmes = sorted(EXAMPLES.rglob("README.md"))
    return [(str(readme.relative_to(ROOT)), command) for readme in readmes for command in commands(readme)]


def test_the_readmes_show_commands() -> None:
    assert {f"examples/{folder}README.md" for folder in ("", "har/", "activity/", "household/")} <= {
        readme for readme, _ in shown()
    }


@pytest.mark.parametrize(("readme", "command"), shown())
def test_a_shown_command_is_one_that_exists(readme: str, command: str) -> None:
    words = shlex.split(command, comments=True)
    args = parser().parse_args(words[1:])  # ends the test with the parser's own message where it does not
    assert callable(args.run)


@pytest.mark.parametrize(("readme", "command"), [each for each in shown() if each[1].startswith("edgemw up")])
def test_a_shown_deployment_could_run(readme: str, command: str) -> None:
    args = parser().parse_args(shlex.split(command, comments=True)[1:])
    assert load_deployment(ROOT / args.file, args.data, {}, args.overrides).tiers


@pytest.mark.parametrize(("readme", "command"), shown())
def test_the_files_of_a_shown_command_exist(readme: str, command: str) -> None:
    named = re.findall(r"(?<![\w/])examples/[\w./-]+\.(?:toml|py)\b", command)
    assert all((ROOT / name).is_file() for name in named)


# -- the examples that serve, with data of the same form, from a folder that has nothing else


class Reader:
    """Does what a README says, in a copy of the examples: at ports of its own, and with less work."""

    def __init__(self, folder: Path, readme: str, less: Mapping[str, str]) -> None:
        """`less`: patterns in the files of the examples, and what stands there instead."""
        self.folder, self._readme = folder, EXAMPLES / readme / "README.md"
        ports = {f"\\b{port}\\b": str(free_port()) for port in (1884, 8090)}
        self._changes = {**ports, **less}
        self._running: list[subprocess.Popen[str]] = []
        self._logs: dict[str, Path] = {}
        shutil.copytree(EXAMPLES, folder / "examples", dirs_exist_ok=True)
        for path in (folder / "examples").rglob("*"):
            if path.suffix in (".toml", ".py", ".conf"):
                path.write_text(self._changed(path.read_text()))
        bin_folder = folder / "bin"  # a reader has installed `edgemw`, and calls its Python `python`
        bin_folder.mkdir()
        (bin_folder / "edgemw").write_text(f'#!/bin/sh\nexec {sys.executable} -m edgemw "$@"\n')
        (bin_folder / "edgemw").chmod(0o755)
        (bin_folder / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        (bin_folder / "python").chmod(0o755)
        self._env = environment() | {"PATH": f"{bin_folder}:{os.environ['PATH']}:/usr/sbin"}

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for process in reversed(self._running):  # the broker last
            process.send_signal(signal.SIGINT)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if kind is not None:
            for command, log in self._logs.items():
                print(f"--- {command}\n{log.read_text()[-3000:]}")

    def block(self, first: str, **more: str) -> str:
        """Do what stands in the code block that has this text: what goes on for ever in the background. Gives what was printed.

        `more` is added to the line of a script of that name.
        """
        (text,) = (block for block in code_blocks(self._readme) if first in block)
        script = ["set -e"]
        for line in self._changed(text).splitlines():
            if line.startswith(("python -m venv", "pip install", "edgemw compile")):
                continue  # done
            if line.startswith(("mosquitto -c", "edgemw up", "edgemw serve")):
                self._run(script)
                script = ["set -e"]
                self._start(line.removesuffix("&"))
            else:
                name = Path(line.split()[1]).stem if line.startswith("python ") and "--question" not in line else ""
                script.append(f"{line} {more.get(name, '')}")
        return self._run(script)

    def until(self, command: str, text: str) -> None:
        """Wait until a command in the background has printed something."""
        deadline = time.monotonic() + PATIENCE_S
        while not re.search(text, self._logs[command].read_text()):
            assert time.monotonic() < deadline, f"{command} never said {text!r}"
            time.sleep(0.02)

    def _changed(self, text: str) -> str:
        for pattern, value in self._changes.items():
            text = re.sub(pattern, value, text, flags=re.MULTILINE)
        return text

    def _start(self, line: str) -> None:
        name = " ".join(line.split()[:2])
        self._logs[name] = log = self.folder / f"{len(self._logs)}.log"
        tether = [sys.executable, "-I", "-S", tethered.__file__, str(os.getpid())]
        command = [*tether, *shlex.split(line)]
        with log.open("w") as out:
            started = subprocess.Popen(command, cwd=self.folder, env=self._env, stdout=out, stderr=out, text=True)
        self._running.append(started)

    def _run(self, script: list[str]) -> str:
        command = ["bash", "-c", "\n".join(script)]
        done = subprocess.run(command, cwd=self.folder, env=self._env, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout


def free_port() -> int:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return int(door.getsockname()[1])


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the commands that compile have been run; in the place of har's network there is a smaller one."""
    folder = tmp_path_factory.mktemp("compiled")
    shutil.copytree(EXAMPLES, folder / "examples")
    (folder / "examples/har/task.py").write_text(
        """from torch import nn
from edgemw import Task
task = Task("har", lambda: nn.Sequential(nn.Flatten(), nn.Linear(128 * 9, 6)), loss="cross_entropy", input=(128, 9))
"""
    )
    lines = {command for readme, command in shown() if readme != "examples/README.md" and command.startswith("edgemw compile")}
    assert len(lines) == 2
    commands = [[sys.executable, "-m", *shlex.split(line)] for line in sorted(lines)]
    running = [subprocess.Popen(command, cwd=folder, env=environment()) for command in commands]
    assert [process.wait(120) for process in running] == [0, 0]
    return folder / "examples"


@pytest.fixture
def clean(tmp_path_factory: pytest.TempPathFactory, compiled: Path) -> Path:
    """A folder with nothing but the bundles, of a short name: a store's bell is a socket, whose path may have 100 bytes."""
    folder = tmp_path_factory.mktemp("c")
    for path in compiled.rglob("*.edge"):
        target = folder / "examples" / path.relative_to(compiled)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    return folder


@pytest.mark.skipif(not all(map(shutil.which, ("curl", "mosquitto_rr"))), reason="curl or mosquitto-clients are not installed")
def test_activity_is_asked_while_it_learns(clean: Path) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 6, 240)
    x = (rng.normal(0, 0.3, (240, 128, 9)) + y[:, None, None] / 6).astype(np.float16)
    np.savez(clean / "uci_har.npz", x=x, y=y, client=np.arange(240) % 12, split=np.arange(240) % 4 == 0)
    with Reader(clean, "activity", {"^rounds = 100": "rounds = 10000"}) as reader:
        reader.block("edgemw compile")
        reader.until("edgemw up", r"(?m)^ +0 ")
        reader.block("edgemw serve")
        reader.until("edgemw serve", "answering over MQTT")
        reader.until("edgemw serve", r"serving.*release=\d")
        table = [line.split() for line in reader.block("ask.py uci_har.npz\n", ask="--seconds 3").splitlines()]
        assert table[0][:3] == ["release", "answers", "accuracy"]
        releases = [int(row[0]) for row in table[1:]]
        assert releases == sorted(set(releases))
        assert len(releases) > 2
        for door in (3, 6):
            answers = [int(row[door]) for row in table[1:]]
            assert sum(answers) > 20
        first, second = (
            json.loads(line) for line in re.findall(r"^\{.*\}$", reader.block("mosquitto_rr").replace("}{", "}\n{"), re.M)
        )
        assert first["model_name"] == second["model_name"] == "har"
        assert int(second["model_version"]) >= int(first["model_version"]) >= releases[-1]
        answer = json.loads(reader.block("mosquitto_sub"))
        assert int(answer["model_version"]) >= int(second["model_version"])
        over_http, over_mqtt = reader.block("edgemw predict").splitlines()
        assert over_http.startswith("class ")
        assert json.loads(over_mqtt)["release"] >= int(answer["model_version"])
        assert "edgemw_serving_releases_total" in reader.block("edgemw model list")


def test_household_forecasts_are_scored(clean: Path) -> None:
    """Homes that use the same every day: those who guess that it will be as it was are right, to what a float has."""
    steps, homes, tested_from = 672 + 3 * 96 + 2 * 96, 104, 672 + 2 * 96
    day = np.random.default_rng(0).integers(0, 2000, (96, homes))
    values = np.tile(day, (steps // 96 + 1, 1))[:steps].astype(np.int16)
    np.savez(clean / "swiss_elec.npz", values=values, scale=np.float32(0.001), split_t=np.int32(tested_from))
    fewer = {"--homes 20": "--homes 4", "^count = 20": "count = 4", "quorum = 5": "quorum = 1", "^rounds = 40": "rounds = 3"}
    with Reader(clean, "household", fewer) as reader:
        reader.block("edgemw compile")
        reader.until("edgemw up", r"(?m)^ +0 ")
        reader.block("edgemw serve")
        reader.until("edgemw serve", "serving.*release=3")
        lines = reader.block("replay.py", replay="--speed 5000").splitlines()
    assert lines[1].split()[:4] == ["day", "release", "forecast", "yesterday"]
    rows = [line.split() for line in lines[2:]]
    assert [row[:2] for row in rows[:2]] == [["1", "3"], ["2", "3"]]
    assert [row[0] for row in rows[2:]] == [f"home-{home}" for home in (0, 1, 2, 3, 100, 101, 102, 103)] + ["all"]
    forecast, *naive = map(float, rows[-1][1:])
    assert 0.0 < forecast < 4.0
    assert naive == [0.0, 0.0, 0.0]
