"""The audit: clean books are clean at any moment, and whatever is lost, doubled or missing is found and named."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edgemw.fog.accounts import Amount
from edgemw.fog.audit import Audit, Books, audit
from edgemw.fog.events import BundleGiven
from edgemw.fog.release import TopOptions
from edgemw.fog.server import ServerOptions
from edgemw.fog.window import WindowOptions
from edgemw.simulation.books import books_of
from tests.support.disks import Databases
from tests.support.world import World, toy_bundle
from tests.unit.test_roles import Learner, tree

Change = Callable[[World], None]


def half_way() -> World:
    """Release 1 is out: an update waits at each fog, device-2 trains still, and device-1 has heard of nothing since its first."""
    world = tree(Learner(), children=2)
    world.holding["device-2"] = []
    world.run(1)
    world.loses = lambda target, frame: target == "device-1"
    world.finish("device-2")
    world.run(1)
    return world


def of(world: World) -> Audit:
    (found,) = audit(books_of(world))
    return found


def test_a_fog_that_forgot_in_a_power_cut_that_its_window_is_counted_is_no_fault() -> None:
    world = half_way()
    before = world.disks["fog-0"].copy()
    world.loses = lambda target, frame: False
    world.reconnect("fog-0")
    world.run(30)
    assert not world.disks["device-0"].outbox.keys() & {update for kept in before.forwarded.values() for update in kept.members}
    world.kill("fog-0")
    world.disks["fog-0"] = replace(before, window=world.disks["fog-0"].window, boots=world.disks["fog-0"].boots)
    assert not [fault for fault in of(world).faults if "takes it for settled" in fault]


def test_a_net_without_faults_has_none_while_things_are_on_their_way_and_at_the_end() -> None:
    world = half_way()
    found = of(world)
    assert found.faults == found.notes == ()
    assert found.difference == Amount()
    rows = {row.node: row for row in found.rows}
    assert [row.node for row in found.rows[:3]] == ["top", "fog-0", "fog-1"]
    assert rows["top"].counted == Amount(4, 46)
    assert rows["fog-0"].waiting == Amount(3, 32)  # with its first window, whose outcome comes with the next acknowledgement
    assert rows["device-1"].waiting == Amount(1, 11)
    world.loses = lambda target, frame: False
    del world.holding["device-2"]
    for name in list(world.machines):
        world.reconnect(name)
    world.run(600)
    found = of(world)
    assert found.faults == ()
    assert found.rows[0].counted == sum((row.sent for row in found.rows if row.role == "device"), Amount())


def forget_the_window(world: World) -> None:
    world.disks["fog-0"].window.clear()


def count_twice(world: World) -> None:
    disk = world.disks["top"]
    assert disk.released is not None
    totals = disk.released.totals
    disk.released = replace(disk.released, totals=replace(totals, updates=totals.updates + 1, weight=totals.weight + 10))
    disk.accounts = replace(
        disk.accounts, counted=disk.accounts.counted + Amount(1, 10), taken=disk.accounts.taken + Amount(1, 10)
    )


def release_without_books(world: World) -> None:
    released = world.disks["top"].released
    assert released is not None
    world.disks["top"].released = replace(released, totals=replace(released.totals, weight=released.totals.weight + 1))


def forget_the_outbox(world: World) -> None:
    world.disks["device-0"].outbox.clear()


def forget_a_release(world: World) -> None:
    disk = world.disks["top"]
    disk.accounts = replace(disk.accounts, counted=Amount(), taken=disk.accounts.taken - disk.accounts.counted)
    assert disk.released is not None
    disk.released = replace(disk.released, totals=replace(disk.released.totals, updates=0, weight=0))


@pytest.mark.parametrize(
    ("change", "faults"),
    [
        (
            forget_the_window,
            ["fog-0 has taken 1 updates of weight 10 more", "fog-0 has acknowledged device-0/1/1 (1 updates of weight 10) and"],
        ),
        (count_twice, ["the top has counted 1 updates of weight 10 more than devices have sent"]),
        (release_without_books, ["top has released 4 updates of weight 47 and its books say 4 updates of weight 46"]),
        (
            forget_the_outbox,
            [
                "fog-0 still has device-0/1/1, and device-0 takes it for settled",
                "devices take 1 updates of weight 10 for counted",
            ],
        ),
        (forget_a_release, ["devices take 4 updates of weight 46 for counted that the top has not counted: lost"]),
    ],
)
def test_what_does_not_agree_is_named(change: Change, faults: list[str]) -> None:
    world = half_way()
    change(world)
    found = of(world)
    assert len(found.faults) == len(faults)
    for said, expected in zip(found.faults, faults, strict=True):
        assert said.startswith(expected)


def without(world: World, *nodes: str) -> list[Books]:
    return [books for books in books_of(world) if books.node not in nodes]


def test_books_that_are_missing_are_named() -> None:
    world = half_way()
    (found,) = audit(without(world, "device-0"))
    assert "device-0 has sent updates to fog-0, and its books are not among the folders" in found.faults
    (found,) = audit(without(world, "fog-0"))
    assert "device-0/1/1 is on its way to fog-0, whose books are not among the folders" in found.faults
    (found,) = audit(without(world, "top"))
    assert found.faults[0] == "there has to be one top among the folders: found none"


def test_a_device_that_has_not_heard_of_a_new_run_is_noted_and_left_out() -> None:
    world = half_way()
    books = [replace(b, run=b.run - 1) if b.node == "device-3" else b for b in books_of(world)]
    (found,) = audit(books)
    assert found.notes == ("device-3 is in run 0: its updates are of another run",)
    assert "device-3" not in {row.node for row in found.rows}


def test_an_update_that_waits_at_two_nodes_is_found() -> None:
    world = half_way()
    (update, frame), *_ = world.disks["fog-0"].window.items()
    disk = world.disks["fog-1"]
    disk.window[update] = frame
    disk.accounts = disk.accounts.take(frame)
    (fault,) = of(world).faults
    assert fault == f"fog-1 still has {update}, and device-0 takes it for settled, or has sent it elsewhere"


# -- as it stands in files


def in_files(folder: Path) -> Databases:
    world = Databases(Learner(), folder)
    world.top("top", TopOptions(WindowOptions(deadline_s=20.0, children=2), ServerOptions(), {}, rounds=8, kappa=2.0))
    for fog in ("fog-0", "fog-1"):
        world.fog(fog, "top", WindowOptions(deadline_s=10.0, children=2))
    for index in range(4):
        world.device(f"device-{index}", f"fog-{index % 2}")
    return world


def test_books_of_a_node_that_has_nothing_waiting_are_found(tmp_path: Path) -> None:
    """Everybody trains from release 1, and fog nodes have heard what became of their windows."""
    world = in_files(tmp_path)
    for index in range(4):
        world.holding[f"device-{index}"] = []
    world.settle()
    for index in range(4):
        world.finish(f"device-{index}")
    world.run(35)
    assert not any(world.disks[fog].window or world.disks[fog].forwarded for fog in ("fog-0", "fog-1"))
    found = world.audited()
    assert found.faults == ()
    assert [row.node for row in found.rows[:3]] == ["top", "fog-0", "fog-1"]


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_killed_lost_or_begun_anew_books_in_files_agree(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    world = in_files(tmp_path)
    world.loses = lambda target, frame: chance.random() < 0.1
    for step in range(20):
        for _ in range(chance.randint(1, 40)):
            if world.queue:
                name, event = world.queue.popleft()
                for action in world.machines[name].handle(event, world.now):
                    world._act(name, action)
        victim = chance.choice([*world.machines])
        world.kill(victim)
        if chance.random() < 0.3:
            world.run(chance.choice([1, 30, 90]))
        world.start(victim)
        if chance.random() < 0.1:
            world.bundle = toy_bundle(64, value=step + 1.0)
            world.give("top", BundleGiven(world.bundle.to_bytes()))
        if chance.random() < 0.1:
            moved = f"device-{chance.randrange(4)}"
            world.kill(moved)
            world.parents[moved] = chance.choice(["fog-0", "fog-1"])
            world.start(moved)
        (found,) = audit(books_of(world))
        assert found.faults == (), step
    assert world.audited().faults == ()
