"""What a run says while it goes on, and how long it waits before it says what it waits for."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from edgemw.app.census import NodeStatus
from edgemw.app.deployment import expand, load_deployment
from edgemw.app.report import Report
from edgemw.app.rounds import Round
from edgemw.app.watch import QUIET_S, Listener, Watch, patience
from edgemw.cli.main import main
from edgemw.cli.up import Screen
from edgemw.wire.messages import Status

EXAMPLE = Path(__file__).parents[2] / "examples" / "quickstart" / "edgemw.toml"


@pytest.mark.parametrize(
    ("times", "seconds"),
    [
        ([], QUIET_S),
        ([30.0], QUIET_S),
        ([6.0, 6.1, 6.2], QUIET_S),
        ([10.0, 14.0, 18.0], 8.0),
        ([30.0, 34.0, 90.0, 94.0], 8.0),
        ([100.0 * n for n in range(9)] + [801.0 + 3 * n for n in range(10)], 6.0),
    ],
)
def test_a_wait_is_worth_a_word_when_it_is_longer_than_two_usual_rounds(times: list[float], seconds: float) -> None:
    assert patience(times) == pytest.approx(seconds)


def test_a_round_without_a_measure_leaves_every_column_in_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    tell = Screen().listener().round
    for number, metrics in enumerate([{"train_loss": 1.5}, {"train_loss": 1.25, "accuracy": 0.5}, {}, {"accuracy": 0.75}]):
        tell(Round(number, 1.0, dict(metrics), 2_000, 3_000, 1, 1, ()))
    head, first, again, *rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert head == ["round", "time", "train", "loss", "up", "down", "late"]
    assert first == ["0", "1.0s", "1.5000", "2.0", "kB", "3.0", "kB", "-"]
    assert again == ["round", "time", "train", "loss", "accuracy", "up", "down", "late"]
    assert [row[:4] for row in rows] == [
        ["1", "1.0s", "1.2500", "0.5000"],
        ["2", "1.0s", "-", "-"],
        ["3", "1.0s", "-", "0.7500"],
    ]


class Heard:
    """A console to which all nodes but one have spoken."""

    def __init__(self, *nodes: str) -> None:
        self.census: Any = self
        self._nodes = nodes

    async def ask(self) -> list[NodeStatus]:
        return [NodeStatus(node, "", Status("device", "fog-0", "idle", "", {})) for node in self._nodes]

    def last_facts(self) -> dict[str, dict[str, Any]]:
        return {}


def test_a_node_that_nobody_has_seen_is_in_the_summary(tmp_path: Path) -> None:
    settings = load_deployment(EXAMPLE, None, {})
    devices = {f"device-{number}": tmp_path / f"{number}.npz" for number in range(8)}
    specs = expand(settings, "mqtt://127.0.0.1:1", tmp_path / "nodes", devices)
    report = Report("n", "accuracy", 8, finished=True)
    watch = Watch(settings, specs, tmp_path, {}, Listener(print, print, print), report, None)
    asyncio.run(watch._settle(Heard(*(spec.id for spec in specs if spec.id != "device-2"))))  # type: ignore[arg-type]
    assert report.reasons == {"device-2": f"was never seen, and its log says why: {tmp_path / 'logs/device-2.log'}"}
    assert "  device-2          absent: was never seen" in report.screen([])


def test_a_folder_of_certificates_that_is_not_there_is_said_by_its_flag(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", "--config", str(EXAMPLE), "--pki", str(tmp_path)]) == 3
    assert f"--pki: there is no folder {tmp_path / 'nodes/monitor'}: `edgemw pki issue DIR monitor`" in capsys.readouterr().err
