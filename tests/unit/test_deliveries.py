"""The delivery rate: what the path carried, never more, soon after it changed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgemw.core.ids import UpdateId
from edgemw.device.deliveries import MAX_UNDER_WAY, WINDOW, Deliveries


def update(seq: int) -> UpdateId:
    return UpdateId("device-0", 1, seq)


def test_nothing_is_known_before_the_first_delivery() -> None:
    deliveries = Deliveries()
    deliveries.sent(update(0), 1000, 0.0)
    assert deliveries.rate is None
    deliveries.arrived(update(7), 1.0)  # of an earlier life
    assert deliveries.rate is None


def test_the_largest_of_the_last_samples_counts_and_an_old_one_is_forgotten() -> None:
    deliveries, now = Deliveries(), 0.0
    for seq, size_bytes in enumerate([5000, 10, 10, 10, 10]):
        assert deliveries.rate == (None if seq == 0 else 5000.0 if seq <= WINDOW else 10.0)
        deliveries.sent(update(seq), size_bytes, now)
        deliveries.arrived(update(seq), now + 1.0)
        now += 100.0  # idle time is nobody's rate
    assert deliveries.rate == 10.0


def test_what_never_arrives_is_given_up() -> None:
    deliveries = Deliveries()
    for seq in range(MAX_UNDER_WAY + 1):
        deliveries.sent(update(seq), 100, 0.0)
    deliveries.arrived(update(0), 1.0)
    assert deliveries.rate is None
    deliveries.arrived(update(1), 1.0)
    assert deliveries.rate == 100.0
    deliveries.forget()
    deliveries.arrived(update(2), 1.0)
    assert deliveries.rate == 100.0


@given(
    sizes=st.lists(st.integers(1, 5000), min_size=1, max_size=12),
    gaps=st.lists(st.floats(0, 20), min_size=12, max_size=12),
    rate=st.floats(1, 10_000),
)
def test_a_path_is_never_taken_for_faster_than_it_is(sizes: list[int], gaps: list[float], rate: float) -> None:
    """Updates go one after the other through a path with a fixed rate."""
    events: list[tuple[float, int, int]] = []
    now = free = 0.0
    for seq, size_bytes in enumerate(sizes):
        now += gaps[seq]
        free = max(free, now) + size_bytes / rate
        events += [(now, 1, seq), (free, 0, seq)]
    deliveries = Deliveries()
    for at, kind, seq in sorted(events):
        if kind:
            deliveries.sent(update(seq), sizes[seq], at)
        else:
            deliveries.arrived(update(seq), at)
        assert deliveries.rate is None or deliveries.rate <= rate * (1 + 1e-6)
    assert deliveries.rate is not None
