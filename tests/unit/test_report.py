"""The report of a run: what its summary says, and that a report that was written is read as the same."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from edgemw.app.report import Accounts, Report
from edgemw.app.rounds import Round
from edgemw.core.errors import EdgeError

ROUNDS = [
    Round(number, 1.5 * number, {"accuracy": 0.1 * number, "train_loss": 2.0}, 100 * number, 900 * number, 8 * number, 80, ("a",))
    for number in range(4)
]


def report() -> Report:
    return Report("net", "accuracy", 8, 60, 0.9, rounds=list(ROUNDS), wall_s=4.5, accounts=Accounts(updates_counted=24))


def test_what_is_written_is_read_as_the_same(tmp_path: Path) -> None:
    written = report()
    written.interrupted, written.failed, written.restarts = True, {"device-1": "no port"}, {"top": 2}
    written.nodes = [{"node": "top", "task": "t", "role": "fog", "parent": "", "state": "finished", "reason": "", "facts": {}}]
    assert Report.read(tmp_path, "accuracy") is None
    written.write(tmp_path)
    assert Report.read(tmp_path, "accuracy") == written
    written.error = EdgeError("the broker ended")
    written.write(tmp_path)
    again = Report.read(tmp_path, "accuracy")
    assert again is not None
    assert again.summary() == written.summary()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"rounds_history": [{}]}'])
def test_a_damaged_report_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(EdgeError, match=r"report\.json is damaged: give another folder with --out"):
        Report.read(tmp_path, "accuracy")


def test_a_release_that_is_reported_again_takes_the_place_of_the_first(tmp_path: Path) -> None:
    longer = report()
    longer.add(replace(ROUNDS[3], wall_s=7.0, updates_counted=32))
    longer.add(replace(ROUNDS[3], release=4, wall_s=8.0))
    longer.write(tmp_path)
    history = json.loads((tmp_path / "report.json").read_text())["rounds_history"]
    assert [(row["release"], row["wall_s"]) for row in history] == [(0, 0.0), (1, 1.5), (2, 3.0), (3, 7.0), (4, 8.0)]
    assert history[3]["updates_counted"] == 32
    assert longer.summary()["wall_s"] == 8.0


def test_what_is_unknown_is_not_called_nothing() -> None:
    stopped = report()
    assert stopped.summary()["updates_sent"] is None
    assert stopped.summary()["updates_counted"] == 24
    assert "unknown sent, 24 counted" in stopped.screen([])


@pytest.mark.parametrize(("returned", "said"), [(3, "4 updates, neither counted nor returned yet"), (7, "")])
def test_updates_without_an_outcome_are_named(returned: int, said: str) -> None:
    stopped = report()
    stopped.accounts = Accounts(updates_sent=266, updates_counted=259, updates_returned=returned)
    assert said in stopped.screen([])
    assert ("on their way" in stopped.screen([])) is bool(said)


def test_what_privacy_has_cost_is_in_the_summary_where_it_is_counted() -> None:
    report = Report("n", "accuracy", 8, finished=True)
    report.add(Round(33, 9.0, {"accuracy": 0.5, "epsilon": 2.995043}, 1, 1, 1, 1, ()))
    assert "  epsilon           2.995 after 33 releases" in report.screen([])
    assert report.summary()["epsilon"] == 2.995043
    report.add(Round(34, 9.0, {"accuracy": 0.5}, 1, 1, 1, 1, ()))
    assert "epsilon" not in report.summary()


def test_a_run_that_did_not_finish_says_how_far_it_came() -> None:
    stopped = report()
    assert stopped.screen([]).startswith("net: stopped after 3 of 60 rounds in 4.5 s")
    stopped.rounds_asked = 0
    assert stopped.screen([]).startswith("net: stopped after 3 rounds")
    stopped.finished = True
    assert stopped.screen([]).startswith("net: finished after 3 rounds")


def test_nodes_that_could_not_run_and_nodes_with_a_reason_are_listed_once() -> None:
    ended = report()
    ended.failed = {"device-1": "cannot listen on 127.0.0.1:80"}
    ended.nodes = [
        {"node": f"device-{n}", "state": "idle", "reason": "data refused: NaN" if n else "", "facts": {}} for n in range(12)
    ]
    lines = ended.screen([]).splitlines()
    assert "  device-1          could not run: cannot listen on 127.0.0.1:80" in lines
    assert "  device-2          idle: data refused: NaN" in lines
    assert lines[-1].strip() == "and 2 more"
    assert ended.summary()["reasons"].keys() == {f"device-{n}" for n in range(2, 12)}


@pytest.mark.parametrize(
    ("accounts", "settled"),
    [
        (
            Accounts(
                updates_sent=3, updates_counted=2, weight_sent=30, weight_counted=20, updates_returned=1, weight_returned=10
            ),
            True,
        ),
        (
            Accounts(updates_sent=3, updates_counted=2, weight_sent=30, weight_counted=20, updates_returned=0, weight_returned=0),
            False,
        ),
        (
            Accounts(updates_sent=3, updates_counted=3, weight_sent=30, weight_counted=20, updates_returned=0, weight_returned=0),
            False,
        ),
        (Accounts(updates_counted=3, weight_counted=20), False),
        (
            Accounts(
                updates_sent=3,
                updates_counted=3,
                weight_sent=30,
                weight_counted=20,
                updates_returned=0,
                weight_returned=0,
                weight_bounded=10,
            ),
            True,
        ),
    ],
)
def test_accounts_are_settled_when_all_that_was_sent_is_counted_or_returned(accounts: Accounts, settled: bool) -> None:
    assert accounts.settled is settled


def test_a_run_without_a_measurement_has_no_picture(tmp_path: Path) -> None:
    assert Report("net", "accuracy", 2).draw(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_a_release_that_is_reported_again_without_its_measure_keeps_it() -> None:
    resumed = report()
    measured = ROUNDS[3].metrics["accuracy"]
    resumed.add(replace(ROUNDS[3], metrics={"train_loss": 0.5}))
    assert resumed.rounds[-1].metrics == ROUNDS[3].metrics | {"train_loss": 0.5}
    assert resumed.summary()["accuracy"] == measured
