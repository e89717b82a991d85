"""Blobs in pieces: any order, duplicates, damage, and memory that is bounded by what arrived."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemw.core.errors import WireError
from edgemw.wire.chunks import CHUNK_BYTES, Assembler, bitmap, blob_of, cut, indexes
from edgemw.wire.messages import Blob, Chunk
from tests.unit.test_wire_kinds import patient

SIZE = 1024


def content(size: int) -> bytes:
    return hashlib.shake_128(str(size).encode()).digest(size)


def pieces(data: bytes, blob: Blob) -> list[Chunk]:
    return [cut(data, blob, index) for index in range(blob.chunks)]


@patient
@given(st.data())
def test_any_order_and_duplicates(data: st.DataObject) -> None:
    whole = content(data.draw(st.integers(1, 5 * SIZE)))
    blob = blob_of(whole, SIZE)
    chunks = data.draw(st.permutations(pieces(whole, blob)))
    again = data.draw(st.lists(st.sampled_from(chunks[:-1]), max_size=4)) if len(chunks) > 1 else []
    assembler = Assembler(blob)
    for chunk in [*chunks[:-1], *again]:
        assert assembler.add(chunk) is None
    assert assembler.duplicates == len(again)
    assert assembler.missing == [chunks[-1].index]
    assert assembler.held_bytes == len(whole) - len(chunks[-1].data)
    assert assembler.add(chunks[-1]) == whole


@pytest.mark.parametrize("chunk_size", [SIZE, CHUNK_BYTES])
@pytest.mark.parametrize("difference", [-1, 0, 1])
@pytest.mark.parametrize("times", [1, 2])
def test_sizes_around_the_boundaries(chunk_size: int, difference: int, times: int) -> None:
    whole = content(times * chunk_size + difference)
    blob = blob_of(whole, chunk_size)
    chunks = pieces(whole, blob)
    assert len(chunks) == times + (difference > 0)
    assert b"".join(chunk.data for chunk in chunks) == whole
    results = [Assembler(blob).add(chunks[0])] if len(chunks) == 1 else [assembled(blob, chunks)]
    assert results == [whole]


def assembled(blob: Blob, chunks: list[Chunk]) -> bytes | None:
    assembler = Assembler(blob)
    return [assembler.add(chunk) for chunk in chunks][-1]


def test_a_single_byte() -> None:
    blob = blob_of(b"x", SIZE)
    assert (blob.chunks, assembled(blob, pieces(b"x", blob))) == (1, b"x")


def test_nothing_is_no_blob() -> None:
    with pytest.raises(ValueError, match="at least one byte"):
        blob_of(b"")


def test_chunks_that_do_not_belong() -> None:
    whole = content(2 * SIZE + 10)
    blob = blob_of(whole, SIZE)
    first, _, last = pieces(whole, blob)
    wrong = [
        replace(first, digest=bytes(32)),
        replace(first, index=3),
        replace(first, index=-1),
        replace(first, index=1 << 62),
        replace(first, index=2),  # the last one is shorter
        replace(last, index=0),
        replace(first, data=first.data[:-1]),
        replace(first, data=first.data + b"x"),
        replace(first, data=b""),
    ]
    assembler = Assembler(blob)
    for chunk in wrong:
        with pytest.raises(WireError, match="chunk"):
            assembler.add(chunk)
    assert (assembler.held_bytes, assembler.missing) == (0, [0, 1, 2])


def test_altered_data_is_forgotten_and_repaired() -> None:
    whole = content(2 * SIZE)
    blob = blob_of(whole, SIZE)
    first, second = pieces(whole, blob)
    assembler = Assembler(blob)
    assembler.add(replace(first, data=bytes(SIZE)))
    with pytest.raises(WireError, match="digest"):
        assembler.add(second)
    assert (assembler.held_bytes, assembler.missing) == (0, [0, 1])
    assert assembler.add(second) is None
    assert assembler.add(first) == whole


def test_a_later_delivery_of_a_chunk_replaces_an_altered_one() -> None:
    whole = content(2 * SIZE)
    blob = blob_of(whole, SIZE)
    first, second = pieces(whole, blob)
    assembler = Assembler(blob)
    assembler.add(replace(first, data=bytes(SIZE)))
    assembler.add(first)
    assert assembler.held_bytes == SIZE
    assert assembler.add(second) == whole


def test_a_promise_takes_no_memory() -> None:
    huge = Blob(bytes(32), 1 << 32, 1 << 20)
    assembler = Assembler(huge)
    assert assembler.held_bytes == 0
    assembler.add(Chunk(bytes(32), 4095, bytes(1 << 20)))
    assert assembler.held_bytes == 1 << 20
    assembler.forget()
    assert (assembler.held_bytes, len(assembler.missing)) == (0, 4096)


@patient
@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1)))))
def test_bitmaps(case: tuple[int, set[int]]) -> None:
    chunks, chosen = case
    bits = bitmap(sorted(chosen), chunks)
    assert len(bits) == -(-chunks // 8)
    assert indexes(bits, chunks) == sorted(chosen)


def test_a_bitmap_of_another_length_names_no_chunk_that_is_not_there() -> None:
    assert indexes(b"\xff\xff\xff", 3) == [0, 1, 2]
    assert indexes(b"\x80", 100) == [7]
    assert indexes(b"", 100) == []
