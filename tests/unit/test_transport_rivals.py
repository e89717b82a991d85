"""When an end without a reason is one too many."""

from __future__ import annotations

import pytest

from edgemw.transport.rivals import Rivals


@pytest.mark.parametrize(
    ("at_s", "suspects"),
    [
        ([0.0, 4.0, 9.0], True),
        ([0.0, 5.0, 11.0], False),
        ([0.0, 5.0, 11.0, 14.0], True),
        ([100.0, 101.0], False),  # a broker that was restarted twice
    ],
)
def test_several_ends_in_a_row_are_suspicious(at_s: list[float], suspects: bool) -> None:
    rivals = Rivals("em1-plant-fog-7")
    reasons = [rivals.hung_up(now_s) for now_s in at_s]
    assert reasons[0] == "the broker closed the connection"
    assert ("em1-plant-fog-7" in reasons[-1]) is suspects
