"""The fog node without a parent: turns every window into the next release.

Rules:
    a release, the optimiser's state and the outcomes of the window that made it are kept in one transaction, before
    anybody hears of them; a restarted top goes on from its last release
    the last release asks for a measurement only; when that is in, the run is finished
    a window in which nobody could train makes a release with the same theta, so that the next attempt can be made
    what comes after a run is finished is returned and changes nothing
"""

from __future__ import annotations

import math
from dataclasses import replace

from edgemw.compression.merge import merge
from edgemw.compression.table import codec_named
from edgemw.core.bundle import Bundle, read_bundle, theta_view
from edgemw.core.errors import BundleError, CodecError, ConfigError, EdgeError, WireError
from edgemw.core.events import Fact, Finished, LinkUp, SetTimer, Stop, Timer
from edgemw.core.ids import Place
from edgemw.core.plan import LOWER_IS_BETTER, Tally
from edgemw.core.ranges import Ranges, statistics_of
from edgemw.fog.announcer import Announcer
from edgemw.fog.balance import Balance
from edgemw.fog.collector import NOTHING, Collector
from edgemw.fog.events import (
    Action,
    BundleGiven,
    Event,
    FogMemory,
    Gain,
    Released,
    SaveBundle,
    SaveOutcomes,
    SaveRelease,
    SaveShelf,
    Settled,
)
from edgemw.fog.privacy import (
    SectionNoise,
    begun,
    check_bounded,
    check_promise,
    may_go_on,
    privacy_facts,
    section_noise,
)
from edgemw.fog.protection import LEFT_OUT, Protected, Protection
from edgemw.fog.rate import Seen, reported
from edgemw.fog.release import Past, TopOptions, counted, first_release, moved, past_of, taken_up
from edgemw.fog.repeating import REPEAT, Repeating
from edgemw.fog.spending import announced_bytes, seen_of, sent_of, shortage, spending_facts
from edgemw.fog.trail import Trail
from edgemw.fog.window import MEASURED, NOT_MERGED, parts_of, readable, tally_of
from edgemw.wire import topics
from edgemw.wire.chunks import blob_of
from edgemw.wire.messages import (
    Blob,
    Frame,
    MaskKeys,
    Presence,
    ReleaseManifest,
    Revealed,
    RoundReport,
    Shares,
    TaskManifest,
    Update,
)
from edgemw.wire.signed import ANYBODY, Trust, proposal_text, signed_bundle, signed_release
from edgemw.wire.traffic import Arrived, Fetch, Fetched, FetchFailed, Published, Send

WINDOW, GRACE = "window", "grace"
GRACE_S = 20.0


class Top:
    """See the module. `handle` is the only way in."""

    def __init__(
        self, place: Place, task: str, options: TopOptions, memory: FogMemory, now: float, trust: Trust = ANYBODY
    ) -> None:
        """Begin a life with what an earlier one has left; with a signer every release and bundle is signed.

        Raises:
            ConfigError: the run has promised its devices another privacy than the settings do, and has not ended.
        """
        self._place, self._task, self._options, self._trust = place, task, options, trust
        self._collector = Collector(place, task, options.window, memory, now, trust.senders)
        self._announcer, self._trail = Announcer(place, task), Trail()
        self._repeating = Repeating(options.window.deadline_s, enabled=trust.signer is not None)
        self._known = set(memory.bundles_known)
        self._fetching, self._metric = b"", ""
        self._past, self._balance = Past(), Balance()
        self._protection = Protection(options.window.robust, memory.secret)
        self._released: Released | None = None
        self._before: Released | None = None  # of a run that has ended under another promise
        self._stopping = self._grace_over = self._finished = False
        self._enough = False  # the target is reached
        self._reason = self._poor = ""
        self._resumed: list[Action] = []  # of the beginning, for whoever hears the first event
        if memory.bundle is not None and memory.released is not None:
            self._announcer.inherit("release", memory.shelf)
            released = memory.released
            ended = released.report is not None and not released.manifest.train
            self._reason = check_promise(options.privacy, released.spent, ended=ended)
            if self._reason:
                self._before = released
            else:
                self._resumed = self._resume(memory.bundle, released, now)

    @property
    def state(self) -> str:
        """One word: waiting (for a bundle), collecting, measuring, finished."""
        if self._released is None:
            return "waiting"
        if self._finished:
            return "finished"
        return "collecting" if self._released.manifest.train else "measuring"

    def reason(self, now: float) -> str:
        """Why something is not right; empty when all is."""
        waiting = "" if self._finished else self._collector.window.waiting_for(now)
        own = self._reason, self._poor, self._collector.reason, self._protection.reason, self._collector.imbalance()
        return "; ".join(filter(None, (self._collector.doubts, waiting, *own)))

    def facts(self, now: float) -> dict[str, int | float | str]:
        """Numbers for `status`."""
        facts = self._collector.facts(now) | {"mass_imbalance": self._balance.worst} | self._protection.facts()
        if self._released is not None:
            totals = self._released.totals
            facts |= {
                "release": self._released.manifest.number,
                "updates_counted": totals.updates,
                "weight_counted": totals.weight,
            }
            facts |= spending_facts(self._released.rate) | _gain_facts(self._released.gain) | self._privacy_facts(self._released)
        return facts

    def check_given(self, data: bytes) -> None:
        """Refuse a bundle that was here before, where only another one may begin a run.

        Raises:
            ConfigError: the run has ended under another promise of privacy than the settings say.
        """
        if self._before is not None and self._released is None and self._blob(data).digest in self._known:
            raise ConfigError(self._reason, key="privacy")

    def handle(self, event: Event, now: float) -> list[Action]:
        """Take one event; returns what the shell has to do, in order."""
        resumed, self._resumed = self._resumed, []
        return [*resumed, *self._take(event, now), *self._advance(now), *self._repeat(now)]

    def _repeat(self, now: float) -> list[Action]:
        """Announce the release again where somebody has not answered it for long."""
        said = self._announcer.repeat() if self._repeating.again(now) and self._collector.window.late else []
        return [*said, SetTimer(REPEAT, self._repeating.due)] if self._repeating.due < math.inf else []

    def _take(self, event: Event, now: float) -> list[Action]:
        match event:
            case LinkUp():
                return [*self._announcer.again(), *self._last_word()]
            case Arrived(frame=frame):
                return self._on_frame(frame, now)
            case Fetched(blob=blob, data=data) if blob.digest == self._fetching:
                self._fetching = b""
                return self._on_bundle(data, now)
            case FetchFailed(blob=blob, reason=reason) if blob.digest == self._fetching:
                self._fetching = b""
                return self._refuse_bundle(blob, reason)
            case BundleGiven(data=data):
                return [] if self._blob(data).digest in self._known else self._on_bundle(data, now)
            case Published(blob=blob):
                return self._announcer.on_published(blob)
            case Timer(name=name) if name == GRACE:
                self._grace_over = True
                return []
            case Stop():
                self._stopping = True
                return [SetTimer(GRACE, now + self._options.window.deadline_s + GRACE_S)]
            case _:
                return []

    def _on_frame(self, frame: Frame, now: float) -> list[Action]:
        match frame.message:
            case Presence() as presence:
                self._collector.on_presence(frame, presence)
            case Update() as update:
                return self._collector.on_update(frame, update, now)
            case MaskKeys() | Shares() | Revealed() as message:
                return self._collector.on_masks(frame, message, now)
            case TaskManifest(blob=blob, signature=signature) if frame.node != self._place.node:
                current = self._released.manifest.bundle if self._released else b""
                if blob.label == current:
                    return self._announcer.again()  # a proposal of what is there already: say so in our own name
                refusal = self._unproposed(blob, signature)
                if refusal:
                    return self._refuse_bundle(blob, refusal)
                self._fetching = blob.digest
                return [Fetch(self._place.node, blob)]
        return []

    # -- releases

    def _unproposed(self, blob: Blob, signature: bytes) -> str:
        """Why a proposal is not looked at; "" where it is, and always where anybody may propose.

        One that was here before may be an old proposal, said again by somebody who has heard it.
        """
        keys = self._trust.releases
        if keys is None:
            return ""
        if not keys.signed(proposal_text(self._place.net, self._task, blob), signature):
            return "its proposal is not signed by a key of security.release_key, or that key is revoked"
        return "it was proposed before, and is not taken twice" if blob.digest in self._known else ""

    def _task_manifest(self, blob: Blob, run: int) -> TaskManifest:
        signer = self._trust.signer
        return TaskManifest(blob) if signer is None else signed_bundle(signer, self._place.net, self._task, blob, run)

    def _signed(self, manifest: ReleaseManifest) -> ReleaseManifest:
        signer = self._trust.signer
        return manifest if signer is None else signed_release(signer, self._place.net, self._task, manifest)

    def _resume(self, data: bytes, released: Released, now: float) -> list[Action]:
        """Go on from the last release; what is announced is said when the link is up."""
        bundle, blob = read_bundle(data), self._blob(data)
        self._known.add(blob.digest)
        self._metric, self._past = _first_metric(bundle), past_of(bundle)
        options = self._options
        self._trail.start(theta_view(bundle.theta0))
        reported = released.report.get(self._metric) if released.report is not None else None
        self._enough = self._is_enough(reported) or (released.reached != 0 and released.reached == options.target)
        known = released
        if known.spent is not None:  # what the disk says was out
            released = replace(released, spent=known.spent.asking(known.manifest))
        released = self._asking(replace(released, manifest=taken_up(released, bundle, options)))
        manifest = released.manifest
        refused = self._misfit(manifest)
        if refused:  # the settings are newer than the bundle: the run goes on as it was
            manifest = replace(manifest, plan=known.manifest.plan)
        self._finished = released.report is not None and not manifest.train
        self._announcer.task(self._task_manifest(blob, manifest.run), data)
        rate = released.rate if manifest.step > 0 else replace(released.rate, step=0.0)  # another codec starts afresh
        released = replace(released, manifest=manifest, rate=rate)
        more = [SaveRelease(released, (), self._collector.accounts)] if released.spent != known.spent else []
        return [*more, *refused, *self._begin(released, now)]

    def _misfit(self, manifest: ReleaseManifest) -> list[Action]:
        """Says so where the patterns of a plan do not fit the task."""
        try:
            self._past.ranges(manifest.plan)
        except ConfigError as error:
            self._reason = f"the plan stays as it was: {error}"
            return [Fact("task_refused", {"reason": self._reason})]
        return []

    def _last_word(self) -> list[Action]:
        """The report of a run that is finished, for whoever did not hear it."""
        if not self._finished or self._released is None or self._released.report is None:
            return []
        return [self._say(RoundReport(self._released.manifest.number, True, self._released.report, ()))]

    def _on_bundle(self, data: bytes, now: float) -> list[Action]:
        blob = self._blob(data)
        try:
            bundle = read_bundle(data)
        except BundleError as error:
            return self._refuse_bundle(blob, str(error))
        if bundle.manifest.name != self._task:
            return self._refuse_bundle(blob, f"it is for task {bundle.manifest.name!r}, not {self._task!r}")
        before = self._released or self._before
        old = before.manifest.run if before else -1
        try:
            manifest = first_release(bundle, blob.label, max(self._place.boot, old + 1), self._options)
        except ConfigError as error:
            return self._refuse_bundle(blob, str(error))
        if not readable(Frame(self._task, self._place.node, self._place.boot, 0, manifest)):
            return self._refuse_bundle(blob, "no message can carry its plan")
        past = past_of(bundle)
        try:
            ranges = past.ranges(manifest.plan)
            check_bounded(self._options.privacy, ranges)
        except ConfigError as error:
            return self._refuse_bundle(blob, str(error))
        self._known.add(blob.digest)
        self._trail.start(theta_view(bundle.theta0))
        self._metric, self._past = _first_metric(bundle), past
        self._reason, self._finished, self._enough = "", False, False
        spent = begun(self._options.privacy, before.spent if before else None, before.manifest if before else None)
        released = self._asking(Released(manifest, bundle.theta0, spent=spent))
        announced = self._announcer.task(self._task_manifest(blob, manifest.run), data)
        return [SaveBundle(blob.digest, data, released), *announced, *self._begin(released, now)]

    def _refuse_bundle(self, blob: Blob, reason: str) -> list[Action]:
        """Say why, and who is asking for the task is told of the present bundle again."""
        self._reason = f"bundle {blob.name} refused: {reason}"
        return [Fact("task_refused", {"reason": reason}), *self._announcer.again()]

    def _blob(self, data: bytes) -> Blob:
        return blob_of(data, self._options.chunk_bytes)

    def _asking(self, released: Released) -> Released:
        """A release that asks for training where there is to be another one, with what that spends."""
        manifest, spent, rounds = released.manifest, released.spent, self._options.rounds
        more = (rounds == 0 or manifest.number < rounds) and not self._stopping and not self._enough
        manifest = replace(manifest, train=more and may_go_on(self._options.privacy, spent, manifest))
        return replace(released, manifest=manifest, spent=spent.asking(manifest) if spent is not None else None)

    def _noise(self, manifest: ReleaseManifest, ranges: Ranges) -> SectionNoise | None:
        return section_noise(self._options.privacy, self._place, self._task, manifest, ranges)

    def _privacy_facts(self, released: Released) -> dict[str, int | float | str]:
        return privacy_facts(self._options.privacy, released.spent, released.manifest)

    def _begin(self, released: Released, now: float) -> list[Action]:
        self._released, manifest = released, released.manifest
        self._repeating.announced(now)
        self._past = self._past.then(released, self._options.window.max_staleness)
        self._trail.heard(manifest)
        announced = self._announcer.release(*self._trail.release(self._signed(manifest), theta_view(released.theta)))
        values: dict[str, int | float | str] = {"release": manifest.number, "step": manifest.step}
        values |= {name: value for name, value in self._privacy_facts(released).items() if not isinstance(value, str)}
        shelf = SaveShelf(self._announcer.blobs("release"))
        begun = self._collector.begin(manifest, now, statistics_of(self._past.layout))
        return [*begun, shelf, *announced, Fact("release", values)]

    # -- rounds

    def _advance(self, now: float) -> list[Action]:
        window = self._collector.window
        closes, actions = self._collector.closing(now)
        if self._released is not None and (closes or (self._finished and len(window))):
            actions += self._close(self._released, now)
        elif window.look_at < math.inf:
            actions.append(SetTimer(WINDOW, window.look_at))
        actions = [*self._collector.tell(math.inf if self._stopping else now), *actions]
        alone = not (len(window) or window.present)
        if self._stopping and (self._finished or self._grace_over or self._released is None or alone):
            actions.append(Finished())
        return actions

    def _close(self, released: Released, now: float) -> list[Action]:
        manifest, late = released.manifest, self._collector.window.without
        frames, ended = self._collector.close()
        closed = Fact("window_closed", {"updates": len(frames), "late": len(late), "release": manifest.number})
        if self._finished:
            return [*ended, closed, *self._after_the_end(frames, manifest.number, now)]
        tally, report_on = tally_of(frames)
        window, refused = self._protected(frames, manifest)
        seen = self._seen(frames, tally, manifest.codec)
        totals = counted(released.totals, window.parts, tally)
        released = replace(released, totals=totals, rate=reported(released.rate, seen))
        if seen.empty_bytes:
            self._poor = shortage(self._options.budget, seen)
        value = self._value(tally)
        if value is not None:
            released = replace(released, gain=released.gain.measured(self._metric, value))
        facts = self._facts(released, tally, report_on)
        if not manifest.train:
            return [*ended, closed, *self._measured(replace(released, report=facts), frames, late, now)]
        self._enough = self._enough or self._is_enough(value)
        nxt, reason = self._next_release(released, window, seen)
        self._reason = reason = refused or reason
        report: list[Action] = [self._say(RoundReport(manifest.number, False, facts, late[:64])), Fact("round", facts)]
        settled, out = (Settled(not why, nxt.manifest.number, why) for why in (reason, reason or LEFT_OUT))
        outcomes = tuple((frame.id, out if frame in window.left_out else settled) for frame in frames)
        back = window.left_out if not reason else frames
        self._collector.book(self._collector.amount(back), counted=False)
        books = self._collector.book(
            self._collector.amount(window.frames if not reason else ()), counted=True, cut=window.cut if not reason else NOTHING
        )
        return [
            SaveRelease(nxt, outcomes, books),
            *ended,
            closed,
            *window.facts,
            *self._begin(nxt, now),
            *self._collector.settle(outcomes, now),
            *report,
        ]

    def _protected(self, frames: list[Frame], manifest: ReleaseManifest) -> tuple[Protected, str]:
        """What of a window is to be merged, or why nothing is."""
        try:
            codec = codec_named(manifest.codec, **manifest.parameters)
            return self._collector.unmasked(codec, self._protection.protect(codec, frames, manifest.plan)), ""
        except (CodecError, WireError) as error:
            return Protected(), f"{NOT_MERGED}: {error}"

    def _seen(self, frames: list[Frame], tally: Tally, codec: str) -> Seen:
        """What a window cost; only a budget asks for more than what devices report."""
        if not self._options.budget.given:
            return Seen(sent_of(tally))
        return seen_of(frames, tally, codec_named(codec), self._place)

    def _after_the_end(self, frames: list[Frame], number: int, now: float) -> list[Action]:
        """Whoever measured the last release after its report was made has been heard all the same."""
        outcomes = tuple((frame.id, Settled(True, number, "")) for frame in frames)
        return [SaveOutcomes(outcomes, self._collector.accounts), *self._collector.settle(outcomes, now)] if outcomes else []

    def _measured(self, released: Released, frames: list[Frame], late: tuple[str, ...], now: float) -> list[Action]:
        self._released, self._finished = released, True
        facts = released.report or {}
        report: list[Action] = [self._say(RoundReport(released.manifest.number, True, facts, late[:64])), Fact("round", facts)]
        settled = Settled(True, released.manifest.number, "")
        outcomes = tuple((frame.id, settled) for frame in frames)
        return [SaveRelease(released, outcomes, self._collector.accounts), *self._collector.settle(outcomes, now), *report]

    def _next_release(self, released: Released, window: Protected, seen: Seen) -> tuple[Released, str]:
        nxt = replace(released, manifest=replace(released.manifest, number=released.manifest.number + 1), report=None)
        reason = ""
        if window.parts:
            try:
                codec = codec_named(nxt.manifest.codec, **nxt.manifest.parameters)
                merged = merge(codec, window.parts)
                self._balance.merged(codec, parts_of(window.frames), merged.sections, thinned=window.thinned)
                nxt = moved(nxt, self._past, merged, seen.empty_bytes, self._options, self._trail, self._noise)
            except (EdgeError, ArithmeticError) as error:  # whatever children sent, the next window is another attempt
                reason = f"{NOT_MERGED}: {error}"
                nxt = replace(nxt, totals=(self._released or released).totals)
        reached = self._options.target if self._enough else 0.0
        rate = replace(nxt.rate, got_bytes=nxt.rate.got_bytes + announced_bytes(self._signed(nxt.manifest)))
        return replace(self._asking(nxt), reached=reached, rate=rate), reason

    def _value(self, tally: Tally) -> float | None:
        """The mean of the first metric over the devices that have measured; None where none has."""
        value, weight = tally.get(MEASURED + self._metric) or tally.get(self._metric, (0.0, 0.0))
        return value / weight if weight > 0 else None

    def _is_enough(self, value: int | float | str | None) -> bool:
        target = self._options.target
        if not target or not isinstance(value, int | float):
            return False
        return value <= target if self._metric in LOWER_IS_BETTER else value >= target

    def _facts(self, released: Released, tally: Tally, on: int) -> dict[str, int | float | str]:
        totals = released.totals
        facts: dict[str, int | float | str] = {
            name.removeprefix(MEASURED): value / weight for name, (value, weight) in tally.items() if weight > 0
        }
        facts |= {
            "measured": on,
            "uplink_bytes": totals.uplink_bytes,
            "downlink_bytes": totals.downlink_bytes,
            "updates_counted": totals.updates,
            "weight_counted": totals.weight,
            "children": self._collector.window.present,
        }
        return facts | spending_facts(released.rate) | self._privacy_facts(released)

    def _say(self, report: RoundReport) -> Send:
        place = self._place
        topic = topics.build(place.net, place.node, "event", node=place.node, task=self._task)
        return Send(topic, Frame(self._task, place.node, place.boot, 0, report))


def _gain_facts(gain: Gain) -> dict[str, int | float | str]:
    if gain.first is None or gain.last is None:
        return {}
    return {"metric": gain.metric, "metric_first": gain.first, "metric_last": gain.last}


def _first_metric(bundle: Bundle) -> str:
    return bundle.manifest.metrics[0] if bundle.manifest.metrics else "train_loss"
