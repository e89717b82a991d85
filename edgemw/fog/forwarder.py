"""A fog node with a parent: merges its children's updates into one and sends it up, brings releases down.

A forwarded window has an identity of its own, which the parent counts once. This node remembers whose updates are in it
and passes the outcome on to them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from edgemw.compression.difference import advance
from edgemw.compression.merge import gathered, merge
from edgemw.compression.table import codec_named
from edgemw.core.bundle import read_bundle, theta_bytes
from edgemw.core.errors import BundleError, CodecError, WireError
from edgemw.core.events import Fact, Finished, LinkUp, SetTimer, Stop, Timer
from edgemw.core.ids import Place, UpdateId
from edgemw.core.ranges import Slots, statistics_of
from edgemw.fog.announcer import Announcer
from edgemw.fog.balance import Balance
from edgemw.fog.collector import Collector
from edgemw.fog.events import Action, Event, FogMemory, Forwarded, SaveAck, SaveForward, SaveOutcomes, SaveShelf, Settled
from edgemw.fog.nesting import Nesting, Sent
from edgemw.fog.protection import LEFT_OUT, Protected, Protection
from edgemw.fog.repeating import REPEAT, Repeating
from edgemw.fog.trail import Trail
from edgemw.fog.window import NOT_MERGED, WindowOptions, parts_of, readable, tally_of
from edgemw.wire.accepting import Accepting
from edgemw.wire.following import Following, Taken, Theta
from edgemw.wire.messages import (
    RUN_FINISHED,
    Ack,
    Blob,
    Frame,
    MaskKeys,
    Outcome,
    Presence,
    ReleaseManifest,
    Revealed,
    Shares,
    TaskManifest,
    Update,
    core_of,
)
from edgemw.wire.pending import newest
from edgemw.wire.sender import RESEND, Kept, Sender, nothing_for
from edgemw.wire.signed import ANYBODY, Trust
from edgemw.wire.traffic import Arrived, Fetch, Fetched, FetchFailed, FetchStalled, Published

WINDOW = "window"


class Forwarder:
    """See the module. `handle` is the only way in."""

    def __init__(
        self, place: Place, task: str, options: WindowOptions, memory: FogMemory, now: float, trust: Trust = ANYBODY
    ) -> None:
        """Begin a life with what an earlier one has left."""
        self._place, self._task = place, task
        self._collector = Collector(place, task, options, memory, now, trust.senders)
        self._repeating = Repeating(options.deadline_s, enabled=trust.signer is not None)
        self._accepting = Accepting(place, task, trust.releases, (memory.accounts.run, -1))
        self._announcer, self._trail, self._following = Announcer(place, task), Trail(), Following(self._moved)
        self._statistics: Slots = ()
        self._announcer.inherit("release", memory.shelf)
        kept = tuple(Kept(f.frame, f.receiver, f.acknowledged) for f in memory.forwarded)
        self._sender = Sender(place, task, kept, now, trust.signer)
        self._forwarded = {forwarded.frame.id: forwarded for forwarded in memory.forwarded}
        self._balance = Balance()
        self._nesting = Nesting(options.budget_bytes, memory.remainder, self._balance)
        self._protection = Protection(options.robust, memory.secret)
        self._seq = 0
        self._bundle: Blob | None = None
        self._task_manifest: TaskManifest | None = None  # as the top has signed it
        self._opened = b""  # label of the bundle that is here
        self._release: ReleaseManifest | None = None
        self._announced = -1
        self._heard_from = -1  # life of the parent that announced it
        self._answered = -1  # the newest release that an update of this node speaks of
        self._late = self._returned = self._failed = self._forged = ""

    @property
    def state(self) -> str:
        """One word: waiting, fetching, collecting."""
        if self._release is None:
            return "waiting"
        return "collecting" if self._announced == self._release.number else "fetching"

    def reason(self, now: float) -> str:
        """Why something is not right; empty when all is."""
        waiting = self._collector.window.waiting_for(now)
        books = self._collector.imbalance(self._merged_windows)
        above = self._forged, self._returned, self._failed
        own = self._collector.reason, self._nesting.reason, self._protection.reason, books
        return "; ".join(filter(None, (self._collector.doubts, waiting or self._late, *above, *own)))

    def facts(self, now: float) -> dict[str, int | float | str]:
        """Numbers for `status`."""
        return self._collector.facts(now, self._merged_windows) | {
            "release": self._announced,
            "updates_pending": len(self._sender),
            "remainder_bytes": self._nesting.kept_bytes,
            "mass_imbalance": self._balance.worst,
            **self._protection.facts(),
        }

    @property
    def _merged_windows(self) -> list[Forwarded]:
        """Those without an outcome."""
        return [*self._forwarded.values()]

    def handle(self, event: Event, now: float) -> list[Action]:
        """Take one event; returns what the shell has to do, in order."""
        return [*self._take(event, now), *self._advance(now), *self._collector.tell(now), *self._repeat(now)]

    def _repeat(self, now: float) -> list[Action]:
        """Announce the release again where somebody has not answered it for long."""
        said = self._announcer.repeat() if self._repeating.again(now) and self._collector.window.late else []
        return [*said, SetTimer(REPEAT, self._repeating.due)] if self._repeating.due < math.inf else []

    def _take(self, event: Event, now: float) -> list[Action]:
        match event:
            case LinkUp():
                return [*self._announcer.again(), *self._sender.hurry(now)]
            case Arrived(topic=topic, frame=frame):
                return self._from_below(frame, now) if topic.domain == self._place.node else self._from_above(frame, now)
            case Fetched(blob=blob, data=data):
                return self._on_blob(blob, data, now)
            case Published(blob=blob):
                return self._announcer.on_published(blob)
            case FetchStalled(blob=blob) if self._following.waits_for(blob):  # it may be on the broker no more
                return self._follow(lambda: self._following.want_anew(self._release), now)
            case FetchFailed(blob=blob, reason=reason):
                return self._on_fetch_failed(blob, reason)
            case Timer(name=name) if name == RESEND:
                return [*self._sender.resend(now)]
            case Stop():
                return [*self._collector.tell(math.inf), Finished()]
            case _:
                return []

    def _from_below(self, frame: Frame, now: float) -> list[Action]:
        match frame.message:
            case Presence() as presence:
                self._collector.on_presence(frame, presence)
            case Update() as update:
                return self._collector.on_update(frame, update, now)
            case MaskKeys() | Shares() | Revealed() as message:
                return self._collector.on_masks(frame, message, now)
        return []

    def _from_above(self, frame: Frame, now: float) -> list[Action]:
        parent = self._place.parent
        match frame.message:
            case TaskManifest() as manifest if frame.node == parent and manifest != self._task_manifest:
                return self._on_task_manifest(manifest)
            case ReleaseManifest() as manifest:
                return self._on_release_manifest(manifest, frame.boot, now)
            case Ack() as ack:
                return self._on_ack(ack, now)
            case Outcome() as outcome:
                return self._on_outcome(outcome, now)
        return []

    def _on_task_manifest(self, manifest: TaskManifest) -> list[Action]:
        refusal = self._accepting.bundle(manifest)
        if refusal:
            self._forged = f"bundle {manifest.blob.name} is refused: {refusal}"
            return [Fact("task_refused", {"reason": refusal})]
        self._task_manifest, self._bundle = manifest, manifest.blob
        return [Fetch(self._place.parent, manifest.blob)]

    def _on_release_manifest(self, manifest: ReleaseManifest, boot: int, now: float) -> list[Action]:
        refusal = self._accepting.release(manifest)
        self._forged = f"release {manifest.number} is refused: {refusal}" if refusal else ""
        if refusal:
            return [Fact("release_refused", {"release": manifest.number, "reason": refusal})]
        if manifest == self._release:
            self._hear(manifest, boot, now)
            return [*self._sender.hurry(now)]  # the parent may have been away
        if not self._newer(manifest, boot):
            return []
        self._following.hear(manifest.run, boot)
        if self._release is not None and self._release.number == manifest.number:
            self._following.forget()  # how it was to be had may have been wrong
        self._hear(manifest, boot, now)
        self._release = manifest
        self._trail.heard(manifest)
        return [*self._sender.heard(manifest, now), *self._follow(lambda: self._following.want(manifest), now)]

    def _hear(self, manifest: ReleaseManifest, boot: int, now: float) -> None:
        """Another run begins without answers; another life of the parent knows of none that it returned: it gets one again."""
        old = self._release
        if old is None or old.run != manifest.run:
            self._answered, self._heard_from = -1, boot
        elif not self._accepting.another_life(boot, self._heard_from):
            return
        elif manifest.number == old.number and not self._sender.answers(manifest.number):
            self._answered = -1
            self._collector.window.answer_again(now)
        self._heard_from = boot

    def _on_ack(self, ack: Ack, now: float) -> list[Action]:
        update = UpdateId(self._place.node, ack.boot, ack.seq)
        noted: list[Action] = [SaveAck(update)] if self._sender.acknowledge(update, now) else []
        return [*noted, *(action for outcome in ack.outcomes for action in self._on_outcome(outcome, now))]

    def _newer(self, manifest: ReleaseManifest, boot: int) -> bool:
        """Whether a manifest replaces the present one; the same number comes again when the parent begins another life.

        A signed one says which release it is, but anybody on the way may alter how it is had: until the release is here each
        manifest of it is tried.
        """
        old = self._release
        if old is None or manifest.run > old.run:
            return True
        if self._accepting.asks and (manifest.run, manifest.number) == (old.run, old.number):
            taken = self._collector.release
            return taken is None or not core_of(taken) == core_of(old) == core_of(manifest)
        return manifest.run == old.run and (manifest.number, boot) > (old.number, self._heard_from)

    def _on_blob(self, blob: Blob, data: bytes, now: float) -> list[Action]:
        if self._bundle is not None and blob.digest == self._bundle.digest:
            return self._on_bundle(blob, data, now)
        if not self._following.waits_for(blob):
            return []
        self._trail.put(blob, data)
        return self._follow(lambda: self._following.on_blob(blob, data), now)

    def _on_fetch_failed(self, blob: Blob, reason: str) -> list[Action]:
        if self._bundle is not None and blob.digest == self._bundle.digest:
            self._failed = f"the bundle {blob.name} cannot be taken: {reason}"
        elif self._following.waits_for(blob):
            self._failed = f"{blob.name} cannot be taken: {reason}"
            self._following.forget()
        return []

    def _on_bundle(self, blob: Blob, data: bytes, now: float) -> list[Action]:
        try:
            bundle = read_bundle(data)
        except BundleError as error:
            self._failed = f"the bundle {blob.name} cannot be taken: {error}"
            return []
        theta0 = theta_bytes(bundle.theta0)
        self._opened, self._statistics = blob.label, statistics_of(bundle.manifest.layout)
        self._trail.start(theta0)
        self._following.know(theta0)
        assert self._task_manifest is not None
        announced, manifest = self._announcer.task(self._task_manifest, data), self._release
        if manifest is None:
            return announced
        return [*announced, *self._follow(lambda: self._following.want(manifest), now)]

    def _follow(self, step: Callable[[], Blob | Taken | None], now: float) -> list[Action]:
        """Ask for what the release still lacks, or announce it; it waits for its bundle."""
        manifest = self._release
        if manifest is None or manifest.bundle != self._opened:
            return []
        try:
            found = step()
        except WireError as error:
            self._failed = f"release {manifest.number} cannot be taken: {error}"
            return [Fact("release_refused", {"release": manifest.number, "reason": str(error)})]
        match found:
            case Blob():
                return [Fetch(self._place.parent, found)]
            case Taken():
                announced = self._announce(found, now)
                if found.manifest == manifest:
                    return announced
                return [*announced, *self._follow(lambda: self._following.want(manifest), now)]
            case None:
                return []

    def _moved(self, theta: Theta, payload: bytes, beside: bytes) -> bytes:
        return advance(theta, payload, beside, self._statistics)

    def _announce(self, taken: Taken, now: float) -> list[Action]:
        manifest = taken.manifest
        self._announced, self._failed = manifest.number, ""
        self._repeating.announced(now)
        returned = self._collector.begin(manifest, now, self._statistics)
        announced = self._announcer.release(*self._trail.release(manifest, taken.theta))
        shelf = SaveShelf(self._announcer.blobs("release"))
        return [*returned, shelf, *announced, Fact("release", {"release": manifest.number})]

    def _on_outcome(self, outcome: Outcome, now: float) -> list[Action]:
        update = UpdateId(self._place.node, outcome.boot, outcome.seq)
        forwarded = self._forwarded.pop(update, None)
        if self._sender.settle(update) is None or forwarded is None:
            return []
        known = outcome.counted or outcome.reason == RUN_FINISHED
        self._returned = "" if known else f"window {update} was returned: {outcome.reason}"
        if not outcome.counted and isinstance(forwarded.frame.message, Update):
            self._nesting.returned(forwarded.frame.message, forwarded.brought)
            # whoever is told so idles until the next release; this life may not have heard of the answer before
            self._collector.window.note_answers({member.node for member in forwarded.members}, newest(forwarded.frame))
        settled = Settled(outcome.counted, outcome.release, outcome.reason)
        outcomes = tuple((member, settled) for member in forwarded.members)
        run = self._collector.accounts.run
        books = self._collector.book(forwarded.claimed(run), counted=outcome.counted, cut=forwarded.unbelieved(run))
        return [SaveOutcomes(outcomes, books, update, self._nesting.remainder), *self._collector.settle(outcomes, now)]

    def _advance(self, now: float) -> list[Action]:
        window, release = self._collector.window, self._collector.release
        closes, actions = self._collector.closing(now)
        if release is None or not closes:
            return [*actions, *([SetTimer(WINDOW, window.look_at)] if window.look_at < math.inf else [])]
        return [*actions, *self._close(release, now)]

    def _close(self, release: ReleaseManifest, now: float) -> list[Action]:
        window = self._collector.window
        late, by_deadline = window.without, now >= window.deadline
        frames, ended = self._collector.close()
        closed = Fact("window_closed", {"updates": len(frames), "late": len(late), "release": release.number})
        self._late = f"the deadline closed the last window without {', '.join(late[:8])}" if late and by_deadline else ""
        made = self._merged(frames, release)
        if made is not None and readable(self._frame(made[0])):
            if not frames and self._answered >= release.number:
                return [*ended, closed]
            merged, protected = made
            left_out = self._collector.give_back(protected.left_out, LEFT_OUT)
            sent = self._nesting.send(merged, release)
            return [*ended, closed, *protected.facts, *left_out, *self._forward(sent, release, protected, now)]
        returned = self._collector.give_back(frames, NOT_MERGED)
        again = self._answered >= release.number
        nothing = Sent(nothing_for(release))
        return [*ended, closed, *returned, *([] if again else self._forward(nothing, release, Protected(), now))]

    def _frame(self, update: Update) -> Frame:
        return Frame(self._task, self._place.node, self._place.boot, self._seq, update)

    def _forward(self, sent: Sent, release: ReleaseManifest, window: Protected, now: float) -> list[Action]:
        update, members = sent.update, tuple(frame.id for frame in window.frames)
        frame = self._sender.signed(self._frame(update))
        self._seq += 1
        forwarded = Forwarded(frame, self._place.parent, members, brought=sent.brought, cut=window.cut, whole=window.untouched)
        self._forwarded[frame.id] = forwarded
        self._answered = max(self._answered, update.report_on, *(section.base for section in update.sections), -1)
        return [SaveForward(forwarded, release, self._nesting.remainder), *self._sender.send(frame, now)]

    def _merged(self, frames: list[Frame], release: ReleaseManifest) -> tuple[Update, Protected] | None:
        """The sum of a window, for the release that its updates were taken for, and what is in it; None where they do not add."""
        tally, report_on = tally_of(frames)
        try:
            codec = codec_named(release.codec, **release.parameters)
            window = self._collector.unmasked(codec, self._protection.protect(codec, frames, release.plan))
            parts = window.parts
            sections = gathered(codec, merge(codec, parts), release.number).sections if parts else ()
            self._balance.merged(codec, parts_of(window.frames), sections, release.number, window.thinned)
        except (CodecError, WireError):
            return None
        nothing = nothing_for(release)
        return (replace(nothing, sections=sections, tally=tally, report_on=report_on) if frames else nothing), window
