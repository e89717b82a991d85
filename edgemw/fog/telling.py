"""What children still have to be told: good news waits a moment for an acknowledgement that it can ride on.

    counted   with the next Ack to the same child, or alone after HOLD_S
    returned  at once, so that its mass is back in the residual before the next training

A message of its own costs more than all that it says. A child asks only a minute after a release (`wire/pending.py`), so
what waits less costs nothing; and what a restart forgets here is in the ledger when the child asks.
"""

from __future__ import annotations

from edgemw.core.ids import UpdateId
from edgemw.fog.events import Settled
from edgemw.wire.messages import MAX_OUTCOMES, Outcome

HOLD_S = 30.0


class Telling:
    """The outcomes that wait, by child, oldest first."""

    def __init__(self) -> None:
        self._waiting: dict[str, dict[UpdateId, Outcome]] = {}
        self._due: dict[str, float] = {}

    def hold(self, update: UpdateId, settled: Settled, now: float) -> None:
        """Keep an outcome back."""
        self._waiting.setdefault(update.node, {})[update] = outcome_of(update, settled)
        self._due.setdefault(update.node, now + HOLD_S)

    def with_ack(self, child: str) -> tuple[Outcome, ...]:
        """The outcomes that an Ack to this child takes along."""
        waiting = self._waiting.get(child, {})
        taken = list(waiting)[:MAX_OUTCOMES]
        outcomes = tuple(waiting.pop(update) for update in taken)
        if not waiting:
            self._waiting.pop(child, None)
            self._due.pop(child, None)
        return outcomes

    def overdue(self, now: float) -> list[tuple[str, Outcome]]:
        """The outcomes that have waited long enough, with their children."""
        late = [child for child, due in self._due.items() if due <= now]
        for child in late:
            del self._due[child]
        return [(child, outcome) for child in late for outcome in self._waiting.pop(child).values()]

    @property
    def due(self) -> float | None:
        """When `overdue` has something, if ever."""
        return min(self._due.values(), default=None)


def outcome_of(update: UpdateId, settled: Settled) -> Outcome:
    """The message about an outcome."""
    return Outcome(update.boot, update.seq, settled.counted, settled.release, settled.reason)
