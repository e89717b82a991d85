"""Every message, as a value, and its one way to and from bytes.

    frame = msgpack [version, kind, task, node, boot, seq, body] or [version, kind, task, node, boot, seq, body, signature]

`body` is an array whose places are fixed per kind: the table KINDS, which docs/wire-format.md repeats. Reading checks size,
depth, types and ranges before anything is believed; whatever is wrong raises WireError and nothing else. Later versions may
add places at the end of any array: readers ignore what they do not know there.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise

from edgemw.core.encoded import Encoded, Section
from edgemw.core.errors import WireError
from edgemw.core.ids import UpdateId
from edgemw.core.plan import MAX_PATTERNS, Plan, Tally
from edgemw.wire.decode import decode
from edgemw.wire.encode import encode
from edgemw.wire.fields import (
    AMOUNT,
    CODEC,
    DIGEST,
    FACTS,
    FLAG,
    ID,
    KEY,
    LABEL,
    LABEL_BYTES,
    MAYBE_SIGNATURE,
    NATURAL,
    NODE,
    PARENT,
    READINGS_FIELD,
    SHA256_BYTES,
    SHARE,
    SIGNATURE,
    TALLY,
    TASK,
    WORD,
    Record,
    array,
    binary,
    integer,
    optional,
    text,
)

VERSION = 1
MAX_FRAME_BYTES = 1 << 31  # of an update that was put together; the receiver's own limit is lower
MAX_BLOB_BYTES = 1 << 32
MAX_INLINE_BYTES = 100_000
MIN_CHUNK_BYTES = 1 << 10
MAX_CHUNK_BYTES = 1 << 20
MAX_CHUNKS = 1 << 16
MAX_MESSAGE_BYTES = MAX_CHUNK_BYTES + 4096  # of one publication
MAX_SECTIONS = 256
MAX_LATE = 256
MAX_OUTCOMES = 16  # with one Ack
MAX_CREDENTIAL_BYTES = 2048
MAX_MEMBERS = 128  # of a group that adds under masks
WIDE_BYTES = 24  # of the integer that is masked beside the lanes
MAX_SEALED_BYTES = 82  # two shares of 33 bytes and the tag
RUN_FINISHED = "the run is finished"  # the one reason of an Outcome that is nothing to see to


@dataclass(frozen=True, slots=True)
class Blob:
    """A reference to bytes on the broker, by their content.

    `digest` is their sha256, or the first 16 bytes of it (the label), which is enough where another sha256 decides.
    """

    digest: bytes
    size: int
    chunk_size: int

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return -(-self.size // self.chunk_size)

    @property
    def name(self) -> str:
        """The topic level that names it."""
        return self.label.hex()

    @property
    def label(self) -> bytes:
        """What tells it apart from others: the first 16 bytes of the sha256."""
        return self.digest[:LABEL_BYTES]

    @property
    def brief(self) -> Blob:
        """The same bytes by their label alone."""
        return replace(self, digest=self.label)


@dataclass(frozen=True, slots=True)
class Presence:
    """Whether a node is there; also its last will.

    Attributes:
        state: online, offline or lost.
        role: device or fog.
        parent: "" for the top.
        credential: DER of the X.509 certificate of the key that it signs updates with; empty where it signs none.
    """

    state: str
    role: str
    parent: str
    credential: bytes = b""


@dataclass(frozen=True, slots=True)
class Update:
    """What a node sends up: its own training, or a fog node's merged window.

    `tally` carries sums that merge by addition, each as (sum, weight): metrics of the base release on held-out data,
    training loss, bytes. An update without sections says only that.
    """

    run: int
    codec: str
    size: int
    sections: tuple[Section, ...]
    tally: Tally = field(default_factory=dict)
    report_on: int = -1  # the release that the metrics in the tally were measured on; -1 is none
    group: bytes = b""  # label of the group whose masks are on the lanes of the only section; empty: there are none
    wide: bytes = b""  # the section's energy under the same masks, 24 bytes


@dataclass(frozen=True, slots=True)
class Offer:
    """An update too large for one message; it follows in chunks once granted."""

    blob: Blob


@dataclass(frozen=True, slots=True)
class Grant:
    """The chunks of an offer that are still missing, as a bitmap (bit i of byte i // 8, lowest first)."""

    digest: bytes
    missing: bytes


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a blob."""

    digest: bytes
    index: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an update: counted in `release`, or returned to its sender with a reason."""

    boot: int
    seq: int
    counted: bool
    release: int
    reason: str


@dataclass(frozen=True, slots=True)
class Ack:
    """The receiver's application has the update on disk; `outcomes` are of earlier updates of the same sender."""

    boot: int
    seq: int
    outcomes: tuple[Outcome, ...] = ()


@dataclass(frozen=True, slots=True)
class TaskManifest:
    """The bundle that a task now has, or is proposed to have.

    Attributes:
        blob: the bundle.
        run: the training run that began with it; -1 where that is not said, as in a proposal.
        signature: see `signed.py`; empty where it is not signed.
    """

    blob: Blob
    run: int = -1
    signature: bytes = b""


@dataclass(frozen=True, slots=True)
class Difference:
    """What turns the theta of one release into that of the next.

    Attributes:
        base: label of the theta before; on the broker as a whole (or theta0 of the bundle) where `before` is empty, in chunks
            of the same size as the release's theta.
        before: the difference that made `base`, packed, as a blob; none or one.
        payload: the lattice payload of theta - base.
        side: the same of its running statistics, as side values; empty is nothing.
    """

    base: bytes
    before: tuple[Blob, ...]
    payload: bytes
    side: bytes = b""

    @property
    def size_bytes(self) -> int:
        """What it takes, besides its references."""
        return len(self.payload) + len(self.side)


@dataclass(frozen=True, slots=True)
class ReleaseManifest:
    """A release: where its theta is and how to train from it.

    Attributes:
        run: identity of the training run; a new one starts at release 0 and has nothing to do with the old.
        number: 0 is the bundle's theta0.
        bundle: label of the bundle that it belongs to.
        theta: the vector, float32[P] little endian; whichever way it comes, it has this digest.
        train: False asks only for an evaluation: training is over, or paused.
        codec: how updates against this release are encoded.
        parameters: of that codec, by name; what it is made with to encode.
        step: the lattice step, 0 for none.
        plan: how to train; None is as the bundle says.
        max_staleness: how many releases later an update against this one is still counted.
        whole: theta can be had in one piece: as a blob, or for release 0 from the bundle.
        difference: a packed Difference that leads to theta, where it is small enough to stand here; else empty.
        packed: the same as a blob, where it is not; none or one.
        signature: of everything above but the last three, which every fog node says for itself, see `signed.py`; or empty.
        threshold: percent of a group of devices whose answers take the masks off its sum; 0: updates have no masks.
    """

    run: int
    number: int
    bundle: bytes
    theta: Blob
    train: bool
    codec: str
    parameters: dict[str, int | float | str]
    step: float
    plan: Plan | None
    max_staleness: int
    whole: bool = True
    difference: bytes = b""
    packed: tuple[Blob, ...] = ()
    signature: bytes = b""
    threshold: int = 0


@dataclass(frozen=True, slots=True)
class StatusRequest:
    """Asks for a Status."""


@dataclass(frozen=True, slots=True)
class Status:
    """How a node is. `reason` is empty when everything is right.

    `facts` are numbers and words for people and tools, such as release, updates_sent, weight_sent.
    """

    role: str
    parent: str
    state: str
    reason: str
    facts: dict[str, int | float | str]


@dataclass(frozen=True, slots=True)
class RoundReport:
    """What the top says when a release is made or measured. `late` names nodes that had not answered."""

    release: int
    finished: bool
    facts: dict[str, int | float | str]
    late: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Telemetry:
    """What a node tells about itself and its machine, again and again.

    Attributes:
        site: where it stands; "" where nobody said.
        interval_s: until it will tell again.
        source: where its joules are known from; "" or "none" where they are not.
        address: "HOST:PORT" by which Prometheus reaches its own metrics; "" where it does not.
        readings: by the names of `readings.py`; what is not known is absent.
    """

    site: str
    interval_s: float
    source: str
    address: str
    readings: dict[str, float]


@dataclass(frozen=True, slots=True)
class MaskKeys:
    """A device would take part in the masked sum of a release: its X25519 keys for masks and for sealed shares."""

    run: int
    release: int
    mask: bytes
    cipher: bytes


@dataclass(frozen=True, slots=True)
class Member:
    """A device in a group, with its keys."""

    node: str
    mask: bytes
    cipher: bytes


@dataclass(frozen=True, slots=True)
class Group:
    """Who adds under masks for a release, by name, and how many of them take the masks off."""

    run: int
    release: int
    threshold: int
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class Shares:
    """Sealed shares of one member for all others, or of all others for one; one for each member of the group, in its order.

    Empty is the place of the member itself and, on the way down, of whoever sent none.
    """

    run: int
    release: int
    group: bytes
    sealed: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Unmask:
    """Asks those whose updates are in a sum for what takes the masks off; bit i of byte i // 8 is member i, lowest first."""

    run: int
    release: int
    group: bytes
    survivors: bytes


@dataclass(frozen=True, slots=True)
class Revealed:
    """A share for every member that has dealt out any, in the order of the group.

    Of the own mask of whoever is in the sum, of the mask key of whoever is not; never of both.
    """

    run: int
    release: int
    group: bytes
    shares: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class NoGroup:
    """A device is in no group for a release, and why: what it trained stays where it is."""

    run: int
    release: int
    reason: str


Message = (
    Presence
    | Update
    | Offer
    | Grant
    | Chunk
    | Ack
    | Outcome
    | TaskManifest
    | ReleaseManifest
    | StatusRequest
    | Status
    | RoundReport
    | Telemetry
    | MaskKeys
    | Group
    | Shares
    | Unmask
    | Revealed
    | NoGroup
)


@dataclass(frozen=True, slots=True)
class Frame:
    """A message with its envelope. `task` is "" where the message is about no task, `signature` empty where it is not signed."""

    task: str
    node: str
    boot: int
    seq: int
    message: Message
    signature: bytes = b""

    @property
    def id(self) -> UpdateId:
        """The identity of the update in this frame."""
        return UpdateId(self.node, self.boot, self.seq)


def encoded_of(frame: Frame) -> Encoded:
    """The encoding that an update frame carries, as one contribution."""
    update = frame.message
    if not isinstance(update, Update):
        raise WireError("kind", "not an update")
    return Encoded(update.codec, update.size, update.sections, frozenset({frame.id}))


def pack(frame: Frame) -> bytes:
    """The bytes of a frame.

    Texts are cut to what their place takes, and sums and facts that are not finite are left out; everything else must be in
    the range of its place, or no reader takes the frame.
    """
    kind = KIND_OF[type(frame.message)]
    body = kind.body.write(frame.message)
    signed = [frame.signature] if frame.signature else []
    return encode([VERSION, kind.number, frame.task, frame.node, frame.boot, frame.seq, body, *signed])


def unpack(data: bytes, limit_bytes: int = MAX_FRAME_BYTES, said: tuple[str, str] = ("", "")) -> Frame:
    """Parse a frame.

    Args:
        said: the task and the node of a frame that leaves them empty.

    Raises:
        WireError: larger than `limit_bytes`, not MessagePack within the limits of `decode`, another version, an unknown kind,
            or any place of another type or out of range.
    """
    if len(data) > limit_bytes:
        raise WireError("size", f"{len(data)} bytes, at most {limit_bytes}")
    envelope = decode(data)
    if not isinstance(envelope, tuple) or len(envelope) < 7:
        raise WireError("envelope", "not an array of seven places")
    version, number, task, node, boot, seq, body = envelope[:7]
    if type(version) is not int or version != VERSION:
        raise WireError("version", f"this edgemw speaks schema version {VERSION}")
    if type(number) is not int or number not in _KIND_NUMBERED:
        raise WireError("kind", "not a kind that this edgemw knows")
    names = TASK.read(task) or said[0], NODE.read(said[1] if node == "" else node)
    sender = *names, NATURAL.read(boot), NATURAL.read(seq)
    signature = SIGNATURE.read(envelope[7]) if len(envelope) > 7 else b""
    return Frame(*sender, _KIND_NUMBERED[number].body.read(body), signature)


def core_of(manifest: ReleaseManifest) -> bytes:
    """The bytes of what a release is, without how it is had: the same at every fog node that passes it on."""
    return encode(_RELEASE.write(replace(manifest, whole=True, difference=b"", packed=(), signature=b"")))


def pack_group(group: Group) -> bytes:
    """The bytes of a group, which its members and its fog node have in common: one MessagePack array."""
    return encode(_GROUP.write(group))


def unpack_group(data: bytes) -> Group:
    """Parse such bytes. Raises WireError."""
    group: Group = _GROUP.read(decode(data))
    return group


def pack_difference(difference: Difference) -> bytes:
    """The bytes of a difference, in a manifest or as a blob: one MessagePack array."""
    return encode(_DIFFERENCE.write(difference))


def unpack_difference(data: bytes) -> Difference:
    """Parse such bytes. Raises WireError."""
    difference: Difference = _DIFFERENCE.read(decode(data))
    return difference


# -- the bodies --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of message: its number on the wire and the places of its body."""

    number: int
    body: Record

    @property
    def name(self) -> str:
        """The name of its class."""
        return self.body.cls.__name__


def _check_blob(blob: Blob) -> None:
    if blob.chunks > MAX_CHUNKS:
        raise WireError("value", f"{blob.chunks} chunks, at most {MAX_CHUNKS}")


def _check_sections(sections: tuple[Section, ...]) -> None:
    if any(one.base >= two.base for one, two in pairwise(sections)):
        raise WireError("value", "the bases of sections are not increasing")


def _check_whole(blob: Blob) -> None:
    if len(blob.digest) != SHA256_BYTES:
        raise WireError("value", "a label where a whole sha256 decides")


def _check_update(update: Update) -> None:
    if (len(update.group), len(update.wide)) not in ((0, 0), (LABEL_BYTES, WIDE_BYTES)) or (
        update.group and len(update.sections) != 1
    ):
        raise WireError("value", "masks stand on one section and its energy")


def _check_group(group: Group) -> None:
    names = [member.node for member in group.members]
    if names != sorted(set(names)) or not group.threshold <= len(names):
        raise WireError("value", "the members of a group are not in order, or fewer than it needs")


def _check_release(manifest: ReleaseManifest) -> None:
    _check_whole(manifest.theta)
    if manifest.difference and manifest.packed:
        raise WireError("value", "a release that two differences lead to")
    if not (manifest.whole or manifest.difference or manifest.packed):
        raise WireError("value", "a release that cannot be had")


_BLOB = Record(
    Blob,
    {"digest": DIGEST, "size": integer(1, MAX_BLOB_BYTES), "chunk_size": integer(MIN_CHUNK_BYTES, MAX_CHUNK_BYTES)},
    _check_blob,
)
_SECTION = Record(
    Section,
    {
        "base": NATURAL,
        "weight": integer(1),
        "count": integer(1, 1 << 31),
        "energy": AMOUNT,
        "payload": binary(MAX_FRAME_BYTES),
        "side": binary(MAX_FRAME_BYTES),
    },
)
_PLAN = Record(
    Plan,
    {
        "optimizer": WORD,
        "lr": AMOUNT,
        "momentum": AMOUNT,
        "weight_decay": AMOUNT,
        "prox_mu": AMOUNT,
        "epochs": integer(0, 10**6),
        "steps": integer(0, 10**9),
        "batch_size": integer(1, 10**6),
        "clip": AMOUNT,
        "personal": text(MAX_PATTERNS),
        "frozen": text(MAX_PATTERNS),
        "rare": text(MAX_PATTERNS),
        "rare_every": integer(1, 10**6),
        "update_clip": AMOUNT,
        "update_noise": AMOUNT,
        "by_sample": integer(0, 1),
    },
    later=("update_clip", "update_noise", "by_sample"),
)
_DIFFERENCE = Record(
    Difference,
    {
        "base": LABEL,
        "before": array(_BLOB.field(), 1),
        "payload": binary(MAX_FRAME_BYTES),
        "side": binary(MAX_FRAME_BYTES),
    },
)
_RELEASE = Record(
    ReleaseManifest,
    {
        "run": NATURAL,
        "number": NATURAL,
        "bundle": LABEL,
        "theta": _BLOB.field(),
        "train": FLAG,
        "codec": CODEC,
        "parameters": FACTS,
        "step": AMOUNT,
        "plan": optional(_PLAN.field()),
        "max_staleness": integer(0, 1 << 20),
        "whole": FLAG,
        "difference": binary(MAX_INLINE_BYTES),
        "packed": array(_BLOB.field(), 1),
        "signature": MAYBE_SIGNATURE,
        "threshold": integer(0, 100),
    },
    _check_release,
    later=("signature", "threshold"),
)
_UPDATE = Record(
    Update,
    {
        "run": NATURAL,
        "codec": CODEC,
        "size": integer(1, 1 << 31),
        "sections": array(_SECTION.field(), MAX_SECTIONS, _check_sections),
        "tally": TALLY,
        "report_on": integer(-1),
        "group": binary(LABEL_BYTES),
        "wide": binary(WIDE_BYTES),
    },
    _check_update,
    later=("group", "wide"),
)
_OUTCOME = Record(Outcome, {"boot": NATURAL, "seq": NATURAL, "counted": FLAG, "release": integer(-1), "reason": text(200)})
_STATUS = Record(Status, {"role": WORD, "parent": PARENT, "state": WORD, "reason": text(500), "facts": FACTS})
_REPORT = Record(RoundReport, {"release": NATURAL, "finished": FLAG, "facts": FACTS, "late": array(NODE, MAX_LATE)})

_MEMBER = Record(Member, {"node": NODE, "mask": KEY, "cipher": KEY})
_OF_GROUP = {"run": NATURAL, "release": NATURAL, "group": LABEL}

PARTS = (_BLOB, _SECTION, _PLAN, _DIFFERENCE, _MEMBER)
"""Records that stand inside bodies."""

_PRESENCE = Record(
    Presence,
    {"state": WORD, "role": WORD, "parent": PARENT, "credential": binary(MAX_CREDENTIAL_BYTES)},
    later=("credential",),
)
_TASK = Record(
    TaskManifest,
    {"blob": _BLOB.field(), "run": integer(-1), "signature": SIGNATURE},
    lambda manifest: _check_whole(manifest.blob),
    later=("run", "signature"),
)
_TELEMETRY = Record(
    Telemetry,
    {"site": ID, "interval_s": AMOUNT, "source": ID, "address": WORD, "readings": READINGS_FIELD},
)
_GROUP = Record(
    Group,
    {
        "run": NATURAL,
        "release": NATURAL,
        "threshold": integer(1, MAX_MEMBERS),
        "members": array(_MEMBER.field(), MAX_MEMBERS),
    },
    _check_group,
)
KINDS = (
    Kind(1, _PRESENCE),
    Kind(2, _UPDATE),
    Kind(3, Record(Offer, {"blob": _BLOB.field()})),
    Kind(4, Record(Grant, {"digest": DIGEST, "missing": binary(MAX_CHUNKS // 8)})),
    Kind(5, Record(Chunk, {"digest": DIGEST, "index": integer(0, MAX_CHUNKS - 1), "data": binary(MAX_CHUNK_BYTES)})),
    Kind(6, Record(Ack, {"boot": NATURAL, "seq": NATURAL, "outcomes": array(_OUTCOME.field(), MAX_OUTCOMES)})),
    Kind(7, _OUTCOME),
    Kind(8, _TASK),
    Kind(9, _RELEASE),
    Kind(10, Record(StatusRequest, {})),
    Kind(11, _STATUS),
    Kind(12, _REPORT),
    Kind(13, _TELEMETRY),
    Kind(14, Record(MaskKeys, {"run": NATURAL, "release": NATURAL, "mask": KEY, "cipher": KEY})),
    Kind(15, _GROUP),
    Kind(16, Record(Shares, {**_OF_GROUP, "sealed": array(binary(MAX_SEALED_BYTES), MAX_MEMBERS)})),
    Kind(17, Record(Unmask, {**_OF_GROUP, "survivors": binary(MAX_MEMBERS // 8)})),
    Kind(18, Record(Revealed, {**_OF_GROUP, "shares": array(SHARE, MAX_MEMBERS)})),
    Kind(19, Record(NoGroup, {"run": NATURAL, "release": NATURAL, "reason": text(200)})),
)
"""Every kind of message. A number is never given to another kind."""

KIND_OF = {kind.body.cls: kind for kind in KINDS}
_KIND_NUMBERED = {kind.number: kind for kind in KINDS}
