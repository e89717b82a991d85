"""What fog nodes keep of their windows adds up again, and whoever has altered, dropped, invented or hidden something is found."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgemw.app.books import read_books
from edgemw.app.proofs import proven_with, read_evidence, read_verdicts
from edgemw.core.errors import ConfigError
from edgemw.core.ids import Place
from edgemw.fog.agent import FogRole
from edgemw.fog.evidence import Evidence, Summed, Verdict, verify
from edgemw.storage.database import Database
from edgemw.wire.messages import Frame, Update, pack
from edgemw.wire.signed import signed_frame
from tests.support.signing import DAY, Office
from tests.support.world import NET, TASK, Disk
from tests.unit.test_roles import DEVICES, Learner, tree
from tests.unit.test_roles_signed import OFFICE, Signed

PLENTY = 1 << 30


class Showing(Signed):
    """A signed net whose fog nodes save to databases as well, evidence and all."""

    def __init__(self, learner: Learner, folder: Path, evidence_bytes: int) -> None:
        self.folder, self.evidence_bytes = folder, evidence_bytes
        self._open: dict[str, tuple[Database, FogRole]] = {}
        super().__init__(learner)

    def start(self, name: str) -> None:
        super().start(name)
        options = self.options.get(name)
        if options is not None:
            if name in self._open:
                self._open.pop(name)[0].close()
            db, place = Database(self.folder / name), Place(NET, name, self.parents[name], self.disks[name].boots)
            db.note_place(place, "fog")
            trust = self.trusts[name]
            self._open[name] = db, FogRole(place, db, options, lambda task, fact: None, trust, self.evidence_bytes)

    def _save(self, name: str, disk: Disk, action: Any) -> None:
        super()._save(name, disk, action)
        if name in self._open:
            self._open[name][1].act([(TASK, action)])

    def close(self) -> None:
        for db, _ in self._open.values():
            db.close()
        self._open.clear()


def run(folder: Path, *, evidence_bytes: int = PLENTY, **how: Any) -> Showing:
    """A net that has come to its end; its databases are closed."""
    world = tree(Learner(), children=2, make=lambda learner: Showing(learner, folder, evidence_bytes), **how)
    assert isinstance(world, Showing)
    world.run(120)
    world.restart("fog-0")
    world.run(600)
    assert world.machines["top"].state == "finished"
    world.close()
    return world


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pki")
    OFFICE.write(folder, [])
    return folder / "ca.pem"


@pytest.fixture(scope="module")
def net_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The databases of one net."""
    folder = tmp_path_factory.mktemp("net")
    run(folder)
    return folder


@pytest.fixture(scope="module")
def shown(net_folder: Path) -> list[Evidence]:
    """What its nodes show, to be altered by tests."""
    return read_evidence([net_folder])


@pytest.mark.parametrize(
    ("codec", "parameters"),
    [("lattice", {}), ("lattice", {"steps": "dyadic"}), ("dense", {}), ("topk", {"k": 0.1}), ("qsgd", {})],
    ids=["lattice", "dyadic", "dense", "topk", "qsgd"],
)
def test_what_an_honest_net_shows_adds_up(tmp_path: Path, ca: Path, codec: str, parameters: dict[str, Any]) -> None:
    run(tmp_path, codec=codec, parameters=parameters)
    (verdict,) = read_verdicts([tmp_path], ca)
    assert verdict.faults == ()
    assert verdict.notes == ()
    assert verdict.windows >= 14  # of two fog nodes: one for each release, the last is measured
    assert verdict.signatures >= 40  # two members of each, and each window at the top; one began with a restart


def test_a_window_with_a_remainder_is_left_out_and_it_is_said(tmp_path: Path, ca: Path) -> None:
    run(tmp_path, parameters={"steps": "dyadic"}, budget_bytes=64)
    (verdict,) = read_verdicts([tmp_path], ca)
    assert verdict.faults == ()
    assert any("carry a remainder" in note for note in verdict.notes)


def test_the_newest_windows_that_fit_are_kept_and_it_is_said_which_are_not_there(tmp_path: Path, ca: Path) -> None:
    run(tmp_path, evidence_bytes=3000)
    evidence = {found.node: found for found in read_evidence([tmp_path])}
    frames = [frame for window in evidence["fog-0"].windows for frame in (*window.members, window.sent)]
    assert 1000 < sum(len(pack(frame)) for frame in frames if frame is not None) <= 3000
    (verdict,) = read_verdicts([tmp_path], ca)
    assert verdict.faults == ()


def test_without_evidence_it_is_said_what_to_do(tmp_path: Path, ca: Path) -> None:
    run(tmp_path, evidence_bytes=0)
    with pytest.raises(ConfigError, match=r"give security\.evidence a size"):
        read_verdicts([tmp_path], ca)


def test_a_folder_that_cannot_be_looked_into_is_not_taken_for_an_empty_one(
    net_folder: Path, ca: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, denied = os.scandir, str(net_folder / "fog-1")

    def scandir(path: str) -> Any:
        if str(path) == denied:
            raise PermissionError(13, "Permission denied", denied)
        return whole(path)

    monkeypatch.setattr("os.scandir", scandir)
    for read in (read_books, read_evidence):
        with pytest.raises(ConfigError, match="fog-1: Permission denied"):
            read([net_folder])


def test_a_key_that_is_changed_while_an_update_waits_in_the_window_proves_it_still(tmp_path: Path, ca: Path) -> None:
    world = tree(Learner(), children=2, make=lambda learner: Showing(learner, tmp_path, PLENTY))
    first, second = (name for name in DEVICES if world.parents[name] == "fog-0")
    key, certificate = OFFICE.keys[first], OFFICE.certificates[first]
    world.holding[second] = []
    world.run(2)
    try:
        world.kill(first)
        OFFICE.issue(first, since=-DAY / 2)
        world.start(first)
        world.run(2)
        world.finish(second)
        del world.holding[second]
        world.run(900)
        assert world.machines["top"].state == "finished"
    finally:
        OFFICE.keys[first], OFFICE.certificates[first] = key, certificate
        assert isinstance(world, Showing)
        world.close()
    (verdict,) = read_verdicts([tmp_path], ca)
    assert verdict.faults == ()


# -- a fog node that lies


def look(shown: list[Evidence], ca: Path) -> Verdict:
    (verdict,) = verify(shown, proven_with(ca))
    return verdict


def last_window(evidence: Evidence) -> int:
    """The last window that has two members with something in it."""
    full = [number for number, window in enumerate(evidence.windows) if len(window.members) == 2 and _weight(window.sent)]
    return full[-1]


def _weight(frame: Frame | None) -> int:
    assert frame is not None
    assert isinstance(frame.message, Update)
    return sum(section.weight for section in frame.message.sections)


def heavier(frame: Frame | None) -> Frame:
    """The update with ten times the weight."""
    assert frame is not None
    assert isinstance(frame.message, Update)
    (section,) = frame.message.sections
    return replace(frame, message=replace(frame.message, sections=(replace(section, weight=10 * section.weight),)))


def by_fog(frame: Frame) -> Frame:
    """Signed by the fog node itself, as it can."""
    return signed_frame(OFFICE.keys["fog-0"], NET, "top", frame)


def with_window(shown: list[Evidence], window: Summed | None, at: int) -> Iterator[Evidence]:
    """What fog-0 shows with another window in the place of one, or without it."""
    for evidence in shown:
        if evidence.node == "fog-0":
            others = [*evidence.windows]
            others[at : at + 1] = [] if window is None else [window]
            evidence = replace(evidence, windows=tuple(others))
        yield evidence


def as_the_top_got_it(shown: Iterator[Evidence], lie: Frame) -> list[Evidence]:
    """The top has what fog-0 has really sent: the lie."""

    def taken(window: Summed) -> Summed:
        return replace(window, members=tuple(lie if member.id == lie.id else member for member in window.members))

    return [replace(e, windows=tuple(map(taken, e.windows))) if e.node == "top" else e for e in shown]


def test_a_fog_that_sent_another_sum_is_found(shown: list[Evidence], ca: Path) -> None:
    fog = next(evidence for evidence in shown if evidence.node == "fog-0")
    at = last_window(fog)
    window = fog.windows[at]
    lie = by_fog(heavier(window.sent))
    lied = as_the_top_got_it(with_window(shown, replace(window, sent=lie), at), lie)
    (fault,) = look(lied, ca).faults
    assert fault == f"window {lie.id} of fog-0 is not the sum of its 2 members: altered, left out or put in"


def test_a_fog_that_alters_a_member_to_fit_its_sum_is_found(shown: list[Evidence], ca: Path) -> None:
    fog = next(evidence for evidence in shown if evidence.node == "fog-0")
    at = last_window(fog)
    window = fog.windows[at]
    first, second = window.members
    (fault, *_) = look([*with_window(shown, replace(window, members=(heavier(first), second)), at)], ca).faults
    assert fault == f"fog-0 has altered or invented {first.id}: {first.node} has not signed it"
    stolen = replace(first, seq=first.seq + 100, signature=second.signature)
    faults = look([*with_window(shown, replace(window, members=(*window.members, stolen)), at)], ca).faults
    assert any(f"invented {stolen.id}" in fault for fault in faults)
    assert any("is not the sum of its 3 members" in fault for fault in faults)


def test_a_fog_that_drops_a_member_or_shows_one_twice_is_found(shown: list[Evidence], ca: Path) -> None:
    fog = next(evidence for evidence in shown if evidence.node == "fog-0")
    at = last_window(fog)
    window = fog.windows[at]
    (fault,) = look([*with_window(shown, replace(window, members=window.members[:1]), at)], ca).faults
    assert "is not the sum of its 1 members" in fault
    again = replace(window, members=(*window.members, window.members[0]))
    assert any("added" in fault and "twice" in fault for fault in look([*with_window(shown, again, at)], ca).faults)


def test_a_fog_that_shows_another_window_than_it_sent_or_hides_one_is_found(shown: list[Evidence], ca: Path) -> None:
    fog = next(evidence for evidence in shown if evidence.node == "fog-0")
    at = last_window(fog)
    window = fog.windows[at]
    lie = by_fog(heavier(window.sent))
    lied = as_the_top_got_it(iter(shown), lie)  # it sent a lie, and shows the truth
    (fault,) = look(lied, ca).faults
    assert fault == f"fog-0 shows another window {lie.id} than it has sent to top"
    (fault,) = look([*with_window(shown, None, at)], ca).faults
    assert fault == f"fog-0 does not show {lie.id}, which top has"


def test_a_certificate_that_the_authority_has_not_signed_proves_nothing(shown: list[Evidence], ca: Path) -> None:
    other = Office()
    swapped = [replace(evidence, credentials={n: (other.der(n),) for n in evidence.credentials}) for evidence in shown]
    assert len(look(swapped, ca).faults) == look(shown, ca).signatures
    assert look(swapped, ca).notes[-1].endswith("is that the authority of this net?")


def test_a_fog_that_sent_a_lie_and_shows_nothing_at_all_is_found(shown: list[Evidence], ca: Path) -> None:
    rest = [evidence for evidence in shown if evidence.node != "fog-0"]
    (verdict,) = verify(rest, proven_with(ca), {"top", "fog-0", "fog-1"})
    (fault,) = verdict.faults
    assert fault.startswith("fog-0 shows nothing of the ")
    assert fault.endswith("windows that top has of it: not shown, not added up")
    assert look(rest, ca).faults == verdict.faults  # a window of several devices says so itself
    (verdict,) = verify([evidence for evidence in shown if evidence.node == "top"], proven_with(ca))
    assert len(verdict.faults) == 2
    assert "no window was added up again" in verdict.notes


def test_a_fog_that_says_of_a_window_that_it_does_not_add_and_has_no_remainder_is_found(shown: list[Evidence], ca: Path) -> None:
    fog = next(evidence for evidence in shown if evidence.node == "fog-0")
    at = last_window(fog)
    window = fog.windows[at]
    lie = by_fog(heavier(window.sent))
    lied = as_the_top_got_it(with_window(shown, replace(window, sent=lie, whole=False), at), lie)
    assert look(lied, ca).faults == ("fog-0 says that 1 windows carry a remainder, and has none: not shown, not added up",)


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE evidence SET note = '{}'",
        "UPDATE evidence SET note = 'nope'",
        "UPDATE evidence SET note = '[]'",
        "UPDATE evidence SET note = 7",
        "UPDATE evidence SET note = '" + "[" * 100_000 + "'",
        "UPDATE evidence SET note = json_set(note, '$.parameters', 7)",
        "UPDATE evidence SET note = json_set(note, '$.parameters.bogus', 3)",
        "UPDATE evidence SET note = json_set(note, '$.parameters.self', 3)",
        "UPDATE evidence SET note = json_set(note, '$.release', 'x')",
        "UPDATE evidence SET note = json_set(note, '$.release', 1.5)",
        "UPDATE evidence SET note = json_set(note, '$.more', 1)",
        "UPDATE evidence SET frame = 'text'",
        "UPDATE evidence SET frame = x'00'",
        "UPDATE evidence_member SET frame = x'00'",
        "UPDATE evidence_member SET frame = 'text'",
        "UPDATE credential SET der = 'text'",
        "UPDATE credential SET der = x'3003020107'",
    ],
    ids=lambda sql: sql[:60],
)
def test_whatever_a_node_writes_into_its_own_file_is_its_fault_and_ends_nothing(
    net_folder: Path, tmp_path: Path, ca: Path, sql: str
) -> None:
    copied = tmp_path / "net"
    shutil.copytree(net_folder, copied)
    with closing(sqlite3.connect(copied / "fog-0" / "state.db")) as db, db:
        db.execute(sql)
    (verdict,) = read_verdicts([copied], ca)
    assert any("fog-0" in fault for fault in verdict.faults)
