"""The upper half of every node that has a parent: sends its updates, again and again, to whoever was asked first.

An update goes to the fog node that it was made for, even if the node has another parent by now: that fog may have it, and
two fogs that count one update count it twice.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgemw.core.events import SetTimer
from edgemw.core.ids import Place, UpdateId
from edgemw.wire import topics
from edgemw.wire.messages import Frame, ReleaseManifest, Update
from edgemw.wire.pending import Pending, newest
from edgemw.wire.signed import Signer, signed_frame
from edgemw.wire.traffic import Upload

RESEND = "resend"

Sending = Upload | SetTimer

_NONE: frozenset[UpdateId] = frozenset()  # one for all: a fleet in virtual time has 100 000 senders


def nothing_for(release: ReleaseManifest) -> Update:
    """The answer to a release that adds nothing to it."""
    return Update(release.run, release.codec, release.theta.size // 4, (), report_on=release.number)


@dataclass(frozen=True, slots=True)
class Kept:
    """An update that is on disk because its outcome is not known: who was to have it, and whether it has.

    `masked` is the same update as it is sent, where it is sent under masks.
    """

    frame: Frame
    receiver: str
    acknowledged: bool
    masked: Frame | None = None


class Sender:
    """The updates of one node and one task that have no outcome yet."""

    def __init__(
        self,
        place: Place,
        task: str,
        kept: tuple[Kept, ...],
        now: float,
        signer: Signer | None = None,
        *,
        only_masked: bool = False,
    ) -> None:
        """Begin with what is on disk, signed anew: an earlier life may have had another key, or none.

        With `only_masked`, what was kept without masks is not said, unless its receiver has it already: it waits for its
        outcome, or for a life that may say it.
        """
        self._place, self._task, self._signer = place, task, signer
        self._pending = Pending()
        self._receivers: dict[UpdateId, str] = {}
        self._masked: dict[UpdateId, Frame] = {}
        for update in kept:
            if update.masked is not None:
                self._masked[update.frame.id] = self._signed(update.masked, update.receiver)
            frame = update.frame if update.masked is not None else self._signed(update.frame, update.receiver)
            self._pending.add(frame, now, acknowledged=update.acknowledged)
            self._receivers[update.frame.id] = update.receiver
        self._unsaid = _NONE
        if only_masked:
            plain = (one.frame for one in kept if one.masked is None and not one.acknowledged)
            self._unsaid = frozenset(frame.id for frame in plain if _says_something(frame))

    def __len__(self) -> int:
        return len(self._pending)

    @property
    def waiting(self) -> int:
        """How many the present parent has not acknowledged; what waits for a former one holds nobody up."""
        parent = self._place.parent
        waiting = (update for update in self._pending.waiting if update not in self._unsaid)
        return sum(self._receivers.get(update, parent) == parent for update in waiting)

    @property
    def unsaid(self) -> int:
        """How many of an earlier life are not said, because they have no masks."""
        return len(self._unsaid)

    def answers(self, number: int) -> bool:
        """Whether an update without an outcome answers a release to the present parent, which therefore hears of it."""
        parent = self._place.parent
        said = (frame for frame in self._pending.frames if frame.id not in self._unsaid)
        return any(newest(frame) >= number and self._receivers.get(frame.id, parent) == parent for frame in said)

    def signed(self, frame: Frame) -> Frame:
        """A new update as it is sent to the present parent, and only there: with a signature where this node has a key."""
        return self._signed(frame, self._place.parent)

    def _signed(self, frame: Frame, receiver: str) -> Frame:
        return frame if self._signer is None else signed_frame(self._signer, self._place.net, receiver, frame)

    @property
    def masked(self) -> set[tuple[int, int]]:
        """Run and release of updates without an outcome that were sent under masks."""
        updates = [frame.message for frame in self._masked.values()]
        return {(one.run, section.base) for one in updates if isinstance(one, Update) for section in one.sections}

    def send(self, frame: Frame, now: float, masked: Frame | None = None) -> list[Sending]:
        """Send a new update to the present parent; it has been `signed`. Where it is `masked`, nothing but that is ever said."""
        self._pending.add(frame, now)
        if masked is not None:
            self._masked[frame.id] = masked
        return [self._upload(frame), *self._timer()]

    def resend(self, now: float) -> list[Sending]:
        """Send what is due again."""
        due = [frame for frame in self._pending.due(now) if frame.id not in self._unsaid]
        return [*map(self._upload, due), *self._timer()]

    def hurry(self, now: float) -> list[Sending]:
        """Send what is not acknowledged again, now: somebody may be listening again."""
        self._pending.hurry(now)
        return self.resend(now)

    def heard(self, release: ReleaseManifest, now: float) -> list[Sending]:
        """A release is out: ask in time what became of updates for earlier ones."""
        return self._timer() if self._pending.heard(release.run, release.number, now) else []

    def acknowledge(self, update: UpdateId, now: float) -> bool:
        """Note an acknowledgement; False if it changes nothing."""
        return self._pending.acknowledge(update, now)

    def settle(self, update: UpdateId) -> Frame | None:
        """Forget an update whose outcome is known; returns it if it was here."""
        self._receivers.pop(update, None)
        self._masked.pop(update, None)
        self._unsaid = self._unsaid - {update} or _NONE
        return self._pending.settle(update)

    def clear(self) -> tuple[UpdateId, ...]:
        """Forget everything; returns what was here."""
        self._receivers.clear()
        self._masked.clear()
        self._unsaid = _NONE
        return tuple(frame.id for frame in self._pending.clear())

    def _upload(self, frame: Frame) -> Upload:
        receiver = self._receivers.get(frame.id, self._place.parent)
        return Upload(
            topics.build(self._place.net, receiver, "update", node=self._place.node, task=self._task),
            self._masked.get(frame.id, frame),
        )

    def _timer(self) -> list[Sending]:
        due = self._pending.next_due()
        return [] if due is None else [SetTimer(RESEND, due)]


def _says_something(frame: Frame) -> bool:
    return isinstance(frame.message, Update) and frame.message.sections != ()
