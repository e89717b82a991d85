"""Which steps a fog node takes for a release."""

from __future__ import annotations

import numpy as np
import pytest

from edgemw.compression.codec import Codec
from edgemw.compression.lanes import Lanes
from edgemw.compression.lattice import Lattice
from edgemw.core.encoded import Section
from edgemw.fog.steps import Steps

FREE, DYADIC = Lattice(), Lattice(steps="dyadic")
SIZE = 40


def section(codec: Codec, base: int, step: float) -> Section:
    return Section(base, 1, 1, 0.0, codec.encode(np.zeros(SIZE, np.float32), step))


def refusal(steps: Steps, base: int, step: float, codec: Codec = FREE, of: Codec | None = None) -> str:
    """What a node that asked for `codec` says to a section that was made by `of`."""
    return steps.refusal(codec, section(of or codec, base, step), SIZE)


def announcing(*steps: float, run: int = 1, max_staleness: int = 4) -> Steps:
    known = Steps()
    for number, step in enumerate(steps):
        known.begin(run, number, step, max_staleness)
    return known


@pytest.mark.parametrize(
    ("announced", "step", "dyadic", "taken"),
    [
        (0.3, 0.3, False, True),
        (0.3, 0.25, False, False),
        (0.3, 0.0, False, False),
        (0.25, 0.5, False, False),
        (0.25, 0.25, True, True),
        (0.25, 0.125, True, True),
        (0.25, 0.3, True, False),
        (0.25, 0.0, True, True),
        (1.0, 2.0**-12, True, True),
        (1.0, 2.0**-13, True, False),
        (1.0, 2.0**24, True, True),
        (1.0, 2.0**25, True, False),
        (0.0, 0.0, False, True),
        (0.0, 2.0**-112, False, True),
        (0.0, 2.0**-113, False, False),
        (0.0, 0.3, False, False),
        (0.0, 0.3, True, False),
    ],
)
def test_what_fits_what_was_announced(announced: float, step: float, dyadic: bool, taken: bool) -> None:
    announced32, step32 = float(np.float32(announced)), float(np.float32(step))
    reason = refusal(announcing(announced32), 0, step, DYADIC if dyadic else FREE)
    assert (reason == "") is taken
    expected = "powers of two were asked for" if dyadic and step == 0.3 else f"release 0 announced {announced32}"
    assert taken or reason == f"step {step32} where {expected}"


def test_what_is_taken_for_a_release_adds_whatever_comes_first() -> None:
    steps = announcing(0.0)
    assert not refusal(steps, 0, 2.0**-20)
    assert "others of release 0 took" in refusal(steps, 0, 2.0**-7)
    assert not refusal(steps, 0, 2.0**-8)
    assert "others of release 0 took" in refusal(steps, 0, 2.0**-21)
    assert not refusal(steps, 0, 0.0)


def test_who_comes_first_with_an_absurd_step_has_one_release() -> None:
    steps = announcing(0.0)
    absurd, usual = section(FREE, 0, 2.0**30), section(FREE, 0, 2.0**-3)
    assert not steps.refusal(FREE, absurd, SIZE, "liar")
    assert all(steps.refusal(FREE, usual, SIZE, child) for child in ("a", "b", "c"))
    steps.begin(1, 1, 0.0, 4)
    late, again = section(FREE, 1, 2.0**30), section(FREE, 1, 2.0**-3)
    assert "most children take about 0.125" in steps.refusal(FREE, late, SIZE, "liar")
    assert not any(steps.refusal(FREE, again, SIZE, child) for child in ("a", "b", "c"))
    assert steps.refusal(FREE, late, SIZE, "liar")


def test_many_updates_of_one_child_are_one_vote_about_steps() -> None:
    steps = announcing(0.0)
    usual = section(FREE, 0, 2.0**-3)
    assert not any(steps.refusal(FREE, usual, SIZE, child) for child in ("a", "b", "c"))
    for _ in range(20):
        assert steps.refusal(FREE, section(FREE, 0, 2.0**30), SIZE, "liar")
    assert not steps.refusal(FREE, usual, SIZE, "a")


def test_a_coarser_step_of_a_fog_node_with_a_budget_adds_to_a_finer_one() -> None:
    steps = announcing(1.0)
    assert not refusal(steps, 0, 2.0**-12, DYADIC)
    assert "others of release 0 took" in refusal(steps, 0, 2.0**13, DYADIC)
    assert not refusal(steps, 0, 2.0**12, DYADIC)


@pytest.mark.parametrize("places", [8, 12, 16, 23])
def test_whatever_steps_devices_choose_of_their_own_their_sum_does_not_wrap(places: int) -> None:
    """A device that hardly learned takes a very fine step, to which the large symbols of the others have to move."""
    rng = np.random.default_rng(places)
    codec, steps, taken = Lattice(kappa=4.0), announcing(0.0), []
    for size in [2.0**-places, *[1.0] * 300, *[2.0**-11] * 3]:
        vector = (size * rng.standard_normal(SIZE)).astype(np.float32)
        vector[0] = 100 * size
        payload = codec.encode(vector, 0.0)
        if not steps.refusal(codec, Section(0, 1, 1, 0.0, payload), SIZE):
            taken.append(payload)
    true = sum((codec.decode(payload, SIZE).astype(np.float64) for payload in taken), np.zeros(SIZE))
    assert np.array_equal(codec.decode(codec.merge(taken, SIZE), SIZE), true.astype(np.float32))


def of(symbol: int, step: float, count: int = 1, base: int = 0) -> Section:
    """What a peer may write, if not a device: one symbol of any size."""
    payload = FREE.encode(np.eye(1, SIZE, 3, dtype=np.float32)[0] * np.float32(step), step)
    places, symbols = np.array([3]), np.array([symbol], np.int32)
    return Section(base, 1, count, 0.0, payload[:8] + FREE.coders.range.pack(places, symbols, SIZE))


@pytest.mark.parametrize(("symbol", "count", "taken"), [(127, 1, True), (-127, 1, True), (128, 1, False), (-128, 1, False)])
@pytest.mark.parametrize("announced", [0.0, 0.5])
def test_a_device_writes_127_steps_at_most(symbol: int, count: int, taken: bool, announced: float) -> None:
    reason = announcing(announced).refusal(FREE, of(symbol, 0.5, count), SIZE)
    assert reason == ("" if taken else "a symbol of 128 where 1 updates write at most 127")


def test_a_sum_is_at_most_the_sum_of_its_devices() -> None:
    step = float(np.float32(0.3))
    assert not announcing(step).refusal(FREE, of(381, step, 3), SIZE)
    for symbol in (382, -(2**31)):
        assert "3 updates write at most 381" in announcing(step).refusal(FREE, of(symbol, step, 3), SIZE)


def test_no_sum_of_what_is_taken_leaves_32_bits() -> None:
    steps = announcing(0.0)
    assert not steps.refusal(FREE, of(2**30, 1.0, 9), SIZE)
    assert "could leave 32 bits" in steps.refusal(FREE, of(-(2**30), 1.0, 9), SIZE)
    assert "could leave 32 bits" in steps.refusal(FREE, of(1, 0.5), SIZE), "the others would have to move up"
    assert not steps.refusal(FREE, of(2**29, 1.0, 9), SIZE)


def test_where_steps_are_dyadic_sums_over_releases_stay_in_32_bits() -> None:
    steps = announcing(1.0, 2.0**-10, max_staleness=4)
    assert not steps.refusal(DYADIC, of(2**16, 1.0, 600, base=0), SIZE)
    assert not steps.refusal(DYADIC, of(2**19, 2.0**-10, 5000, base=1), SIZE)
    assert "could leave 32 bits" in steps.refusal(DYADIC, of(2**20, 1.0, 10_000, base=0), SIZE)


def test_where_steps_are_dyadic_nothing_else_is_taken_even_of_a_release_that_is_not_known() -> None:
    """A fog node that restarted has not heard what earlier releases announced."""
    steps = announcing(0.25)
    assert refusal(steps, -1, 0.3, DYADIC) == f"step {np.float32(0.3)} where powers of two were asked for"
    assert not refusal(steps, -1, 0.5, DYADIC)


def test_every_release_has_its_own_step_until_it_is_too_old() -> None:
    steps = announcing(0.25, 0.5, 0.75, max_staleness=1)
    assert not refusal(steps, 2, 0.75)
    assert not refusal(steps, 1, 0.5)
    assert refusal(steps, 1, 0.75)
    assert not refusal(steps, 0, 0.9)  # forgotten; whoever asks has refused it as stale


def test_another_run_begins_anew() -> None:
    steps = announcing(0.75)
    steps.begin(2, 0, 1.5, 4)
    assert not refusal(steps, 0, 1.5)


def test_what_was_taken_in_an_earlier_life_tells_what_was_announced() -> None:
    steps = Steps()
    steps.remember(FREE, 1, section(FREE, 4, 0.3), SIZE)
    steps.remember(FREE, 1, section(FREE, 5, 0.25), SIZE)
    steps.begin(1, 6, 0.6, 4)
    assert refusal(steps, 4, 0.4)
    assert not refusal(steps, 4, 0.3)
    assert not refusal(steps, 5, 2.0**-14)
    assert refusal(steps, 5, 2.0**-15)


def test_payloads_that_do_not_shift_are_on_the_announced_step_and_share_a_ring() -> None:
    lanes = Lanes()
    assert refusal(announcing(0.0), 0, 0.5, lanes) == "step 0.5 where release 0 announced 0.0"
    steps = announcing(0.5)
    assert not refusal(steps, 0, 0.5, lanes)
    assert not refusal(steps, 0, 0.5, lanes)
    assert refusal(steps, 0, 0.5, lanes, Lanes(seed=3)) == "other parameters of lanes than was asked for in release 0"
    assert refusal(announcing(0.5, 0.5), 1, 0.5, lanes)
    assert not refusal(announcing(0.5, 0.5), 1, 0.5, lanes, Lanes(block=1))
    assert refusal(steps, 0, 0.5, lanes, Lanes(block=1)) == "other parameters of lanes than was asked for in release 0"
    steps = Steps()
    steps.remember(lanes, 1, section(lanes, 0, 0.5), SIZE)
    assert not refusal(steps, 0, 0.5, lanes)
    assert refusal(steps, 0, 0.25, lanes) == "step 0.25 where release 0 announced 0.5"
    assert refusal(steps, 0, 0.5, lanes, Lanes(seed=3))
