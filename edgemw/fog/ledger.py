"""Which updates have been seen, and what became of them: each is counted once, however often it is sent.

The ledger keeps the last KEPT settled updates of each child. A child has a handful of updates without an outcome at any
time and numbers them in order, so whatever is older than all that is kept was settled long ago.
"""

from __future__ import annotations

from collections.abc import Iterable

from edgemw.core.ids import UpdateId
from edgemw.fog.events import Settled

KEPT = 64


class Ledger:
    """Open and settled updates of every child."""

    def __init__(self, open_: Iterable[UpdateId] = (), settled: Iterable[tuple[UpdateId, Settled]] = ()) -> None:
        self._open = set(open_)
        self._settled: dict[str, dict[UpdateId, Settled]] = {}
        self._oldest: dict[str, UpdateId] = {}
        for update, outcome in sorted(settled, key=lambda item: item[0]):
            self.settle(update, outcome)

    def seen(self, update: UpdateId) -> bool:
        """Whether the update has arrived before."""
        if update in self._open or update in self._settled.get(update.node, {}):
            return True
        oldest = self._oldest.get(update.node)
        return oldest is not None and update <= oldest

    def outcome(self, update: UpdateId) -> Settled | None:
        """What became of an update that was seen; None while it is open."""
        if update in self._open:
            return None
        return self._settled.get(update.node, {}).get(update, Settled(True, -1, "settled long ago"))

    def open(self, update: UpdateId) -> None:
        """Note an arrival."""
        self._open.add(update)

    def settle(self, update: UpdateId, outcome: Settled) -> None:
        """Note an outcome."""
        self._open.discard(update)
        kept = self._settled.setdefault(update.node, {})
        kept[update] = outcome
        if len(kept) > KEPT:
            oldest = min(kept)
            del kept[oldest]
            self._oldest[update.node] = max(oldest, self._oldest.get(update.node, oldest))
