"""How long a run waits before it says what it waits for."""

from __future__ import annotations

import pytest

from edgemw.app.watch import QUIET_S, patience


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
