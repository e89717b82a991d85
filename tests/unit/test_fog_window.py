"""When a window closes: a table of who is there, who has answered and what the clock says."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from edgemw.core.encoded import Section
from edgemw.core.ids import UpdateId
from edgemw.fog.window import Window, WindowOptions, parts_of, tally_of
from edgemw.wire.messages import Frame, Presence, Update

RUN = 1


def closed(window: Window, now: float) -> list[Frame]:
    """What a role does with a window at a time."""
    window.look(now)
    return window.close()


def update(
    child: str, release: int, *, boot: int = 1, seq: int = 0, base: int | None = None, run: int = RUN, trained: bool = True
) -> Frame:
    """An answer to a release; `base` is what it was trained from, where that is another."""
    section = Section(release if base is None else base, 10, 1, 0.0, b"payload")
    body = Update(run, "dense", 4, (section,) if trained else (), {"test.mse": (2.0, 4.0), "uplink": (5.0, 1.0)}, release)
    return Frame("toy", child, boot, seq, body)


def birth(window: Window, child: str, boot: int = 1) -> None:
    window.presence(child, boot, Presence("online", "device", "fog-0"))


def will(window: Window, child: str, boot: int = 1) -> None:
    window.presence(child, boot, Presence("offline", "device", "fog-0"))


@dataclass(frozen=True)
class Case:
    """What has happened at which window by when, and whether it closes."""

    options: WindowOptions
    here: str
    gone: str
    answered: str
    now: float
    ready: bool


ALL = WindowOptions(deadline_s=10)
TABLE = {
    "nobody has answered": Case(ALL, "abc", "", "", 0, False),
    "nobody has answered at the deadline": Case(ALL, "abc", "", "", 10, False),
    "one is waited for": Case(ALL, "abc", "", "ab", 0, False),
    "all have answered": Case(ALL, "abc", "", "abc", 0, True),
    "one who is gone is not waited for": Case(ALL, "ab", "c", "ab", 0, True),
    "the answer of one who is gone counts": Case(ALL, "ab", "c", "abc", 0, True),
    "the deadline takes what is in": Case(ALL, "abc", "", "a", 10, True),
    "just before the deadline": Case(ALL, "abc", "", "a", 9.99, False),
    "the quorum is missing at the deadline": Case(WindowOptions(deadline_s=10, quorum=2), "abc", "", "a", 11, False),
    "the quorum is there at the deadline": Case(WindowOptions(deadline_s=10, quorum=2), "abc", "", "ab", 11, True),
    "all who are there are fewer than the quorum": Case(WindowOptions(deadline_s=10, quorum=2), "a", "bc", "a", 0, False),
    "k is not reached": Case(WindowOptions(k=2, deadline_s=10), "abc", "", "a", 0, False),
    "k is reached": Case(WindowOptions(k=2, deadline_s=10), "abc", "", "ab", 0, True),
    "k is not reached by all who are there": Case(WindowOptions(k=3, deadline_s=10), "ab", "", "ab", 0, False),
    "k is not reached at the deadline": Case(WindowOptions(k=3, deadline_s=10), "abc", "", "a", 10, True),
    "k goes by updates, not by who is gone": Case(WindowOptions(k=1, deadline_s=10), "", "ab", "a", 0, True),
    "an expected child has not appeared": Case(WindowOptions(deadline_s=10, children=3), "ab", "", "ab", 0, False),
    "an expected child has not appeared by the deadline": Case(
        WindowOptions(deadline_s=10, children=3), "ab", "", "ab", 10, True
    ),
    "an expected child has come and gone": Case(WindowOptions(deadline_s=10, children=3), "ab", "c", "ab", 0, True),
    "all expected children have answered": Case(WindowOptions(deadline_s=10, children=3), "abc", "", "abc", 0, True),
    "more children than expected": Case(WindowOptions(deadline_s=10, children=1), "ab", "", "a", 0, False),
    "an update before its birth": Case(WindowOptions(deadline_s=10, children=1), "", "", "a", 0, True),
}


@pytest.mark.parametrize("name", TABLE)
def test_readiness(name: str) -> None:
    case = TABLE[name]
    window = Window(case.options)
    window.begin(3, 0.0)
    for child in case.here + case.gone:
        birth(window, child)
    for child in case.answered:
        window.add(update(child, 3), 0.0)
    for child in case.gone:
        will(window, child)
    assert window.ready(case.now) is case.ready


def test_before_the_first_release_there_is_no_deadline() -> None:
    window = Window(ALL)
    birth(window, "a")
    assert window.deadline == float("inf")
    assert window.late == ()


def test_an_answer_without_training_is_an_answer() -> None:
    window = Window(ALL)
    window.begin(0, 0.0)
    birth(window, "a")
    window.add(update("a", 0, trained=False), 0.0)
    assert window.ready(0)
    assert parts_of(closed(window, 0)) == []


def test_who_has_answered_an_older_release_only_is_late() -> None:
    window = Window(ALL)
    window.begin(2, 0.0)
    for child in "ab":
        birth(window, child)
    window.add(update("a", 2), 0.0)
    window.add(update("b", 1), 0.0)
    assert list(window.late) == ["b"]
    assert not window.ready(0)
    window.add(update("b", 2, seq=1), 0.0)
    assert list(window.late) == []
    assert window.ready(0)
    assert len(closed(window, 0)) == 3  # the older update is merged all the same


def test_a_late_answer_waits_in_the_next_window() -> None:
    window = Window(ALL)
    window.begin(1, 0.0)
    for child in "ab":
        birth(window, child)
    window.add(update("a", 1), 0.0)
    assert [frame.node for frame in closed(window, 10)] == ["a"]
    window.begin(2, 10.0)
    window.add(update("b", 1), 12.0)
    assert len(window) == 1
    assert set(window.late) == {"a", "b"}
    assert window.deadline == 22


def test_a_new_release_asks_everybody_again_and_keeps_what_is_in() -> None:
    window = Window(ALL)
    window.begin(1, 0.0)
    birth(window, "a")
    window.add(update("a", 1), 0.0)
    window.begin(2, 5.0)
    assert window.late == ("a",)
    assert (len(window), window.deadline) == (1, 10.0)


def test_the_deadline_counts_from_the_first_update_so_that_slow_training_does_not_close_windows_of_one() -> None:
    window = Window(WindowOptions(deadline_s=10))
    window.begin(1, 0.0)
    for child in "ab":
        birth(window, child)
    window.add(update("a", 1), 60.0)  # everybody trains for longer than the deadline
    assert not window.ready(60.0)
    window.add(update("b", 1), 61.0)
    assert window.ready(61.0)
    assert len(closed(window, 61.0)) == 2


def test_a_child_that_misses_three_deadlines_in_a_row_is_not_waited_for_until_it_is_heard_of() -> None:
    window = Window(WindowOptions(deadline_s=10))
    for child in "ab":
        birth(window, child)
    for release in range(3):
        window.begin(release, 0.0)
        window.add(update("a", release, seq=release), 0.0)
        assert not window.ready(9.0)
        closed(window, 10.0)
    window.begin(3, 0.0)
    window.add(update("a", 3, seq=3), 0.0)
    assert window.ready(0.0)
    window.add(update("b", 1), 1.0)
    assert not window.ready(1.0)


def test_a_window_says_what_it_waits_for_once_it_is_open_too_long() -> None:
    window = Window(WindowOptions(deadline_s=10, quorum=2))
    for child in "ab":
        birth(window, child)
    window.begin(1, 0.0)
    assert window.waiting_for(10.0) == ""
    assert window.waiting_for(15.0) == "waiting for a, b since 15 s"
    window.add(update("a", 1), 15.0)
    assert window.waiting_for(15.0) == "1 of 2 updates that the quorum needs"


def test_the_deadline_starts_with_the_first_update_of_the_next_window() -> None:
    window = Window(WindowOptions(k=1, deadline_s=10))
    window.begin(1, 0.0)
    window.add(update("a", 1), 0.0)
    closed(window, 4.0)
    assert window.deadline == float("inf")
    assert len(window) == 0
    assert not window.ready(20)


def test_a_will_of_an_earlier_life_is_ignored() -> None:
    window = Window(ALL)
    window.begin(1, 0.0)
    birth(window, "a", boot=1)
    birth(window, "a", boot=2)
    will(window, "a", boot=1)
    assert window.present == 1
    will(window, "a", boot=2)
    assert window.present == 0
    birth(window, "a", boot=2)  # the link came back within the same life
    assert window.present == 1


def test_who_is_lost_and_back_with_a_newer_life_is_waited_for_again() -> None:
    window = Window(ALL)
    window.begin(1, 0.0)
    for child in "ab":
        birth(window, child)
    will(window, "b")
    window.add(update("a", 1), 0.0)
    assert window.ready(0)
    birth(window, "b", boot=2)
    assert window.late == ("b",)
    assert not window.ready(0)


def test_an_update_of_a_newer_life_shows_that_its_sender_is_back() -> None:
    window = Window(ALL)
    window.begin(1, 0.0)
    for child in "ab":
        birth(window, child)
    will(window, "b")
    window.add(update("b", 0, boot=2), 0.0)  # its birth is on its way still
    will(window, "b", boot=1)
    assert window.present == 2
    assert window.late == ("a", "b")


def test_an_update_of_an_earlier_life_says_nothing_about_who_is_there() -> None:
    window = Window(ALL)
    window.begin(1, 0.0)
    birth(window, "a", boot=5)
    will(window, "a", boot=5)
    window.add(update("a", 0, boot=4), 0.0)  # sent long ago, or kept by the sender and on its way again
    assert window.present == 0


def test_the_same_update_is_held_once() -> None:
    window = Window(ALL)
    window.begin(1, 0.0)
    window.add(update("a", 1), 0.0)
    window.add(update("a", 1), 0.0)
    assert len(window) == 1


def test_another_training_run_starts_over() -> None:
    window = Window(ALL)
    window.begin(7, 0.0)
    window.drop(RUN, "dense", 0.0)
    for child in "ab":
        birth(window, child)
        window.add(update(child, 7), 0.0)
    window.begin(0, 5.0)
    assert {frame.id for frame in window.drop(RUN + 1, "dense", 5.0)} == {UpdateId("a", 1, 0), UpdateId("b", 1, 0)}
    assert len(window) == 0
    assert window.late == ("a", "b")  # what they answered in the other run counts for nothing
    window.add(update("a", 0, seq=1, run=RUN + 1), 0.0)
    assert not window.ready(5.0)
    window.add(update("b", 0, seq=1, run=RUN + 1), 0.0)
    assert window.ready(5.0)


def test_after_a_restart_the_updates_from_disk_are_answers() -> None:
    window = Window(ALL)
    window.add(update("a", 4), 0.0)
    window.begin(4, 0.0)
    assert window.drop(RUN, "dense", 0.0) == []
    birth(window, "b")
    assert window.late == ("b",)
    window.add(update("b", 4), 0.0)
    assert window.ready(0)


# -- sums


def test_measures_of_the_newest_release_and_all_other_sums_add_up() -> None:
    frames = [update("a", 3), update("b", 3), update("c", 2)]
    assert tally_of(frames) == ({"test.mse": (4.0, 8.0), "uplink": (15.0, 3.0)}, 3)
    assert tally_of([]) == ({}, -1)


def test_parts_are_the_updates_that_carry_training() -> None:
    frames = [update("a", 3), update("b", 3, trained=False), update("c", 3, base=1)]
    parts = parts_of(frames)
    assert [part.contributions for part in parts] == [frozenset({frames[0].id}), frozenset({frames[2].id})]
    assert [part.sections[0].base for part in parts] == [3, 1]


def test_answers_that_were_returned_count_by_child_and_never_as_the_quorum() -> None:
    window = Window(WindowOptions(deadline_s=10, quorum=3))
    for child in "abcd":
        birth(window, child)
    window.begin(0, 0.0)
    window.add(update("b", 0), 1.0)
    for seq in range(5):
        window.returned(update("a", 0, seq=seq), 1.0)
    assert not window.ready(11.0)
    few = Window(WindowOptions(k=5))
    few.begin(0, 0.0)
    for seq in range(9):
        few.returned(update("a", 0, seq=seq), 1.0)
    assert not few.ready(1.0)


def test_a_window_in_which_nothing_is_left_has_no_deadline() -> None:
    window = Window(ALL)
    for child in "ab":
        birth(window, child)
    window.begin(0, 0.0)
    window.returned(update("a", 0), 1.0)
    assert window.deadline == 11.0
    window.begin(1, 5.0)
    window.add(update("a", 1), 20.0)
    assert not window.ready(20.0)
    assert window.deadline == 30.0
    window.begin(0, 25.0)
    window.drop(RUN + 1, "dense", 25.0)
    window.add(update("a", 0, run=RUN + 1), 60.0)
    assert not window.ready(60.0)


def test_when_everybody_has_answered_the_quorum_may_be_answers_that_were_returned() -> None:
    window = Window(WindowOptions(deadline_s=10, quorum=2))
    for child in "ab":
        birth(window, child)
    window.begin(0, 0.0)
    window.add(update("a", 0), 1.0)
    window.returned(update("b", 0), 1.0)
    assert window.ready(1.0)


def test_who_says_several_times_that_it_has_nothing_to_add_counts_once() -> None:
    window = Window(WindowOptions(k=3, deadline_s=10))
    window.begin(0, 0.0)
    for seq in range(4):
        window.add(update("a", 0, seq=seq, trained=False), 0.0)
    assert not window.ready(0.0)
    window.add(update("b", 0), 0.0)
    assert not window.ready(0.0)
    window.add(update("b", 0, seq=1), 0.0)
    assert window.ready(0.0)


def test_a_child_that_stays_silent_is_given_up_though_the_quorum_keeps_the_window_open() -> None:
    window = Window(WindowOptions(k=0, quorum=2, deadline_s=10))
    for child in ("a", "b", "silent"):
        window.presence(child, 1, Presence("online", "device", "fog"))
    window.begin(1, 0.0)
    window.add(update("a", 1), 0.0)
    window.returned(update("b", 1), 1.0)
    looks = []
    while not window.ready(window.look_at):
        looks.append(window.look_at)
        window.look(window.look_at)
    assert looks == [10.0, 20.0, 30.0]
    assert window.late == ()
    assert window.without == ("silent",)
    assert [frame.node for frame in window.close()] == ["a"]
