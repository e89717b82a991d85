"""A reader that follows the rules of MQTT 5 gets the topics that were meant, whatever order they come in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemw.transport.aliases import TopicAliases


@given(st.integers(0, 3), st.lists(st.sampled_from(["a", "b", "c", "d", "e"]), max_size=40))
def test_the_broker_knows_which_topic_is_meant(maximum: int, topics: list[str]) -> None:
    aliases, known = TopicAliases(maximum), dict[int, str]()
    for topic in topics:
        written, number = aliases.use(topic)
        assert 0 <= number <= maximum
        assert written or number in known
        if written and number:
            known[number] = written
        assert (written or known[number]) == topic


@pytest.mark.parametrize(("maximum", "written"), [(0, ["a", "a", "a"]), (1, ["a", "", ""])])
def test_a_topic_that_is_said_again_goes_as_a_number(maximum: int, written: list[str]) -> None:
    aliases = TopicAliases(maximum)
    assert [aliases.use("a")[0] for _ in written] == written


def test_what_was_not_used_for_longest_gives_way() -> None:
    aliases = TopicAliases(2)
    assert [aliases.use(topic) for topic in ("a", "b", "a", "c", "a", "b")] == [
        ("a", 1), ("b", 2), ("", 1), ("c", 2), ("", 1), ("b", 2),
    ]  # fmt: skip
