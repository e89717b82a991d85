"""What nodes keep: outbox, memory, window, outcomes, bundle and release come back as they were given."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edgemw.core.encoded import Section
from edgemw.core.ids import UpdateId
from edgemw.core.plan import Plan
from edgemw.storage import journal, outbox
from edgemw.storage.database import Database
from edgemw.storage.journal import KEPT_OUTCOMES, OutcomeRow, ReleaseRow
from edgemw.storage.outbox import DeviceRow, KeptUpdate
from edgemw.wire.messages import Blob, Frame, ReleaseManifest, Update

ROW = DeviceRow(3, 5, 4, b"\0\1" * 8, 10, 1000, 2, 200, -1.5, 80.25, -1.25, 1e-7, 150)


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path)
    yield database
    database.close()


def update(seq: int, *, node: str = "device-0", boot: int = 1, task: str = "toy") -> Frame:
    section = Section(base=7, weight=20, count=1, energy=0.5, payload=bytes([seq % 256]) * 50)
    return Frame(task, node, boot, seq, Update(3, "lattice", 64, (section,), {"test.mse": (1.0, 2.0)}, 7))


def seqs(rows: list[KeptUpdate]) -> list[tuple[int, int]]:
    return [(row.frame.boot, row.frame.seq) for row in rows]


def manifest(number: int) -> Frame:
    blob = Blob(b"t" * 32, 256, 2048)
    return Frame("toy", "top", 9, 0, ReleaseManifest(3, number, b"b" * 16, blob, True, "lattice", {}, 0.5, Plan(), 4))


# -- outbox


def test_updates_come_back_oldest_first_with_their_members_and_state(db: Database) -> None:
    for boot, seq in ((2, 0), (1, 10), (1, 9)):
        outbox.put_update(db, update(seq, boot=boot), "fog-0", bytes([seq]))
    outbox.acknowledge(db, "toy", UpdateId("device-0", 1, 10))
    kept = outbox.kept_updates(db, "toy")
    assert seqs(kept) == [(1, 9), (1, 10), (2, 0)]
    assert kept[0] == KeptUpdate(update(9), "fog-0", b"\x09", False)
    assert [row.acknowledged for row in kept] == [False, True, False]


def test_receivers_are_those_who_have_not_said_what_became_of_an_update(db: Database) -> None:
    outbox.put_update(db, update(1), "fog-1")
    outbox.put_update(db, update(2), "fog-0")
    outbox.put_update(db, update(3), "fog-0")
    assert outbox.receivers(db) == ["fog-0", "fog-1"]
    outbox.forget(db, "toy", update(1).id)
    assert outbox.receivers(db) == ["fog-0"]


def test_an_update_without_a_note_has_none(db: Database) -> None:
    outbox.put_update(db, update(0), "fog-0")
    assert outbox.kept_updates(db, "toy")[0].note is None


def test_forgotten_updates_are_gone_and_others_stay(db: Database) -> None:
    for seq in range(3):
        outbox.put_update(db, update(seq), "fog-0")
    outbox.put_update(db, update(1, task="other"), "fog-0")
    outbox.forget(db, "toy", UpdateId("device-0", 1, 1))
    outbox.forget(db, "toy", UpdateId("device-0", 5, 5))
    assert seqs(outbox.kept_updates(db, "toy")) == [(1, 0), (1, 2)]
    assert seqs(outbox.kept_updates(db, "other")) == [(1, 1)]


def test_acknowledging_what_is_not_there_changes_nothing(db: Database) -> None:
    outbox.acknowledge(db, "toy", UpdateId("device-0", 1, 1))
    assert outbox.kept_updates(db, "toy") == []


@pytest.mark.parametrize(
    "row", [ROW, replace(ROW, residual=None, personal={"head.w": b"abcd"}), DeviceRow(-1, -1, -1, None, 0, 0, 0, 0)]
)
def test_a_devices_memory_comes_back(db: Database, row: DeviceRow) -> None:
    assert outbox.device_row(db, "toy") is None
    outbox.put_device_row(db, "toy", replace(ROW, run=1, personal={"head.w": b"old.", "head.b": b"1234"}))
    outbox.put_device_row(db, "other", replace(ROW, personal={"head.w": b"else"}))
    outbox.put_device_row(db, "toy", row)
    assert outbox.device_row(db, "toy") == row
    assert outbox.device_row(db, "other") == replace(ROW, personal={"head.w": b"else"})
    assert outbox.device_row(db, "third") is None


def test_tasks_are_known_by_anything_that_is_kept_about_them(db: Database) -> None:
    assert outbox.known_tasks(db) == []
    outbox.put_device_row(db, "memory", ROW)
    outbox.put_update(db, update(0, task="sent"), "fog-0")
    journal.put_window(db, update(0, task="received"))
    journal.put_release(db, "released", ReleaseRow(manifest(1), b"", None, None, None, 0, 0, 0, 0, None, 0.0, "{}", "{}"))
    assert sorted(outbox.known_tasks(db)) == ["memory", "received", "released", "sent"]


# -- window and outcomes


def test_the_window_comes_back_in_order_and_without_duplicates(db: Database) -> None:
    frames = [update(1, node="b"), update(2, node="a"), update(11, node="a"), update(0, node="a", boot=2)]
    for frame in [*frames, frames[0]]:
        journal.put_window(db, frame)
    assert journal.open_window(db, "toy") == [frames[1], frames[2], frames[3], frames[0]]
    journal.take_from_window(db, "toy", frames[1].id)
    assert len(journal.open_window(db, "toy")) == 3
    assert journal.open_window(db, "other") == []


def test_an_outcome_takes_its_update_out_of_the_window(db: Database) -> None:
    frame = update(1)
    journal.put_window(db, frame)
    row = OutcomeRow(frame.id, counted=False, release=4, reason="stale: trained from release 0, now 5")
    journal.put_outcomes(db, "toy", [row])
    assert journal.open_window(db, "toy") == []
    assert journal.outcomes(db, "toy") == [row]


@pytest.mark.parametrize("together", [1, 7, 100])
def test_the_newest_outcomes_of_each_child_stay(db: Database, together: int) -> None:
    ids = [UpdateId("busy", boot, seq) for boot in (1, 2) for seq in range(50)]
    with db.transaction():
        for first in range(0, len(ids), together):
            some = [*ids[50:], *ids[:50]][first : first + together]  # in whatever order they were settled
            journal.put_outcomes(db, "toy", [OutcomeRow(update_id, True, 1, "") for update_id in some])
        journal.put_outcomes(db, "toy", [OutcomeRow(UpdateId("quiet", 1, seq), True, 1, "") for seq in range(3)])
        journal.put_outcomes(db, "other", [OutcomeRow(UpdateId("busy", 1, 0), True, 1, "")])
    kept = [row.update for row in journal.outcomes(db, "toy")]
    assert sorted(update_id for update_id in kept if update_id.node == "busy") == ids[-KEPT_OUTCOMES:]
    assert sum(update_id.node == "quiet" for update_id in kept) == 3
    assert len(journal.outcomes(db, "other")) == 1


# -- bundle and release


def test_of_earlier_bundles_the_digest_stays(db: Database) -> None:
    assert journal.bundles(db, "toy") == {}
    journal.put_bundle(db, "toy", b"one", b"first bundle")
    journal.put_bundle(db, "toy", b"two", b"second bundle")
    journal.put_bundle(db, "other", b"one", b"of another task")
    assert journal.bundles(db, "toy") == {b"one": None, b"two": b"second bundle"}
    journal.put_bundle(db, "toy", b"one", b"first bundle")
    assert journal.bundles(db, "toy") == {b"one": b"first bundle", b"two": None}


@pytest.mark.parametrize("moments", [(None, None, None), (b"m" * 8, None, b"r" * 8), (b"m" * 8, b"v" * 8, None)])
def test_the_newest_release_comes_back(db: Database, moments: tuple[bytes | None, bytes | None, bytes | None]) -> None:
    assert journal.release(db, "toy") is None
    first = ReleaseRow(manifest(1), b"theta one", *moments, 4, 100, 2**40, 2**41, None, 0.9, "{}", "{}")
    journal.put_release(db, "toy", first)
    assert journal.release(db, "toy") == first
    second = ReleaseRow(manifest(2), b"theta two", None, None, None, 5, 101, 0, 0, '{"accuracy": 0.9}', 0.0, "{}", "{}", "{}")
    journal.put_release(db, "toy", second)
    assert journal.release(db, "toy") == second


def test_everything_survives_reopening(tmp_path: Path) -> None:
    first = Database(tmp_path)
    outbox.put_update(first, update(1), "fog-0", b"members")
    outbox.put_device_row(first, "toy", ROW)
    journal.put_window(first, update(2))
    journal.put_outcomes(first, "toy", [OutcomeRow(UpdateId("x", 1, 1), True, 3, "")])
    first.close()
    second = Database(tmp_path)
    assert outbox.kept_updates(second, "toy") == [KeptUpdate(update(1), "fog-0", b"members", False)]
    assert outbox.device_row(second, "toy") == ROW
    assert journal.open_window(second, "toy") == [update(2)]
    assert journal.outcomes(second, "toy") == [OutcomeRow(UpdateId("x", 1, 1), True, 3, "")]
    second.close()
