"""The step of the next release: what it follows, when it stays, and how it comes back from a wrong energy."""

from __future__ import annotations

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from edgemw.compression.lattice import Lattice
from edgemw.compression.step_rule import SPREAD, as_step, mean_move, next_step

AMOUNTS = st.floats(0, 1e300)


def test_the_first_step_is_kappa_times_the_root_mean_square_of_the_moves() -> None:
    assert next_step(4.0, mean_move(energy=2 * 100 * 0.25, coordinates=200), 0.0) == 2.0


def test_it_stays_while_moves_shrink_and_follows_them_from_a_distance() -> None:
    steps = [1.0]
    for number in range(1, 8):
        steps.append(next_step(2.0, 0.5 * 2.0**-number, steps[-1]))
    assert steps == [1.0, 1.0, 1.0, 0.5, 0.25, 0.125, 0.0625, 0.03125]
    assert steps[3] == SPREAD * 2.0 * 0.5 * 2.0**-3


def test_it_grows_at_once_with_moves() -> None:
    assert next_step(2.0, 3.0, 1.0) == 6.0


def test_a_wrong_energy_is_made_up_for_by_the_next_right_one() -> None:
    wrong = next_step(4.0, mean_move(1e70, 10), 0.25)
    assert wrong > 1e30
    assert next_step(4.0, 0.0625, wrong) == SPREAD * 0.25


@hypothesis.given(kappa=st.floats(1e-3, 64), energy=AMOUNTS, step=AMOUNTS)
def test_it_is_between_what_the_moves_ask_for_and_its_spread(kappa: float, energy: float, step: float) -> None:
    move = mean_move(energy, 10)
    found = next_step(kappa, move, step)
    assert as_step(kappa * move) <= found <= as_step(SPREAD * kappa * move)


@pytest.mark.parametrize("energy", [0.0, 1e-320, 1e77, 1.7e308])
def test_it_is_always_one_that_can_be_encoded(energy: float) -> None:
    step = next_step(4.0, mean_move(energy, coordinates=10), 0.0)
    assert step == float(np.float32(step))
    assert Lattice(rounding="nearest").check(Lattice(rounding="nearest").encode(np.array([1, -2], np.float32), step), 2) == step


@pytest.mark.parametrize("kappa", [2.0, 4.0, 8.0, 32.0])
def test_leftovers_do_not_make_it_grow(kappa: float) -> None:
    """Three hundred rounds of steady drift: the step stays where it began, and what was sent keeps up with what was moved."""
    rng = np.random.default_rng(3)
    drift = rng.normal(0, 1, 500).astype(np.float32)
    residual, step, sent = np.zeros(500, np.float32), 0.0, np.zeros(500)
    steps = []
    for _ in range(300):
        energy = float(np.square(drift, dtype=np.float64).sum())
        payload = Lattice(rounding="nearest").encode(drift + residual, step)
        said = Lattice(rounding="nearest").decode(payload, 500)
        residual, sent = drift + residual - said, sent + said
        step = next_step(kappa, mean_move(energy, 500), step)
        steps.append(step)
    assert max(steps) == min(steps)
    assert np.abs(sent - 300 * drift).max() <= 0.5 * steps[0] * 1.001
