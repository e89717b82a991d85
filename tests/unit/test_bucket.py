"""The bytes of any window stay below burst + rate * dt, however long messages need to leave, and over restarts."""

from __future__ import annotations

from itertools import combinations_with_replacement

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemw.wire.bucket import Bucket

BURST = 100
Sent = list[tuple[float, int]]


def excess(sent: Sent, rate: float) -> float:
    """By how much the worst window between two messages exceeds burst + rate * dt; at most 0 is right."""
    worst = -float(BURST)
    for first, last in combinations_with_replacement(range(len(sent)), 2):
        window = sent[first : last + 1]
        worst = max(worst, sum(size for _, size in window) - BURST - rate * (window[-1][0] - window[0][0]))
    return worst


class Sending:
    """A node that sends in order; a message leaves some time after it was taken, and that is noticed some time later still."""

    def __init__(self, rate: float) -> None:
        self.rate, self.now = rate, 0.0
        self.bucket = Bucket(rate, BURST, 0.0)
        self.taken: list[int] = []
        self.gone: list[int] = []
        self.sent: Sent = []

    def do(self, what: str, amount: int) -> None:
        match what:
            case "wait":
                self.now += amount / 7
            case "take" if amount <= BURST and self.bucket.take(amount, self.now) == 0:
                self.taken.append(amount)
            case "leave" if self.taken:
                self.gone.append(self.taken.pop(0))
                self.sent.append((self.now, self.gone[-1]))
            case "notice" if self.gone:
                self.bucket.left(self.gone.pop(0), self.now)
            case "stay" if self.taken:
                size_bytes = self.taken.pop()
                self.bucket.left(size_bytes, self.now, stayed=size_bytes)
            case "restart":
                self.bucket, self.taken, self.gone = Bucket(self.rate, BURST, self.now), [], []


Steps = st.lists(
    st.tuples(
        st.sampled_from(["wait", "wait", "take", "take", "leave", "notice", "stay", "restart"]),
        st.integers(1, 120),
    ),
    max_size=80,
)


@given(steps=Steps, rate=st.sampled_from([0.5, 3.0, 40.0, 1000.0]))
def test_no_window_has_more_than_the_burst_and_what_came_in(steps: list[tuple[str, int]], rate: float) -> None:
    node = Sending(rate)
    for what, amount in steps:
        node.do(what, amount)
    assert excess(node.sent, rate) <= 1e-6


def test_what_waits_in_the_link_does_not_make_room_for_more() -> None:
    bucket = Bucket(10.0, BURST, 0.0)
    assert bucket.take(BURST, 10.0) == 0
    assert bucket.level(1000.0) == 0  # the link has kept all of it for long
    bucket.left(BURST, 1000.0)
    assert bucket.level(1000.0) == 0
    assert bucket.level(1002.0) == 20


def test_a_bucket_starts_empty_and_says_how_long_it_takes() -> None:
    bucket = Bucket(10.0, BURST, 5.0)
    assert bucket.take(30, 5.0) == pytest.approx(3.0)
    assert bucket.wait_s(30, 6.0) == pytest.approx(2.0)
    bucket.asked = 10
    assert bucket.wait_s(30, 6.0) == pytest.approx(3.0)
    assert bucket.take(30, 8.0) == 0
    assert bucket.level(1e6) == BURST - 30


def test_more_than_it_can_hold_is_refused() -> None:
    bucket = Bucket(10.0, BURST, 0.0)
    with pytest.raises(ValueError, match="101 bytes from a bucket of 100"):
        bucket.take(101, 1e6)
    with pytest.raises(ValueError, match="fills with 0"):
        Bucket(0.0, BURST, 0.0)
