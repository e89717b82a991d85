"""A second `edgemw up` in the folder of an earlier run: it goes on, or says why it does not."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from edgemw.app import folder
from edgemw.app.watch import SETTLE_S
from edgemw.core.ids import UpdateId
from edgemw.storage import outbox
from edgemw.storage.database import Database
from edgemw.wire.messages import Frame, Update
from tests.system.fleet import edgemw
from tests.system.test_up import QUICKSTART, SMALL, Run, conserved, flags

ROUNDS = 3


def up(out: Path, *settings: str) -> tuple[int, list[dict[str, Any]], str]:
    """Run to the end: exit code, lines, standard error."""
    done = edgemw("up", QUICKSTART, "--json", "--out", out, *flags(*SMALL, *settings), timeout_s=120)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def history(out: Path) -> list[dict[str, Any]]:
    """The rounds in report.json."""
    rounds: list[dict[str, Any]] = json.loads((out / "report.json").read_text())["rounds_history"]
    return rounds


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder of a run that has finished, and its summary."""
    out = tmp_path_factory.mktemp("up") / "out"
    code, lines, errors = up(out, f"task.rounds={ROUNDS}")
    assert code == 0, errors
    return out, lines[-1]


def test_a_finished_run_is_left_as_it_is(finished: tuple[Path, dict[str, Any]]) -> None:
    out, summary = finished
    before = (out / "report.json").read_bytes()
    code, lines, errors = up(out, f"task.rounds={ROUNDS}")
    assert (code, lines) == (0, [summary])
    assert f"this run is finished ({ROUNDS} rounds): give another --out, or --set task.rounds=N to go on" in errors
    assert (out / "report.json").read_bytes() == before


def test_a_run_that_reached_its_target_is_finished_too(tmp_path: Path) -> None:
    code, lines, errors = up(tmp_path / "out", "task.target=0.01")
    assert code == 0, errors
    assert lines[-1]["rounds"] < lines[-1]["rounds_asked"]
    again, summary, errors = up(tmp_path / "out", "task.target=0.01")
    assert (again, summary) == (0, lines[-1:])
    assert "or --set task.target=VALUE to go on" in errors


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["data.seed=7"], "holds a run on other samples, or on these dealt out otherwise"),
        (["tiers.device.count=3"], "holds a run on other samples, or on these dealt out otherwise"),
        (["name=other"], "holds a run of 'quickstart', not of 'other'"),
    ],
)
def test_another_run_is_refused_in_its_folder(finished: tuple[Path, dict[str, Any]], settings: list[str], says: str) -> None:
    code, lines, errors = up(finished[0], *settings)
    assert (code, lines) == (3, [])
    assert f"{finished[0]}: {says}" in errors


def test_a_folder_that_another_run_is_in_is_refused_at_once(tmp_path: Path) -> None:
    with folder.held(tmp_path / "out"):
        code, lines, errors = up(tmp_path / "out")
        assert (tmp_path / "out").exists(), "it is not the folder of who was refused"
    assert (code, lines) == (3, [])
    assert f"{tmp_path / 'out'}: another edgemw up runs in it: give another folder with --out" in errors
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    code, _, errors = up(tmp_path)
    assert code == 3
    assert f"{tmp_path}: is not empty, and not the folder of a run: give another folder with --out" in errors
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_run_that_was_interrupted_goes_on_and_its_report_too(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run = Run(out, *flags(*SMALL, "task.rounds=100"))
    run.until_release(2)
    run.interrupt_twice()
    first = run.summary()
    rounds = first["rounds"] + 3
    code, lines, errors = up(out, f"task.rounds={rounds}")
    assert code == 0, errors
    assert "going on from release" in errors
    assert [row["release"] for row in history(out)] == list(range(rounds + 1))
    times = [row["wall_s"] for row in history(out)]
    assert times == sorted(times)
    assert lines[-1]["wall_s"] == times[-1]
    assert conserved(lines[-1])


def test_a_run_does_not_wait_for_an_outcome_that_changes_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run = Run(out, *flags(*SMALL, "task.rounds=100"))
    run.until_release(2)
    run.interrupt_twice()
    rounds = run.summary()["rounds"] + 2
    asks_again_in_a_minute(out / "nodes/device-0")
    run = Run(out, *flags(*SMALL, f"task.rounds={rounds}"))
    run.until_release(rounds)
    started = time.monotonic()
    summary = run.summary()
    assert run.process.returncode == 0
    assert conserved(summary)
    assert time.monotonic() - started < SETTLE_S


def asks_again_in_a_minute(state: Path) -> None:
    """Leave a device with an update that its fog node has, and whose outcome was lost."""
    db = Database(state)
    row = outbox.device_row(db, "digits")
    assert row is not None
    update = UpdateId("device-0", 1, 0)
    frame = Frame("digits", *(update.node, update.boot, update.seq), Update(row.run, "lattice", 50826, (), report_on=0))
    outbox.put_update(db, frame, "fog-0")
    outbox.acknowledge(db, "digits", update)
    db.close()
