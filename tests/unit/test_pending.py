"""Updates on their way up: sent again until acknowledged, asked about until settled."""

from __future__ import annotations

import pytest

from edgemw.core.ids import UpdateId
from edgemw.wire.messages import Frame, Update
from edgemw.wire.pending import Pending


def update(seq: int) -> Frame:
    return Frame("task", "node", 1, seq, Update(1, "lattice", 10, (), {}))


def sendings(pending: Pending, until: float) -> list[float]:
    """The times at which something is sent again."""
    times = []
    while (due := pending.next_due()) is not None and due <= until:
        assert pending.due(due - 0.001) == []
        assert pending.due(due)
        times.append(due)
    return times


def test_an_update_is_sent_again_with_growing_pauses() -> None:
    pending = Pending()
    pending.add(update(0), 0.0)
    assert (len(pending), pending.waiting) == (1, (update(0).id,))
    assert sendings(pending, 300.0) == [5.0, 15.0, 35.0, 75.0, 135.0, 195.0, 255.0]


def test_an_acknowledged_update_is_hardly_asked_about_before_anybody_can_know() -> None:
    pending = Pending()
    pending.add(update(0), 0.0)
    assert pending.acknowledge(update(0).id, 2.0)
    assert not pending.acknowledge(update(0).id, 3.0)
    assert (len(pending), pending.waiting) == (1, ())
    assert sendings(pending, 2000.0) == [602.0, 1202.0, 1802.0]


@pytest.mark.parametrize("release_first", [False, True])
def test_it_is_asked_about_more_and_more_rarely_after_the_next_release(*, release_first: bool) -> None:
    pending = Pending()
    pending.add(update(0), 0.0)
    if release_first:
        assert not pending.heard(1, 0, 2.0), "nobody has it"
        assert pending.acknowledge(update(0).id, 2.0)
    else:
        assert pending.acknowledge(update(0).id, 1.0)
        assert pending.heard(1, 0, 2.0)
    assert not pending.heard(1, 1, 50.0), "that changes nothing more"
    assert sendings(pending, 3000.0) == [62.0, 182.0, 422.0, 902.0, 1502.0, 2102.0, 2702.0]


def test_a_release_says_nothing_of_who_has_answered_it() -> None:
    pending = Pending()
    frame = Frame("task", "node", 1, 0, Update(1, "lattice", 10, (), {}, 7))
    pending.add(frame, 0.0)
    pending.acknowledge(frame.id, 0.0)
    assert not pending.heard(1, 7, 1.0)
    assert sendings(pending, 700.0) == [600.0]
    assert pending.heard(2, 0, 701.0), "another run"
    assert sendings(pending, 800.0) == [761.0]


def test_one_that_was_acknowledged_before_a_restart_goes_on_as_such() -> None:
    pending = Pending()
    pending.add(update(0), 0.0, acknowledged=True)
    assert (pending.waiting, pending.next_due()) == ((), 0.0)  # its outcome may have come while nobody listened
    assert pending.due(0.0) == [update(0)]
    assert pending.next_due() == 60.0


def test_an_outcome_ends_it() -> None:
    pending = Pending()
    pending.add(update(0), 0.0)
    assert pending.settle(update(0).id) == update(0)
    assert pending.settle(update(0).id) is None
    assert (len(pending), pending.next_due()) == (0, None)
    assert not pending.acknowledge(update(0).id, 1.0)


def test_a_link_that_is_back_hurries_what_nobody_has() -> None:
    pending = Pending()
    for seq in (0, 1):
        pending.add(update(seq), 0.0)
    pending.acknowledge(update(0).id, 1.0)
    sendings(pending, 40.0)
    pending.hurry(50.0)
    assert pending.due(50.0) == [update(1)]
    assert pending.next_due() == 60.0


def test_oldest_first() -> None:
    pending = Pending()
    for seq in (3, 1, 2):
        pending.add(update(seq), float(seq))
    assert [frame.seq for frame in pending.due(100.0)] == [3, 1, 2]


def test_a_new_run_forgets_everything() -> None:
    pending = Pending()
    for seq in (0, 1):
        pending.add(update(seq), 0.0)
    assert pending.clear() == [update(0), update(1)]
    assert (len(pending), pending.waiting, pending.due(1000.0)) == (0, (), [])


@pytest.mark.parametrize("other", [UpdateId("node", 1, 9), UpdateId("node", 2, 0), UpdateId("other", 1, 0)])
def test_answers_about_something_else_change_nothing(other: UpdateId) -> None:
    pending = Pending()
    pending.add(update(0), 0.0)
    assert not pending.acknowledge(other, 1.0)
    assert pending.settle(other) is None
    assert pending.waiting == (update(0).id,)
