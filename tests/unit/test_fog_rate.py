"""The rate controller against models of what kappa makes of bytes: the budget is met, bounds hold, nothing runs away."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import hypothesis
import pytest
from hypothesis import strategies as st

from edgemw.fog.rate import CRITICAL, HIGH, HORIZON, LOW, TAU, Budget, Rate, Seen, first_kappa, next_kappa, reported

SIZE, EMPTY, BIRTH = 50_000, 220.0, 90.0
MERGED = 0.3  # part of devices' payloads that a fog node sends on

Model = Callable[[float, int], float]
"""Payload bytes of an update from kappa and the round."""


def power(exponent: float, scale: float = 12_000.0) -> Model:
    return lambda kappa, number: scale * kappa**-exponent


def drifting(kappa: float, number: int) -> float:
    """Moves that shrink three times, and twice as many bytes for the same kappa in the second half."""
    return power(1.0)(kappa, number) * (2.0 if number > 30 else 1.0) * math.exp(-number / 60)


def noisy(kappa: float, number: int) -> float:
    return power(1.0)(kappa, number) * (1.3 if number % 2 else 0.7)


@dataclass(frozen=True)
class Done:
    sent: list[float]
    kappas: list[float]

    @property
    def total(self) -> float:
        """With the birth, and the measurement at the end."""
        return BIRTH + sum(self.sent) + EMPTY


def run(budget: Budget, model: Model, rounds: int, moves: Callable[[int], float] = lambda number: 1.0) -> Done:
    """A run in which devices report what they have sent with their next update."""
    kappa = first_kappa(budget, EMPTY, SIZE)
    rate = Rate(step=kappa * moves(0))
    told, sent, kappas = BIRTH, [], []
    for number in range(rounds):
        payload = model(kappa, number)
        sent.append(payload + EMPTY)
        kappas.append(kappa)
        rate = reported(rate, Seen(told, MERGED * payload, EMPTY))
        rate = replace(rate, moves=(*rate.moves, moves(number))[-TAU - 1 :])
        told = sent[-1]
        kappa = next_kappa(rate, budget, EMPTY, number + 1)
        rate = replace(rate, step=kappa * moves(number))
    return Done(sent, kappas)


@pytest.mark.parametrize("model", [power(0.7), power(1.0), power(4.0, 1e6), drifting, noisy])
@pytest.mark.parametrize("round_bytes", [260, 400, 1000, 3000, 8000])
@pytest.mark.parametrize("rounds", [40, 100])
def test_a_budget_is_met_within_5_percent(model: Model, round_bytes: int, rounds: int) -> None:
    done = run(Budget(round_bytes=round_bytes, rounds=rounds), model, rounds)
    assert done.total == pytest.approx(round_bytes * rounds, rel=0.05)


def test_a_budget_of_the_run_is_one_of_its_rounds() -> None:
    of_run, of_rounds = Budget(run_bytes=80_000, rounds=40), Budget(round_bytes=2000, rounds=40)
    assert run(of_run, drifting, 40) == run(of_rounds, drifting, 40)


@pytest.mark.parametrize("model", [power(1.0), noisy])
def test_without_end_every_stretch_of_rounds_meets_it(model: Model) -> None:
    done = run(Budget(round_bytes=1000), model, 400)
    for first in range(100, 360, 20):
        assert sum(done.sent[first : first + 40]) == pytest.approx(40_000, rel=0.05)


def test_less_than_a_message_without_symbols_sends_nothing_but_those() -> None:
    done = run(Budget(round_bytes=100, rounds=40), power(4.0), 40)
    assert done.kappas[0] == HIGH
    assert done.total < 1.01 * (BIRTH + 41 * EMPTY)


def test_more_than_there_is_to_say_goes_no_finer_than_its_bound() -> None:
    assert run(Budget(round_bytes=10**6, rounds=40), power(1.0), 40).kappas[-1] == LOW


def test_a_budget_that_is_spent_early_sends_no_more_symbols_than_it_must() -> None:
    def burst(kappa: float, number: int) -> float:
        return 48_000.0 if number == 3 else power(2.0)(kappa, number)

    done = run(Budget(round_bytes=1000, rounds=60), burst, 60)
    assert done.kappas[-1] == HIGH
    assert sum(done.sent[-30:]) < 30 * 1.01 * EMPTY


def test_a_critical_phase_spends_more_and_the_run_still_meets_its_budget() -> None:
    def moves(number: int) -> float:
        return 4.0 if 20 <= number < 24 else 1.0

    budget = Budget(round_bytes=1000, rounds=80)
    calm, changed = run(budget, power(1.0), 80), run(budget, power(1.0), 80, moves)
    assert sum(changed.sent[21:32]) > 1.3 * sum(calm.sent[21:32])
    assert changed.total == pytest.approx(calm.total, rel=0.02)


@pytest.mark.parametrize(
    ("moves", "critical"),
    [((1.0,) * 6, False), ((1.0, 1, 1, 1, 1, 1.5), True), ((1.0, 1, 1, 1, 1, 0.5), True), ((1.0, 3.0), False)],
)
def test_a_phase_is_critical_where_moves_have_changed_by_half(moves: tuple[float, ...], critical: bool) -> None:
    assert Rate(moves=moves).critical is critical
    assert CRITICAL > 1


def test_what_is_not_reported_yet_follows_the_payloads_of_the_window() -> None:
    rate = reported(Rate(), Seen(BIRTH, 30.0, EMPTY))
    assert (rate.sent_bytes, rate.pending_bytes) == (BIRTH, 30.0)
    rate = reported(rate, Seen(EMPTY + 100, 60.0, EMPTY))
    assert (rate.sent_bytes, rate.pending_bytes) == (BIRTH + EMPTY + 100, 200.0)


def test_a_window_in_which_nobody_trained_costs_what_was_reported() -> None:
    rate = reported(Rate(step=1.0, payload_bytes=5.0), Seen(300.0))
    assert (rate.sent_bytes, rate.step) == (300.0, 1.0)


@hypothesis.given(
    kappa=st.floats(LOW, HIGH),
    sent=st.floats(0, 1e15),
    pending=st.floats(0, 1e15),
    empty=st.floats(0, 1e6),
    budget=st.builds(Budget, round_bytes=st.integers(1, 1 << 40), rounds=st.integers(0, 1000)),
    made=st.integers(0, 2000),
    moves=st.lists(st.floats(1e-200, 1e200), min_size=1, max_size=TAU + 1),
)
def test_kappa_never_leaves_its_bounds(
    kappa: float, sent: float, pending: float, empty: float, budget: Budget, made: int, moves: list[float]
) -> None:
    rate = Rate(kappa * moves[-1], sent_bytes=sent, pending_bytes=pending, moves=tuple(moves))
    assert LOW <= next_kappa(rate, budget, empty, made) <= HIGH
    assert LOW <= first_kappa(budget, empty, SIZE) <= HIGH


def test_savings_without_end_are_spread_over_the_horizon() -> None:
    budget = Budget(round_bytes=1000)
    assert budget.next_bytes(10_000, 10) == 1000
    assert budget.next_bytes(6000, 10) == 1000 + 4000 / HORIZON
    assert budget.next_bytes(0, 10**6) == 1500
    assert budget.next_bytes(1e12, 10) == 500
