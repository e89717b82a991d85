"""Nets that sign: what is altered, invented, replayed or of another life changes nothing that is counted or served."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemw.core.bundle import Vector
from edgemw.core.ids import Place
from edgemw.device.cycle import Cycle
from edgemw.device.events import Left, Work
from edgemw.fog.events import Released
from edgemw.trust.credentials import Credentials
from edgemw.wire import topics
from edgemw.wire.chunks import blob_of
from edgemw.wire.messages import Blob, Frame, Presence, ReleaseManifest, TaskManifest, Update
from edgemw.wire.signed import ANYBODY, frame_text, signed_bundle, signed_frame, signed_proposal
from edgemw.wire.topics import Topic
from edgemw.wire.traffic import Arrived, Fetch
from tests.support.signing import NOW, Office
from tests.support.world import NET, TASK, World
from tests.unit.test_roles import DEVICES, Learner, counted, sent, tree
from tests.unit.test_wire_kinds import patient

OFFICE = Office()
FOGS = ("fog-0", "fog-1")
NODES = ("top", *FOGS, *DEVICES)


class Signed(World):
    """A net whose nodes all sign and ask for signatures, in every life with what they know anew.

    Attributes:
        said: every update that was published, with its topic, each time.
        alters: what a bridge makes of a frame on its way to a node.
    """

    def __init__(self, learner: Learner) -> None:
        super().__init__(learner)
        self.said: list[tuple[str, Frame]] = []
        self.alters: Callable[[str, Frame], Frame] = lambda target, frame: frame

    def start(self, name: str) -> None:
        self.trusts[name] = OFFICE.trust(name, top="top", fog=name == "top" or name.startswith("fog"))
        self.credentials[name] = OFFICE.der(name)
        super().start(name)

    def work_s(self, name: str, work: Work) -> float:
        """A second, so that a run without end takes time."""
        return 1.0

    def _publish(self, text: str, frame: Frame, *, retain: bool) -> None:
        if isinstance(frame.message, Update):
            self.said.append((text, frame))
        super()._publish(text, frame, retain=retain)

    def _deliver(self, reader: str, topic: Topic, frame: Frame, size_bytes: int, at: float, writer: str = "") -> None:
        super()._deliver(reader, topic, self.alters(reader, frame), size_bytes, at, writer)

    def replay(self, index: int, domain: str = "") -> None:
        """Say an update once more, or in the domain of another fog node."""
        text, frame = self.said[index % len(self.said)]
        topic = topics.parse(text)
        self.give(domain or topic.domain, Arrived(replace(topic, domain=domain or topic.domain), frame))

    def restart(self, name: str) -> None:
        """Kill a node, and start it from its disk."""
        self.kill(name)
        self.start(name)

    def refusals(self, name: str, fact: str) -> list[str]:
        """Why a node has refused something."""
        return [str(f.values["reason"]) for node, f in self.facts if node == name and f.name == fact]


def net(rounds: int = 6) -> Signed:
    world = tree(Learner(), rounds=rounds, children=2, make=Signed)
    assert isinstance(world, Signed)
    return world


def theta(world: World) -> Vector:
    released: Released | None = world.disks["top"].released
    assert released is not None
    return released.theta


def test_a_signed_net_counts_what_an_unsigned_one_does() -> None:
    world, plain = net(), tree(Learner(), children=2)
    world.run(300)
    plain.run(300)
    assert world.machines["top"].state == "finished"
    assert counted(world) == sent(world) == counted(plain)
    np.testing.assert_array_equal(theta(world), theta(plain))
    assert not [fact for _, fact in world.facts if fact.name.endswith("_refused")]
    assert all(world.machines[name].reason(world.now) == "" for name in NODES)


# -- updates


moves = st.lists(
    st.one_of(
        st.tuples(st.just("replay"), st.integers(0, 200), st.just("")),
        st.tuples(st.just("replay"), st.integers(0, 200), st.sampled_from(("top", *FOGS))),
        st.tuples(st.just("restart"), st.integers(0, len(NODES) - 1), st.just("")),
        st.tuples(st.just("wait"), st.integers(1, 40), st.just("")),
    ),
    max_size=40,
)


@settings(patient, max_examples=15)
@given(moves)
def test_any_sequence_of_replays_never_changes_what_is_counted(sequence: list[tuple[str, int, str]]) -> None:
    world = net()
    world.run(1)
    for what, number, domain in sequence:
        if what == "replay":
            world.replay(number, domain)
        elif what == "restart":
            world.restart(NODES[number])
        world.run(number if what == "wait" else 0)
    world.run(600)
    for index in range(len(world.said)):  # and all of them once more, when everything is over
        for domain in ("", "top", *FOGS):
            world.replay(index, domain)
    world.run(600)
    assert world.machines["top"].state == "finished"
    assert counted(world) == sent(world)
    assert all(world.machines[name].facts(world.now)["updates_unaccounted"] == 0 for name in ("top", *FOGS))


def test_replays_older_than_all_outcomes_that_are_on_disk_are_known_after_a_restart() -> None:
    world = net(rounds=150)
    world.run(3000)
    assert world.machines["top"].state == "finished"
    before, old = counted(world), [*world.said]
    assert before == sent(world)
    world.restart("fog-0")
    world.restart("top")
    world.run(10)
    assert len(world.disks["fog-0"].settled) < len(old) / 4  # most are not there by name
    duplicates = len([fact for _, fact in world.facts if fact.name == "duplicate"])
    for index in range(len(old)):
        world.replay(index)
    world.run(600)
    assert counted(world) == before
    assert len([fact for _, fact in world.facts if fact.name == "duplicate"]) > duplicates + 250


def test_what_a_bridge_alters_is_not_counted_and_comes_again_unaltered() -> None:
    world = net()
    altered: list[Frame] = []

    def heavier(target: str, frame: Frame) -> Frame:
        update = frame.message
        if target == "fog-0" and isinstance(update, Update) and update.sections and frame.seq % 2 and frame not in altered:
            altered.append(frame)
            section = replace(update.sections[0], weight=10 * update.sections[0].weight)
            return replace(frame, message=replace(update, sections=(section,)))
        return frame

    world.alters = heavier
    world.run(2000)
    assert len(altered) >= 6
    assert world.machines["top"].state == "finished"
    assert counted(world) == sent(world)
    assert len(world.refusals("fog-0", "update_refused")) == len(altered)
    assert "altered" in world.refusals("fog-0", "update_refused")[0]


def test_an_update_that_comes_before_its_certificate_is_taken_when_it_comes_again() -> None:
    world = net()
    world.alters = lambda target, frame: (
        replace(frame, message=replace(frame.message, credential=b""))
        if isinstance(frame.message, Presence) and frame.node == "device-0" and world.now < 30
        else frame
    )
    world.restart("device-0")
    world.restart("fog-0")
    world.run(25)
    reason = world.machines["fog-0"].reason(world.now)
    assert "updates of device-0 are not taken: it has shown no certificate" in reason
    assert not [update for update in world.disks["fog-0"].settled if update.node == "device-0"]
    world.run(30)
    world.restart("device-0")  # it says who it is whenever it connects
    world.run(600)
    assert counted(world) == sent(world)
    assert world.machines["fog-0"].reason(world.now) == ""


def test_a_device_that_signs_nothing_is_not_waited_for_and_its_updates_are_not_taken() -> None:
    world = net()
    world.kill("device-3")
    world.trusts["device-3"], world.credentials["device-3"] = ANYBODY, b""
    World.start(world, "device-3")
    world.run(2000)
    assert world.machines["top"].state == "finished"
    taken = {update.node for fog in FOGS for update in world.disks[fog].settled if world.disks[fog].settled[update].counted}
    assert "device-3" not in taken
    assert "is not signed" in world.machines["fog-1"].reason(world.now) or "certificate" in world.machines["fog-1"].reason(
        world.now
    )


def test_a_revoked_device_is_refused_from_then_on() -> None:
    bureau = Office()
    authority = bureau.authority()
    senders = Credentials(authority, NOW.timestamp)
    world = net(rounds=0)
    world.trusts["fog-0"] = replace(world.trusts["fog-0"], senders=senders)
    for name in ("device-0", "device-2"):
        world.kill(name)
        bureau.issue(name)
    world.kill("fog-0")
    for name in ("fog-0", "device-0", "device-2"):
        if name != "fog-0":
            world.trusts[name] = replace(world.trusts[name], signer=bureau.keys[name])
            world.credentials[name] = bureau.der(name)
        World.start(world, name)
    world.run(60)
    assert {update.node for update in world.disks["fog-0"].settled} >= {"device-0", "device-2"}
    authority.revoke(bureau.revoke("device-0"))
    world.run(1)
    last = max(update for update in world.disks["fog-0"].settled if update.node == "device-0")
    world.run(200)
    newest = max(update for update in world.disks["fog-0"].settled if update.node == "device-0")
    assert newest.seq <= last.seq + 1  # what was taken before is counted
    assert "its certificate is revoked" in world.machines["fog-0"].reason(world.now)
    assert max(u.seq for u in world.disks["fog-0"].settled if u.node == "device-2") > newest.seq + 2  # and the others go on


def test_a_presence_of_a_life_that_never_was_is_forgotten_with_the_next_update() -> None:
    world = net(rounds=0)
    world.run(20)
    children = [name for name in DEVICES if world.parents[name] == "fog-0"]
    for name in children:
        topic = topics.parse(topics.build(NET, "fog-0", "presence", node=name))
        gone = Presence("offline", "device", "fog-0", credential=OFFICE.der(name))
        world.give("fog-0", Arrived(topic, Frame("", name, 1 << 52, 0, gone)))
    world.settle()
    assert world.machines["fog-0"].facts(world.now)["children"] == 0
    for name in children:
        world.restart(name)
    world.run(200)
    assert world.machines["fog-0"].facts(world.now)["children"] == len(children)


# -- releases and bundles


def say(world: World, node: str, message: ReleaseManifest | TaskManifest, channel: str, by: str = "") -> None:
    """Bring a manifest to a node, as if its parent had said it."""
    parent = world.parents[node]
    topic = topics.parse(topics.build(NET, parent, channel, task=TASK))
    world.give(node, Arrived(topic, Frame(TASK, by or parent, 1 << 40, 0, message)))


def manifest(world: World) -> ReleaseManifest:
    """The release that is out, as fog-0 says it."""
    found = world.retained[topics.build(NET, "fog-0", "release", task=TASK)].frame.message
    assert isinstance(found, ReleaseManifest)
    assert found.signature
    return found


@pytest.mark.parametrize(
    "change", [{"step": 4.0}, {"number": 1000}, {"run": 1 << 50}, {"train": False}, {"signature": b""}], ids=str
)
def test_a_release_that_was_altered_is_left_alone_and_the_next_one_is_taken(change: dict[str, object]) -> None:
    world = net(rounds=0)
    world.run(5)
    for node in ("device-0", "fog-0"):
        out = manifest(world)
        say(world, node, replace(out, **change), "release")  # type: ignore[arg-type]
        before = world.machines[node].facts(world.now)["release"]
        world.settle()
        assert "signed" in world.refusals(node, "release_refused")[-1]
    world.run(60)
    release = world.machines["device-0"].facts(world.now)["release"]
    assert isinstance(release, int)
    assert isinstance(before, int)
    assert before < release < 1000
    assert "refused" not in world.machines["device-0"].reason(world.now)


def test_a_release_that_a_bridge_altered_for_everybody_is_announced_again_and_stops_nobody() -> None:
    world = net()
    altered: set[str] = set()

    def another_step(target: str, frame: Frame) -> Frame:
        if isinstance(frame.message, ReleaseManifest) and frame.message.number == 2 and target not in altered:
            altered.add(target)
            return replace(frame, message=replace(frame.message, step=4.0))
        return frame

    world.alters = another_step
    world.run(2000)
    assert altered == {*FOGS, *DEVICES}
    assert world.machines["top"].state == "finished"
    assert counted(world) == sent(world)
    assert all(world.machines[name].reason(world.now) == "" for name in NODES)


FALSE_WAYS = {
    "a difference that is none": {"difference": b"\xc1", "packed": (), "whole": False},
    "a blob that nobody has": {"difference": b"", "packed": (blob_of(b"nothing").brief,), "whole": False},
    "no way at all": {"difference": b"", "packed": (), "whole": True},
}


@pytest.mark.parametrize("way", FALSE_WAYS)
@pytest.mark.parametrize("readers", [FOGS, DEVICES], ids=["fogs", "devices"])
def test_a_release_that_is_said_to_be_had_in_another_way_is_tried_again_when_the_true_one_comes(
    way: str, readers: tuple[str, ...]
) -> None:
    world = net(rounds=20)
    altered: set[str] = set()

    def misled(target: str, frame: Frame) -> Frame:
        message = frame.message
        if isinstance(message, ReleaseManifest) and message.number == 6 and target in readers and target not in altered:
            altered.add(target)
            return replace(frame, message=replace(message, **FALSE_WAYS[way]))  # type: ignore[arg-type]
        return frame

    world.alters = misled
    world.run(1500)
    assert altered == {*readers}
    assert [world.machines[name].facts(world.now)["release"] for name in NODES] == [20] * len(NODES)
    assert all(world.machines[name].reason(world.now) == "" for name in NODES)


@pytest.mark.parametrize("readers", [FOGS, DEVICES], ids=["fogs", "devices"])
def test_a_release_said_again_of_a_life_that_never_was_hides_no_later_life(readers: tuple[str, ...]) -> None:
    world = net(rounds=2)
    world.run(300)
    assert world.machines["top"].state == "finished"
    for node in readers:
        topic = topics.build(NET, world.parents[node], "release", task=TASK)
        out = world.retained[topic].frame
        world.give(node, Arrived(topics.parse(topic), replace(out, boot=1 << 40)))
    world.settle()
    world.kill("top")
    world.options["top"] = replace(world.options["top"], rounds=5)
    world.start("top")
    world.run(1000)
    assert [world.machines[name].facts(world.now)["release"] for name in NODES] == [5] * len(NODES)
    assert counted(world) == sent(world)


def test_a_release_that_asks_for_nothing_more_and_is_said_again_stops_a_net_only_until_the_true_one_comes() -> None:
    world = net(rounds=2)
    world.run(300)
    old = world.retained[topics.build(NET, "top", "release", task=TASK)].frame
    assert isinstance(old.message, ReleaseManifest)
    assert not old.message.train
    world.kill("top")
    world.options["top"] = replace(world.options["top"], rounds=5)
    world.start("top")
    altered: set[str] = set()

    def replayed(target: str, frame: Frame) -> Frame:
        if isinstance(frame.message, ReleaseManifest) and frame.message.number == 2 and target in FOGS and target not in altered:
            altered.add(target)
            return replace(old, boot=1 << 40)
        return frame

    world.alters = replayed
    world.run(1500)
    assert altered == {*FOGS}
    assert [world.machines[name].facts(world.now)["release"] for name in NODES] == [5] * len(NODES)


def test_a_device_serves_no_older_release_also_in_another_life() -> None:
    world = net(rounds=0)
    world.run(5)
    old = manifest(world)
    world.run(60)
    for life in range(2):
        served = world.served["device-0"].copy()
        say(world, "device-0", old, "release")
        world.settle()
        assert "older than release" in world.refusals("device-0", "release_refused")[-1]
        np.testing.assert_array_equal(world.served["device-0"], served)
        if not life:
            world.kill("device-0")
            topic = topics.build(NET, "fog-0", "release", task=TASK)
            kept = world.retained[topic]
            world.retained[topic] = kept._replace(frame=replace(kept.frame, message=old))
            world.start("device-0")
            world.settle()
            world.served.setdefault("device-0", served)
    assert f"release {old.number} is refused" in world.machines["device-0"].reason(world.now)


def test_a_bundle_that_the_top_has_not_signed_is_not_even_fetched() -> None:
    world = net(rounds=0)
    world.run(5)
    blob = blob_of(b"another bundle")
    key = OFFICE.keys["device-1"]
    forged = [
        TaskManifest(blob),
        signed_bundle(key, NET, TASK, blob, 1 << 40),
        signed_proposal(OFFICE.keys["top"], NET, TASK, blob),
    ]
    for node in ("device-0", "fog-0"):
        world.fetching[node] = []
        for message in forged:
            say(world, node, message, "task")
        world.settle()
        assert world.fetching[node] == []
        assert len(world.refusals(node, "task_refused")) == 3


@pytest.mark.parametrize("asks", [True, False], ids=["signed", "unsigned"])
def test_a_bundle_that_is_said_to_be_in_other_chunks_is_fetched_when_the_true_manifest_comes(asks: bool) -> None:
    world = net(rounds=0)
    world.kill("device-0")
    world.run(5)
    true = world.retained[topics.build(NET, "fog-0", "task", task=TASK)].frame.message
    assert isinstance(true, TaskManifest)
    trust = world.trusts["device-0"] if asks else ANYBODY
    device = Cycle(Place(NET, "device-0", "fog-0", 1), TASK, Left(), 0.0, trust=trust)
    topic = topics.parse(topics.build(NET, "fog-0", "task", task=TASK))

    def fetched(message: TaskManifest) -> list[Blob]:
        actions = device.handle(Arrived(topic, Frame(TASK, "fog-0", 1, 0, message)), 0.0)
        return [action.blob for action in actions if isinstance(action, Fetch)]

    halved = replace(true, blob=replace(true.blob, chunk_size=true.blob.chunk_size // 2))
    assert fetched(halved) == ([] if asks else [halved.blob])
    assert fetched(true) == [true.blob]
    assert fetched(true) == []


def test_only_a_signed_proposal_reaches_the_top_and_only_once() -> None:
    world = net(rounds=0)
    world.run(5)
    blob, topic = blob_of(world.bundle.to_bytes()), topics.parse(topics.build(NET, "top", "task", task=TASK))
    other = blob_of(b"something else")

    def propose(message: TaskManifest) -> list[str]:
        before = len(world.refusals("top", "task_refused"))
        world.give("top", Arrived(topic, Frame(TASK, "console", 0, 0, message)))
        world.settle()
        return world.refusals("top", "task_refused")[before:]

    assert "not signed by a key" in propose(TaskManifest(other))[0]
    assert "not signed by a key" in propose(signed_proposal(OFFICE.keys["device-0"], NET, TASK, other))[0]
    assert "not signed by a key" in propose(signed_proposal(OFFICE.keys["top"], NET, "another-task", other))[0]
    assert propose(signed_proposal(OFFICE.keys["top"], NET, TASK, blob)) == []  # it is there already


def test_a_window_is_signed_for_the_parent_by_its_fog_node() -> None:
    world = net()
    world.run(60)
    senders = OFFICE.senders()
    for name in NODES:
        assert senders.learn(name, OFFICE.der(name)) == ""
    windows = [(text, frame) for text, frame in world.said if frame.node == "fog-0"]
    assert windows
    for text, frame in windows:
        assert senders.refusal("fog-0", frame_text(NET, topics.parse(text).domain, frame), frame.signature) == ""
        stolen = signed_frame(OFFICE.keys["device-0"], NET, "top", frame)
        assert senders.refusal("fog-0", frame_text(NET, "top", stolen), stolen.signature) != ""


def test_facts_of_refusals_carry_what_an_observer_counts() -> None:
    world = net(rounds=0)
    world.run(5)
    text, frame = next((text, frame) for text, frame in world.said if frame.node == "device-0")
    world.give("fog-0", Arrived(topics.parse(text), replace(frame, signature=b"")))
    world.settle()
    found = [fact for node, fact in world.facts if node == "fog-0" and fact.name == "update_refused"]
    assert found[-1].values["node"] == "device-0"
    assert found[-1].values["reason"] == "it is not signed"
