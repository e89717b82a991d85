"""Every message, as a value, and its one way to and from bytes.

    frame = msgpack [version, kind, task, node, boot, seq, body]

`body` is an array whose places are fixed per kind (docs/wire-format.md). Reading checks size, depth, types and ranges
before anything is believed; whatever is wrong raises WireError and nothing else. Later versions may add places at the
end of a body: readers ignore what they do not know there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgpack

from edgemw.core.encoded import Encoded, Section
from edgemw.core.errors import WireError
from edgemw.core.ids import UpdateId, valid_id
from edgemw.core.plan import Plan, Tally
from edgemw.wire.fields import digest, flag, integer, number, real, word, words

VERSION = 1
MAX_FRAME_BYTES = 256 << 20
MAX_INLINE_BYTES = 100_000
MAX_CHUNK_BYTES = 1 << 20
_MAX_ITEMS = 4096
_DEPTH = 4


@dataclass(frozen=True, slots=True)
class Blob:
    """A reference to bytes on the broker, by their content."""

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
        return self.digest[:16].hex()


@dataclass(frozen=True, slots=True)
class Presence:
    """Whether a node is there; also its last will. `parent` is "" for the top."""

    state: str
    role: str
    parent: str


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
class Ack:
    """The receiver's application has the update on disk."""

    boot: int
    seq: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an update: counted in `release`, or returned to its sender with a reason."""

    boot: int
    seq: int
    counted: bool
    release: int
    reason: str


@dataclass(frozen=True, slots=True)
class TaskManifest:
    """The bundle that a task now has."""

    blob: Blob


@dataclass(frozen=True, slots=True)
class ReleaseManifest:
    """A release: where its theta is and how to train from it.

    Attributes:
        run: identity of the training run; a new one starts at release 0 and has nothing to do with the old.
        number: 0 is the bundle's theta0.
        bundle: digest of the bundle that it belongs to.
        theta: where the vector is, float32[P] little endian.
        train: False asks only for an evaluation: training is over, or paused.
        codec: how updates against this release are encoded.
        codec_dtype: the dtype of a dense codec.
        step: the lattice step, 0 for none.
        plan: how to train.
        max_staleness: how many releases later an update against this one is still counted.
    """

    run: int
    number: int
    bundle: bytes
    theta: Blob
    train: bool
    codec: str
    codec_dtype: str
    step: float
    plan: Plan
    max_staleness: int


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
)


@dataclass(frozen=True, slots=True)
class Frame:
    """A message with its envelope. `task` is "" where the message is about no task."""

    task: str
    node: str
    boot: int
    seq: int
    message: Message

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
    """The bytes of a frame."""
    kind = _KINDS[type(frame.message)]
    body = _WRITERS[type(frame.message)](frame.message)
    return bytes(msgpack.packb([VERSION, kind, frame.task, frame.node, frame.boot, frame.seq, body]))


def unpack(data: bytes, limit_bytes: int = MAX_FRAME_BYTES) -> Frame:
    """Parse a frame.

    Raises:
        WireError: larger than `limit_bytes`, not MessagePack, another version, an unknown kind, or any place of another
            type or out of range.
    """
    if len(data) > limit_bytes:
        raise WireError("size", f"{len(data)} bytes, at most {limit_bytes}")
    try:
        envelope = msgpack.unpackb(
            data, raw=False, use_list=False, strict_map_key=True, max_array_len=_MAX_ITEMS, max_map_len=_MAX_ITEMS, max_ext_len=0
        )
    except (ValueError, msgpack.exceptions.UnpackException, RecursionError, UnicodeDecodeError) as error:
        raise WireError("msgpack", str(error)[:80]) from error
    if not isinstance(envelope, tuple) or len(envelope) < 7:
        raise WireError("envelope", "not an array of seven places")
    version, kind, task, node, boot, seq, body = envelope[:7]
    if version != VERSION or isinstance(version, bool):
        raise WireError("version", f"schema version {version!r}, this edgemw speaks {VERSION}")
    if not isinstance(kind, int) or kind not in _READERS or not isinstance(body, tuple) or _depth(body) > _DEPTH:
        raise WireError("kind", f"kind {kind!r}")
    if not (isinstance(task, str) and (task == "" or valid_id(task)) and isinstance(node, str) and valid_id(node)):
        raise WireError("envelope", "task or node")
    try:
        message = _READERS[kind](body)
    except (IndexError, TypeError, ValueError) as error:
        raise WireError("body", f"kind {kind}: {error}") from error
    return Frame(task, node, integer(boot), integer(seq), message)


def _depth(value: Any) -> int:
    if isinstance(value, tuple):
        return 1 + max(map(_depth, value), default=0)
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    return 0


# -- bodies: writers and readers, side by side -----------------------------------------------------------------------


def _write_blob(blob: Blob) -> list[Any]:
    return [blob.digest, blob.size, blob.chunk_size]


def _read_blob(body: Any) -> Blob:
    sha, size, chunk_size = body[:3]
    blob = Blob(digest(sha), integer(size, 1, MAX_FRAME_BYTES), integer(chunk_size, 1, MAX_CHUNK_BYTES))
    if blob.chunks > 1 << 20:
        raise WireError("size", "too many chunks")
    return blob


def _write_update(update: Update) -> list[Any]:
    sections = [[s.base, s.weight, s.count, s.energy, s.payload] for s in update.sections]
    return [update.run, update.codec, update.size, sections, {k: list(v) for k, v in update.tally.items()}, update.report_on]


def _read_update(body: Any) -> Update:
    run, codec, size, sections, tally, report_on = body[:6]
    read = tuple(_read_section(section) for section in sections)
    bases = [section.base for section in read]
    if bases != sorted(set(bases)):
        raise WireError("sections", "bases are not increasing")
    if not isinstance(tally, dict) or len(tally) > 64:
        raise WireError("tally", "not a small map")
    sums = {word(name): (real(value[0]), real(value[1])) for name, value in tally.items()}
    return Update(integer(run), word(codec), integer(size, 1, 1 << 31), read, sums, integer(report_on, -1))


def _read_section(section: Any) -> Section:
    base, weight, count, energy, payload = section[:5]
    if not isinstance(payload, bytes):
        raise WireError("payload", "not bytes")
    energy = real(energy)
    if energy < 0:
        raise WireError("energy", "negative")
    return Section(integer(base), integer(weight, 1), integer(count, 1, 1 << 31), energy, payload)


def _read_grant(body: Any) -> Grant:
    if not isinstance(body[1], bytes) or len(body[1]) > 1 << 17:
        raise WireError("grant", "not a bitmap")
    return Grant(digest(body[0]), body[1])


def _read_chunk(body: Any) -> Chunk:
    if not isinstance(body[2], bytes) or len(body[2]) > MAX_CHUNK_BYTES:
        raise WireError("chunk", "not bytes of at most 1 MiB")
    return Chunk(digest(body[0]), integer(body[1], 0, 1 << 20), body[2])


def _write_release(m: ReleaseManifest) -> list[Any]:
    p = m.plan
    plan = [p.optimizer, p.lr, p.momentum, p.weight_decay, p.prox_mu, p.epochs, p.steps, p.batch_size, p.clip]
    theta = _write_blob(m.theta)
    return [m.run, m.number, m.bundle, theta, m.train, m.codec, m.codec_dtype, m.step, plan, m.max_staleness]


def _read_release(body: Any) -> ReleaseManifest:
    run, number_, bundle, theta, train, codec, dtype, step, plan, staleness = body[:10]
    step = real(step)
    if step < 0:
        raise WireError("step", "negative")
    return ReleaseManifest(
        run=integer(run),
        number=integer(number_),
        bundle=digest(bundle),
        theta=_read_blob(theta),
        train=flag(train),
        codec=word(codec),
        codec_dtype=word(dtype),
        step=step,
        plan=_read_plan(plan),
        max_staleness=integer(staleness, 0, 1 << 20),
    )


def _read_plan(body: Any) -> Plan:
    optimizer, lr, momentum, decay, mu, epochs, steps, batch, clip = body[:9]
    values = [real(value) for value in (lr, momentum, decay, mu, clip)]
    if min(values) < 0:
        raise WireError("plan", "a negative value")
    lr, momentum, decay, mu, clip = values
    amount = integer(epochs, 0, 10**6), integer(steps, 0, 10**9), integer(batch, 1, 10**6)
    return Plan(word(optimizer), lr, momentum, decay, mu, *amount, clip)


def _facts(value: Any) -> dict[str, int | float | str]:
    if not isinstance(value, dict) or len(value) > 256:
        raise WireError("facts", "not a small map")
    return {word(name): number(fact) for name, fact in value.items()}


_WRITERS: dict[type, Callable[[Any], list[Any]]] = {
    Presence: lambda m: [m.state, m.role, m.parent],
    Update: _write_update,
    Offer: lambda m: _write_blob(m.blob),
    Grant: lambda m: [m.digest, m.missing],
    Chunk: lambda m: [m.digest, m.index, m.data],
    Ack: lambda m: [m.boot, m.seq],
    Outcome: lambda m: [m.boot, m.seq, m.counted, m.release, m.reason],
    TaskManifest: lambda m: _write_blob(m.blob),
    ReleaseManifest: _write_release,
    StatusRequest: lambda m: [],
    Status: lambda m: [m.role, m.parent, m.state, m.reason, m.facts],
    RoundReport: lambda m: [m.release, m.finished, m.facts, list(m.late)],
}
_KINDS: dict[type, int] = {kind: number for number, kind in enumerate(_WRITERS, start=1)}
_READERS: dict[int, Callable[[Any], Message]] = {
    _KINDS[Presence]: lambda b: Presence(word(b[0]), word(b[1]), word(b[2])),
    _KINDS[Update]: _read_update,
    _KINDS[Offer]: lambda b: Offer(_read_blob(b)),
    _KINDS[Grant]: _read_grant,
    _KINDS[Chunk]: _read_chunk,
    _KINDS[Ack]: lambda b: Ack(integer(b[0]), integer(b[1])),
    _KINDS[Outcome]: lambda b: Outcome(integer(b[0]), integer(b[1]), flag(b[2]), integer(b[3], -1), word(b[4])),
    _KINDS[TaskManifest]: lambda b: TaskManifest(_read_blob(b)),
    _KINDS[ReleaseManifest]: _read_release,
    _KINDS[StatusRequest]: lambda b: StatusRequest(),
    _KINDS[Status]: lambda b: Status(word(b[0]), word(b[1]), word(b[2]), word(b[3], 500), _facts(b[4])),
    _KINDS[RoundReport]: lambda b: RoundReport(integer(b[0]), flag(b[1]), _facts(b[2]), words(b[3])),
}
