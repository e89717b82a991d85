"""The ledger against a set that never forgets, for senders that number in order and have a few updates without an outcome."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemw.core.ids import UpdateId
from edgemw.fog.events import Settled
from edgemw.fog.ledger import KEPT, MAX_STRETCHES, Ledger

UNSETTLED = 8
COUNTED = Settled(True, 1, "")
RETURNED = Settled(False, 1, "the window was returned")


def sizes(ledger: Ledger) -> int:
    """How many values the ledger holds, whatever it calls them."""
    seen: set[int] = set()

    def count(value: object) -> int:
        if id(value) in seen:
            return 0
        seen.add(id(value))
        if isinstance(value, dict):
            return sum(count(key) + count(entry) for key, entry in value.items())
        if isinstance(value, list | set | tuple):
            return sum(map(count, value))
        return 1

    return sum(count(value) for value in vars(ledger).values())


@dataclass
class Naive:
    """Every update ever seen, and every outcome."""

    opened: set[UpdateId] = field(default_factory=set)
    settled: dict[UpdateId, bool] = field(default_factory=dict)


@dataclass
class Sender:
    """Makes updates in order; `waiting` have no outcome."""

    node: str
    boot: int = 1
    seq: int = 0
    waiting: list[UpdateId] = field(default_factory=list)
    made: list[UpdateId] = field(default_factory=list)

    def make(self) -> None:
        update = UpdateId(self.node, self.boot, self.seq)
        self.seq += 1
        self.waiting.append(update)
        self.made.append(update)

    def restart(self) -> None:
        self.boot, self.seq = self.boot + 1, 0


def check(ledger: Ledger, naive: Naive, update: UpdateId) -> None:
    assert ledger.seen(update) == (update in naive.opened or update in naive.settled)
    outcome = ledger.outcome(update)
    assert (outcome.counted if outcome else None) == naive.settled.get(update)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    lives=st.integers(1, 5),
    returned=st.integers(0, 20),
    overtaking=st.sampled_from([0.0, 0.5, 0.97]),  # how often a sender's oldest update is passed over
)
def test_any_interleaving_is_as_if_nothing_was_ever_forgotten(seed: int, lives: int, returned: int, overtaking: float) -> None:
    rng = Random(seed)
    ledger, naive = Ledger(), Naive()
    senders = [Sender("a"), Sender("b")]
    for step in range(600):
        sender = rng.choice(senders)
        if step % (600 // lives) == 599 // lives:
            sender.restart()
        if len(sender.waiting) < UNSETTLED:
            sender.make()
        update = sender.waiting[0] if rng.random() >= overtaking else rng.choice(sender.waiting)
        check(ledger, naive, update)
        if update not in naive.opened:
            ledger.open(update)
            naive.opened.add(update)
        elif rng.random() < 0.8:
            bad = returned > 0 and rng.random() < 0.1
            returned -= bad
            ledger.settle(update, RETURNED if bad else COUNTED)
            naive.opened.discard(update)
            naive.settled[update] = not bad
            sender.waiting.remove(update)
    for sender in senders:
        for update in [*sender.made, UpdateId(sender.node, sender.boot, sender.seq), UpdateId("stranger", 1, 0)]:
            check(ledger, naive, update)


def test_an_update_that_is_overtaken_by_hundreds_still_counts() -> None:
    ledger = Ledger()
    for seq in range(1, 500):
        ledger.settle(UpdateId("a", 1, seq), COUNTED)
    slow = UpdateId("a", 1, 0)
    assert not ledger.seen(slow)
    ledger.open(slow)
    assert ledger.seen(slow)
    assert ledger.outcome(slow) is None
    ledger.settle(slow, COUNTED)
    assert ledger.outcome(slow) == Settled(True, -1, "settled long ago")


def test_outcomes_are_exact_while_they_are_recent_and_say_the_fate_afterwards() -> None:
    ledger = Ledger()
    late = Settled(False, 3, "stale")
    ledger.settle(UpdateId("a", 1, 0), late)
    for seq in range(1, KEPT):
        ledger.settle(UpdateId("a", 1, seq), COUNTED)
    assert ledger.outcome(UpdateId("a", 1, 0)) == late
    for seq in range(KEPT, 3 * KEPT):
        ledger.settle(UpdateId("a", 1, seq), COUNTED)
    assert ledger.outcome(UpdateId("a", 1, 0)) == Settled(False, -1, "settled long ago")
    assert ledger.outcome(UpdateId("a", 1, 1)) == Settled(True, -1, "settled long ago")
    assert ledger.outcome(UpdateId("a", 1, 3 * KEPT - 1)) == COUNTED


@pytest.mark.parametrize("gap", [1, 2, 10**15])
def test_memory_is_bounded_whatever_a_child_does(gap: int) -> None:
    ledger = Ledger()
    limit = 4 * (KEPT + 2 * MAX_STRETCHES)
    for step in range(2000):
        update = UpdateId("a", 1 + step // 100, step * gap)
        ledger.open(update)
        ledger.settle(update, COUNTED if step % 3 else RETURNED)
    assert sizes(ledger) < limit
    assert all(ledger.seen(UpdateId("a", 1 + step // 100, step * gap)) for step in range(2000))


def test_children_do_not_touch_each_other() -> None:
    ledger = Ledger()
    for seq in range(3 * KEPT):
        ledger.settle(UpdateId("a", 1, seq), COUNTED)
    assert not ledger.seen(UpdateId("b", 1, 0))


def test_a_newer_life_does_not_hide_what_an_older_one_still_has_to_send() -> None:
    ledger = Ledger()
    for seq in range(6):
        ledger.settle(UpdateId("a", 1, seq), COUNTED)
    for seq in range(3 * KEPT):
        ledger.settle(UpdateId("a", 2, seq), COUNTED)
    assert ledger.seen(UpdateId("a", 1, 5))
    assert not ledger.seen(UpdateId("a", 1, 6))


# -- from disk


def test_a_restart_finds_open_and_settled_updates() -> None:
    ledger = Ledger([UpdateId("a", 1, 7)], [(UpdateId("a", 1, 6), RETURNED)])
    assert ledger.seen(UpdateId("a", 1, 7))
    assert ledger.outcome(UpdateId("a", 1, 7)) is None
    assert ledger.outcome(UpdateId("a", 1, 6)) == RETURNED
    assert not ledger.seen(UpdateId("a", 1, 5))


def test_after_a_restart_nothing_that_is_no_longer_on_disk_counts_again() -> None:
    on_disk = [(UpdateId("a", 2, seq), COUNTED) for seq in range(100, 100 + KEPT)]
    ledger = Ledger([UpdateId("a", 1, 3)], reversed(on_disk))
    for gone in (UpdateId("a", 2, 99), UpdateId("a", 2, 0), UpdateId("a", 1, 50)):
        assert ledger.outcome(gone) == Settled(True, -1, "settled long ago")
    assert ledger.outcome(UpdateId("a", 1, 3)) is None  # it waits in the window
    assert not ledger.seen(UpdateId("a", 2, 100 + KEPT))
    for seq in range(100 + KEPT, 500):
        ledger.settle(UpdateId("a", 2, seq), COUNTED)
    assert ledger.seen(UpdateId("a", 2, 99))
    assert sizes(ledger) < 4 * (KEPT + 8)
