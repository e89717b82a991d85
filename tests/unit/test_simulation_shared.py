"""What simulated nodes share, and what a simulated net keeps: never a wrong vector, never more than is said."""

from __future__ import annotations

import copy
import pickle
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from edgemw.bench.scenario import NOT_TRAINED
from edgemw.compression.difference import advance
from edgemw.core.bundle import theta_view
from edgemw.core.errors import WireError
from edgemw.device.events import Memory, Worked
from edgemw.fog.release import TopOptions
from edgemw.fog.server import ServerOptions
from edgemw.fog.window import WindowOptions
from edgemw.learning.trainer import Trained
from edgemw.simulation import shared
from edgemw.simulation import world as net
from edgemw.simulation.books import books_of
from edgemw.simulation.broker import BrokerSpec, Sessions
from edgemw.simulation.chance import Chance
from edgemw.simulation.disk import Disk
from edgemw.simulation.fleet import Conditions, Fleet
from edgemw.simulation.links import Links, LinkSpec
from edgemw.simulation.shared import Shared
from edgemw.simulation.toy import toy_bundle
from edgemw.simulation.tree import Tree
from edgemw.wire import topics
from edgemw.wire.messages import Ack, Frame
from tests.support.world import World

ROUNDS = 4


def top_options(rounds: int = ROUNDS) -> TopOptions:
    return TopOptions(WindowOptions(deadline_s=1000.0, quorum=1), ServerOptions(), {}, rounds=rounds, kappa=2.0)


def learn(name: str, release: int, theta: Any) -> Trained:
    delta = np.random.default_rng([release, len(name)]).standard_normal(theta.size).astype(np.float32)
    return Trained(delta, 2, 1.0, 1)


def begin(name: str, work: Any) -> Any:
    worked = Worked(work.release.number, learn(name, work.release.number, work.theta) if work.train else None, {})
    return lambda: worked


def world_of(*devices: str) -> World:
    world = World(learn, size=64)
    world.top("top", top_options())
    for device in devices:
        world.device(device, "top")
    return world


def thetas(world: net.World) -> list[Any]:
    return [world.machines[name]._following._newest[1] for name in world.machines if name != "top"]


def test_devices_that_follow_the_same_releases_hold_one_vector(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(theta: Any, payload: bytes, side: bytes, statistics: Any) -> bytes:
        calls.append(payload)
        return advance(theta, payload, side, statistics)

    monkeypatch.setattr("edgemw.device.cycle.advance", counted)
    world = world_of("a", "b", "c", "d")
    world.run(100)
    assert world.machines["top"].state == "finished"
    assert len(calls) == ROUNDS
    assert len({id(theta) for theta in thetas(world)}) == 1
    released = world.disks["top"].released
    assert released is not None
    assert bytes(thetas(world)[0]) == released.theta.astype("<f4").tobytes()


def test_who_comes_to_a_release_in_another_way_goes_on_with_what_the_others_have() -> None:
    devices = {f"d{number}": "top" for number in range(8)}
    window = WindowOptions(k=1, deadline_s=2.0, quorum=1)
    options = TopOptions(window, ServerOptions(), {}, rounds=40, kappa=2.0)
    conditions = Conditions(work_s=2.0, join_s=30.0)
    fleet = Fleet(Tree(devices), toy_bundle(64).to_bytes(), {"top": options}, begin, conditions)
    assert fleet.run_for(1000).finished
    joined = {fleet.machines[name]._following._newest[1] is not None for name in devices}
    assert joined == {True}
    assert len({id(theta) for theta in thetas(fleet)}) == 1


def test_what_is_known_is_of_the_object_that_went_in_and_is_bounded() -> None:
    store, calls = Shared(), []

    def advance(theta: Any, payload: bytes, side: bytes) -> bytes:
        calls.append((bytes(theta), payload, side))
        if payload == b"refused":
            raise WireError("value", "refused")
        return bytes(theta) + payload + side

    first, second = bytes([1] * 100), bytes([2] * 100)
    assert store.theta(first, b"x", b"", advance) is store.theta(first, b"x", b"", advance)
    assert store.theta(second, b"x", b"", advance) == second + b"x"
    assert store.theta(first, b"x", b"y", advance) == first + b"xy"
    assert len(calls) == 3
    for _ in range(2):
        with pytest.raises(WireError):
            store.theta(first, b"refused", b"", advance)
    assert len(calls) == 5
    for number in range(10 * shared.MOST_RESULTS):  # objects come and go, and so do their identities
        theta = number.to_bytes(4, "little") * 25
        assert store.theta(theta, b"x", b"", advance) == theta + b"x"
    assert len(store._thetas._known) == shared.MOST_RESULTS
    large = [bytes(shared.MOST_BYTES // 4) for _ in range(9)]
    assert len({id(store.theta(theta, b"", b"", lambda theta, *_: theta)) for theta in large}) == 9
    assert len(store._thetas._known) == 2


def test_nobody_can_write_into_what_all_devices_begin_with() -> None:
    theta0 = np.ones(4, np.float32)
    assert theta_view(theta0).readonly
    assert not np.frombuffer(theta_view(theta0), "<f4").flags.writeable


def test_disks_and_memories_of_devices_have_nothing_in_common() -> None:
    one, other = Disk(), Disk()
    one.outbox[UPDATE] = (FRAME, "top", False)
    assert other.outbox == {}
    with pytest.raises(TypeError):
        one.window[UPDATE] = FRAME
    assert one.copy() == one
    for again in (
        pickle.loads(pickle.dumps(Memory())),
        copy.deepcopy(Memory()),
        Memory(**{**asdict(Memory()), "balance": Memory().balance}),
    ):
        assert again == Memory()


def test_a_fleet_can_be_audited() -> None:
    fleet = Fleet(
        Tree({"a": "top", "b": "top"}),
        toy_bundle(64).to_bytes(),
        {"top": TopOptions(WindowOptions(deadline_s=10.0, children=2), ServerOptions(), {}, rounds=1)},
        lambda name, work: lambda: Worked(work.release.number, None, {}, NOT_TRAINED if work.train else ""),
        Conditions(work_s=1.0),
    )
    assert fleet.run_for(100).finished
    assert [(books.node, books.role) for books in books_of(fleet)] == [("top", "fog"), ("a", "device"), ("b", "device")]
    assert {name: record.answers for name, record in fleet.records.items()} == {"a": 2, "b": 2}


# ------------------------------------------------------------------------------------------------------- what ends in between


def test_what_depends_on_something_that_ends_is_lost_and_what_is_put_off_after_that_is_not() -> None:
    world, called = world_of("a", "b"), list[str]()
    world.run(10)

    def later(said: str, *ends: str) -> None:
        world.call_at(world.now + 5, lambda: called.append(said), ends)

    later("before, of a's connection", "a")
    later("before, of a's life", *world.in_this_life("a"))
    later("before, of b's connection", "b")
    later("of nobody")
    world.cut("a")
    later("after the cut", "a")
    world.mend("a")
    later("after it was mended", "a")
    world.kill("b")
    world.start("b")
    later("of b's second life", *world.in_this_life("b"))
    world.run(10)
    assert called == ["before, of a's life", "of nobody", "after the cut", "after it was mended", "of b's second life"]


def test_a_chance_that_is_counted_elsewhere_is_the_same_chance() -> None:
    chance = Chance(7)
    assert [chance.number("a", "b") for _ in range(5)] == [chance.nth(which, "a", "b") for which in range(1, 6)]


def test_a_link_that_is_forgotten_goes_on_with_its_chances_and_its_sums() -> None:
    spec = LinkSpec(1000.0, 0.1, 0.5, 1.0)
    forgotten, other = Links(lambda node: spec, Chance(1)), Links(lambda node: spec, Chance(1))
    for links in (forgotten, other):
        links.arrival("a", "up", 3000, 0.0)
    forgotten.forget("a")
    for number in range(1, 6):
        assert forgotten.arrival("a", "up", 1, 1e6 * number) == other.arrival("a", "up", 1, 1e6 * number)
    assert forgotten.sent_bytes("a", "up") == 3005
    assert forgotten.sent_bytes("b", "down") == 0


def test_sessions_forget_what_is_acknowledged_also_of_readers_that_are_sent_nothing_more() -> None:
    sessions = Sessions(BrokerSpec())
    for reader in ("a", "b", "c"):
        assert sessions.keep(reader, MESSAGE, now=0.0, acknowledged_at=1.0)
    assert sessions.keep("b", MESSAGE, now=0.0)
    for now in range(2, 12):
        assert sessions.keep("busy", MESSAGE, now=now, acknowledged_at=now)
    assert {reader: len(queue) for reader, queue in sessions._queues.items() if reader != "busy"} == {"b": 1}
    sessions.leaves("b", now=20.0)
    assert sessions.returns("b", now=21.0) == [MESSAGE]
    sessions.leaves("a", now=20.0)
    assert sessions.returns("a", now=21.0) == []


def test_every_channel_begins_with_a_level_that_does_not_vary() -> None:
    assert not any(channel.levels[0][1] for channel in topics.CHANNELS)
    for channel in topics.CHANNELS:
        text = topics.build("net", "fog", channel.name, **dict.fromkeys(channel.places, "1"))
        assert topics.parse(text).channel == channel.name


FRAME = Frame("toy", "top", 1, 0, Ack(1, 1, ()))
UPDATE = FRAME.id
MESSAGE = (topics.parse(topics.build("net", "top", "reply", node="a", task="toy")), FRAME, 50)
