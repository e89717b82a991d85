"""Which updates have been seen, and what became of them: each is counted once, however often it is sent.

    open  --settle-->  recent: the newest KEPT outcomes of each child  --a newer one comes-->  a stretch

A child numbers its updates in order and has a handful without an outcome at any time. So what is older than all that is
recent is a few stretches of consecutive numbers with the same fate, and the gaps between them are updates that have not
arrived. A child that leaves more than MAX_STRETCHES has its two oldest joined into one that was counted: an update inside
that gap is then lost, but never counted twice. The same holds for what a restart finds: outcomes beyond KEPT are not on disk.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter

from edgemw.core.ids import UpdateId
from edgemw.fog.events import Settled

KEPT = 64
MAX_STRETCHES = 64
_NUMBER = attrgetter("boot", "seq")  # of updates of one child; comparing identities takes ten times as long


@dataclass(frozen=True, slots=True, order=True)
class _Stretch:
    """Updates of one child, from (boot, seq) to (boot, seq), all settled alike."""

    first: tuple[int, int]
    last: tuple[int, int]
    counted: bool

    def covers(self, update: UpdateId) -> bool:
        return self.first <= (update.boot, update.seq) <= self.last

    def goes_on_with(self, other: _Stretch) -> bool:
        return other.first == (self.last[0], self.last[1] + 1) and other.counted == self.counted


class Ledger:
    """Open and settled updates of every child."""

    def __init__(self, open_: Iterable[UpdateId] = (), settled: Iterable[tuple[UpdateId, Settled]] = ()) -> None:
        self._open = set(open_)
        self._recent: dict[str, dict[UpdateId, Settled]] = {}
        self._past: dict[str, list[_Stretch]] = {}
        for update, outcome in sorted(settled, key=lambda item: item[0]):
            self.settle(update, outcome)
        for node, recent in self._recent.items():
            if len(recent) == KEPT and node not in self._past:
                oldest = min(recent, key=_NUMBER)
                self._past[node] = [_Stretch((0, 0), (oldest.boot, oldest.seq - 1), counted=True)]

    def seen(self, update: UpdateId) -> bool:
        """Whether the update has arrived before."""
        return update in self._open or self.outcome(update) is not None

    def outcome(self, update: UpdateId) -> Settled | None:
        """What became of an update; None while it is open or has not arrived."""
        if update in self._open:
            return None
        recent = self._recent.get(update.node, {}).get(update)
        if recent is not None:
            return recent
        stretch = self._stretch(update)
        return None if stretch is None else Settled(stretch.counted, -1, "settled long ago")

    def open(self, update: UpdateId) -> None:
        """Note an arrival."""
        self._open.add(update)

    def settle(self, update: UpdateId, outcome: Settled) -> None:
        """Note an outcome."""
        self._open.discard(update)
        recent = self._recent.setdefault(update.node, {})
        recent[update] = outcome
        if len(recent) > KEPT:
            oldest = min(recent, key=_NUMBER)
            self._archive(oldest, recent.pop(oldest))

    def _stretch(self, update: UpdateId) -> _Stretch | None:
        return next((stretch for stretch in self._past.get(update.node, ()) if stretch.covers(update)), None)

    def _archive(self, update: UpdateId, outcome: Settled) -> None:
        if self._stretch(update) is not None:
            return
        at = update.boot, update.seq
        past: list[_Stretch] = []
        for stretch in sorted([*self._past.get(update.node, ()), _Stretch(at, at, outcome.counted)]):
            if past and past[-1].goes_on_with(stretch):
                past[-1] = _Stretch(past[-1].first, stretch.last, stretch.counted)
            else:
                past.append(stretch)
        if len(past) > MAX_STRETCHES:
            past[:2] = [_Stretch(past[0].first, past[1].last, counted=True)]
        self._past[update.node] = past
