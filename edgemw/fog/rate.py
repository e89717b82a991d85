"""The rate controller: the step follows a budget of bytes. Values in, values out.

    b*     = what is left of the budget / rounds that are left       (the last message, a measurement, is set aside)
    y*     = b* - bytes of a message without symbols,                CRITICAL times that in a critical phase
    kappa <- clip(kappa exp(GAIN clip(ln(y / y*), -2, 2)), LOW, HIGH)

kappa is the step over the root mean square of what training moved. Between two windows it is the step that is kept and
kappa that changes: a step that shrinks with the moves would make every coordinate say its leftovers. Without end there is no
"left": what was saved or overspent is spread over the next HORIZON rounds.

Devices say what they have sent with their next update, one round late. Until then a window is taken to have cost as much
more or less than the one before as its payloads are larger or smaller; below fog nodes these are merged, and only the ratio
counts.

A phase is critical where the norm of the moves has changed by half or more over TAU rounds.

Source: Accordion, arXiv:2010.16248, for critical phases; the rest was measured, docs/decisions/0010-step-rule.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

GAIN, CLIP = 0.15, 2.0
LOW, HIGH = 0.5, 1e4
SLOPE, BITS_AT_ONE = 0.75, 2.1  # bits per parameter = BITS_AT_ONE kappa^-SLOPE, measured on digits; where kappa starts
HORIZON = 40
CRITICAL, CHANGE, TAU = 3.0, 0.5, 5


@dataclass(frozen=True, slots=True)
class Budget:
    """Bytes that one device may use.

    Attributes:
        round_bytes: per round, on average; 0 is off.
        run_bytes: in the whole run; 0 is off.
        rounds: of the run; 0 is without end, and then `run_bytes` is 0.
    """

    round_bytes: int = 0
    run_bytes: int = 0
    rounds: int = 0

    @property
    def given(self) -> bool:
        """Whether there is one."""
        return bool(self.round_bytes or self.run_bytes)

    @property
    def mean_bytes(self) -> float:
        """Of one round."""
        return float(self.round_bytes) if self.round_bytes else self.run_bytes / max(self.rounds, 1)

    def next_bytes(self, spent_bytes: float, made: int) -> float:
        """What the next round may cost; negative where the budget is overspent.

        Args:
            spent_bytes: in the rounds before.
            made: how many these are.
        """
        if self.rounds:
            return (self.mean_bytes * self.rounds - spent_bytes) / max(self.rounds - made, 1)
        saved = self.mean_bytes * made - spent_bytes
        most = self.mean_bytes * HORIZON / 2
        return self.mean_bytes + max(-most, min(most, saved)) / HORIZON


@dataclass(frozen=True, slots=True)
class Seen:
    """What a window showed of its cost, for one device.

    Attributes:
        sent_bytes: had gone up its link since its last report; None where nobody said.
        payload_bytes: of its update, apart from what a payload without symbols takes; 0 where there is none.
        empty_bytes: of a message without symbols.
    """

    sent_bytes: float | None = None
    payload_bytes: float = 0.0
    empty_bytes: float = 0.0


@dataclass(frozen=True, slots=True)
class Rate:
    """Where spending is; kept with the release.

    Attributes:
        step: as it was chosen; what is announced may be rounded. 0 before the first.
        sent_bytes: of one device, as reported so far.
        got_bytes: of one device: the releases so far.
        payload_bytes: of the last window, as in `Seen`.
        pending_bytes: of the last window's update above a message without symbols; devices report it with their next.
        moves: root mean squares of the last rounds, newest last.
    """

    step: float = 0.0
    sent_bytes: float = 0.0
    got_bytes: float = 0.0
    payload_bytes: float = 0.0
    pending_bytes: float = 0.0
    moves: tuple[float, ...] = ()

    @property
    def kappa(self) -> float:
        """The step over the last root mean square of moves; 0 before there is one."""
        return self.step / self.moves[-1] if self.moves else 0.0

    def and_move(self, move: float) -> Rate:
        """With the root mean square of one more round."""
        return replace(self, moves=(*self.moves, move)[-TAU - 1 :])

    @property
    def critical(self) -> bool:
        """Whether training is in a phase that deserves more bytes."""
        moves = self.moves
        return len(moves) > TAU and abs(moves[-1] - moves[0]) >= CHANGE * moves[0]


def reported(rate: Rate, seen: Seen) -> Rate:
    """The rate after a window."""
    sent = rate.sent_bytes + (seen.sent_bytes or 0.0)
    pending = seen.payload_bytes
    if seen.sent_bytes is not None and rate.payload_bytes > 0 and seen.sent_bytes > seen.empty_bytes:
        pending = (seen.sent_bytes - seen.empty_bytes) * seen.payload_bytes / rate.payload_bytes
    return replace(rate, sent_bytes=sent, payload_bytes=seen.payload_bytes, pending_bytes=pending)


def first_kappa(budget: Budget, empty_bytes: float, size: int) -> float:
    """Where kappa starts for a model of `size` parameters."""
    bits = 8 * max(budget.mean_bytes - empty_bytes, 1.0) / size
    return _within_bounds((BITS_AT_ONE / bits) ** (1 / SLOPE))


def next_kappa(rate: Rate, budget: Budget, empty_bytes: float, made: int) -> float:
    """The kappa that follows the present one.

    Args:
        rate: after `reported`, with a step and at least one move.
        budget: one that is given.
        empty_bytes: of a message without symbols.
        made: rounds so far, the one whose window has just closed among them.
    """
    last_message = empty_bytes if budget.rounds else 0.0
    spent = rate.sent_bytes + rate.pending_bytes + empty_bytes + last_message
    wanted = (budget.next_bytes(spent, made) - empty_bytes) * (CRITICAL if rate.critical else 1.0)
    error = math.log(max(rate.pending_bytes, 1.0) / wanted) if wanted > 0 else CLIP
    return _within_bounds(rate.kappa * math.exp(GAIN * max(-CLIP, min(CLIP, error))))


def _within_bounds(kappa: float) -> float:
    return max(LOW, min(HIGH, kappa))
