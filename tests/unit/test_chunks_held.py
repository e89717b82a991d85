"""What a node holds of transfers that are not complete: fair between senders, bounded in number and bytes."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest

from edgemw.core.errors import WireError
from edgemw.wire.chunks import blob_of, cut
from edgemw.wire.fetching import AHEAD, MAX_ACTIVE, MAX_KNOWN, Fetching
from edgemw.wire.incoming import MAX_UPDATES, MAX_UPDATES_PER_NODE, Incoming
from edgemw.wire.messages import Blob, Chunk
from edgemw.wire.topics import Topic
from tests.unit.test_chunks import SIZE, content

TOPIC = Topic("net", "fog", "update", {"node": "a", "task": "t"})


def numbered(number: int, chunks: int = 4) -> tuple[Blob, list[Chunk]]:
    data = number.to_bytes(4, "big") + content(chunks * SIZE - 4)
    blob = blob_of(data, SIZE)
    return blob, [cut(data, blob, index) for index in range(chunks)]


# -- updates that are offered


def test_an_update_arrives_once_and_is_let_go() -> None:
    blob, chunks = numbered(0)
    incoming = Incoming(1 << 20)
    assert incoming.offer("a", TOPIC, blob) == [0, 1, 2, 3]
    assert incoming.add("a", chunks[2]) is None
    assert incoming.offer("a", TOPIC, blob) == [0, 1, 3]
    results = [incoming.add("a", chunks[index]) for index in (0, 1, 3)]
    assert results == [None, None, (TOPIC, b"".join(chunk.data for chunk in chunks))]
    assert (len(incoming), incoming.held_bytes) == (0, 0)
    with pytest.raises(WireError, match="unasked"):
        incoming.add("a", chunks[0])


def test_a_sender_cannot_fill_in_for_another() -> None:
    blob, chunks = numbered(0)
    incoming = Incoming(1 << 20)
    incoming.offer("a", TOPIC, blob)
    with pytest.raises(WireError, match="unasked"):
        incoming.add("b", chunks[0])


def test_the_same_digest_with_another_size_begins_again() -> None:
    blob, chunks = numbered(0)
    incoming = Incoming(1 << 20)
    incoming.offer("a", TOPIC, blob)
    incoming.add("a", chunks[0])
    assert incoming.offer("a", TOPIC, Blob(blob.digest, blob.size, 2 * SIZE)) == [0, 1]
    assert (len(incoming), incoming.held_bytes) == (1, 0)


def test_who_offers_without_end_displaces_itself() -> None:
    incoming = Incoming(1 << 20)
    honest, chunks = numbered(0)
    incoming.offer("honest", TOPIC, honest)
    incoming.add("honest", chunks[0])
    for number in range(1, 100):
        incoming.offer("flood", TOPIC, numbered(number)[0])
    assert len(incoming) == 1 + MAX_UPDATES_PER_NODE
    assert incoming.offer("honest", TOPIC, honest) == [1, 2, 3]


def test_many_senders_together_are_bounded_in_number() -> None:
    incoming = Incoming(1 << 20)
    for number in range(MAX_UPDATES + 50):
        incoming.offer(f"node-{number}", TOPIC, numbered(number)[0])
    assert len(incoming) == MAX_UPDATES


def test_bytes_are_bounded_and_the_largest_holder_gives_way() -> None:
    incoming = Incoming(8 * SIZE)
    honest, chunks = numbered(0)
    incoming.offer("honest", TOPIC, honest)
    for chunk in chunks[:3]:
        incoming.add("honest", chunk)
    for number in range(1, 9):
        blob, parts = numbered(number)
        incoming.offer("flood", TOPIC, blob)
        for chunk in parts[:3]:
            incoming.add("flood", chunk)
            assert incoming.held_bytes <= 8 * SIZE
    complete = incoming.add("honest", chunks[3])
    assert complete is not None


# -- blobs that are wanted


def wanted(fetching: Fetching) -> list[Blob]:
    """The blobs that are asked for, in order."""
    return list(dict.fromkeys(blob for _, blob, _ in fetching.asked))


def test_a_blob_is_fetched_once() -> None:
    blob, chunks = numbered(0)
    fetching = Fetching(1 << 20)
    fetching.want("fog", blob)
    fetching.want("fog", blob)
    assert (len(fetching), fetching.asked) == (1, [("fog", blob, index) for index in range(len(chunks))])
    assert [fetching.add(chunk) for chunk in chunks][-1] == (blob, b"".join(chunk.data for chunk in chunks))
    assert (len(fetching), fetching.asked, fetching.held_bytes) == (0, [], 0)
    assert fetching.add(chunks[0]) is None  # the broker still delivers what was on its way


def test_a_few_chunks_are_asked_for_at_a_time_and_none_that_is_here() -> None:
    data = bytes(range(200))
    blob = blob_of(data, 5)
    fetching = Fetching(1 << 20)
    fetching.want("fog", blob)
    order = [index for index in range(blob.chunks) if index % 3] + list(range(0, blob.chunks, 3))
    for index in order[:-1]:
        assert len(fetching.asked) <= AHEAD
        fetching.add(cut(data, blob, index))
        assert index not in {asked for _, _, asked in fetching.asked}
    assert fetching.add(cut(data, blob, order[-1])) == (blob, data)


def test_the_newest_goes_first_and_the_others_have_their_turn() -> None:
    fetching = Fetching(1 << 20)
    blobs = [numbered(number) for number in range(MAX_ACTIVE + 3)]
    for blob, _ in blobs:
        fetching.want("fog", blob)
    assert wanted(fetching) == [blob for blob, _ in blobs[:2:-1]]
    for blob, chunks in reversed(blobs):
        assert blob in wanted(fetching)
        assert [fetching.add(chunk) for chunk in chunks][-1] is not None
    assert len(fetching) == 0


def test_wanting_more_than_can_be_known_gives_the_oldest_up() -> None:
    fetching = Fetching(1 << 20)
    for number in range(MAX_KNOWN + 10):
        fetching.want("fog", numbered(number)[0])
    assert len(fetching) == MAX_KNOWN
    assert wanted(fetching)[0] == numbered(MAX_KNOWN + 9)[0]


def test_what_stands_still_is_asked_for_again_and_holds_up_nobody() -> None:
    fetching = Fetching(1 << 20)
    gone = [numbered(number)[0] for number in range(MAX_ACTIVE)]
    waiting, chunks = numbered(99)
    fetching.want("fog", waiting)
    for blob in gone:
        fetching.want("fog", blob)
    assert waiting not in wanted(fetching)
    assert fetching.look() == []  # they were asked for only now
    again = {blob for _, blob, _ in fetching.look()}
    assert waiting in wanted(fetching)
    assert len(again) == MAX_ACTIVE - 1
    assert waiting not in again
    fetching.add(chunks[0])
    assert waiting not in {blob for _, blob, _ in fetching.look()}  # it moves
    assert waiting in wanted(fetching)


def test_nothing_is_asked_for_again_while_anything_comes_and_then_less_and_less_often() -> None:
    (slow, _), (moving, chunks) = numbered(0), numbered(1, chunks=40)
    fetching = Fetching(1 << 20)
    fetching.want("fog", slow)
    fetching.want("fog", moving)
    for chunk in chunks:
        fetching.add(chunk)
        assert fetching.look() == []
    asked = [look for look in range(1, 40) if fetching.look()]
    assert asked == [1, 3, 7, 15, 31]


def test_duplicates_are_no_progress() -> None:
    blob, chunks = numbered(0)
    fetching = Fetching(1 << 20)
    fetching.want("fog", blob)
    fetching.add(chunks[0])
    assert fetching.look() == []
    fetching.add(chunks[0])
    assert fetching.look() == [("fog", blob, index) for index in range(1, len(chunks))]
    assert fetching.held_bytes == SIZE  # what came is kept


def test_what_arrived_altered_is_asked_for_again_at_the_next_look_and_not_at_once() -> None:
    blob, chunks = numbered(0)
    fetching = Fetching(1 << 20)
    fetching.want("fog", blob)
    for chunk in chunks[:-1]:
        fetching.add(chunk)
    with pytest.raises(WireError, match="altered"):
        fetching.add(replace(chunks[-1], data=bytes(len(chunks[-1].data))))
    assert (fetching.asked, fetching.held_bytes) == ([], 0)
    fetching.look()
    assert fetching.look() == [("fog", blob, index) for index in range(len(chunks))]
    assert [fetching.add(chunk) for chunk in chunks][-1] is not None


def test_bytes_of_blobs_are_bounded_and_the_last_in_line_begins_again() -> None:
    fetching = Fetching(6 * SIZE)
    old, new = numbered(0), numbered(1)
    for blob, chunks in (old, new):
        fetching.want("fog", blob)
        for chunk in chunks[:3]:
            fetching.add(chunk)
    assert fetching.held_bytes == 6 * SIZE
    third, chunks = numbered(2)
    fetching.want("fog", third)
    fetching.add(chunks[0])
    assert fetching.held_bytes == 4 * SIZE
    assert fetching.add(new[1][3]) is not None
    assert [fetching.add(chunk) for chunk in old[1]][-1] is not None


def test_the_same_blob_from_another_domain_begins_again_there() -> None:
    blob, chunks = numbered(0)
    fetching = Fetching(1 << 20)
    fetching.want("fog", blob)
    fetching.add(chunks[0])
    fetching.want("top", blob)
    assert (wanted(fetching), fetching.held_bytes) == ([blob], 0)
    assert {domain for domain, _, _ in fetching.asked} == {"top"}


# -- in another life


class Memory(dict[tuple[str, bytes], dict[int, bytes]]):
    """Parts that outlive what uses them."""

    def keep(self, owner: str, blob: Blob, index: int, data: bytes) -> None:
        self.setdefault((owner, blob.digest), {})[index] = data

    def kept(self, owner: str, blob: Blob) -> dict[int, bytes]:
        return dict(self.get((owner, blob.digest), {}))

    def forget(self, owner: str, digest: bytes) -> None:
        self.pop((owner, digest), None)


def test_another_life_fetches_the_chunks_that_are_missing() -> None:
    blob, chunks = numbered(0)
    parts = Memory()
    first = Fetching(1 << 20, parts)
    first.want("fog", blob)
    for chunk in (chunks[2], chunks[0]):
        first.add(chunk)
    second = Fetching(1 << 20, parts)
    second.want("fog", blob)
    assert [index for _, _, index in second.asked] == [1, 3]
    second.add(chunks[3])
    assert second.add(chunks[1]) == (blob, b"".join(chunk.data for chunk in chunks))
    assert parts == {}


def test_another_life_grants_the_chunks_that_are_missing_to_whom_they_belong() -> None:
    blob, chunks = numbered(0)
    parts = Memory()
    first = Incoming(1 << 20, parts)
    first.offer("a", TOPIC, blob)
    first.add("a", chunks[1])
    second = Incoming(1 << 20, parts)
    assert second.offer("b", TOPIC, blob) == [0, 1, 2, 3]
    assert second.offer("a", TOPIC, blob) == [0, 2, 3]
    for chunk in (chunks[0], chunks[2]):
        second.add("a", chunk)
    assert second.add("a", chunks[3]) == (TOPIC, b"".join(chunk.data for chunk in chunks))
    assert ("a", blob.digest) not in parts


def test_what_gives_way_is_not_kept_either() -> None:
    parts = Memory()
    incoming = Incoming(3 * SIZE, parts)
    for number in range(3):
        blob, chunks = numbered(number)
        incoming.offer("a", TOPIC, blob)
        for chunk in chunks[:2]:
            with contextlib.suppress(WireError):
                incoming.add("a", chunk)
    assert sum(len(data) for kept in parts.values() for data in kept.values()) == incoming.held_bytes <= 3 * SIZE
