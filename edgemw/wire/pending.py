"""Updates on their way up: sent again until acknowledged, kept until their outcome is known.

    waiting --Ack--> acknowledged --Outcome--> gone

A waiting update is sent again after 5 s, then 10, 20, ... up to a minute. An acknowledged one, which its receiver has on disk,
is sent again to ask for its outcome: a minute after a later release is out, then after two, four, ... up to ten. Before that
nobody can know it, so it is only asked for every ten minutes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgemw.core.ids import UpdateId
from edgemw.wire.messages import Frame, Update

_FIRST_S, _LONGEST_S = 5.0, 60.0
_SETTLE_FIRST_S, _SETTLE_LONGEST_S = 60.0, 600.0


@dataclass(frozen=True, slots=True)
class _Entry:
    frame: Frame
    acknowledged: bool
    interval_s: float
    due: float


def newest(frame: Frame) -> int:
    """The newest release that an update answers."""
    update = frame.message
    assert isinstance(update, Update)
    return max([update.report_on, *(section.base for section in update.sections)])


class Pending:
    """The updates of one node that have no outcome yet, oldest first."""

    def __init__(self) -> None:
        self._entries: dict[UpdateId, _Entry] = {}
        self._heard = (-1, -1)  # run and number of the newest release

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def waiting(self) -> tuple[UpdateId, ...]:
        """Which are not acknowledged."""
        return tuple(update for update, entry in self._entries.items() if not entry.acknowledged)

    @property
    def frames(self) -> tuple[Frame, ...]:
        """All of them."""
        return tuple(entry.frame for entry in self._entries.values())

    def add(self, frame: Frame, now: float, *, acknowledged: bool = False) -> None:
        """Take an update that is being sent now; or one of an earlier life that was acknowledged, to be asked about at once."""
        if acknowledged:
            self._entries[frame.id] = _Entry(frame, True, _SETTLE_FIRST_S / 2, now)
        else:
            self._entries[frame.id] = _Entry(frame, False, _FIRST_S, now + _FIRST_S)

    def acknowledge(self, update: UpdateId, now: float) -> bool:
        """Note an acknowledgement; False if it was known or the update is not here."""
        entry = self._entries.get(update)
        if entry is None or entry.acknowledged:
            return False
        wait_s = _SETTLE_FIRST_S if self._is_over(entry) else _SETTLE_LONGEST_S
        self._entries[update] = replace(entry, acknowledged=True, interval_s=wait_s, due=now + wait_s)
        return True

    def heard(self, run: int, number: int, now: float) -> bool:
        """A release is out: what answered earlier ones has its outcome now, or soon. Whether there is any of that."""
        before, self._heard = self._heard, max(self._heard, (run, number))
        over = {key: entry for key, entry in self._entries.items() if before <= _answers(entry.frame) < self._heard}
        asked = {key: entry for key, entry in over.items() if entry.acknowledged}
        for key, entry in asked.items():
            self._entries[key] = replace(entry, interval_s=_SETTLE_FIRST_S, due=min(entry.due, now + _SETTLE_FIRST_S))
        return bool(asked)

    def _is_over(self, entry: _Entry) -> bool:
        return _answers(entry.frame) < self._heard

    def settle(self, update: UpdateId) -> Frame | None:
        """Forget an update whose outcome is known; returns it if it was here."""
        entry = self._entries.pop(update, None)
        return entry.frame if entry else None

    def due(self, now: float) -> list[Frame]:
        """The updates to send again now; each is due later next time."""
        frames = []
        for key, entry in self._entries.items():
            if entry.due <= now:
                longest = _SETTLE_LONGEST_S if entry.acknowledged else _LONGEST_S
                interval = min(2 * entry.interval_s, longest)
                self._entries[key] = replace(entry, interval_s=interval, due=now + interval)
                frames.append(entry.frame)
        return frames

    def hurry(self, now: float) -> None:
        """Make every unacknowledged update due: the link is back."""
        for key, entry in self._entries.items():
            if not entry.acknowledged:
                self._entries[key] = replace(entry, interval_s=_FIRST_S, due=now)

    def next_due(self) -> float | None:
        """When `due` has something, if ever."""
        return min((entry.due for entry in self._entries.values()), default=None)

    def clear(self) -> list[Frame]:
        """Forget everything; returns what was here."""
        frames = [entry.frame for entry in self._entries.values()]
        self._entries.clear()
        return frames


def _answers(frame: Frame) -> tuple[int, int]:
    """The run and number of the newest release that an update answers."""
    update = frame.message
    assert isinstance(update, Update)
    return update.run, newest(frame)
