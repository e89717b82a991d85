"""The signed updates of a stopped net, added up again: did every fog node send up the sum of what its members had signed?

    of every member          its sender has signed it, for this fog node and no other
    of every window          what was sent up = the sum of its members, to the bit
    between child and parent what a parent has of a fog node = what that node says that it has sent

The first finds what a fog node has invented or altered, the second what it left out of the sum or put in, the third a node that
shows another window than it sent, or does not show it. A member that is left out of the sum *and* of what is shown is missing
from the books: its device was told that it is counted, and `edgemw.fog.audit` finds the difference.

What cannot be added up again: a window with a remainder (`window.budget`), one that `window.robust` has changed, and one whose
evidence gave way to newer ones. A fog node that shows nothing of what it has sent, and one that says of a window without a reason
that it does not add, is at fault.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from edgemw.compression.merge import gathered, merge
from edgemw.compression.table import codec_named
from edgemw.core.errors import CodecError, WireError
from edgemw.core.ids import UpdateId
from edgemw.fog.accounts import total
from edgemw.fog.window import parts_of, tally_of
from edgemw.wire.groups import is_masked
from edgemw.wire.messages import Frame, Update
from edgemw.wire.signed import frame_text

Proven = Callable[[str, bytes, bytes, bytes], bool]
"""Whether a node, by a certificate (DER), has signed a text: node, certificate, text, signature."""

REMAINDER = "carry a remainder"
"""Why windows do not add up again: what earlier ones left is in them, or what they left is not."""
BOUNDED = "were bounded"
"""Why they do not: `window.robust` has made something else of them than their sum."""
MASKED = "were under masks"
"""Why they do not: nobody but the node itself, with its group, can take masks off the sum."""

Parameters = Mapping[str, int | float | str]


@dataclass(frozen=True, slots=True)
class Summed:
    """One window.

    Attributes:
        sent: what went up; None at the top.
        members: the updates in it, in the order in which they were added.
        release: the number of the release that it was for.
        parameters: of the codec.
        whole: False where something else than the sum of the members may be in it.
        why: what is with it then: REMAINDER, BOUNDED, MASKED, or other words; "" where it is not said.
    """

    sent: Frame | None
    members: tuple[Frame, ...]
    release: int
    parameters: Parameters
    whole: bool = True
    why: str = ""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one node shows about one task.

    Attributes:
        windows: oldest first.
        credentials: certificates by node, DER.
        has_remainder: whether it has sent less than a window held.
        unreadable: what is there and is no evidence, in words.
    """

    net: str
    node: str
    task: str
    windows: tuple[Summed, ...]
    credentials: Mapping[str, tuple[bytes, ...]] = field(repr=False)
    has_remainder: bool = False
    unreadable: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came out for one task.

    Attributes:
        windows: how many were added up again.
        signatures: how many were verified.
        faults: what was altered, invented or left out, in words; empty where nothing was.
        notes: what could not be looked at.
    """

    task: str
    windows: int
    signatures: int
    faults: tuple[str, ...]
    notes: tuple[str, ...]


def verify(shown: Iterable[Evidence], proven: Proven, fogs: Collection[str] = ()) -> list[Verdict]:
    """Look at what all nodes show, by task.

    Args:
        proven: verifies signatures against the authority of the net.
        fogs: nodes that are known to be fog nodes, also where they show nothing.
    """
    by_task: dict[str, list[Evidence]] = {}
    for evidence in shown:
        by_task.setdefault(evidence.task, []).append(evidence)
    return [_Look(task, found, proven, fogs).verdict() for task, found in sorted(by_task.items())]


class _Look:
    """At the evidence of one task."""

    def __init__(self, task: str, shown: list[Evidence], proven: Proven, fogs: Collection[str]) -> None:
        self._task, self._shown, self._proven, self._fogs = task, shown, proven, fogs
        self._sent = {
            evidence.node: {window.sent.id: window.sent for window in evidence.windows if window.sent is not None}
            for evidence in shown
        }
        self._windows = self._signatures = self._unsigned = 0
        self._notes: list[str] = []

    def verdict(self) -> Verdict:
        faults = tuple(fault for evidence in self._shown for fault in self._faults_of(evidence))
        if not self._windows:
            self._notes.append("no window was added up again")
        if self._signatures and self._unsigned == self._signatures:
            self._notes.append("nobody's signature is of a certificate of --ca: is that the authority of this net?")
        return Verdict(self._task, self._windows, self._signatures, faults, tuple(self._notes))

    def _faults_of(self, evidence: Evidence) -> Iterator[str]:
        yield from evidence.unreadable
        yield from self._of_members(evidence)
        unadded: Counter[str] = Counter()
        for window in evidence.windows:
            if not window.whole:
                unadded[window.why or REMAINDER] += 1
                if window.why == MASKED and not any(is_masked(member) for member in window.members):
                    yield f"{evidence.node} says that a window for release {window.release} {MASKED}, and it was under none"
                elif window.why == MASKED and window.sent is not None:
                    yield from _miscount(evidence.node, window.sent, window.members)
            elif window.sent is not None:
                self._windows += 1
                yield from _missum(evidence.node, window)
        for why, count in unadded.items():
            if why == REMAINDER and not evidence.has_remainder:
                yield f"{evidence.node} says that {count} windows {why}, and has none: not shown, not added up"
            else:
                self._notes.append(f"{count} windows of {evidence.node} {why} and were not added up")

    def _of_members(self, evidence: Evidence) -> Iterator[str]:
        seen: set[UpdateId] = set()
        hidden: list[UpdateId] = []
        unshown: Counter[str] = Counter()
        for member in (member for window in evidence.windows for member in window.members):
            yield from self._unproven(evidence, member)
            if member.id in seen:
                yield f"{evidence.node} has added {member.id} twice"
            seen.add(member.id)
            sent = self._sent.get(member.node, {})
            if not sent:
                unshown[member.node] += self._is_merged(member)
            elif member.id not in sent:
                hidden.append(member.id)
            elif sent[member.id].message != member.message:
                yield f"{member.node} shows another window {member.id} than it has sent to {evidence.node}"
        for node, count in unshown.items():
            if count:
                yield f"{node} shows nothing of the {count} windows that {evidence.node} has of it: not shown, not added up"
        older = [update for update in hidden if update < min(self._sent[update.node])]
        yield from (
            f"{update.node} does not show {update}, which {evidence.node} has" for update in hidden if update not in older
        )
        if older:
            self._notes.append(f"{len(older)} windows that {evidence.node} has are older than what their nodes have kept")

    def _is_merged(self, member: Frame) -> bool:
        """Whether a member with something in it is the window of a fog node."""
        sections = member.message.sections if isinstance(member.message, Update) else ()
        return bool(sections) and (member.node in self._fogs or sum(section.count for section in sections) > 1)

    def _unproven(self, evidence: Evidence, member: Frame) -> Iterator[str]:
        self._signatures += 1
        text = frame_text(evidence.net, evidence.node, member)
        shown = evidence.credentials.get(member.node, ())
        if not any(self._proven(member.node, der, text, member.signature) for der in shown):
            self._unsigned += 1
            yield f"{evidence.node} has altered or invented {member.id}: {member.node} has not signed it"


def _missum(node: str, window: Summed) -> Iterator[str]:
    """Says so where a window is not the sum of its members."""
    sent = window.sent
    assert sent is not None
    said = sent.message
    if not isinstance(said, Update):
        yield f"{node} shows window {sent.id} without an update"
        return
    members, parts = list(window.members), parts_of(list(window.members))
    try:
        codec = codec_named(said.codec, **window.parameters)
        sections = gathered(codec, merge(codec, parts), window.release).sections if parts else ()
    except (CodecError, WireError) as error:
        yield f"the members of window {sent.id} of {node} do not add: {error}"
        return
    if sections != said.sections:
        yield f"window {sent.id} of {node} is not the sum of its {len(members)} members: altered, left out or put in"
    elif tally_of(members) != (said.tally, said.report_on):
        yield f"window {sent.id} of {node} does not say what its members have measured"
    runs = {member.message.run for member in members if isinstance(member.message, Update)}
    if runs - {said.run}:
        yield f"window {sent.id} of {node} is said to be of run {said.run}, its members are of {sorted(runs)}"


def _miscount(node: str, sent: Frame, members: tuple[Frame, ...]) -> Iterator[str]:
    """Says so where a window is of other amounts than its members: under masks these are in plain."""
    said = sent.message
    brought = total(members, said.run) if isinstance(said, Update) else None
    if not isinstance(said, Update) or brought != total((sent,), said.run):
        yield f"window {sent.id} of {node} is not of the {len(members)} members that it shows: left out or put in"
    elif tally_of(list(members)) != (said.tally, said.report_on):
        yield f"window {sent.id} of {node} does not say what its members have measured"
