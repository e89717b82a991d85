"""The lower half of every fog node: takes children's updates, each once, and says when to merge.

An update is kept on disk before it is acknowledged. One that cannot be counted is returned with a reason, so that its
sender can put it back into its residual. The top and the forwarding nodes differ only in what they do with a window.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from edgemw.compression import side
from edgemw.compression.bounded import Bound, is_within
from edgemw.compression.codec import Codec, is_ringed
from edgemw.compression.table import codec_named
from edgemw.core.errors import CodecError, WireError
from edgemw.core.events import Fact, SetTimer
from edgemw.core.ids import Place, UpdateId
from edgemw.core.ranges import Slots, count
from edgemw.fog.accounts import Accounts, Amount, total
from edgemw.fog.events import Action, FogMemory, Forwarded, SaveOutcomes, SaveUpdate, Settled
from edgemw.fog.grouping import GROUP_OVER, Grouping, masked_in
from edgemw.fog.ledger import Ledger
from edgemw.fog.protection import Protected
from edgemw.fog.steps import Steps
from edgemw.fog.telling import Telling, outcome_of
from edgemw.fog.window import Window, WindowOptions, parts_of
from edgemw.wire import topics
from edgemw.wire.fields import MAX_INTEGER
from edgemw.wire.messages import (
    RUN_FINISHED,
    Ack,
    Frame,
    MaskKeys,
    NoGroup,
    Outcome,
    Presence,
    ReleaseManifest,
    Revealed,
    Shares,
    Update,
)
from edgemw.wire.signed import Senders, frame_text
from edgemw.wire.traffic import Send

OUTCOMES = "outcomes"
OTHER_RUN = "another training run"
OTHER_RUN_OR_CODEC = "another training run or codec"
TOO_MANY = "too many children"
OTHER_PARAMETERS = "other parameters of the codec"
MAX_OPEN = 8  # updates of one child in the window, where it need not hold more; a device has at most 4 on their way
MAX_COUNT = 1 << 24  # device updates of one child
MAX_WEIGHT = 1 << 48  # of one child, so that the sum over all children is still a number on the wire
MAX_SUMS = 32
MAX_DOUBTED = 32  # children of whom `status` says why they are not believed
NOTHING = Amount()


class Collector:
    """Window, ledger, group and the answers to children."""

    role = "fog"

    def __init__(
        self, place: Place, task: str, options: WindowOptions, memory: FogMemory, now: float, senders: Senders | None = None
    ) -> None:
        """Begin a life with what an earlier one has left; with `senders` only what they have signed is taken."""
        self._place, self._task, self._options, self._senders = place, task, options, senders
        self._doubted: dict[str, str] = {}
        inside = [member for forwarded in memory.forwarded for member in forwarded.members]
        self.ledger = Ledger([*inside, *(frame.id for frame in memory.open)], memory.settled)
        self.window = Window(options)
        self.accounts = memory.accounts
        self._telling = Telling()
        self._release: ReleaseManifest | None = None
        self._taken_at: float | None = None
        self._steps = Steps()
        self._statistics = 0  # values beside the codec's
        self._grouping = Grouping(place, task, options.deadline_s)
        self._fogs: set[str] = set()  # children that merge: they are in no group
        for frame in memory.open:
            self.window.add(frame, now)
            self._remember_steps(frame)

    def begin(self, manifest: ReleaseManifest, now: float, statistics: Slots = ()) -> list[Action]:
        """A release is out in this domain, of a task with these statistics; what waits for another run is returned.

        After the last one nothing more is learned: so that a run of n rounds ends with release n, what is late is returned.
        """
        self._statistics = count(statistics)
        old, self._release = self._release, manifest
        if self.accounts.run != manifest.run:
            self.accounts = Accounts(manifest.run)
        again = old is not None and old.number == manifest.number and manifest.train and not old.train
        self._steps.begin(manifest.run, manifest.number, manifest.step, self._options.max_staleness)
        self.window.begin(manifest.number, now, again=again, last=not manifest.train)
        returned = self.give_back(self.window.drop(manifest.run, manifest.codec, now), OTHER_RUN_OR_CODEC)
        if old is None or old.parameters != manifest.parameters:
            misfits = [frame for frame in self.window.frames if self._is_misfit(frame, manifest)]
            self.window.give_up(misfits, now)
            returned += self.give_back(misfits, OTHER_PARAMETERS)
        returned += self._grouping.begin(manifest)
        orphans = [frame for frame in masked_in(self.window.frames) if not self._grouping.belongs(frame)]
        self.window.give_up(orphans, now)
        returned += self.give_back(orphans, GROUP_OVER)
        if not manifest.train:
            late = [frame for frame in self.window.frames if isinstance(frame.message, Update) and frame.message.sections]
            self.window.give_up(late, now)
            returned += self.give_back(late, RUN_FINISHED)
        return returned

    def _is_misfit(self, frame: Frame, release: ReleaseManifest) -> bool:
        """Whether an update that was taken for other parameters does not add to those that come."""
        update = frame.message
        assert isinstance(update, Update)
        return self._malformed(frame.node, update, release) != ""

    def on_presence(self, frame: Frame, message: Presence) -> None:
        """A child came or went; one that is not believed to be who it says is not waited for."""
        if message.parent != self._place.node:
            return
        doubt = "" if self._senders is None else self._senders.learn(frame.node, message.credential)
        self._note_doubt(frame.node, doubt)
        if not doubt:
            self.window.presence(frame.node, frame.boot, message)
            if message.role == self.role:
                self._fogs.add(frame.node)

    def on_masks(self, frame: Frame, message: MaskKeys | Shares | Revealed, now: float) -> list[Action]:
        """A device would mask what it trained, or takes masks off; before the first release it is left to ask again."""
        if self._release is None:
            return []
        doubt = self._doubt(frame)
        self._note_doubt(frame.node, doubt)
        if doubt:
            return [Fact("update_refused", {"node": frame.node, "reason": doubt, "weight": 0})]
        if self.window.full and not self.window.knows(frame.node):
            return [self._reply(frame.node, NoGroup(message.run, message.release, TOO_MANY))]
        self.window.heard(frame, signed=self._senders is not None)
        return self._grouping.on_message(frame, message, now)

    def closing(self, now: float) -> tuple[bool, list[Action]]:
        """Whether the window closes now, and what is to be done for it: masks come off first."""
        window, grouping = self.window, self._grouping
        window.look(now)
        if self._release is None:
            return False, []
        awaited = [child for child in window.late if child not in self._fogs] if grouping.forming else ()
        actions = grouping.look(now, awaited, window.unseen)
        if not window.ready(now) or grouping.busy(now, awaited):
            return False, actions
        masked = masked_in(window.frames)
        if not masked:
            return True, actions
        actions += grouping.unmask(masked, now)
        if not grouping.failed:
            return grouping.solved, actions
        reason = grouping.failed
        window.give_up(masked, now)
        actions += [*self.give_back(masked, reason), *grouping.end()]
        return window.ready(now), actions

    def close(self) -> tuple[list[Frame], list[Action]]:
        """Empty the window; gives its updates, and what ends its group."""
        return self.window.close(), self._grouping.end()

    def unmasked(self, codec: Codec, window: Protected) -> Protected:
        """A window that has just been closed, with the sum of its masked updates in their place. Raises CodecError, WireError."""
        masked = masked_in(window.frames)
        if not masked:
            return window
        plain = [frame for frame in window.frames if frame not in masked]
        return replace(window, parts=(self._grouping.sum_of(codec, masked), *parts_of(plain)), untouched=False)

    @property
    def doubts(self) -> str:
        """Who is not believed, and why; empty where everybody is."""
        return "; ".join(f"updates of {node} are not taken: {reason}" for node, reason in self._doubted.items())

    def _note_doubt(self, node: str, reason: str) -> None:
        self._doubted.pop(node, None)
        if reason:
            self._doubted[node] = reason
        if len(self._doubted) > MAX_DOUBTED:
            del self._doubted[next(iter(self._doubted))]

    def _doubt(self, frame: Frame) -> str:
        """Why an update is not believed to be of its sender, as it is; "" where it is."""
        if self._senders is None:
            return ""
        text = frame_text(self._place.net, self._place.node, frame)
        return self._senders.refusal(frame.node, text, frame.signature)

    @property
    def release(self) -> ReleaseManifest | None:
        """The release that updates are taken for."""
        return self._release

    def give_back(self, frames: Sequence[Frame], reason: str) -> list[Action]:
        """Return updates to their senders."""
        if not frames:
            return []
        number = self._release.number if self._release else -1
        outcomes = tuple((frame.id, Settled(False, number, reason)) for frame in frames)
        return [SaveOutcomes(outcomes, self.book(self.amount(frames), counted=False)), *self.settle(outcomes, 0.0)]

    def amount(self, frames: Iterable[Frame]) -> Amount:
        """What updates stand for in the books."""
        return total(frames, self.accounts.run)

    def book(self, amount: Amount, *, counted: bool, cut: Amount = NOTHING) -> Accounts:
        """The books after what was taken has been counted, but for what of it was not believed, or returned."""
        self.accounts = self.accounts.settle(amount, counted=counted, cut=cut)
        return self.accounts

    def waiting(self, forwarded: Iterable[Forwarded]) -> Amount:
        """What is in the window, and in merged windows without an outcome."""
        claimed = (window.claimed(self.accounts.run) for window in forwarded)
        return sum(claimed, self.amount(self.window.frames))

    def facts(self, now: float, forwarded: Iterable[Forwarded] = ()) -> dict[str, int | float | str]:
        """The window and the books for `status`; `forwarded` are merged windows without an outcome."""
        window, books = self.window, self.accounts
        waiting = self.waiting(forwarded)
        numbers = self.age(now) | {"children": window.present, "window": len(window), "awaited": len(window.late)}
        amounts = {"taken": books.taken, "counted": books.counted, "waiting": waiting}
        amounts |= {
            "returned": books.returned,
            "refused": books.refused,
            "bounded": books.bounded,
            "unaccounted": books.unaccounted(waiting),
        }
        for name, amount in amounts.items():
            numbers |= {f"updates_{name}": _as_said(amount.updates), f"weight_{name}": _as_said(amount.weight)}
        return numbers | self._grouping.facts()

    @property
    def reason(self) -> str:
        """Why masks did not come off; empty where they did, or were not asked for."""
        return self._grouping.reason

    def age(self, now: float) -> dict[str, int | float | str]:
        """Seconds since the last update was taken, as a fact for `status`."""
        return {} if self._taken_at is None else {"last_update_s": round(now - self._taken_at, 1)}

    def imbalance(self, forwarded: Iterable[Forwarded] = ()) -> str:
        """Says so where the books do not balance; empty, always."""
        missing = self.accounts.unaccounted(self.waiting(forwarded))
        return f"the books do not balance: {missing} are in none" if missing else ""

    def on_update(self, frame: Frame, update: Update, now: float) -> list[Action]:
        """Take, acknowledge again, or return an update; before the first release it is left to be sent again.

        One that is not believed to be of its sender changes nothing and has no answer: the sender itself may have sent another
        one under this identity, and sends that again; so it does where its certificate is still on the way.
        """
        if self._release is None:
            return []
        doubt = self._doubt(frame)
        self._note_doubt(frame.node, doubt)
        if doubt:
            return [Fact("update_refused", {"node": frame.node, "reason": doubt, "weight": update_weight(update)})]
        identity = frame.id
        if self.ledger.seen(identity):
            duplicate = Fact("duplicate", {"node": frame.node})
            outcome = self.ledger.outcome(identity)
            if outcome is not None and not outcome.counted:
                self.window.returned(frame, now)  # perhaps in an earlier life, and this one waits for the answer
            return [duplicate, self._ack(identity), *([self._outcome(identity, outcome)] if outcome else [])]
        if self.window.full and not self.window.knows(frame.node):
            return self._refused(frame, update, TOO_MANY, self._release)  # not kept: there may be any number
        if self.window.held(frame.node) >= max(MAX_OPEN, self._options.quorum, self._options.k):
            return []  # it comes again, when the window has moved on
        self.window.heard(frame, signed=self._senders is not None)
        reason = self._refusal(frame, update, self._release)
        if reason:
            if update.run == self._release.run:
                self.window.returned(frame, now)
            settled = Settled(False, self._release.number, reason)
            self.ledger.settle(identity, settled)
            self.accounts = self.accounts.refuse(frame)
            return [SaveOutcomes(((identity, settled),), self.accounts), *self._refused(frame, update, reason, self._release)]
        self._taken_at = now
        self.ledger.open(identity)
        self.window.add(frame, now)
        self.accounts = self.accounts.take(frame)
        staleness = max((self._release.number - section.base for section in update.sections), default=0)
        size = sum(section.size_bytes for section in update.sections)
        values: dict[str, int | float | str] = {"node": frame.node, "staleness": max(staleness, 0), "codec": update.codec}
        fact = Fact("update_taken", values | {"bytes": size})
        return [SaveUpdate(frame, self.accounts), self._ack(identity), fact]

    def _refused(self, frame: Frame, update: Update, reason: str, release: ReleaseManifest) -> list[Action]:
        fact = Fact("update_refused", {"node": frame.node, "reason": reason, "weight": update_weight(update)})
        return [self._outcome(frame.id, Settled(False, release.number, reason)), fact]

    def settle(self, outcomes: tuple[tuple[UpdateId, Settled], ...], now: float) -> list[Action]:
        """Tell children what became of their updates; while more updates are asked for, what was counted is said with an Ack."""
        more = self._release is not None and self._release.train
        actions: list[Action] = []
        for update, settled in outcomes:
            self.ledger.settle(update, settled)
            if settled.counted and more:
                self._telling.hold(update, settled, now)
            else:
                actions.append(self._outcome(update, settled))
        return actions

    def tell(self, now: float) -> list[Action]:
        """Say the outcomes that have waited long enough; infinity is for all of them."""
        said: list[Action] = [self._reply(child, outcome) for child, outcome in self._telling.overdue(now)]
        due = self._telling.due
        return said if due is None else [*said, SetTimer(OUTCOMES, due)]

    def _refusal(self, frame: Frame, update: Update, release: ReleaseManifest) -> str:
        if update.run != release.run:
            return OTHER_RUN
        if update.sections and not release.train:
            return RUN_FINISHED
        if not update.sections and update.codec != release.codec:
            return f"{update.codec} where {release.codec} was asked for"
        if update.report_on > release.number:
            return f"measured release {update.report_on}, which is not out yet"
        updates = sum(section.count for section in update.sections)
        if len(update.tally) > MAX_SUMS or update_weight(update) > MAX_WEIGHT or updates > MAX_COUNT:
            return "more than one child may bring"
        return self._sections_refusal(frame, update, release) if update.sections else ""

    def _sections_refusal(self, frame: Frame, update: Update, release: ReleaseManifest) -> str:
        size = release.theta.size // 4
        if update.codec != release.codec or update.size != size:
            return f"{update.codec}[{update.size}] where {release.codec}[{size}] was asked for"
        oldest, newest = update.sections[0].base, update.sections[-1].base
        if newest > release.number:
            return f"trained from release {newest}, which is not out yet"
        if release.number - oldest > self._options.max_staleness:
            return f"stale: trained from release {oldest}, now {release.number}"
        return self._grouping.refusal(frame, update) or self._malformed(frame.node, update, release)

    def _malformed(self, child: str, update: Update, release: ReleaseManifest) -> str:
        try:
            codec = codec_named(release.codec, **release.parameters)
            for section in update.sections:
                side.check(section.side, self._statistics)
                refusal = self._steps.refusal(codec, section, update.size, child)
                if refusal:
                    return refusal
                if release.plan is not None and release.plan.update_clip:
                    plan = release.plan
                    bound = Bound(plan.update_clip, plan.update_noise, bool(plan.by_sample))
                    if not is_within(codec, section, update.size, bound):
                        return f"weight or norm above the bound of {bound.clip:g} that was asked for"
                if is_ringed(codec) and self.window.counted(section.base) + section.count > codec.members:
                    return f"{codec.name} of members = {codec.members} would wrap: give more"
        except (CodecError, WireError) as error:  # of the payload, or a codec that is not installed properly
            return f"malformed: {error}"[:80]
        return ""

    def _remember_steps(self, frame: Frame) -> None:
        """The steps of what was taken in an earlier life; whoever trained from the same release is on the same step."""
        update = frame.message
        assert isinstance(update, Update)
        if update.sections:
            codec = codec_named(update.codec)
            for section in update.sections:
                self._steps.remember(codec, update.run, section, update.size)

    def _ack(self, update: UpdateId) -> Send:
        return self._reply(update.node, Ack(update.boot, update.seq, self._telling.with_ack(update.node)))

    def _outcome(self, update: UpdateId, settled: Settled) -> Send:
        return self._reply(update.node, outcome_of(update, settled))

    def _reply(self, child: str, message: Ack | Outcome | NoGroup) -> Send:
        place = self._place
        topic = topics.build(place.net, place.node, "reply", node=child, task=self._task)
        return Send(topic, Frame(self._task, place.node, place.boot, 0, message))


def update_weight(update: Update) -> int:
    """Training examples behind an update."""
    return sum(section.weight for section in update.sections)


def _as_said(number: int) -> int:
    """A number of the books as a message can say it: children may bring any."""
    return max(-MAX_INTEGER, min(MAX_INTEGER, number))
