"""The device's half of a sum under masks: says its keys, deals out shares, masks its update, and gives up shares, each kind once.

    MaskKeys -->                         again and again, until there is an answer
                 <-- Group               keep it; make shares for everybody in it
    Shares   -->                         again and again
                 <-- Shares              keep them: from now on an update can be masked, for those whose shares these are
    Update   -->
                 <-- Unmask              keep whom it names; a share for everybody
    Revealed -->

A device is asked for shares of a member's own mask, or of its mask key. With both its fog node could read that member's
update, so what a device answers first is kept on disk before it is said, and any other question about the same group is left
unanswered. A NoGroup ends it before an update was masked; a group that was given up so has told nothing.

Every release has a seed of its own, from the secret of the life in which it began: whoever drops out has its mask key put
together, and uses another one next time.

Source: Bonawitz et al., CCS 2017, figure 4, the user's side; without the signatures of round 0 and round 3 (consistency), which
are for fog nodes that lie.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count

from edgemw.compression.lanes import lanes_of, with_lanes
from edgemw.core.ids import Place, UpdateId
from edgemw.device.events import Action, Joined, SaveJoined
from edgemw.masking.keys import Secrets, Tampered, derived, public, seal, unseal
from edgemw.masking.masks import WIDE_BITS, WIDE_BYTES, Mask, add_pairs, pair_key
from edgemw.masking.shamir import COEFFICIENT_BYTES, SHARE_BYTES, split
from edgemw.wire import topics
from edgemw.wire.chunks import indexes
from edgemw.wire.groups import LEAST_MEMBERS, label_of, needed, transcript
from edgemw.wire.messages import (
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
    pack,
)
from edgemw.wire.signed import Signer, signed_frame
from edgemw.wire.traffic import Upload

FIRST_S, LONGEST_S = 5.0, 60.0
ENERGY_BITS = 80  # behind the point of the energy that goes with the lanes
MOST_ENERGY = 2.0**100

_Pair = tuple[bytes, bytes]
"""Of one member: a share of its mask key, and one of its own mask."""


@dataclass(slots=True)
class _Round:
    """A group in this life.

    Attributes:
        joined: what is on disk of it.
        secrets: from its seed.
        percent: the threshold that the release says.
        refused: why nothing comes of it; empty where something may.
        transcript: of the group.
        place: of this device in the group.
        shares: by member, once they are dealt; this device's own among them.
        pairs: by other member of these, the key of the mask that the two have in common.
        asking: what is said again until there is an answer; None where nothing is waited for.
        interval_s, due: of that.
        sent: an update was masked in it.
        masked: which, in this life.
    """

    joined: Joined
    secrets: Secrets
    percent: int = 0
    refused: str = ""
    transcript: bytes = b""
    place: int = -1
    shares: dict[int, _Pair] = field(default_factory=dict)
    pairs: dict[int, bytes] = field(default_factory=dict)
    asking: MaskKeys | Shares | None = None
    interval_s: float = FIRST_S
    due: float = 0.0
    sent: bool = False
    masked: UpdateId | None = None


class GroupMember:
    """See the module."""

    def __init__(
        self, place: Place, task: str, signer: Signer | None, kept: Iterable[Joined], most_bytes: int | None = None
    ) -> None:
        """Go on with the groups of an earlier life.

        Args:
            place: with the secret of this life, which seeds are drawn from.
            signer: of what is said to a fog node; None signs nothing.
            most_bytes: that can leave in one message; None is no limit.
        """
        self._place, self._task, self._signer, self._most_bytes = place, task, signer, most_bytes
        self._drawn = count()  # a seed is for one group, also where a release is begun with again
        self._rounds = {joined.key: self._resumed(joined) for joined in kept}

    def __len__(self) -> int:
        return len(self._rounds)

    def __contains__(self, key: object) -> bool:
        """Whether a release, by run and number, has asked for masks."""
        return key in self._rounds

    @property
    def due(self) -> float | None:
        """When something is to be said again, if ever."""
        return min((one.due for one in self._rounds.values() if one.asking is not None), default=None)

    def begin(self, manifest: ReleaseManifest, needed_still: Collection[tuple[int, int]], now: float) -> list[Action]:
        """Take part in the sum of a release; groups but those that are `needed_still` are forgotten.

        A group that another fog node was asked for in an earlier life is not gone on with.
        """
        key = manifest.run, manifest.number
        over = tuple(known for known in self._rounds if known != key and known not in needed_still)
        for known in over:
            del self._rounds[known]
        known_round = self._rounds.get(key)
        if known_round is None or known_round.joined.fog != self._place.parent:
            seed = derived(self._place.secret, b"", f"seed {next(self._drawn)} of {self._task}".encode())
            joined = Joined(*key, self._place.parent, seed)
            known_round = self._rounds[key] = self._resumed(joined)
            saved: list[Action] = [SaveJoined(joined, over)]
        else:
            saved = [SaveJoined(None, over)] if over else []
        known_round.percent, known_round.sent = manifest.threshold, False
        group = known_round.joined.group
        if group is not None and (reason := _too_few(group, manifest.threshold)):
            self._refuse(known_round, reason)  # it was made before more were asked for
        return [*saved, *self._ask(known_round, now)]

    def forget(self, key: tuple[int, int]) -> list[Action]:
        """A group is over for this device: what was masked in it has an outcome, or nothing will be."""
        return [SaveJoined(None, (key,))] if self._rounds.pop(key, None) is not None else []

    def clear(self) -> list[Action]:
        """Forget every group: another run has begun."""
        over = tuple(self._rounds)
        self._rounds.clear()
        return [SaveJoined(None, over)] if over else []

    def size(self, key: tuple[int, int]) -> int:
        """How many are in a group; 0 where that is not known."""
        known = self._rounds.get(key)
        return len(known.shares) if known is not None else 0

    def verdict(self, key: tuple[int, int]) -> str | None:
        """Why an update for a release cannot be masked; empty where it can, None where that is not known yet."""
        known = self._rounds.get(key)
        if known is None:
            return "this device is in no group for it"
        if known.refused:
            return known.refused
        return "" if known.shares else None

    def masked(self, frame: Frame) -> Frame:
        """An update as it may be sent: its lanes and its energy are under masks.

        Args:
            frame: of an update of the codec `lanes` with one section, for a release whose verdict is empty.

        Raises:
            RuntimeError: its verdict is not empty, or another update was masked so: the two would tell their difference.
        """
        update = frame.message
        assert isinstance(update, Update)
        section = update.sections[0]
        known = self._rounds[update.run, section.base]
        if not known.shares or known.masked not in (None, frame.id):
            raise RuntimeError(f"update {frame.id} cannot be masked: {known.refused or 'its group has masked another one'}")
        known.sent, known.masked = True, frame.id
        lanes = lanes_of(section.payload, update.size)
        mask = Mask.of(lanes)
        mask.add(derived(known.secrets.self_mask(known.transcript), known.transcript, b"stream"))
        add_pairs(mask, known.place, known.pairs.items())
        wide = (fixed(section.energy) + mask.wide) % (1 << WIDE_BITS)
        hidden = replace(section, energy=0.0, payload=with_lanes(section.payload, lanes + mask.lanes, update.size))
        label = label_of(known.transcript)
        return replace(frame, message=replace(update, sections=(hidden,), group=label, wide=wide.to_bytes(WIDE_BYTES, "little")))

    def on_message(self, fog: str, message: Group | Shares | Unmask | NoGroup, now: float) -> list[Action]:
        """Take what a fog node says of a group."""
        known = self._rounds.get((message.run, message.release))
        if known is None or known.joined.fog != fog:
            return []
        match message:
            case Group():
                return self._on_group(known, message, now)
            case Shares():
                return self._on_shares(known, message)
            case Unmask():
                return self._on_unmask(known, message)
            case NoGroup(reason=reason):
                if not known.sent:
                    self._refuse(known, reason)
                return []

    def resend(self, now: float, *, hurry: bool = False) -> list[Action]:
        """Say again what is due, or at once what has no answer yet."""
        actions: list[Action] = []
        for known in self._rounds.values():
            if known.asking is not None and (hurry or known.due <= now):
                known.interval_s = FIRST_S if hurry else min(2 * known.interval_s, LONGEST_S)
                known.due = now + known.interval_s
                actions.append(self._upload(known.joined.fog, known.asking))
        return actions

    # -- what happens in a group

    def _resumed(self, joined: Joined) -> _Round:
        known = _Round(joined, Secrets.of(joined.seed))
        try:
            if joined.group is not None:
                self._enter(known, joined.group)
            if joined.dealt:
                self._open(known, joined.dealt)
                known.sent = True
        except Tampered as error:  # this device had another name, or was in another net
            self._refuse(known, str(error))
        return known

    def _enter(self, known: _Round, group: Group) -> None:
        """Find this device in a group. Raises Tampered where it is not in it."""
        places = [place for place, member in enumerate(group.members) if member.node == self._place.node]
        if not places:
            raise Tampered(f"{self._place.node} is not in this group")
        known.transcript, known.place = transcript(self._place.net, self._task, group), places[0]

    def _ask(self, known: _Round, now: float) -> list[Action]:
        """Say what has to be said next; nothing where the answer is here. Raises Tampered for keys that are none."""
        joined = known.joined
        if known.shares or known.refused:
            known.asking = None
            return []
        if joined.group is None:
            keys = public(known.secrets.mask), public(known.secrets.cipher)
            known.asking = MaskKeys(joined.run, joined.release, *keys)
        else:
            known.asking = self._dealing(known, joined.group)
        known.interval_s, known.due = FIRST_S, now + FIRST_S
        said = self._upload(joined.fog, known.asking)
        size_bytes = len(pack(said.frame))
        if self._most_bytes is not None and size_bytes > self._most_bytes:
            self._refuse(known, f"its part takes {size_bytes} bytes, and uplink.burst lets {self._most_bytes} out")
            return []
        return [said]

    def _on_group(self, known: _Round, group: Group, now: float) -> list[Action]:
        begun = known.percent > 0  # by a release that this life has heard: before, nobody knows which threshold was asked for
        if not begun or known.joined.group is not None or known.refused:
            return []
        reason = self._unfit(known, group)
        if reason:
            self._refuse(known, reason)
            return []
        alone, known.joined = known.joined, replace(known.joined, group=group)
        try:
            self._enter(known, group)
            said = self._ask(known, now)
        except Tampered as error:
            self._refuse(known, str(error))
        if known.refused:
            known.joined = alone
            return []
        return [SaveJoined(known.joined), *said]

    def _unfit(self, known: _Round, group: Group) -> str:
        """Why this device has no part in such a group."""
        own = [member for member in group.members if member.node == self._place.node]
        keys = public(known.secrets.mask), public(known.secrets.cipher)
        if [(member.mask, member.cipher) for member in own] != [keys]:
            return "the group was made without this device's keys"
        if len(group.members) < LEAST_MEMBERS:
            return f"a group of {len(group.members)}: its sum would tell too much"
        return _too_few(group, known.percent)

    def _dealing(self, known: _Round, group: Group) -> Shares:
        """A share of both secrets for every other member, sealed. Raises Tampered."""
        pairs = self._split(known, group)
        sealed = []
        for place, member in enumerate(group.members):
            way, plain = _way(known.place, place), b"".join(pairs[place])
            with _said_by(member):
                own = place == known.place
                sealed.append(b"" if own else seal(known.secrets.cipher, member.cipher, known.transcript, way, plain))
        return Shares(known.joined.run, known.joined.release, label_of(known.transcript), tuple(sealed))

    def _split(self, known: _Round, group: Group) -> list[_Pair]:
        """The shares of this device's secrets for every member, itself among them: the same each time."""
        threshold, members = group.threshold, len(group.members)
        secrets, size = known.secrets, COEFFICIENT_BYTES * (group.threshold - 1)

        def randomness(purpose: bytes) -> bytes:
            return derived(secrets.seed, known.transcript, purpose, size) if size else b""

        keys = split(secrets.mask, threshold, members, randomness(b"shares of the key"))
        selves = split(secrets.self_mask(known.transcript), threshold, members, randomness(b"shares of the mask"))
        return list(zip(keys, selves, strict=True))

    def _on_shares(self, known: _Round, message: Shares) -> list[Action]:
        group = known.joined.group
        if group is None or known.shares or known.refused or message.group != label_of(known.transcript):
            return []
        sealed = message.sealed
        dealers = sum(map(bool, sealed)) + 1
        if len(sealed) != len(group.members) or sealed[known.place] or dealers < group.threshold:
            self._refuse(known, f"shares of {dealers} members where {group.threshold} are needed")
            return []
        try:
            self._open(known, sealed)
        except Tampered as error:
            self._refuse(known, str(error))
            return []
        known.asking = None
        known.joined = replace(known.joined, dealt=sealed)
        return [SaveJoined(known.joined)]

    def _open(self, known: _Round, sealed: tuple[bytes, ...]) -> None:
        """Take the shares of whoever has dealt out any, and agree on masks with them. Raises Tampered, and takes nothing."""
        group, secrets = known.joined.group, known.secrets
        assert group is not None
        shares, pairs = dict[int, _Pair](), dict[int, bytes]()
        for place, (box, member) in enumerate(zip(sealed, group.members, strict=True)):
            if place == known.place:
                shares[place] = self._split(known, group)[place]
            elif box:
                with _said_by(member):
                    plain = unseal(secrets.cipher, member.cipher, known.transcript, _way(place, known.place), box)
                    if len(plain) != 2 * SHARE_BYTES:
                        raise Tampered(f"shares of {len(plain)} bytes")
                    pairs[place] = pair_key(secrets.mask, member.mask, known.transcript)
                shares[place] = plain[:SHARE_BYTES], plain[SHARE_BYTES:]
        known.shares, known.pairs = shares, pairs

    def _on_unmask(self, known: _Round, message: Unmask) -> list[Action]:
        """Give up one share for each member: of its own mask where its update is in the sum, else of its mask key."""
        group = known.joined.group
        if group is None or not known.shares or message.group != label_of(known.transcript):
            return []
        if len(message.survivors) != -(-len(group.members) // 8):
            return []
        survivors = set(indexes(message.survivors, len(group.members)))
        fits = known.place in survivors and survivors <= known.shares.keys() and len(survivors) >= group.threshold
        before = known.joined.survivors
        if not fits or (before and before != message.survivors):
            return []
        saved: list[Action] = []
        if not before:
            known.joined = replace(known.joined, survivors=message.survivors)
            saved = [SaveJoined(known.joined)]
        shares = tuple(pair[place in survivors] for place, pair in sorted(known.shares.items()))
        answer = Revealed(message.run, message.release, message.group, shares)
        return [*saved, self._upload(known.joined.fog, answer)]

    def _refuse(self, known: _Round, reason: str) -> None:
        known.refused, known.asking, known.shares, known.pairs = known.refused or reason, None, {}, {}

    def _upload(self, fog: str, message: MaskKeys | Shares | Revealed) -> Upload:
        topic = topics.build(self._place.net, fog, "update", node=self._place.node, task=self._task)
        frame = Frame(self._task, self._place.node, self._place.boot, 0, message)
        return Upload(topic, frame if self._signer is None else signed_frame(self._signer, self._place.net, fog, frame))


def _too_few(group: Group, percent: int) -> str:
    """Why a group's threshold is none for a release that asks for so many percent; empty where it is one."""
    if group.threshold >= needed(len(group.members), percent):
        return ""
    return f"a threshold of {group.threshold} in a group of {len(group.members)}: too few would take the masks off"


def fixed(energy: float) -> int:
    """The energy of an update in units of 2^-80, so that integers add; exact for what devices say, from 2^-68 on."""
    return round(min(energy, MOST_ENERGY) * 2.0**ENERGY_BITS)


@contextmanager
def _said_by(member: Member) -> Iterator[None]:
    """Name the member whose keys or shares are wrong."""
    try:
        yield
    except Tampered as error:
        raise Tampered(f"{member.node}: {error}") from error


def _way(sender: int, receiver: int) -> bytes:
    return b"%d>%d" % (sender, receiver)
