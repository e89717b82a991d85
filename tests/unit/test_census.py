"""Who is there, from what was heard: also of large nets, and of nodes that come and go."""

from __future__ import annotations

import time

from edgemw.app.census import Census
from edgemw.wire.messages import Frame, Presence, Status

MANY = 5000


def heard(census: Census, node: str, state: str = "online", parent: str = "fog", boot: int = 1, at_s: float = 0.0) -> None:
    census.take(parent, Frame("", node, boot, 0, Presence(state, "device", parent)), at_s)


def answered(census: Census, node: str, at_s: float, parent: str = "fog", **facts: int) -> None:
    census.take(parent, Frame("digits", node, 1, 0, Status("device", parent, "idle", "", dict(facts))), at_s)


def test_thousands_whose_parent_is_missing_are_told_at_once() -> None:
    census = Census()
    for number in range(MANY):
        heard(census, f"pi-{number}")
        answered(census, f"pi-{number}", 1.0)
    began = time.process_time()
    statuses = census.statuses(0.0)
    assert time.process_time() - began < 2.0  # with a look at everybody for each it is ten
    assert {status.status.reason for status in statuses} == {"its parent 'fog' has never been seen"}


def test_an_answer_of_before_does_not_count_but_is_the_last_that_is_known() -> None:
    census = Census()
    heard(census, "pi-1", at_s=1.0)
    answered(census, "pi-1", 2.0, energy_j=7)
    assert [status.status.state for status in census.statuses(1.5)] == ["idle"]
    assert [status.status.state for status in census.statuses(3.0)] == ["silent"]
    assert census.last_facts() == {"pi-1": {"energy_j": 7}}


def test_who_has_come_only_now_need_not_have_answered() -> None:
    census = Census()
    heard(census, "pi-1", at_s=1.0)
    heard(census, "pi-2", at_s=5.0)
    states = {status.node: status.status.state for status in census.statuses(4.0, 4.0)}
    assert states == {"pi-1": "silent", "pi-2": "online"}


def test_an_earlier_life_does_not_speak_for_a_later_one() -> None:
    census = Census()
    heard(census, "pi-1", "online", boot=7)
    heard(census, "pi-1", "lost", boot=6)
    assert census.presence == {"pi-1": "online"}


def test_a_copy_stays_as_it_was() -> None:
    census = Census()
    heard(census, "pi-1")
    copy = census.copy()
    heard(census, "pi-2")
    census.forget("pi-1")
    assert (len(copy), list(copy.presence), list(census.presence)) == (1, ["pi-1"], ["pi-2"])
    assert (copy.domains("pi-1"), census.domains("pi-1")) == (["fog"], [])


def test_names_that_somebody_makes_up_do_not_take_the_place_of_those_that_are_there() -> None:
    census = Census(most=3)
    for number in range(100):
        heard(census, f"pi-{number}")
        for task in range(10):
            census.take("fog", Frame(f"task-{task}", f"pi-{number}", 1, 0, Status("device", "fog", "idle", "", {})), 1.0)
    heard(census, "pi-1", "lost")
    assert census.presence == {"pi-0": "online", "pi-1": "lost", "pi-2": "online"}
    assert len([status for status in census.statuses(0.0) if status.status.state == "idle"]) == 6


def test_who_owns_a_domain_does_not_speak_for_nodes_of_others_there() -> None:
    census = Census()
    heard(census, "fog-0", parent="top")
    answered(census, "fog-0", 1.0, parent="top")
    lie = Frame("", "fog-0", 1 << 62, 0, Presence("lost", "fog", "device-0"))
    census.take("device-0", lie, 2.0)
    census.take("device-0", Frame("", "fog-0", 1 << 62, 0, Presence("lost", "fog", "top")), 2.0)  # and of another parent
    census.take("device-0", Frame("digits", "fog-0", 1, 0, Status("fog", "device-0", "idle", "all is lost", {})), 2.0)
    (status,) = census.statuses(0.5)
    assert (status.status.parent, status.status.state, "lost" in status.status.reason) == ("top", "idle", False)
    heard(census, "fog-0", parent="region", boot=2)  # killed, and started again under another parent: its will is never said
    assert census.now_in == {"region"}
    answered(census, "fog-0", 3.0, parent="region", release=1)
    assert [s.status.facts for s in census.statuses(2.5)] == [{"release": 1}]
