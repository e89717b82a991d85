"""The examples as a reader runs them: the quickstart from the command line, and every command that a README shows."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgemw.app.deployment import load_deployment
from edgemw.cli.main import parser
from tests.system.fleet import ROOT, edgemw

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


def commands(readme: Path) -> Iterator[str]:
    """The `edgemw` commands in the code blocks of a README; a backslash at the end of a line continues it."""
    for block in re.findall(r"^```\w*\n(.*?)^```", readme.read_text(), re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("edgemw "):
                yield line


def shown() -> list[tuple[str, str]]:
    readmes = sorted(EXAMPLES.rglob("README.md"))
    return [(str(readme.relative_to(ROOT)), command) for readme in readmes for command in commands(readme)]


def test_the_readmes_show_commands() -> None:
    assert {"examples/README.md", "examples/har/README.md"} <= {readme for readme, _ in shown()}


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
