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
        (1.0, 2.0**-24, True, True),
        (1.0, 2.0**-25, True, False),
        (1.0, 2.0**24, True, True),
        (1.0, 2.0**25, True, False),
        (0.0, 0.0, False, True),
        (0.0, 2.0**-90, False, True),
        (0.0, 0.3, False, False),
        (0.0, 0.3, True, False),
    ],
)
def test_what_fits_what_was_announced(announced: float, step: float, dyadic: bool, taken: bool) -> None:
    announced32, step32 = float(np.float32(announced)), float(np.float32(step))
    reason = refusal(announcing(announced32), 0, step, DYADIC if dyadic else FREE)
    assert (reason == "") is taken
    assert taken or reason == f"step {step32} where release 0 announced {announced32}"


@pytest.mark.parametrize(("announced", "dyadic"), [(0.0, False), (1.0, True)])
def test_what_is_taken_for_a_release_adds_whatever_comes_first(announced: float, dyadic: bool) -> None:
    codec = DYADIC if dyadic else FREE
    steps = announcing(announced)
    assert not refusal(steps, 0, 2.0**-20, codec)
    assert "others of release 0 took" in refusal(steps, 0, 2.0**5, codec)
    assert not refusal(steps, 0, 2.0**4, codec)
    assert "others of release 0 took" in refusal(steps, 0, 2.0**-21, codec)
    assert not refusal(steps, 0, 0.0, codec)


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
    assert not refusal(steps, 5, 2.0**-26)
    assert refusal(steps, 5, 2.0**-27)


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
