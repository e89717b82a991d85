"""Which tensors stay at home, stay as they are, or wait: patterns over the names of a layout."""

from __future__ import annotations

import numpy as np
import pytest

from edgemw.core.bundle import Slot
from edgemw.core.errors import ConfigError
from edgemw.core.plan import Plan
from edgemw.core.ranges import Ranges, blank, cut, put, ranges_of

LAYOUT = (
    Slot("embed.weight", (4, 2), 0),
    Slot("norm.weight", (3,), 8),
    Slot("norm.mean", (3,), 11, trainable=False),
    Slot("head.weight", (2, 2), 14),
    Slot("head.bias", (), 18),
)
SIZE = 19


def names(ranges: Ranges, kind: str) -> list[str]:
    return [slot.name for slot in getattr(ranges, kind)]


def test_patterns_are_globs_over_names() -> None:
    ranges = ranges_of(LAYOUT, Plan(personal="head.* *.mean", frozen="embed.weight", rare="norm.w*"))
    assert names(ranges, "personal") == ["norm.mean", "head.weight", "head.bias"]
    assert names(ranges, "frozen") == ["embed.weight"]
    assert names(ranges, "rare") == ["norm.weight"]
    assert names(ranges, "statistics") == ["norm.mean"]
    assert ranges.size == SIZE


def test_without_patterns_only_statistics_are_apart() -> None:
    ranges = ranges_of(LAYOUT, Plan())
    assert ranges.local == ()
    assert ranges.apart == (LAYOUT[2],)
    assert ranges.coded(1) == SIZE - 3


def test_what_is_apart_is_counted_once() -> None:
    ranges = ranges_of(LAYOUT, Plan(personal="norm.*", frozen="head.*"))
    assert ranges.coded(1) == 8


def test_rare_tensors_wait_for_every_nth_release() -> None:
    ranges = ranges_of(LAYOUT, Plan(rare="embed.*", rare_every=3))
    assert [bool(ranges.waiting(release)) for release in range(7)] == [False, True, True, False, True, True, False]
    assert (ranges.coded(3), ranges.coded(4)) == (16, 8)


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        (
            Plan(personal="haed.weight"),
            r"plan.personal: 'haed.weight' matches no tensor of the task \(did you mean 'head.weight'",
        ),
        (Plan(frozen="embed.* x*"), "plan.frozen: 'x.' matches no tensor"),
        (Plan(rare="Head.*"), "plan.rare: 'Head.*' matches no tensor"),
        (Plan(personal="head.*", frozen="*.bias"), "plan.personal: tensor 'head.bias' is frozen as well"),
        (Plan(rare="head.*", personal="*.bias"), "plan.rare: tensor 'head.bias' is personal as well"),
        (Plan(personal="*"), "plan.personal: no trained tensor is left to send"),
        (Plan(frozen="*.weight *.bias"), "plan.frozen: no trained tensor is left to send"),
    ],
)
def test_what_cannot_be_meant_is_refused(plan: Plan, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        ranges_of(LAYOUT, plan)


def test_values_are_cut_put_and_blanked_by_tensor() -> None:
    vector = np.arange(SIZE, dtype=np.float32)
    slots = (LAYOUT[4], LAYOUT[1])
    values = cut(vector, slots)
    assert values.tolist() == [18, 8, 9, 10]
    assert cut(vector, ()).size == 0
    blank(vector, slots)
    assert not cut(vector, slots).any()
    assert vector.sum() == sum(range(SIZE)) - 18 - 27
    put(vector, slots, values)
    assert vector.tolist() == list(range(SIZE))
