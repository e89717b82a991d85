"""What a run says while it goes on, and how long it waits before it says what it waits for."""

from __future__ import annotations

import pytest

from edgemw.app.rounds import Round
from edgemw.app.watch import QUIET_S, patience
from edgemw.cli.up import Screen


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
