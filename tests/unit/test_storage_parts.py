"""Chunks on disk: another life finds them, nobody else does, and they do not pile up."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgemw.storage.database import Database
from edgemw.storage.parts import DiskParts
from edgemw.wire.chunks import blob_of
from edgemw.wire.messages import Blob

DATA = bytes(range(100))
BLOB = blob_of(DATA, 30)


class Lives:
    """A folder that is opened again and again, as by a node that is killed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._db: Database | None = None

    def next(self, limit_bytes: int = 1000) -> DiskParts:
        self.end()
        self._db = Database(self._folder)
        return DiskParts(self._db, limit_bytes)

    def end(self) -> None:
        if self._db is not None:
            self._db.close()


@pytest.fixture
def lives(tmp_path: Path) -> Lives:
    return Lives(tmp_path)


def test_another_life_finds_what_was_kept_under_its_owner_and_its_size(lives: Lives) -> None:
    parts = lives.next()
    parts.keep("a", BLOB, 2, DATA[60:90])
    parts.keep("a", BLOB, 0, DATA[:30])
    parts.keep("", BLOB, 1, DATA[30:60])
    parts = lives.next()
    assert parts.kept("a", BLOB) == {0: DATA[:30], 2: DATA[60:90]}
    assert parts.kept("", BLOB) == {1: DATA[30:60]}
    assert parts.kept("b", BLOB) == {}
    assert parts.kept("a", Blob(BLOB.digest, 100, 25)) == {}  # cut otherwise: what was kept is of no use
    assert parts.kept("a", BLOB) == {}
    assert parts.held_bytes == 30
    lives.end()


def test_what_nobody_asked_for_in_a_life_is_gone_in_the_next(lives: Lives) -> None:
    parts = lives.next()
    parts.keep("a", BLOB, 0, DATA[:30])
    parts.keep("b", BLOB, 0, DATA[:30])
    for _ in range(3):
        assert lives.next().kept("a", BLOB) == {0: DATA[:30]}
    parts = lives.next()
    assert (parts.kept("b", BLOB), parts.held_bytes) == ({}, 30)
    lives.end()


def test_what_is_forgotten_or_beyond_the_limit_is_not_there(lives: Lives) -> None:
    parts = lives.next(limit_bytes=70)
    for index in range(3):
        parts.keep("a", BLOB, index, DATA[30 * index : 30 * index + 30])
    assert (sorted(parts.kept("a", BLOB)), parts.held_bytes) == ([0, 1], 60)
    parts.forget("a", BLOB.digest)
    parts.forget("a", BLOB.digest)
    assert (lives.next().kept("a", BLOB), parts.held_bytes) == ({}, 0)
    lives.end()


def test_a_disk_that_takes_nothing_ends_no_transfer_and_is_said_once(
    lives: Lives, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    parts = lives.next()
    parts.keep("a", BLOB, 0, DATA[:30])
    lives.end()  # as good as a full disk: every statement fails
    parts.keep("a", BLOB, 1, DATA[30:60])
    assert parts.kept("a", BLOB) == {}
    parts.forget("a", BLOB.digest)
    assert [record.message.split(":")[0] for record in caplog.records] == ["transfers begin again in another life"]
