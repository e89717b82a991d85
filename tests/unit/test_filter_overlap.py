"""Which topic filters have a topic in common."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemw.transport.filters import matches, overlap

LEVELS = st.sampled_from(["a", "b", "+"])
FILTERS = st.builds(
    lambda levels, rest: "/".join([*levels, *rest]), st.lists(LEVELS, min_size=1, max_size=4), st.sampled_from([[], ["#"]])
)
TOPICS = st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=5).map("/".join)


@given(FILTERS, FILTERS, TOPICS)
def test_filters_that_match_one_topic_overlap(one: str, other: str, topic: str) -> None:
    if matches(one, topic) and matches(other, topic):
        assert overlap(one, other)
        assert overlap(other, one)


@given(FILTERS, FILTERS)
def test_filters_that_overlap_match_one_topic(one: str, other: str) -> None:
    levels = [a if a not in "+#" else b for a, b in zip(*(text.split("/") for text in (one, other)), strict=False)]
    longest = max((one, other), key=lambda text: text.count("/")).split("/")
    topic = "/".join("a" if level in "+#" else level for level in [*levels, *longest[len(levels) :]])
    shorter = topic.rpartition("/")[0] or topic
    assert overlap(one, other) == any(matches(one, each) and matches(other, each) for each in (topic, shorter))


@pytest.mark.parametrize(
    ("one", "other", "common"),
    [("a/#", "a", True), ("#", "x/y", True), ("a/+", "a", False), ("a/+", "a/b/c", False), ("a/+/c", "+/b/+", True)],
)
def test_some_filters(one: str, other: str, common: bool) -> None:
    assert overlap(one, other) == overlap(other, one) == common
