"""Every kind of message goes to bytes and back unchanged, and later versions may add places."""

from __future__ import annotations

import dataclasses
import math
import string
from typing import Any

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgemw.core.encoded import Section
from edgemw.core.errors import WireError
from edgemw.core.ids import UpdateId
from edgemw.core.plan import Plan
from edgemw.wire import messages
from edgemw.wire.fields import MAX_INTEGER
from edgemw.wire.messages import (
    KINDS,
    PARTS,
    Ack,
    Blob,
    Chunk,
    Difference,
    Frame,
    Grant,
    Group,
    MaskKeys,
    Member,
    Message,
    NoGroup,
    Offer,
    Outcome,
    Presence,
    ReleaseManifest,
    Revealed,
    RoundReport,
    Shares,
    Status,
    StatusRequest,
    TaskManifest,
    Telemetry,
    Unmask,
    Update,
    encoded_of,
    pack,
    pack_difference,
    unpack,
    unpack_difference,
)
from edgemw.wire.readings import PLACES

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # this says nothing about speed
ids = st.text(string.ascii_lowercase + string.digits + "-", min_size=1, max_size=40)
nodes = ids.filter(lambda name: name != "all")
naturals = st.integers(0, MAX_INTEGER)
reals = st.floats(allow_nan=False, allow_infinity=False)
amounts = st.floats(min_value=0, allow_nan=False, allow_infinity=False)
printable = st.characters(categories=("L", "N", "P", "S"), include_characters=" ").filter(str.isprintable)
words = st.text(printable, max_size=80)
digests = st.binary(min_size=32, max_size=32) | st.binary(min_size=16, max_size=16)
labels = st.binary(min_size=16, max_size=16)
blobs = st.builds(Blob, digests, st.integers(1, 1 << 26), st.integers(1 << 10, 1 << 20)).filter(
    lambda blob: blob.chunks <= 1 << 16
)
sections = st.builds(Section, naturals, st.integers(1, MAX_INTEGER), st.integers(1, 1 << 31), amounts, st.binary(max_size=200))
facts = st.dictionaries(words, st.integers(-MAX_INTEGER, MAX_INTEGER) | reals | st.text(printable, max_size=200), max_size=12)
parents = st.just("") | nodes
plans = st.builds(
    Plan, words, amounts, amounts, amounts, amounts, st.integers(0, 10**6), st.integers(0, 10**9), st.integers(1, 10**6), amounts,
    update_clip=st.just(0.0) | amounts, update_noise=st.just(0.0) | amounts, by_sample=st.integers(0, 1),
)  # fmt: skip


@st.composite
def updates(draw: st.DrawFn) -> Update:
    parts = draw(st.lists(sections, max_size=4, unique_by=lambda section: section.base))
    masked = len(parts) == 1 and draw(st.booleans())
    return Update(
        group=draw(labels) if masked else b"",
        wide=draw(st.binary(min_size=24, max_size=24)) if masked else b"",
        run=draw(naturals),
        codec=draw(words),
        size=draw(st.integers(1, 1 << 31)),
        sections=tuple(sorted(parts, key=lambda section: section.base)),
        tally=draw(st.dictionaries(words, st.tuples(reals, reals), max_size=8)),
        report_on=draw(st.integers(-1, MAX_INTEGER)),
    )


whole_blobs = blobs.filter(lambda blob: len(blob.digest) == 32)
differences = st.builds(
    Difference, labels, st.one_of(st.just(()), st.tuples(blobs)), st.binary(max_size=200)
)  # fmt: skip
ways = st.one_of(  # whole, difference, packed
    st.just((True, b"", ())),
    st.tuples(st.booleans(), differences.map(pack_difference), st.just(())),
    st.tuples(st.booleans(), st.just(b""), st.tuples(blobs)),
)
releases = st.builds(
    lambda manifest, way, by, threshold: dataclasses.replace(
        manifest, whole=way[0], difference=way[1], packed=way[2], signature=by, threshold=threshold
    ),
    st.builds(
        ReleaseManifest,
        naturals, naturals, labels, whole_blobs, st.booleans(), words, facts, amounts, st.none() | plans, st.integers(0, 1 << 20),
    ),
    ways,
    st.just(b"") | st.binary(min_size=64, max_size=64),
    st.integers(0, 100),
)  # fmt: skip
keys = st.binary(min_size=32, max_size=32)
groups = st.builds(
    lambda run, release, members: Group(run, release, len(members), tuple(sorted(members, key=lambda member: member.node))),
    naturals, naturals,
    st.lists(st.builds(Member, nodes, keys, keys), min_size=1, max_size=5, unique_by=lambda member: member.node),
)  # fmt: skip


outcomes = st.builds(Outcome, naturals, naturals, st.booleans(), st.integers(-1, MAX_INTEGER), st.text(printable, max_size=200))
signatures = st.just(b"") | st.binary(min_size=64, max_size=64)
STRATEGIES: dict[type[Any], st.SearchStrategy[Any]] = {
    Presence: st.builds(Presence, words, words, parents, st.binary(max_size=200)),
    Update: updates(),
    Offer: st.builds(Offer, blobs),
    Grant: st.builds(Grant, digests, st.binary(max_size=1 << 8)),
    Chunk: st.builds(Chunk, digests, st.integers(0, (1 << 16) - 1), st.binary(max_size=1 << 8)),
    Ack: st.builds(Ack, naturals, naturals, st.lists(outcomes, max_size=3).map(tuple)),
    Outcome: outcomes,
    TaskManifest: st.builds(TaskManifest, whole_blobs, st.integers(-1, MAX_INTEGER), signatures),
    ReleaseManifest: releases,
    StatusRequest: st.just(StatusRequest()),
    Status: st.builds(Status, words, parents, words, st.text(printable, max_size=500), facts),
    Telemetry: st.builds(
        Telemetry, st.just("") | ids, amounts, st.just("") | ids, words, st.dictionaries(st.sampled_from(sorted(PLACES)), reals)
    ),
    MaskKeys: st.builds(MaskKeys, naturals, naturals, keys, keys),
    Group: groups,
    Shares: st.builds(Shares, naturals, naturals, labels, st.lists(st.binary(max_size=82), max_size=5).map(tuple)),
    Unmask: st.builds(Unmask, naturals, naturals, labels, st.binary(max_size=16)),
    Revealed: st.builds(
        Revealed, naturals, naturals, labels, st.lists(st.binary(min_size=33, max_size=33), max_size=5).map(tuple)
    ),
    NoGroup: st.builds(NoGroup, naturals, naturals, st.text(printable, max_size=200)),
    RoundReport: st.builds(RoundReport, naturals, st.booleans(), facts, st.lists(nodes, max_size=5).map(tuple)),
}  # fmt: skip
frames = st.builds(Frame, st.just("") | ids, nodes, naturals, naturals, st.one_of(*STRATEGIES.values()), signatures)


def body_of(data: bytes) -> list[Any]:
    """The envelope as plain lists, to be changed by a test."""
    return list(msgpack.unpackb(data))


def test_every_kind_has_a_strategy_a_number_of_its_own_and_the_places_of_its_class() -> None:
    assert set(STRATEGIES) == {kind.body.cls for kind in KINDS} == set(Message.__args__)
    assert [kind.number for kind in KINDS] == list(range(1, 20))
    for record in (*PARTS, *(kind.body for kind in KINDS)):
        assert list(record.places) == [place.name for place in dataclasses.fields(record.cls)]


@patient
@given(frames)
def test_pack_and_unpack_are_inverses(frame: Frame) -> None:
    data = pack(frame)
    assert unpack(data) == frame
    assert pack(unpack(data)) == data


@patient
@given(frames)
def test_readers_ignore_places_that_a_later_version_added(frame: Frame) -> None:
    def longer(value: Any) -> Any:
        return [*map(longer, value), None, {"later": [1]}] if isinstance(value, list) else value

    envelope = body_of(pack(frame))
    if isinstance(frame.message, Presence | TaskManifest | ReleaseManifest) or not frame.signature:
        frame = signed_throughout(frame)  # what may be absent is there where something follows it
        envelope = body_of(pack(frame))
    if isinstance(frame.message, RoundReport):  # `late` is a list of names, not a record
        envelope[6] = [*envelope[6], "later"]
    elif isinstance(frame.message, Ack):  # `outcomes` is a list of records
        envelope[6] = [*envelope[6][:2], [longer(outcome) for outcome in envelope[6][2]], "later"]
    elif isinstance(frame.message, ReleaseManifest):  # `packed` is a list of records
        packed, plan = [longer(blob) for blob in envelope[6][12]], envelope[6][8]
        if plan is not None:  # whoever knows more places writes all before them
            plan.extend([0.0] * (len(dataclasses.fields(Plan)) - len(plan)))
        last = frame.message.signature, frame.message.threshold
        envelope[6] = [*(longer(place) for place in envelope[6][:12]), packed, *last, "later"]
    elif isinstance(frame.message, Update):
        envelope[6][3] = [longer(section) for section in envelope[6][3]]
        envelope[6] = [*envelope[6][:6], frame.message.group, frame.message.wide, "later"]
    elif isinstance(frame.message, Shares | Revealed):  # a list of bytes
        envelope[6] = [*envelope[6], "later"]
    elif isinstance(frame.message, Group):  # `members` is a list of records
        envelope[6] = [*envelope[6][:3], [longer(member) for member in envelope[6][3]], "later"]
    else:
        envelope[6] = longer(envelope[6])
    assert unpack(msgpack.packb([*envelope, "later"])) == frame


def signed_throughout(frame: Frame) -> Frame:
    """The frame with every place that may be absent."""
    match frame.message:
        case Presence() as presence:
            frame = dataclasses.replace(frame, message=dataclasses.replace(presence, credential=b"x"))
        case TaskManifest() | ReleaseManifest() as manifest:
            frame = dataclasses.replace(frame, message=dataclasses.replace(manifest, signature=bytes(64)))
    return dataclasses.replace(frame, signature=bytes(64))


def unsigned(frame: Frame) -> Frame:
    """The frame as it was before there were signatures and masks."""
    match frame.message:
        case Presence() as presence:
            frame = dataclasses.replace(frame, message=dataclasses.replace(presence, credential=b""))
        case TaskManifest() as task:
            frame = dataclasses.replace(frame, message=TaskManifest(task.blob))
        case ReleaseManifest() as manifest:
            frame = dataclasses.replace(frame, message=dataclasses.replace(manifest, signature=b"", threshold=0))
        case Update() as update:
            frame = dataclasses.replace(frame, message=dataclasses.replace(update, group=b"", wide=b""))
    return dataclasses.replace(frame, signature=b"")


@patient
@given(frames)
def test_what_is_neither_signed_nor_masked_takes_no_byte_more(frame: Frame) -> None:
    envelope = body_of(pack(unsigned(frame)))
    assert len(envelope) == 7
    record = next(kind.body for kind in KINDS if kind.body.cls is type(frame.message))
    assert len(envelope[6]) == len(record.places) - len(record.later)
    assert unpack(pack(unsigned(frame))) == unsigned(frame)


@patient
@given(plans)
def test_places_that_a_later_version_added_are_there_only_where_they_say_something(plan: Plan) -> None:
    (record,) = (part for part in PARTS if part.cls is Plan)
    places = record.write(plan)
    last = max((at for at, name in enumerate(("update_clip", "update_noise", "by_sample"), 1) if getattr(plan, name)), default=0)
    assert len(places) == 13 + last
    assert record.read(tuple(places)) == plan
    assert record.read((*places, *(0.0, 0.0, 0)[len(places) - 13 :])) == plan
    with pytest.raises(WireError, match="13 places"):
        record.read(tuple(places[:12]))


@patient
@given(frames)
def test_a_missing_place_is_an_error(frame: Frame) -> None:
    envelope = body_of(pack(unsigned(frame)))
    with pytest.raises(WireError, match="envelope"):
        unpack(msgpack.packb(envelope[:-1]))
    if envelope[6]:
        with pytest.raises(WireError, match="value"):
            unpack(msgpack.packb([*envelope[:6], envelope[6][:-1]]))


@patient
@given(differences)
def test_a_difference_goes_to_bytes_and_back(difference: Difference) -> None:
    assert unpack_difference(pack_difference(difference)) == difference


@pytest.mark.parametrize(
    ("change", "about"),
    [
        ({"whole": False}, "cannot be had"),
        ({"difference": b"d", "packed": (Blob(bytes(32), 9, 1024),)}, "two differences"),
    ],
)
def test_a_release_has_at_most_one_difference_and_at_least_one_way(change: dict[str, Any], about: str) -> None:
    blob = Blob(bytes(32), 400, 1024)
    manifest = ReleaseManifest(1, 2, bytes(16), blob, True, "lattice", {}, 0.5, Plan(), 4)
    assert unpack(pack(Frame("t", "fog", 1, 0, manifest))).message == manifest
    with pytest.raises(WireError, match=about):
        unpack(pack(Frame("t", "fog", 1, 0, dataclasses.replace(manifest, **change))))


def test_places_that_hold_their_default_take_no_bytes() -> None:
    """What is written without masks is what was written before there were any."""
    manifest = ReleaseManifest(1, 2, bytes(16), Blob(bytes(32), 400, 1024), True, "lanes", {}, 0.5, None, 4)
    assert len(body_of(pack(Frame("t", "fog", 1, 0, manifest)))[6]) == 13
    assert (
        len(body_of(pack(Frame("t", "fog", 1, 0, dataclasses.replace(manifest, threshold=67))))[6]) == 15
    )  # a signature, or none, and it
    assert len(body_of(pack(Frame("t", "device", 1, 0, Update(1, "lanes", 8, ()))))[6]) == 6


@pytest.mark.parametrize(
    "group",
    [
        Group(1, 2, 3, (Member("a", bytes(32), bytes(32)),)),
        Group(1, 2, 1, (Member("b", bytes(32), bytes(32)), Member("a", bytes(32), bytes(32)))),
        Group(1, 2, 1, (Member("a", bytes(32), bytes(32)), Member("a", bytes(32), bytes(32)))),
    ],
    ids=["too-few", "out-of-order", "twice"],
)
def test_a_group_that_cannot_be_is_refused(group: Group) -> None:
    with pytest.raises(WireError, match="members of a group"):
        unpack(pack(Frame("t", "fog", 1, 0, group)))


@pytest.mark.parametrize(("label", "wide", "sections"), [(bytes(16), b"", 1), (b"", bytes(24), 1), (bytes(16), bytes(24), 2)])
def test_masks_stand_on_one_section_and_its_energy(label: bytes, wide: bytes, sections: int) -> None:
    parts = tuple(Section(base, 1, 1, 0.0, b"") for base in range(sections))
    with pytest.raises(WireError, match="masks stand on one section"):
        unpack(pack(Frame("t", "device", 1, 0, Update(1, "lanes", 8, parts, group=label, wide=wide))))


def test_the_identity_of_an_update_is_in_its_envelope() -> None:
    section = Section(3, 10, 1, 0.5, b"payload")
    frame = Frame("task", "node", 7, 9, Update(1, "lattice", 100, (section,), {}))
    encoded = encoded_of(frame)
    assert frame.id == UpdateId("node", 7, 9)
    assert (encoded.codec, encoded.size, encoded.sections) == ("lattice", 100, (section,))
    assert encoded.contributions == {frame.id}
    with pytest.raises(WireError, match="kind"):
        encoded_of(Frame("task", "node", 7, 9, Ack(1, 2)))


def test_a_blob_counts_its_chunks_and_names_itself() -> None:
    assert [Blob(bytes(32), size, 1024).chunks for size in (1, 1023, 1024, 1025, 2048)] == [1, 1, 1, 2, 2]
    assert Blob(bytes(range(32)), 1, 1024).name == "000102030405060708090a0b0c0d0e0f"


def test_a_writer_leaves_out_what_is_not_finite() -> None:
    update = Update(1, "lattice", 1, (), {"loss": (math.nan, 1.0), "weight": (1.0, math.inf), "bytes": (2.0, 1.0)})
    assert _through(update) == dataclasses.replace(update, tally={"bytes": (2.0, 1.0)})
    report = RoundReport(1, False, {"mse": math.inf, "release": 1, "note": "x"}, ())
    assert _through(report) == dataclasses.replace(report, facts={"release": 1, "note": "x"})


def test_a_writer_makes_texts_fit() -> None:
    assert _through(Outcome(1, 2, False, 3, "line\nbreak\x1b[2J \ud800" + 300 * "x")) == Outcome(
        1, 2, False, 3, ("line break [2J  " + 300 * "x")[:200]
    )
    status = _through(Status("fog", "", "waiting", 600 * "y", {"broker": "a\tb" + 300 * "z"}))
    assert status == Status("fog", "", "waiting", 500 * "y", {"broker": "a b" + 197 * "z"})


def test_the_largest_frames_fit_their_limits() -> None:
    chunk = Frame("t" * 40, "n" * 40, MAX_INTEGER, MAX_INTEGER, Chunk(bytes(32), 65535, bytes(messages.MAX_CHUNK_BYTES)))
    assert len(pack(chunk)) <= messages.MAX_MESSAGE_BYTES
    grant = Grant(bytes(32), bytes(messages.MAX_CHUNKS // 8))
    assert _through(grant) == grant
    many = tuple(Section(base, 1, 1, 1.0, b"") for base in range(messages.MAX_SECTIONS))
    tally = {f"sum-{n}": (1.0, 1.0) for n in range(64)}
    assert _through(Update(1, "lattice", 1, many, tally)) == Update(1, "lattice", 1, many, tally)
    status = Status("fog", "", "x", "", {f"fact-{n}": n for n in range(256)})
    assert _through(status) == status


def _through(message: Message) -> Message:
    return unpack(pack(Frame("task", "node", 1, 2, message))).message
