"""The fog node's half of a sum under masks: who is in the group of a release, whose shares are dealt out, what takes masks off.

    keys        until every device that is awaited has said its own, or the deadline      --> Group, to each
    shares      until every member that is awaited has dealt out its own, or the deadline --> Shares, to each
    updates     until every dealer that is awaited has answered, or the deadline
    unmasking   until as many answers are in as the threshold says                        --> the masks of the sum, off
    over

The deadline is the window's, and begins anew with each phase. Nothing of this is on disk: in another life of the node, and where
a release comes before its sum is there, the group is over, and masked updates go back to whom they came from. Devices ask again
until they are answered, so messages may be lost; Unmask is said again here.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from edgemw.compression.codec import Codec
from edgemw.core.encoded import Encoded
from edgemw.core.events import Fact, SetTimer
from edgemw.core.ids import Place
from edgemw.fog.events import Action
from edgemw.fog.window import PATIENCE
from edgemw.wire import topics
from edgemw.wire.chunks import bitmap
from edgemw.wire.groups import LEAST_MEMBERS, is_masked, label_of, needed, transcript
from edgemw.wire.messages import (
    MAX_MEMBERS,
    Frame,
    Group,
    MaskKeys,
    Member,
    NoGroup,
    ReleaseManifest,
    Revealed,
    Shares,
    Unmask,
    Update,
)
from edgemw.wire.traffic import Send

if TYPE_CHECKING:
    from edgemw.masking.masks import Mask  # with cryptography, which only who takes masks off needs

GROUPING = "grouping"
AGAIN_S = 5.0
TRIED_EVERY = 10  # groups that wait for somebody who deals out no shares
PLAIN = "its lanes have no masks, where they were asked for"
UNASKED = "it is under masks, where none were asked for"
GROUP_OVER = "its group is over: nobody takes its masks off alone"
NO_LIBRARY = "masks need cryptography here: pip install 'edgemw[security]'"

Phase = Literal["keys", "shares", "updates", "unmasking", "over"]


@dataclass(slots=True)
class _Round:
    """The group of one release.

    Attributes:
        release: of the group.
        phase: see the module.
        due: when the phase ends at the latest.
        keys: of whoever would take part.
        group, transcript, places: who does, once that is known.
        boxes: sealed shares by dealer.
        dealers: places of whoever has dealt out shares in time, in order.
        survivors: places of those whose updates are in the sum.
        size: parameters of the model; `payload` is one update's.
        answers: what survivors have given up.
        mask: what has to come off the sum.
        failed: why it never will.
    """

    release: ReleaseManifest
    phase: Phase = "keys"
    due: float = math.inf
    keys: dict[str, MaskKeys] = field(default_factory=dict)
    group: Group | None = None
    transcript: bytes = b""
    places: dict[str, int] = field(default_factory=dict)
    boxes: dict[int, tuple[bytes, ...]] = field(default_factory=dict)
    dealers: tuple[int, ...] = ()
    survivors: frozenset[int] = frozenset()
    payload: bytes = b""
    again: float = math.inf
    answers: dict[int, tuple[bytes, ...]] = field(default_factory=dict)
    mask: Mask | None = None
    failed: str = ""

    @property
    def nodes(self) -> set[str]:
        """Whoever has dealt out shares."""
        return {node for node, place in self.places.items() if place in self.dealers}


class Grouping:
    """The groups of one task at one fog node, one after another."""

    def __init__(self, place: Place, task: str, deadline_s: float) -> None:
        self._place, self._task, self._deadline_s = place, task, deadline_s
        self._round: _Round | None = None
        self._threshold = 0
        self._counts: Counter[str] = Counter()
        self._size = 0
        self._missed: dict[str, int] = {}  # of the last group, who has dealt out no shares, and for how many groups in a row
        self.reason = ""

    def begin(self, release: ReleaseManifest) -> list[Action]:
        """A release is out; the group of another one, or of another way to encode it, is over."""
        old, actions = self._round, list[Action]()
        if old is not None and old.due < math.inf and _asked(old.release) != _asked(release):
            actions = self._end_of(old, f"release {release.number} came before its sum")
        self._threshold = release.threshold
        if not (release.threshold and release.train):
            self._round = None
        elif old is None or _asked(old.release) != _asked(release):
            self._round = _Round(release)
            if not _has_library():
                self._close(self._round, NO_LIBRARY)
        return actions

    def refusal(self, frame: Frame, update: Update) -> str:
        """Why an update with sections cannot be added, as far as masks say; empty where it can."""
        if not update.group:
            alone = any(section.count < 2 for section in update.sections)  # a fog node's sum has more
            return PLAIN if self._threshold and alone else ""
        if not self._threshold:
            return UNASKED
        known, section = self._round, update.sections[0]
        if known is None or known.phase != "updates" or update.group != label_of(known.transcript):
            return GROUP_OVER
        if frame.node not in known.nodes or section.base != known.release.number or section.count != 1 or section.side:
            return "its masks are not those of its group"
        return ""

    def belongs(self, frame: Frame) -> bool:
        """Whether a masked update that was taken is one of the present group's."""
        known, update = self._round, frame.message
        return known is not None and isinstance(update, Update) and update.group == label_of(known.transcript)

    # -- phases

    @property
    def forming(self) -> bool:
        """Whether it matters who is awaited."""
        return self._round is not None and self._round.due < math.inf

    def look(self, now: float, awaited: Collection[str], unseen: int) -> list[Action]:
        """Go on where nobody is missing any more, or the deadline has passed.

        Args:
            awaited: devices that are there and have not answered the release.
            unseen: how many children are expected to appear still.
        """
        known = self._round
        if known is None or known.due == math.inf:
            return []
        late = now >= known.due
        if known.phase == "keys" and (late or (not unseen and known.keys.keys() >= set(awaited))):
            return self._form(known, now)
        if known.phase == "shares":
            missing = {node for node, place in known.places.items() if place not in known.boxes}
            if late or not {node for node in missing & set(awaited) if self._is_waited_for(node)}:
                self._missed = {node: self._missed.get(node, 0) + 1 for node in missing}
                return self._deal(known, now)
        if known.phase == "unmasking":
            return self._ask_again(known, now)
        return [SetTimer(GROUPING, known.due)] if now < known.due else []

    def _is_waited_for(self, node: str) -> bool:
        """Whoever has let groups wait for its shares again and again is tried now and then only."""
        missed = self._missed.get(node, 0)
        return missed < PATIENCE or missed % TRIED_EVERY == 0

    def busy(self, now: float, awaited: Collection[str]) -> bool:
        """Whether a window has to wait: for a group that is forming, or for its updates."""
        known = self._round
        if known is None or known.due == math.inf or now >= known.due:
            return False
        return known.phase in ("keys", "shares") or (known.phase == "updates" and bool(known.nodes & set(awaited)))

    def _form(self, known: _Round, now: float) -> list[Action]:
        """Say who is in the group."""
        nodes = sorted(known.keys)
        if not LEAST_MEMBERS <= len(nodes) <= MAX_MEMBERS:
            return self._give_up(known, f"a group of {len(nodes)} devices, where {LEAST_MEMBERS} to {MAX_MEMBERS} can add")
        members = tuple(Member(node, known.keys[node].mask, known.keys[node].cipher) for node in nodes)
        release = known.release
        group = Group(release.run, release.number, needed(len(nodes), release.threshold), members)
        known.group, known.transcript = group, transcript(self._place.net, self._task, group)
        known.places = {node: place for place, node in enumerate(nodes)}
        known.phase, known.due = "shares", now + self._deadline_s
        return [*(self._say(node, group) for node in nodes), SetTimer(GROUPING, known.due)]

    def _deal(self, known: _Round, now: float) -> list[Action]:
        """Give everybody who has dealt out shares those that are meant for it."""
        assert known.group is not None
        dealers = tuple(sorted(known.boxes))
        if len(dealers) < max(known.group.threshold, LEAST_MEMBERS):
            return self._give_up(known, f"{len(dealers)} of {len(known.places)} devices have dealt out shares")
        known.dealers, self._size = dealers, len(dealers)
        known.phase, known.due = "updates", now + self._deadline_s
        told = [self._say(node, self._dealt(known, place)) for node, place in known.places.items() if place in dealers]
        left = [node for node, place in known.places.items() if place not in dealers]
        return [*told, *(self._refuse(node, known.release, "its shares came too late") for node in left), self._timer(known)]

    def _dealt(self, known: _Round, reader: int) -> Shares:
        sealed = tuple(
            known.boxes[place][reader] if place in known.dealers and place != reader else b"" for place in known.places.values()
        )
        return Shares(known.release.run, known.release.number, label_of(known.transcript), sealed)

    # -- what devices say

    def on_message(self, frame: Frame, message: MaskKeys | Shares | Revealed, now: float) -> list[Action]:
        """Take a device's part, or tell it that there is none for it."""
        known = self._round
        if known is None or (message.run, message.release) != (known.release.run, known.release.number):
            over = NoGroup(message.run, message.release, "its release is over, or it asked for no masks")
            return [] if isinstance(message, Revealed) else [self._say(frame.node, over)]
        match message:
            case MaskKeys():
                return self._on_keys(known, frame.node, message, now)
            case Shares():
                return self._on_shares(known, frame.node, message)
            case Revealed():
                return self._on_revealed(known, frame.node, message)

    def _on_keys(self, known: _Round, node: str, keys: MaskKeys, now: float) -> list[Action]:
        if known.phase == "keys":
            if node not in known.keys and len(known.keys) >= MAX_MEMBERS:
                return [self._refuse(node, known.release, f"{MAX_MEMBERS} other devices add together already")]
            if not _are_keys(keys):
                return [self._refuse(node, known.release, "its keys are none that others can agree with")]
            known.keys[node] = keys
            if known.due == math.inf:
                known.due = now + self._deadline_s
            return [self._timer(known)]
        if known.keys.get(node) == keys and known.group is not None and known.phase != "over":
            return [self._say(node, known.group)]
        return [self._refuse(node, known.release, self._why_not(known))]

    def _on_shares(self, known: _Round, node: str, shares: Shares) -> list[Action]:
        place, label = known.places.get(node, -1), label_of(known.transcript)
        if known.phase == "shares" and shares.group == label and place >= 0:
            if len(shares.sealed) == len(known.places) and all(
                bool(box) == (at != place) for at, box in enumerate(shares.sealed)
            ):
                known.boxes.setdefault(place, shares.sealed)
            return []
        if known.phase == "updates" and shares.group == label and place in known.dealers:
            return [self._say(node, self._dealt(known, place))]
        return [self._refuse(node, known.release, self._why_not(known))]

    def _on_revealed(self, known: _Round, node: str, revealed: Revealed) -> list[Action]:
        place = known.places.get(node, -1)
        fits = known.phase == "unmasking" and revealed.group == label_of(known.transcript)
        if not fits or place not in known.survivors or len(revealed.shares) != len(known.dealers):
            return []
        known.answers[place] = revealed.shares
        assert known.group is not None
        if len(known.answers) < known.group.threshold or known.mask is not None or known.failed:
            return []
        return self._solve(known, known.group)

    # -- taking the masks off

    @property
    def solved(self) -> bool:
        """Whether the sum of the window can be read."""
        return self._round is not None and self._round.mask is not None

    @property
    def failed(self) -> str:
        """Why the sum of the window never can be; empty where it may."""
        return self._round.failed if self._round is not None else GROUP_OVER

    def unmask(self, frames: Sequence[Frame], now: float) -> list[Action]:
        """Ask for what takes the masks off these updates, once; whoever comes later is not added."""
        known = self._round
        if known is None or known.group is None or known.phase != "updates":
            return []
        known.survivors = frozenset(known.places[frame.node] for frame in frames)
        update = frames[0].message
        assert isinstance(update, Update)
        known.payload = update.sections[0].payload
        known.phase, known.due, known.again = "unmasking", now + self._deadline_s, now
        least = known.group.threshold
        if len(known.survivors) < least:
            known.failed = f"{len(known.survivors)} updates where {least} are needed to take the masks off"
            return []
        return self._ask_again(known, now)

    def _ask_again(self, known: _Round, now: float) -> list[Action]:
        if known.mask is not None or known.failed:
            return []
        assert known.group is not None
        if now >= known.due:
            known.failed = f"{len(known.answers)} of {known.group.threshold} answers that take the masks off"
            return []
        if now < known.again:
            return [SetTimer(GROUPING, min(known.again, known.due))]
        known.again = now + AGAIN_S
        survivors = bitmap(sorted(known.survivors), len(known.places))
        ask = Unmask(known.release.run, known.release.number, label_of(known.transcript), survivors)
        silent = [node for node, place in known.places.items() if place in known.survivors and place not in known.answers]
        return [*(self._say(node, ask) for node in silent), SetTimer(GROUPING, min(known.again, known.due))]

    def _solve(self, known: _Round, group: Group) -> list[Action]:
        from edgemw.compression.lanes import lanes_of
        from edgemw.fog.unmasking import left_over
        from edgemw.masking.keys import Tampered
        from edgemw.masking.masks import Mask

        mask = Mask.of(lanes_of(known.payload, known.release.theta.size // 4))
        chosen = {place: known.answers[place] for place in sorted(known.answers)[: group.threshold]}
        try:
            known.mask = left_over(group, known.transcript, known.dealers, known.survivors, chosen, mask)
        except Tampered as error:
            known.failed = str(error)
            return []
        dropped = len(known.dealers) - len(known.survivors)
        self._counts["unmasked"] += 1
        self.reason = ""
        return [Fact("masks", {"outcome": "unmasked", "members": len(known.survivors), "dropped": dropped, "reason": ""})]

    def sum_of(self, codec: Codec, frames: Sequence[Frame]) -> Encoded:
        """The sum of the masked updates of a window that is `solved`, without masks. Raises CodecError, WireError as `merge`."""
        from edgemw.fog.unmasking import unmasked

        known = self._round
        assert known is not None
        assert known.mask is not None
        return unmasked(codec, frames, known.mask)

    def end(self) -> list[Action]:
        """The window is closed: whoever comes later for this release is in no group."""
        known = self._round
        if known is None or known.phase == "over":
            return []
        if known.failed:
            return self._give_up(known, known.failed)
        if known.phase != "unmasking" and known.due == math.inf:
            return []  # nobody has asked yet; the release may go on here
        return self._give_up(known, "the window closed without it") if known.mask is None else self._close(known, "")

    def _give_up(self, known: _Round, reason: str) -> list[Action]:
        """Nothing comes of this group: say so to whoever waits for something."""
        waiting = known.keys if known.phase in ("keys", "shares", "updates") else {}
        return [*(self._refuse(node, known.release, reason) for node in waiting), *self._end_of(known, reason)]

    def _end_of(self, known: _Round, reason: str) -> list[Action]:
        """Count a group that was given up."""
        self._counts["given up"] += 1
        self._close(known, reason)
        return [Fact("masks", {"outcome": "given up", "members": len(known.keys), "dropped": 0, "reason": reason})]

    def _close(self, known: _Round, reason: str) -> list[Action]:
        known.phase, known.due, known.failed = "over", math.inf, reason
        self.reason = f"the group of release {known.release.number} was given up: {reason}" if reason else ""
        return []

    # -- saying

    def facts(self) -> dict[str, int | float | str]:
        """Numbers for `status`; nothing where no masks were ever asked for."""
        if not (self._threshold or self._counts):
            return {}
        return {
            "group": self._size,
            "groups_unmasked": self._counts["unmasked"],
            "groups_given_up": self._counts["given up"],
        }

    def _why_not(self, known: _Round) -> str:
        return known.failed or "the group of its release was made before"

    def _timer(self, known: _Round) -> SetTimer:
        return SetTimer(GROUPING, known.due)

    def _refuse(self, node: str, release: ReleaseManifest, reason: str) -> Send:
        return self._say(node, NoGroup(release.run, release.number, reason))

    def _say(self, node: str, message: Group | Shares | Unmask | NoGroup) -> Send:
        place = self._place
        topic = topics.build(place.net, place.node, "reply", node=node, task=self._task)
        return Send(topic, Frame(self._task, place.node, place.boot, 0, message))


def masked_in(frames: Sequence[Frame]) -> list[Frame]:
    """Those of some updates whose lanes are under masks."""
    return [frame for frame in frames if is_masked(frame)]


def _asked(release: ReleaseManifest) -> tuple[int, int, int, str, dict[str, int | float | str]]:
    return release.run, release.number, release.threshold, release.codec, release.parameters


def _are_keys(said: MaskKeys) -> bool:
    from edgemw.masking.keys import is_key

    return is_key(said.mask) and is_key(said.cipher)


def _has_library() -> bool:
    try:
        import edgemw.fog.unmasking  # noqa: F401
    except ModuleNotFoundError:
        return False
    return True
