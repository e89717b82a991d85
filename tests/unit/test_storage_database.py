"""The database of a node: opened once, survives reopening, all or nothing, and clear words when it cannot be used."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgemw.core.errors import StorageError
from edgemw.storage.database import VERSION, Database

NOBODY = 65534

SECOND = """
import sys
from pathlib import Path
from edgemw.core.errors import StorageError
from edgemw.storage.database import Database

try:
    Database(Path(sys.argv[1]))
except StorageError as error:
    print(error)
"""


@contextmanager
def opened(folder: Path) -> Iterator[Database]:
    db = Database(folder)
    try:
        yield db
    finally:
        db.close()


@contextmanager
def unprivileged() -> Iterator[None]:
    """The superuser may write anywhere; anybody else may not."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def put(db: Database, key: str, value: int) -> None:
    db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", key, value)


def together(db: Database, statements: tuple[str, ...], error: Exception | None = None) -> None:
    """Run statements in one transaction, and raise the error at its end."""
    with db.transaction():
        for statement in statements:
            db.execute(statement)
        if error is not None:
            raise error


def keys(db: Database) -> list[object]:
    return [key for (key,) in db.execute("SELECT key FROM meta ORDER BY key")]


def test_what_was_written_is_there_after_reopening(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "state"
    with opened(folder) as db:
        put(db, "a", 7)
        with db.transaction():
            put(db, "b", 8)
    with opened(folder) as db:
        assert db.execute("SELECT key, value FROM meta ORDER BY key") == [("a", 7), ("b", 8)]


def test_a_new_folder_is_its_owners_and_one_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir(0o755)
    for folder, mode in (("new", 0o700), ("shared", 0o755)):
        with opened(tmp_path / folder):
            assert (tmp_path / folder).stat().st_mode & 0o777 == mode


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path):
        told = subprocess.run(
            [sys.executable, "-c", SECOND, str(tmp_path)], capture_output=True, text=True, timeout=60, check=True
        )
        assert "another process uses it" in told.stdout
        assert str(tmp_path) in told.stdout
    told = subprocess.run([sys.executable, "-c", SECOND, str(tmp_path)], capture_output=True, text=True, timeout=60, check=True)
    assert told.stdout == ""


def test_another_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    with opened(tmp_path) as db:
        put(db, "a", 1)
        db.execute(f"PRAGMA user_version = {VERSION + 1}")
    for _ in range(2):  # the refusal leaves nothing locked
        with pytest.raises(StorageError, match=f"has version {VERSION + 1}, this edgemw uses {VERSION}"):
            Database(tmp_path)
    raw = sqlite3.connect(tmp_path / "state.db")
    assert raw.execute("SELECT value FROM meta").fetchall() == [(1,)]
    raw.close()


@pytest.mark.parametrize(
    "content", [b"this is not a database, whatever its name says" * 100, b"SQLite format 3\0" + b"\xff" * 5000]
)
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "state.db").write_bytes(content)
    with pytest.raises(StorageError, match=r"state\.db: .*; give another folder or repair this one"):
        Database(tmp_path)


def test_damage_that_shows_later_is_a_storage_error_too(tmp_path: Path) -> None:
    with opened(tmp_path) as db:
        for n in range(500):
            put(db, f"key-{n:09}", n)
    path = tmp_path / "state.db"
    data = bytearray(path.read_bytes())
    data[8192:] = b"\xff" * (len(data) - 8192)
    path.write_bytes(data)
    with opened(tmp_path) as db, pytest.raises(StorageError, match=r"state\.db: "):
        db.execute("SELECT sum(value) FROM meta")


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="give another folder"):
        Database(tmp_path / "file" / "state")


def test_a_read_only_folder_is_refused() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o555)
        with unprivileged(), pytest.raises(StorageError, match="give another folder"):
            Database(folder)
        with unprivileged(), pytest.raises(StorageError, match="give another folder"):
            Database(folder / "deeper")
        folder.chmod(0o755)


def test_a_full_disk_is_a_storage_error_and_rolls_back(tmp_path: Path) -> None:
    with opened(tmp_path) as db:
        put(db, "before", 1)
        pages = db.execute("PRAGMA page_count")[0][0]
        db.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StorageError, match="full"):
            together(db, ("UPDATE meta SET value = 2", "INSERT INTO bundle VALUES ('t', x'00', zeroblob(100000))"))
        assert db.execute("SELECT key, value FROM meta") == [("before", 1)]
        db.execute("PRAGMA max_page_count = 1000000")
        with db.transaction():
            put(db, "after", 3)
        assert keys(db) == ["after", "before"]


def test_a_transaction_is_all_or_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as db:
        put(db, "kept", 1)
        with pytest.raises(InterruptedError):
            together(db, ("INSERT INTO meta VALUES ('lost', 2)", "DELETE FROM meta WHERE key = 'kept'"), InterruptedError())
        assert keys(db) == ["kept"]
        with db.transaction():
            put(db, "next", 3)
    with opened(tmp_path) as db:
        assert keys(db) == ["kept", "next"]


def test_a_mistake_in_a_statement_rolls_back_too(tmp_path: Path) -> None:
    with opened(tmp_path) as db:
        with pytest.raises(StorageError, match="has 2 columns but 1 values"):
            together(db, ("INSERT INTO meta VALUES ('lost', 1)", "INSERT INTO meta VALUES (NULL)"))
        assert keys(db) == []


def test_every_life_has_a_larger_number(tmp_path: Path) -> None:
    boots = []
    for now in (1000.9, 1000.9, 5.0, 1000.0, 2000.0):  # the clock may stand still or go back
        with opened(tmp_path) as db:
            boots.append(db.next_boot(now))
    assert boots == [1000, 1001, 1002, 1003, 2000]


def test_a_lost_folder_does_not_bring_old_numbers_back(tmp_path: Path) -> None:
    with opened(tmp_path / "first") as db:
        before = [db.next_boot(1_700_000_000.0) for _ in range(3)]
    with opened(tmp_path / "second") as db:
        assert db.next_boot(1_700_000_060.0) > max(before)


def test_without_a_clock_numbers_start_at_one(tmp_path: Path) -> None:
    with opened(tmp_path) as db:
        assert [db.next_boot(0.0), db.next_boot(0.0)] == [1, 2]
