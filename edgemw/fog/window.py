"""The window: whose updates are being merged, until when.

    ready  =  every child that is there has answered the current release          (k = all)
              or k updates are in                                                 (k = a number)
              or the deadline has passed, with at least `quorum` updates in

A child that goes is not waited for; one that is late answers into a later window. A child answers with an update, or with
an update without sections when it has nothing to add; an update that is returned to it is an answer too.

Source of the buffer: FedBuff, arXiv:2106.06639.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from edgemw.core.encoded import Encoded
from edgemw.core.errors import WireError
from edgemw.core.ids import UpdateId
from edgemw.core.plan import Tally, add_tallies, as_carried
from edgemw.robust.options import RobustOptions
from edgemw.wire.messages import Frame, Presence, Update, encoded_of, pack, unpack
from edgemw.wire.pending import newest

PATIENCE = 3  # deadlines in a row that a child may miss before it is not waited for any more
MAX_NAMES = 32
MAX_SUM = 1e15
NOT_MERGED = "the window could not be merged"
MEASURED = "test."  # names of sums that describe one release; all others add over time


@dataclass(frozen=True, slots=True)
class WindowOptions:
    """When a window closes.

    Attributes:
        k: updates that close it; 0 is every child that is there.
        deadline_s: seconds after the first update from which the quorum is enough.
        quorum: least updates at the deadline.
        max_staleness: releases that an update may be behind.
        children: how many children are expected to appear; 0 is unknown. They are waited for until the first deadline.
        max_children: how many children are taken at all.
        budget_bytes: largest payload that is forwarded; 0 is no limit.
        robust: how it is merged where children may lie.
    """

    k: int = 0
    deadline_s: float = 30.0
    quorum: int = 1
    max_staleness: int = 4
    children: int = 0
    max_children: int = 1000
    budget_bytes: int = 0
    robust: RobustOptions = field(default_factory=RobustOptions)


class Window:
    """The updates that wait to be merged, and the children that are waited for."""

    def __init__(self, options: WindowOptions) -> None:
        self._options = options
        self._quorum = options.quorum
        self._frames: dict[UpdateId, Frame] = {}
        self._held: Counter[str] = Counter()  # of them, by child
        self._silent: set[UpdateId] = set()  # those of them without sections
        self._children: dict[str, tuple[bool, int]] = {}  # present, boot
        self._answered: dict[str, int] = {}
        self._run = self._release = -1
        self._deadline = math.inf
        self._look_at = math.inf
        self._overdue: set[str] = set()  # who has missed a deadline of this window
        self._asked_at = 0.0
        self._missed: dict[str, int] = {}  # deadlines in a row that a child has not answered by
        self._known_late = ""
        self._expected = options.children
        self._appeared: set[str] = set()
        self._returned: set[str] = set()  # children whose answer to the present release was returned to them

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def deadline(self) -> float:
        """When the quorum becomes enough."""
        return self._deadline

    @property
    def look_at(self) -> float:
        """When to look at the window although nothing has come: at the deadline, and as long after that again and again."""
        return self._look_at

    def look(self, now: float) -> None:
        """Note who has missed the deadline; where the quorum keeps the window open, again for each further one that passes."""
        if now < self._look_at:
            return
        self._expected = 0  # whoever has not appeared by now is not waited for again
        for child in self.late:
            self._overdue.add(child)
            self._missed[child] = self._missed.get(child, 0) + 1
        self._look_at = now + self._options.deadline_s

    @property
    def late(self) -> tuple[str, ...]:
        """Children that are there and have not answered the current release; the silent are not waited for."""
        return tuple(sorted(child for child in self._children if self._is_late(child)))

    @property
    def without(self) -> tuple[str, ...]:
        """Children that the window closes without: the late, and whoever is not waited for since its deadline."""
        given_up = {child for child in self._overdue if self._answered.get(child, -1) < self._release}
        return tuple(sorted({*self.late, *given_up}))

    def _is_late(self, child: str) -> bool:
        present, _ = self._children[child]
        waited_for = present and self._missed.get(child, 0) < PATIENCE
        return waited_for and self._answered.get(child, -1) < self._release

    def _has_late(self) -> bool:
        """Whether anybody is late: mostly who was late the last time still is, which spares looking at all of many children."""
        if self._known_late not in self._children or not self._is_late(self._known_late):
            self._known_late = next(filter(self._is_late, self._children), "")
        return self._known_late != ""

    @property
    def unseen(self) -> int:
        """How many children are expected that have not appeared yet."""
        return max(0, self._expected - len(self._appeared))

    @property
    def full(self) -> bool:
        """Whether no further child is taken."""
        return len(self._children) >= self._options.max_children

    def knows(self, child: str) -> bool:
        """Whether the child has been seen."""
        return child in self._children

    @property
    def present(self) -> int:
        """How many children are there."""
        return sum(present for present, _ in self._children.values())

    def presence(self, child: str, boot: int, message: Presence) -> None:
        """Note a birth or a will; the will of an earlier life is ignored."""
        known = self._children.get(child)
        if known is None and self.full:
            return
        if known is None or boot >= known[1]:
            self._children[child] = (message.state == "online", boot)
            self._missed.pop(child, None)
            if message.state == "online":
                self._appeared.add(child)

    def begin(self, release: int, now: float, *, again: bool = False, last: bool = False) -> None:
        """A new release is out, or the same one is to be trained from `again`: everybody is asked.

        Where it is the `last`, nobody comes whom a late answer could wait for: the deadline closes the window with any number.
        """
        self._quorum = 1 if last else self._options.quorum
        if release != self._release:
            self._returned.clear()
        self._release, self._asked_at = release, now
        if again:
            self._answered.clear()
            self._returned.clear()
        self._rest()

    def waiting_for(self, now: float) -> str:
        """What keeps the window open longer than it should be; empty when nothing does."""
        if now - self._asked_at <= self._options.deadline_s or self._release < 0:
            return ""
        if len(self._frames) and len(self._frames) < self._quorum:
            return f"{len(self._frames)} of {self._quorum} updates that the quorum needs"
        late = self.late
        return f"waiting for {', '.join(late[:8])} since {now - self._asked_at:.0f} s" if late else ""

    def add(self, frame: Frame, now: float) -> None:
        """Take a child's update, each once; the first one starts the time until the deadline."""
        self._start(now)
        update = frame.id
        self._frames[update] = frame
        self._held[frame.node] += 1
        if not (isinstance(frame.message, Update) and frame.message.sections):
            self._silent.add(update)
        self.heard(frame)
        self._note_answer(frame)

    def returned(self, frame: Frame, now: float) -> None:
        """A child has answered with an update that was returned to it."""
        if self._note_answer(frame) >= self._release:
            self._start(now)
            self._returned.add(frame.node)

    def note_answers(self, children: Iterable[str], release: int) -> None:
        """These have answered a release."""
        for child in children:
            self._answered[child] = max(release, self._answered.get(child, -1))

    def answer_again(self, now: float) -> None:
        """The parent asks again: who has answered, and has nothing left here, counts as one to whom it was returned."""
        here = {update.node for update in self._frames}
        self._returned |= {child for child, release in self._answered.items() if release >= self._release} - here
        if self._returned:
            self._start(now)

    def heard(self, frame: Frame, *, signed: bool = False) -> None:
        """A child has said something: it is there, though its birth may be on its way still.

        What is `signed` counts for more than a presence, which anybody can say, of any life.
        """
        self._missed.pop(frame.node, None)
        self._appeared.add(frame.node)
        known = self._children.get(frame.node)
        if signed or known is None or frame.boot > known[1]:
            self._children[frame.node] = (True, frame.boot)

    def held(self, child: str) -> int:
        """How many updates of a child are in the window."""
        return self._held[child]

    def counted(self, base: int) -> int:
        """How many device updates that were trained from a release are in the window."""
        updates = [frame.message for frame in self._frames.values() if isinstance(frame.message, Update)]
        return sum(section.count for update in updates for section in update.sections if section.base == base)

    def _start(self, now: float) -> None:
        if self._deadline == math.inf:
            self._deadline = self._look_at = now + self._options.deadline_s

    def _rest(self) -> None:
        """A window in which nothing is left has no deadline."""
        if not (self._frames or self._returned):
            self._deadline = self._look_at = math.inf

    def ready(self, now: float) -> bool:
        """Whether to close now."""
        if not (self._frames or self._returned):
            return False
        quorum = self._quorum
        if now >= self._deadline:
            return len(self._frames) >= quorum or (not self._has_late() and self._count() >= quorum)
        if self._options.k:
            return self._count() >= self._options.k
        return not self.unseen and not self._has_late() and self._count() >= quorum

    def _count(self) -> int:
        """The updates in the window, and one for each child that has nothing to add or was returned what it had."""
        return len(self._frames) - len(self._silent) + len({update.node for update in self._silent} | self._returned)

    def drop(self, run: int, codec: str, now: float) -> list[Frame]:
        """Forget updates of any other training run or codec, and who answered in another run; gives these updates."""
        foreign = [frame for frame in self._frames.values() if not _belongs(frame, run, codec)]
        self._forget(foreign)
        if run != self._run:
            self._run = run
            self._answered.clear()
            for frame in self._frames.values():
                self._note_answer(frame)
        for frame in foreign:
            if isinstance(frame.message, Update) and frame.message.run == run:
                self.returned(frame, now)
        self._rest()
        return foreign

    @property
    def frames(self) -> tuple[Frame, ...]:
        """The updates in the window."""
        return tuple(self._frames.values())

    def give_up(self, frames: Iterable[Frame], now: float) -> None:
        """Forget some of the updates, which are to be returned."""
        frames = list(frames)
        self._forget(frames)
        for frame in frames:
            self.returned(frame, now)
        self._rest()

    def close(self) -> list[Frame]:
        """Empty the window and give its updates."""
        frames = list(self._frames.values())
        self._forget(frames)
        self._returned.clear()
        self._overdue.clear()
        self._rest()
        return frames

    def _forget(self, frames: Iterable[Frame]) -> None:
        for frame in frames:
            update = frame.id
            del self._frames[update]
            self._silent.discard(update)
            self._held[frame.node] -= 1
        self._held = +self._held  # without the children that have none left

    def _note_answer(self, frame: Frame) -> int:
        """Note which release a child has answered; gives its number."""
        release = newest(frame)
        self.note_answers([frame.node], release)
        return release


def _belongs(frame: Frame, run: int, codec: str) -> bool:
    update = frame.message
    assert isinstance(update, Update)
    return update.run == run and (not update.sections or update.codec == codec)


def parts_of(frames: Iterable[Frame]) -> list[Encoded]:
    """The encodings in the updates that carry one."""
    return [encoded_of(frame) for frame in frames if isinstance(frame.message, Update) and frame.message.sections]


def tally_of(frames: list[Frame]) -> tuple[Tally, int]:
    """The sums of all updates, and the newest release that any of them measured; measures of older ones are left out."""
    updates = [frame.message for frame in frames if isinstance(frame.message, Update)]
    report_on = max((update.report_on for update in updates), default=-1)
    kept = [
        {name: value for name, value in u.tally.items() if u.report_on == report_on or not name.startswith(MEASURED)}
        for u in updates
    ]
    common = Counter(name for tally in kept for name in tally)
    return _bounded(add_tallies(kept), common), report_on


def _bounded(tally: Tally, common: Counter[str]) -> Tally:
    """What fits on the wire, whatever children brought: the names that most of them have, and sums that stay numbers."""
    names = sorted(sorted(tally, key=lambda name: (-common[name], name))[:MAX_NAMES])
    return as_carried({name: (_clamp(tally[name][0]), _clamp(tally[name][1])) for name in names})


def _clamp(value: float) -> float:
    return max(-MAX_SUM, min(MAX_SUM, value)) if math.isfinite(value) else 0.0


def readable(frame: Frame) -> bool:
    """Whether a parent could read a merged update: children's sums may exceed what a message can say."""
    try:
        return unpack(pack(frame)) == frame
    except (WireError, OverflowError, ValueError):
        return False
