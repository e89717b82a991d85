"""What a fog node's page draws survives a restart, and does not grow without bound."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgemw.app.history import MOST, MOST_TASKS, History
from edgemw.app.rounds import round_told
from edgemw.wire.messages import RoundReport


def told(release: int, accuracy: float | None = 0.5) -> RoundReport:
    facts: dict[str, int | float | str] = {
        "uplink_bytes": 100 * release,
        "downlink_bytes": 900 * release,
        "updates_counted": release,
    }
    return RoundReport(release, False, facts | ({} if accuracy is None else {"accuracy": accuracy}), ("device-1",))


def filled(path: Path, rounds: int) -> History:
    history = History(path)
    for release in range(rounds):
        history.round("digits", round_told(told(release), 1000.0 + release))
        history.spent(1000.0 + release, 2.0 * release)
    return history


def test_what_was_told_is_there_after_a_restart(tmp_path: Path) -> None:
    before = filled(tmp_path / "history.jsonl", 5)
    after = History(tmp_path / "history.jsonl")
    assert after.rounds == before.rounds
    assert after.joules == before.joules == [(1000.0 + at, 2.0 * at) for at in range(5)]
    assert [done.metrics for done in after.rounds["digits"]] == [{"accuracy": 0.5}] * 5


def test_a_line_that_a_crash_cut_off_costs_that_line_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "history.jsonl"
    filled(path, 4)
    path.write_bytes(path.read_bytes()[:-9])
    after = History(path)
    assert (len(after.rounds["digits"]), len(after.joules)) == (4, 3)
    assert "1 lines" in caplog.text
    after.spent(2000.0, 9.0)
    assert History(path).joules == after.joules


@pytest.mark.parametrize(
    "line",
    [b"\xff\xfe", b"null", b"[]", b'"joules"', b"{}", b'{"task": "x"}', b'{"joules": [], "at": 1}', b'{"task": "x", "round": 3}'],
)
def test_a_damaged_file_is_no_reason_not_to_start(line: bytes, tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_bytes(line + b"\n" + json.dumps({"at": 1.0, "joules": 2.0}).encode() + b"\n")
    assert History(path).joules == [(1.0, 2.0)]


def test_a_round_that_is_told_twice_is_one_point_unless_it_says_more(tmp_path: Path) -> None:
    history = History(tmp_path / "history.jsonl")
    for message in (told(3, None), told(3, None), told(3), told(3), told(3, None)):
        history.round("digits", round_told(message, 1.0))
    assert [done.metrics for done in history.rounds["digits"]] == [{}, {"accuracy": 0.5}]


def test_a_long_run_keeps_its_beginning_and_its_end_in_a_small_file(tmp_path: Path) -> None:
    history = filled(tmp_path / "history.jsonl", 20 * MOST)
    releases = [done.release for done in history.rounds["digits"]]
    assert len(releases) <= MOST
    assert (releases[0], releases[-1]) == (0, 20 * MOST - 1)
    assert releases == sorted(releases)
    assert releases[-MOST // 4 :] == [*range(releases[-1] - MOST // 4 + 1, releases[-1] + 1)]
    after = History(tmp_path / "history.jsonl")
    assert after.rounds["digits"][-1] == history.rounds["digits"][-1]
    assert (tmp_path / "history.jsonl").stat().st_size < 400 * 2 * MOST


def test_tasks_are_bounded(tmp_path: Path) -> None:
    history = History(tmp_path / "history.jsonl")
    for number in range(2 * MOST_TASKS):
        history.round(f"task-{number}", round_told(told(1), 1.0))
    assert len(history.rounds) == len(History(tmp_path / "history.jsonl").rounds) == MOST_TASKS
    assert f"task-{2 * MOST_TASKS - 1}" in history.rounds, "whoever was heard of longest ago gives way"


def test_a_folder_that_cannot_be_written_costs_the_file_and_not_the_page(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    history = History(tmp_path / "nowhere" / "history.jsonl")
    history.spent(1.0, 2.0)
    history.spent(2.0, 3.0)
    assert history.joules == [(1.0, 2.0), (2.0, 3.0)]
    assert caplog.text.count("cannot be written") == 1


def test_names_of_metrics_cannot_take_the_place_of_a_round_s_own() -> None:
    facts: dict[str, int | float | str] = {"release": 7.5, "late": 1.0, "wall_s": 0.1, "loss": 0.2, "reason": "text"}
    assert round_told(RoundReport(3, False, facts, ()), 5.0).metrics == {"loss": 0.2}


def test_another_run_of_a_task_begins_its_series_anew(tmp_path: Path) -> None:
    history = filled(tmp_path / "history.jsonl", 5)
    history.round("digits", round_told(told(0), 2000.0))
    history.round("digits", round_told(told(1), 2001.0))
    for known in (history, History(tmp_path / "history.jsonl")):
        assert [done.release for done in known.rounds["digits"]] == [0, 1]


def test_large_rounds_of_many_tasks_are_all_there_after_a_restart(tmp_path: Path) -> None:
    history = History(tmp_path / "history.jsonl")
    late = tuple(f"a-device-with-a-name-of-forty-letters-{number:02}" for number in range(64))
    for release in range(1, 1500):
        for task in ("one", "two", "three"):
            facts: dict[str, int | float | str] = {f"metric {number} of a long name": 1 / 3 for number in range(200)}
            history.round(task, round_told(RoundReport(release, False, facts, late), 1.0))
    after = History(tmp_path / "history.jsonl")
    assert after.rounds == history.rounds
    assert after.rounds["two"][-1].release == 1499
    assert (tmp_path / "history.jsonl").stat().st_size < 8 << 20


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_what_is_no_finite_number_is_not_drawn(number: str, tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text(f'{{"at": 1.0, "joules": {number}}}\n{{"at": 2.0, "joules": 3.0}}\n')
    assert History(path).joules == [(2.0, 3.0)]
