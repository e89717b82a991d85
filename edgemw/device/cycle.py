"""One task on one device, as a state machine: release -> measure, train -> encode -> keep, send.

Rules:
    a device trains once from each release, always from the newest it has
    an update is kept, with the residual and the personal values that go with it, before it is first sent
    personal values lie over every release, whoever uses it; a new run begins without any
    it is sent again until acknowledged, and kept until its outcome is known; what was returned goes back to the residual, and
        its weight to that of the next update
    a device whose codec rounds by chance (`Codec.feedback` is false) has a residual only of what was returned to it, or cut off
        by a limit, until its next update
    while more than ALLOWANCE updates wait for an acknowledgement it does not train: residuals would only grow stale
    out of tokens it does not train either, and saves the energy; it serves, and between two trainings it measures one release
    whatever is refused has a reason that `status` shows, and the next release is tried all the same
    where keys were given, a bundle or release that none of them has signed, or that is older than what was here, is left alone:
        it is not fetched and not answered, and the one before goes on being served
    where a release asks for masks, what was trained waits until it can be masked; where it never can, it stays in the residual
    where an update is larger than may be sent and its codec has no smaller one, what was trained waits in the residual, and
        the device does not train until a release asks for another codec
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from edgemw.compression.bounded import Noise
from edgemw.compression.coarse import can_coarsen
from edgemw.compression.codec import Codec, Parameter, Past
from edgemw.compression.difference import advance
from edgemw.core.bundle import Manifest, Vector, theta_bytes
from edgemw.core.errors import ConfigError, WireError
from edgemw.core.events import Fact, Finished, LinkDown, LinkUp, SetTimer, Stop, Timer
from edgemw.core.ids import Place, UpdateId
from edgemw.core.noise import gaussian_integers
from edgemw.core.plan import as_carried, plan_of
from edgemw.core.ranges import Ranges, ranges_of, statistics_of
from edgemw.device.events import (
    Action,
    Event,
    Install,
    Installed,
    Left,
    Memory,
    OpenTask,
    SaveAck,
    SaveMemory,
    SaveRound,
    TaskOpened,
    TaskRefused,
    Work,
    Worked,
)
from edgemw.device.masks import Masks
from edgemw.device.personal import overlaid
from edgemw.device.update import REFUSED, after_return, asks_for_past, is_bounded, kept_back, make_update
from edgemw.device.uplink import ANSWER_BYTES, NO_LIMIT, Budget, Uplink
from edgemw.wire.accepting import Accepting
from edgemw.wire.following import Advance, Following, Taken, Theta
from edgemw.wire.messages import (
    RUN_FINISHED,
    Ack,
    Blob,
    Frame,
    Group,
    NoGroup,
    Outcome,
    ReleaseManifest,
    Shares,
    TaskManifest,
    Unmask,
    Update,
    pack,
)
from edgemw.wire.sender import Sender, nothing_for
from edgemw.wire.signed import ANYBODY, Trust
from edgemw.wire.traffic import Arrived, Fetch, Fetched, FetchFailed, FetchStalled

ALLOWANCE = 4
GRACE, GRACE_S = "grace", 20.0
TOKENS = "tokens"
_MASK_BYTES = 48  # of the place of a group in it
_SECTION_BYTES = 64  # of a frame with one section, besides the payload


@dataclass(frozen=True, slots=True)
class _Current:
    """The release in use; `theta` is what the top published, `past` what the codec asks for beside it."""

    manifest: ReleaseManifest
    theta: Vector
    ranges: Ranges
    past: Past | None


class Cycle:
    """See the module. `handle` is the only way in."""

    def __init__(
        self,
        place: Place,
        task: str,
        left: Left,
        now: float,
        uplink: Uplink | None = None,
        follow: Callable[[Advance], Following] = Following,
        trust: Trust = ANYBODY,
        *,
        require_masks: bool = False,
    ) -> None:
        """Begin a life.

        Args:
            left: what an earlier one has left.
            trust: what this device signs with, and whose releases it takes.
            require_masks: nothing is sent that a fog node could read.
        """
        self._place, self._task, self._memory = place, task, left.memory
        self._accepting = Accepting(place, task, trust.releases, left.newest)
        self._sender = Sender(place, task, left.kept, now, trust.signer, only_masked=require_masks)
        self._budget = Budget(uplink or NO_LIMIT)
        self._short = False  # of tokens
        self._seq = 0
        self._bundle: Blob | None = None
        self._opened: tuple[bytes, Manifest] | None = None
        self._following = follow(self._moved)
        if left.served is not None:
            self._following.remember(theta_bytes(left.served.theta))
        self._unusable = b"", ""  # label of a bundle, and why
        self._wanted: ReleaseManifest | None = None
        self._heard_from = -1  # life of the parent that announced it
        self._current: _Current | None = None
        self._work: tuple[Work, Ranges, Past | None] | None = None  # what is being done, and how to encode the result
        self._stopping = self._grace_over = False
        self._state = "waiting"
        self._sent_at: float | None = None
        self._too_large: tuple[str, Mapping[str, Parameter]] | None = None  # the codec whose updates may not be sent
        self._reasons: dict[str, str] = {}
        most_bytes = self._budget.limit_bytes(coarser=False)
        self._masks = Masks(place, task, trust.signer, left.joined, required=require_masks, most_bytes=most_bytes)
        self._held: tuple[Worked, tuple[Work, Ranges, Past | None]] | None = None  # what waits for its group

    # -- what others may look at

    @property
    def release(self) -> int:
        """Number of the release in use, -1 before the first."""
        return self._current.manifest.number if self._current else -1

    @property
    def state(self) -> str:
        """One word: waiting, fetching, working, idle, stopping."""
        return "stopping" if self._stopping else self._state

    def reason(self, now: float) -> str:
        """Why something is not right; empty when all is."""
        shortage = self._budget.shortage(now) if self._short else None
        unsaid = f"privacy.require_masks: {self._sender.unsaid} updates of before have no masks, and are not sent"
        more = [*([str(shortage)] if shortage else []), *([unsaid] if self._sender.unsaid else [])]
        return "; ".join(dict.fromkeys([*self._reasons.values(), *more]))

    def facts(self, now: float) -> dict[str, int | float | str]:
        """Numbers for `status`."""
        memory = self._memory
        numbers = self._budget.facts(now)
        if self._sent_at is not None:
            numbers["last_update_s"] = round(now - self._sent_at, 1)
        return numbers | {
            "release": self.release,
            "updates_sent": memory.updates_sent,
            "weight_sent": memory.weight_sent,
            "updates_returned": memory.updates_returned,
            "weight_returned": memory.weight_returned,
            "updates_pending": len(self._sender),
            "mass_imbalance": memory.balance.worst,
            **self._masks.facts(),
        }

    # -- the machine

    def handle(self, event: Event, now: float) -> list[Action]:
        """Take one event; returns what the shell has to do, in order."""
        match event:
            case LinkUp():
                return [*self._sender.hurry(now), *self._masks.resend(now, hurry=True)]
            case LinkDown():
                return []
            case Timer(name=name):
                self._grace_over |= name == GRACE
                more = self._next(now) if name == TOKENS else []
                return [*self._sender.resend(now), *self._masks.resend(now), *more, *self._when_stopped()]
            case Arrived(frame=frame):
                return self._on_frame(frame, event.topic.domain, now)
            case Fetched(blob=blob, data=data):
                return self._on_blob(blob, data, now)
            case FetchStalled(blob=blob):
                return self._on_stalled(blob, now)
            case FetchFailed(blob=blob, reason=reason):
                return self._on_fetch_failed(blob, reason, now)
            case TaskOpened() | TaskRefused() | Installed() | Worked():
                return self._on_done(event, now)
            case Stop():
                self._stopping = True  # what is not acknowledged is on disk: waiting for it is a courtesy
                return [SetTimer(GRACE, now + GRACE_S), *self._when_stopped()]

    def _on_done(self, event: TaskOpened | TaskRefused | Installed | Worked, now: float) -> list[Action]:
        """Something that the shell did in the background has ended."""
        match event:
            case Worked():
                return self._on_worked(event, now)
            case Installed(reason=reason):
                self._note("serving", reason)
                return []
            case _:
                return self._on_task(event, now)

    def _on_frame(self, frame: Frame, domain: str, now: float) -> list[Action]:
        match frame.message:
            case Group() | Shares() | Unmask() | NoGroup() as message:
                return [*self._masks.on_message(domain, message, now), *self._unheld(now)]
            case TaskManifest() as manifest if frame.node == self._place.parent:  # others only propose one to the top
                refusal = self._accepting.bundle(manifest)
                self._note("forged task", f"bundle {manifest.blob.name} is refused: {refusal}" if refusal else "")
                return [Fact("task_refused", {"reason": refusal})] if refusal else self._on_task_manifest(manifest.blob)
            case ReleaseManifest() as manifest:
                refusal = self._accepting.release(manifest)
                self._note("forged release", f"release {manifest.number} is refused: {refusal}" if refusal else "")
                if refusal:
                    return [Fact("release_refused", {"release": manifest.number, "reason": refusal})]
                taken = self._on_release_manifest(manifest, frame.boot, now)
                return [*taken, *self._answer_again(manifest, frame.boot, now)]
            case Ack() as ack:
                return self._answered(self._on_ack(ack, now), now)
            case Outcome() as outcome:
                return self._answered(self._on_outcome(outcome, now), now)
        return []

    def _answered(self, actions: list[Action], now: float) -> list[Action]:
        """An answer that changes something may let the device go on, or leave."""
        return [*actions, *self._next(now), *self._when_stopped()] if actions else []

    def _on_ack(self, ack: Ack, now: float) -> list[Action]:
        update = UpdateId(self._place.node, ack.boot, ack.seq)
        self._budget.arrived(update, now)
        noted: list[Action] = [SaveAck(update)] if self._sender.acknowledge(update, now) else []
        return [*noted, *(action for outcome in ack.outcomes for action in self._on_outcome(outcome, now))]

    def _on_task_manifest(self, blob: Blob) -> list[Action]:
        is_open = self._opened is not None and self._bundle is not None and self._opened[0] == self._bundle.label
        if self._bundle == blob or (is_open and self._bundle is not None and self._bundle.digest == blob.digest):
            return []
        self._bundle = blob
        self._state = "fetching"
        return [Fetch(self._place.parent, blob)]

    def _on_release_manifest(self, manifest: ReleaseManifest, boot: int, now: float) -> list[Action]:
        actions: list[Action] = []
        if manifest.run < self._memory.run:
            self._note("release", f"a release of run {manifest.run} was ignored: this device is in run {self._memory.run}")
            return actions
        if manifest.run > self._memory.run:
            dropped = self._sender.clear()
            self._budget.forget()
            self._memory = Memory(run=manifest.run)
            self._wanted = self._current = self._held = None
            actions += self._masks.clear()
            self._heard_from = -1
            actions.append(SaveMemory(self._memory, dropped))
        if self._wanted is not None and manifest.number < self._wanted.number:
            return actions
        if self._wanted is not None and manifest.number == self._wanted.number and manifest != self._wanted:
            self._following.forget()  # how it was to be had may have been wrong
        actions += self._sender.heard(manifest, now)
        current = self._current
        if current is not None and current.manifest.number == manifest.number:
            self._wanted = manifest
            if manifest.plan != current.manifest.plan:  # another plan may keep other tensors at home
                return [*actions, *self._sender.hurry(now), *self._take(manifest, current.theta, now)]
            self._current = replace(current, manifest=manifest)
            return [*actions, *self._sender.hurry(now), *self._next(now)]  # the fog may have been away
        self._wanted = manifest
        if self._unusable[0] == manifest.bundle:
            return [*actions, *self._cannot_take(manifest, self._unusable[1], now)]
        if self._opened is None or self._opened[0] != manifest.bundle:
            return actions  # it is followed once its bundle is open
        self._following.hear(manifest.run, boot)
        return [*actions, *self._follow(lambda: self._following.want(manifest), now)]

    def _answer_again(self, manifest: ReleaseManifest, boot: int, now: float) -> list[Action]:
        """Another life of the parent does not know who has answered, where the answer was returned and nothing of it is left.

        The measure of a last release that an earlier life of this device heard of is not said again: the manifest may be what
        the broker has kept of a run that goes on by now, and the answer would be taken for one to that.
        """
        if manifest is not self._wanted or not self._accepting.another_life(boot, self._heard_from):
            return []
        is_first, self._heard_from = self._heard_from < 0, boot
        if is_first and not manifest.train:
            return []
        done = self._memory.trained_on if manifest.train else self._memory.measured_on  # it may be asked for more than before
        idle = self._work is None and not self._stopping and done >= manifest.number
        return self._send(nothing_for(manifest), self._memory, now) if idle and not self._sender.answers(manifest.number) else []

    def _follow(self, step: Callable[[], Blob | Taken | None], now: float) -> list[Action]:
        """Ask for what the release still lacks, or start it; one that has become possible goes before an earlier one."""
        manifest = self._wanted
        if manifest is None:
            return []
        more: list[Action] = []
        try:
            found = step()
            if isinstance(found, Taken) and found.manifest != manifest:
                newer = self._following.want(manifest)
                if isinstance(newer, Blob):
                    more.append(Fetch(self._place.parent, newer))
                found = newer if isinstance(newer, Taken) else found
        except WireError as error:
            fact = Fact("release_refused", {"release": manifest.number, "reason": str(error)})
            return [fact, *self._cannot_take(manifest, str(error), now)]
        match found:
            case Blob():
                if self._work is None:
                    self._state = "fetching"
                return [Fetch(self._place.parent, found)]
            case Taken():
                return [*self._on_theta(found.manifest, found.theta, now), *more]
            case None:
                return []

    def _on_blob(self, blob: Blob, data: bytes, now: float) -> list[Action]:
        if self._bundle is not None and blob.digest == self._bundle.digest:
            return [OpenTask(blob, data)]
        if self._opened is None or self._wanted is None or self._opened[0] != self._wanted.bundle:
            return []  # of a release that nobody wants any more
        return self._follow(lambda: self._following.on_blob(blob, data), now)

    def _on_stalled(self, blob: Blob, now: float) -> list[Action]:
        """A part of an earlier release may be on the broker no more: the newest one is what to go for."""
        waits = self._following.waits_for(blob)
        return self._follow(lambda: self._following.want_anew(self._wanted), now) if waits else []

    def _on_fetch_failed(self, blob: Blob, reason: str, now: float) -> list[Action]:
        if self._bundle is not None and blob.digest == self._bundle.digest:
            self._note("task", f"the bundle cannot be taken: {reason}")
            return self._without_bundle(blob.label, reason, now)
        if self._wanted is None or not self._following.waits_for(blob):
            return []
        return self._cannot_take(self._wanted, reason, now)

    def _cannot_take(self, manifest: ReleaseManifest, reason: str, now: float) -> list[Action]:
        """Say why, and answer the release all the same: nobody is to wait for this device."""
        self._note("release", f"release {manifest.number} cannot be taken: {reason}")
        self._following.forget()
        if self._memory.measured_on >= manifest.number:
            return []
        memory = replace(self._memory, measured_on=manifest.number)
        return self._send(replace(nothing_for(manifest), tally={REFUSED: (1.0, 1.0)}), memory, now)

    def _on_theta(self, manifest: ReleaseManifest, data: Theta, now: float) -> list[Action]:
        assert self._opened is not None
        theta = np.frombuffer(data, "<f4") if len(data) % 4 == 0 else np.empty(0, np.float32)
        reason = ""
        if theta.size != self._opened[1].size:
            reason = f"it has {len(data) / 4:g} parameters, the task {self._opened[1].size}"
        elif not np.isfinite(theta).all():
            reason = "it holds NaN or infinite values"
        return self._refuse(manifest, reason, now) if reason else self._take(manifest, theta, now)

    def _refuse(self, manifest: ReleaseManifest, reason: str, now: float) -> list[Action]:
        fact = Fact("release_refused", {"release": manifest.number, "reason": reason})
        return [fact, *self._cannot_take(manifest, reason, now)]

    def _take(self, manifest: ReleaseManifest, theta: Vector, now: float) -> list[Action]:
        """Use a release: serve it, measure it and train from it, under this device's own values."""
        assert self._opened is not None
        try:
            opened = self._opened[1]
            ranges = ranges_of(opened.layout, manifest.plan or plan_of(opened.training))
        except ConfigError as error:
            return self._refuse(manifest, str(error), now)
        self._note("release", "")
        self._current = _Current(manifest, theta, ranges, self._past(manifest, theta))
        return [Install(manifest, self._own(self._current)), *self._next(now)]

    def _past(self, manifest: ReleaseManifest, theta: Vector) -> Past | None:
        """What the release changed, where its codec asks for that and the one before is still in use."""
        before = self._current
        if before is None or self._opened is None or not asks_for_past(manifest):
            return None
        if before.manifest.number == manifest.number:
            return before.past
        if before.manifest.number != manifest.number - 1 or before.theta.size != theta.size:
            return None
        with np.errstate(over="ignore"):  # the codec sees to what is not finite
            return Past(manifest.number, theta - before.theta, self._opened[1].layout)

    def _own(self, current: _Current) -> Vector:
        return overlaid(current.theta, current.ranges.personal, self._memory.personal)

    def _moved(self, theta: Theta, payload: bytes, beside: bytes) -> bytes:
        assert self._opened is not None
        return advance(theta, payload, beside, statistics_of(self._opened[1].layout))

    def _on_task(self, event: TaskOpened | TaskRefused, now: float) -> list[Action]:
        if self._bundle is None or event.digest != self._bundle.digest:
            return []
        self._note("task", event.reason)
        if isinstance(event, TaskRefused):
            self._state = "waiting"
            return [Fact("task_refused", {"reason": event.reason}), *self._without_bundle(self._bundle.label, event.reason, now)]
        label = self._bundle.label
        self._opened, self._unusable = (label, event.manifest), (b"", "")
        self._following.know(event.theta0)
        manifest = self._wanted
        return self._follow(lambda: self._following.want(manifest), now) if manifest and manifest.bundle == label else []

    def _without_bundle(self, label: bytes, reason: str, now: float) -> list[Action]:
        """The bundle cannot be used: neither can the releases that belong to it."""
        self._unusable = label, reason
        manifest = self._wanted
        return self._cannot_take(manifest, reason, now) if manifest and manifest.bundle == label else []

    def _next(self, now: float) -> list[Action]:
        """Start the next piece of work, if there is one and nothing stands in its way."""
        if self._held is not None:
            return self._unheld(now)
        if self._work is not None or self._stopping or self._current is None or self._opened is None:
            return []
        manifest = self._current.manifest
        if self._opened[0] != manifest.bundle:
            return []
        memory, self._short = self._memory, False
        train = manifest.train and memory.trained_on < manifest.number and self._too_large != _asked(manifest)
        if not train and memory.measured_on >= manifest.number:
            self._state = "idle"
            return []
        if self._sender.waiting >= ALLOWANCE:
            self._state = "waiting"
            self._note("outbox", f"{self._sender.waiting} updates wait to be acknowledged by {self._place.parent}")
            return []
        self._note("outbox", "")
        shortage = self._budget.shortage(now) if train else None
        self._short = shortage is not None
        if shortage is None:
            return self._begin(self._current, now, train=train)
        self._state = "waiting"
        wake = SetTimer(TOKENS, now + shortage.wait_s)
        if memory.measured_on > memory.trained_on or shortage.level_bytes < ANSWER_BYTES:
            return [wake]  # answers to every release would leave no tokens to train with
        return [wake, *self._begin(self._current, now, train=False)]

    def _begin(self, current: _Current, now: float, *, train: bool) -> list[Action]:
        work = Work(current.manifest, self._own(current), train, self._seed(current.manifest))
        self._work, self._state = (work, current.ranges, current.past), "working"
        return [*(self._masks.begin(current.manifest, self._sender.masked, now) if train else []), work]

    def _on_worked(self, event: Worked, now: float) -> list[Action]:
        worked, self._work, self._state = self._work, None, "idle"
        if worked is None or worked[0].release.run != self._memory.run:
            return self._next(now) + self._when_stopped()
        self._held = event, worked
        return self._unheld(now)

    def _unheld(self, now: float) -> list[Action]:
        """Answer a release as soon as it is known whether what was trained can be sent."""
        if self._held is None:
            return []
        event, worked = self._held
        barred = self._masks.verdict(worked[0].release, worked[1]) if event.trained is not None else ""
        if barred is None and self.release > event.number:
            barred = f"release {self.release} came before the group of {event.number}"
        if barred is None:
            self._state = "waiting"
            self._note("masks", f"waits for the group of release {event.number}, which {self._place.parent} makes")
            return []
        self._held, self._state = None, "idle"
        self._note("masks", "")
        return self._finish(event, worked, barred, now)

    def _finish(self, event: Worked, worked: tuple[Work, Ranges, Past | None], barred: str, now: float) -> list[Action]:
        update_id = UpdateId(self._place.node, self._place.boot, self._seq)
        if barred and event.trained is not None:
            made = kept_back(event, worked[0], worked[1], self._memory, update_id, barred)
        else:
            room = partial(self._limit_bytes, worked[0].release)
            made = make_update(event, *worked, self._memory, update_id, room, self._noise(update_id))
        if event.trained is not None or event.reason:
            self._note("training", made.reason or event.reason)
        if event.trained is not None:
            self._too_large = _asked(worked[0].release) if made.too_large else None
        actions = [*self._send(made.update, made.memory, now), *made.facts, *self._overlaid_again(event.number)]
        # what was sent has taken its tokens by the next step: only then is it known what is left for the next training
        look = [SetTimer(TOKENS, now)] if self._budget.limited else self._next(now)
        return [*actions, *look, *self._when_stopped()]

    def _overlaid_again(self, number: int) -> list[Action]:
        """Serve a release that came while personal values were learned from an earlier one under them."""
        current = self._current
        if current is None or current.manifest.number <= number or not current.ranges.personal:
            return []
        return [Install(current.manifest, self._own(current))]

    def _send(self, update: Update, memory: Memory, now: float) -> list[Action]:
        carried = replace(update, tally=as_carried(update.tally))
        frame = Frame(self._task, self._place.node, self._place.boot, self._seq, carried)
        masked = self._masks.masked(frame)
        if masked is None:
            frame = self._sender.signed(frame)
        else:
            masked = self._sender.signed(masked)  # what is kept is for this device alone
        self._seq += 1
        self._sent_at = now
        self._memory = memory
        self._budget.sent(masked or frame, now, trained=bool(update.sections))
        return [SaveRound(memory, frame, masked), *self._sender.send(frame, now, masked)]

    def _limit_bytes(self, release: ReleaseManifest, codec: Codec, answer: Update) -> int | None:
        """The largest payload that may be sent in the place of this answer's missing section."""
        limit_bytes = self._budget.limit_bytes(coarser=can_coarsen(codec) and not is_bounded(release))
        if limit_bytes is None:
            return None
        around = self._sender.signed(Frame(self._task, self._place.node, self._place.boot, self._seq, answer))
        return max(0, limit_bytes - len(pack(around)) - _SECTION_BYTES - (_MASK_BYTES if release.threshold else 0))

    def _on_outcome(self, outcome: Outcome, now: float) -> list[Action]:
        update = UpdateId(self._place.node, outcome.boot, outcome.seq)
        frame = self._sender.settle(update)
        if frame is None:
            return []
        message = frame.message
        returned = not outcome.counted and isinstance(message, Update) and message.sections and message.run == self._memory.run
        if returned:
            self._memory = after_return(self._memory, frame, self._current.ranges if self._current else None)
        if outcome.counted or outcome.reason == RUN_FINISHED:
            self._note("outcome", "")
        elif returned:
            self._note("outcome", f"update {update} was returned: {outcome.reason}")
        fact = Fact("settled", {"counted": int(outcome.counted), "reason": outcome.reason})
        save = SaveMemory(self._memory, (update,), durable=not outcome.counted)
        forgotten = self._masks.settled(message) if isinstance(message, Update) else []
        return [save, *forgotten, fact]

    def _when_stopped(self) -> list[Action]:
        done = self._work is None and (self._held is None or self._grace_over) and (self._sender.waiting == 0 or self._grace_over)
        return [Finished()] if self._stopping and done else []

    def _noise(self, update: UpdateId) -> Noise:
        """For one update, which is kept before it is sent: what is sent again has the same."""
        return lambda size, scale: gaussian_integers(self._place.secret, f"update {self._task} {update}", size, scale)

    def _seed(self, manifest: ReleaseManifest) -> int:
        text = f"{self._place.node}/{self._task}/{manifest.run}/{manifest.number}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")

    def _note(self, about: str, reason: str) -> None:
        if reason:
            self._reasons[about] = reason
        else:
            self._reasons.pop(about, None)


def _asked(manifest: ReleaseManifest) -> tuple[str, Mapping[str, Parameter]]:
    return manifest.codec, manifest.parameters
