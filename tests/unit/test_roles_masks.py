"""Sums under masks through the roles: drop-outs, kills, losses, late comers; what is returned comes back exactly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from edgemw.compression.lanes import lanes_of
from edgemw.core.bundle import Bundle, Manifest, Slot, Vector
from edgemw.device.cycle import Cycle
from edgemw.device.events import Work, Worked
from edgemw.device.masks import PLAIN_ASKED
from edgemw.fog.audit import audit
from edgemw.fog.events import SaveForward
from edgemw.fog.evidence import MASKED, Evidence, Summed, verify
from edgemw.fog.grouping import GROUP_OVER
from edgemw.fog.release import TopOptions
from edgemw.fog.server import ServerOptions
from edgemw.fog.window import WindowOptions
from edgemw.learning.trainer import Trained
from edgemw.simulation import world as module_of_world
from edgemw.simulation.books import books_of
from edgemw.simulation.rounds import Run, run_rounds
from edgemw.simulation.toy import toy_bundle
from edgemw.simulation.tree import Tree
from edgemw.wire.groups import is_masked
from edgemw.wire.messages import Frame, Group, MaskKeys, NoGroup, Presence, Revealed, Shares, Unmask, Update
from edgemw.wire.topics import Topic
from tests.support.signing import Office
from tests.support.world import Fact, World

OFFICE = Office()

SIZE = 64
DEVICES = [f"device-{n}" for n in range(4)]
PARAMETERS: dict[str, int | float | str] = {"bits": 12, "blocks": 2, "members": 16}


def learn(node: str, release: int, theta: Vector) -> Trained:
    rng = np.random.default_rng([int(node[-1]), release])
    return Trained(rng.normal(0, 0.1, theta.size).astype(np.float32), 10 + int(node[-1]), 1.0, 5)


def options(threshold: int = 67, rounds: int = 4, **window: Any) -> TopOptions:
    made = WindowOptions(**{"deadline_s": 20.0, "children": 4, **window})
    return TopOptions(
        made, ServerOptions(), {}, rounds=rounds, codec="lanes", parameters=PARAMETERS, kappa=1.0, threshold=threshold
    )


class Masked(World):
    """A top, a fog node and four devices; what is published is remembered."""

    def __init__(self, threshold: int = 67, rounds: int = 4, devices: int = 4, **window: Any) -> None:
        super().__init__(learn, size=SIZE)
        self.said: list[Frame] = []
        self.top("top", options(threshold, rounds, children=1))
        self.fog("fog", "top", options(**window).window)
        for device in DEVICES[:devices]:
            self.device(device, "fog")

    def _deliver(self, reader: str, topic: Topic, frame: Frame, size_bytes: int, at: float, writer: str = "") -> None:
        self.said.append(frame)
        super()._deliver(reader, topic, frame, size_bytes, at, writer)

    def updates_of(self, device: str) -> list[Update]:
        """What a device has sent with sections, repeats included."""
        sent = [frame.message for frame in self.said if frame.node == device]
        return [message for message in sent if isinstance(message, Update) and message.sections]

    def until(self, true: Callable[[], bool]) -> None:
        """Let time pass until something is true."""
        self.run(1000, true)
        assert true()

    def ends(self) -> None:
        """The run comes to its end, and nothing is lost or counted twice."""
        self.run(20_000, lambda: self.machines["top"].state == "finished" and not any(d.outbox for d in self.disks.values()))
        assert self.machines["top"].state == "finished"
        (found,) = audit(books_of(self))
        assert found.faults == ()
        for device in DEVICES:
            if device in self.machines:
                assert self.machines[device].facts(self.now)["mass_imbalance"] < 1e-5

    def has(self, kind: type, *nodes: str) -> bool:
        """Whether somebody has said something of a kind; of these nodes, all of them."""
        said = {frame.node for frame in self.said if isinstance(frame.message, kind)}
        return said >= set(nodes) if nodes else bool(said)


def rounds(tree: Tree, threshold: int) -> Run:
    def do(node: str, work: Work) -> Worked:
        tally = {"test.mse": (float(np.square(work.theta).sum()), 1.0)}
        return Worked(work.release.number, learn(node, work.release.number, work.theta) if work.train else None, tally)

    return run_rounds(tree, toy_bundle(SIZE).to_bytes(), options(threshold), do)


@pytest.mark.parametrize("fogs", [0, 1, 2], ids=lambda fogs: f"{fogs}-fogs")
def test_masks_change_nothing(fogs: int) -> None:
    """The same seed with masks and without ends with the same bits, also where fog nodes add sums of groups."""
    devices = [f"device-{n}" for n in range(8)]
    parents = {f"fog-{n}": "top" for n in range(fogs)}
    tree = Tree(parents | {device: f"fog-{n % fogs}" if fogs else "top" for n, device in enumerate(devices)})
    plain, masked = rounds(tree, 0), rounds(tree, 67)
    assert plain.theta.any()
    assert masked.theta.tobytes() == plain.theta.tobytes()
    assert masked.accounts == plain.accounts
    assert masked.reasons == {}


def test_a_fog_node_has_nothing_of_a_device_that_can_be_read() -> None:
    world = Masked(rounds=4)
    # the first release whose lanes are not all zero
    world.loses = lambda target, frame: isinstance(frame.message, Revealed) and frame.message.release == 1
    world.until(lambda: len(world.disks["fog"].window) == 4)
    for update, frame in world.disks["fog"].window.items():
        plain = world.disks[update.node].outbox[update][0].message
        masked = frame.message
        assert isinstance(plain, Update)
        assert isinstance(masked, Update)
        assert masked.sections[0].energy == 0.0 < plain.sections[0].energy
        equal = lanes_of(masked.sections[0].payload, SIZE) == lanes_of(plain.sections[0].payload, SIZE)
        assert int(equal.sum()) < 4  # of 32
    world.loses = lambda target, frame: False
    world.ends()
    for device in DEVICES:
        assert all(update.group for update in world.updates_of(device))
    facts = world.machines["fog"].facts(world.now)
    assert (facts["group"], facts["groups_unmasked"], facts["groups_given_up"]) == (4, 4, 0)
    assert world.machines["device-0"].facts(world.now)["group"] == 4


def test_nothing_of_a_group_is_left_once_its_updates_are_settled() -> None:
    """Who takes a device away later, and has kept what it said, reads none of it."""
    world = Masked(rounds=2)
    world.loses = lambda target, frame: isinstance(frame.message, Revealed)
    world.until(lambda: world.has(Unmask))
    assert all(world.disks[device].joined for device in DEVICES)
    world.loses = lambda target, frame: False
    world.ends()
    assert [world.disks[device].joined for device in DEVICES] == [{}] * 4


def test_without_masks_nothing_is_said_of_them() -> None:
    world = Masked(threshold=0, rounds=2)
    world.ends()
    assert not any(world.has(kind) for kind in (MaskKeys, Group, Shares, Unmask, Revealed, NoGroup))
    assert not any("group" in world.machines[node].facts(world.now) for node in world.machines)


def test_a_device_that_is_killed_between_its_shares_and_its_update_drops_out() -> None:
    world = Masked()
    world.holding["device-3"] = []
    world.until(lambda: len(world.disks["fog"].window) == 3)
    world.kill("device-3")
    del world.holding["device-3"]
    world.holding["device-2"] = []  # of the next release
    world.until(lambda: 1 in world.releases)
    dropped = [fact.values["dropped"] for name, fact in world.facts if fact.name == "masks"]
    assert dropped == [1]
    world.start("device-3")
    world.settle()
    world.finish("device-2")
    del world.holding["device-2"]
    world.ends()
    assert world.machines["device-3"].facts(world.now)["updates_sent"] >= 2


def test_a_device_that_is_killed_before_the_masks_come_off_is_counted() -> None:
    world = Masked()
    world.loses = lambda target, frame: target == "device-3" and isinstance(frame.message, Unmask)
    world.until(lambda: world.has(Unmask))
    world.kill("device-3")
    world.until(lambda: 1 in world.releases)
    world.start("device-3")
    world.ends()
    assert world.disks["device-3"].memory.updates_returned == 0


def test_a_device_takes_masks_off_in_another_life() -> None:
    """All four have to answer; one is killed when it is asked, and answers from its disk."""
    world = Masked(threshold=100)
    world.loses = lambda target, frame: target == "device-3" and isinstance(frame.message, Unmask)
    world.until(lambda: world.has(Unmask))
    world.kill("device-3")
    world.loses = lambda target, frame: False
    world.start("device-3")
    world.ends()
    assert world.machines["fog"].facts(world.now)["groups_given_up"] == 0


def test_what_is_sent_again_in_another_life_is_the_same_under_the_same_masks() -> None:
    world = Masked()
    world.loses = lambda target, frame: target == "fog" and frame.node == "device-3" and isinstance(frame.message, Update)
    world.until(lambda: len(world.disks["device-3"].outbox) == 1 and len(world.disks["fog"].window) == 3)
    (first,) = world.disks["device-3"].masked.values()
    world.kill("device-3")
    world.loses = lambda target, frame: False
    world.start("device-3")
    world.settle()
    assert world.updates_of("device-3")[0] == first.message
    world.ends()


def test_a_fog_node_that_is_killed_in_the_middle_of_a_window_returns_what_it_cannot_read() -> None:
    world = Masked()
    world.loses = lambda target, frame: isinstance(frame.message, Revealed)
    world.until(lambda: world.has(Unmask))
    world.kill("fog")
    world.loses = lambda target, frame: False
    world.start("fog")
    world.until(lambda: all(world.disks[device].memory.updates_returned == 1 for device in DEVICES))
    reasons = {fact.values["reason"] for _, fact in world.facts if fact.name == "settled" and not fact.values["counted"]}
    assert reasons == {GROUP_OVER}
    world.ends()
    assert world.disks["top"].accounts.counted.updates > 0


def test_too_few_answers_give_everything_back_exactly() -> None:
    world = Masked(rounds=2)
    world.loses = lambda target, frame: isinstance(frame.message, Revealed) and frame.node in DEVICES[1:]
    world.until(lambda: world.has(Unmask))
    world.holding |= {device: [] for device in DEVICES}  # of the next release
    world.until(lambda: all(world.disks[device].memory.updates_returned == 1 for device in DEVICES))
    for device in DEVICES:
        memory = world.disks[device].memory
        trained = learn(device, 0, np.zeros(SIZE, np.float32))
        assert memory.residual is not None
        assert np.allclose(memory.residual, trained.weight * trained.delta, rtol=1e-6)
        assert memory.weight_owed == trained.weight
    assert "answers that take the masks off" in world.machines["fog"].reason(world.now)
    world.loses = lambda target, frame: False
    for device in DEVICES:
        world.finish(device)
    world.holding.clear()
    world.ends()


def test_a_late_update_is_returned_and_never_read_alone() -> None:
    world = Masked(rounds=2)
    world.holding["device-3"] = []
    world.until(lambda: len(world.disks["fog"].window) == 3)
    world.until(lambda: world.has(Unmask))
    world.finish("device-3")
    del world.holding["device-3"]
    world.ends()
    assert world.disks["device-3"].memory.updates_returned >= 1


def test_a_device_that_comes_after_the_group_was_made_keeps_what_it_trained() -> None:
    world = Masked(devices=3, children=3)
    world.holding["device-0"] = []
    world.until(lambda: world.has(Shares, "fog"))
    world.device("device-3", "fog")
    world.until(lambda: world.disks["device-3"].memory.trained_on == 0)
    assert world.disks["device-3"].memory.updates_sent == 0
    assert world.disks["device-3"].memory.residual is not None
    assert "made before" in world.machines["device-3"].reason(world.now)
    world.finish("device-0")
    del world.holding["device-0"]
    world.ends()
    assert world.disks["device-3"].memory.updates_sent > 0


def test_a_device_that_never_deals_out_shares_delays_three_groups_and_not_all() -> None:
    """Its messages of keys come through, its boxes never do."""
    world = Masked(rounds=8)
    world.loses = lambda target, frame: (target, frame.node) == ("fog", "device-3") and isinstance(frame.message, Shares)
    world.ends()
    assert world.now == 3 * 20.0
    assert world.disks["device-0"].memory.updates_returned == 0
    assert world.machines["fog"].facts(world.now)["groups_unmasked"] == 8


def test_a_release_that_comes_before_a_sum_is_said() -> None:
    """The top has another child, and a shorter deadline than this group takes."""
    world = Masked(rounds=2)
    world.holding["device-3"] = []
    world.until(lambda: len(world.disks["fog"].window) == 3)
    machine = world.machines["fog"]
    collector = machine._collector
    actions = collector.begin(replace(collector.release, number=1), world.now)
    assert [action.values["outcome"] for action in actions if isinstance(action, Fact) and action.name == "masks"] == ["given up"]
    assert machine.facts(world.now)["groups_given_up"] == 1
    assert "group of release 0 was given up: release 1 came before its sum" in machine.reason(world.now)


def test_a_device_that_is_one_too_many_is_told_so() -> None:
    world = Masked(devices=3, rounds=2, children=3, max_children=3)
    world.holding["device-0"] = []
    world.until(lambda: world.has(Shares, "fog"))
    world.device("device-3", "fog")
    world.run(1)
    assert "too many children" in world.machines["device-3"].reason(world.now)


def test_every_first_message_is_lost_and_the_run_goes_on() -> None:
    world, seen = Masked(deadline_s=60.0), set[tuple[str, str, type]]()

    def loses(target: str, frame: Frame) -> bool:
        key = target, frame.node, type(frame.message)
        first = isinstance(frame.message, MaskKeys | Group | Shares | Unmask | Revealed) and key not in seen
        seen.add(key)
        return first

    world.loses = loses
    world.ends()
    assert world.machines["fog"].facts(world.now)["groups_given_up"] == 0


def test_a_group_of_two_learns_nothing_and_says_why() -> None:
    world = Masked(devices=2, children=2, rounds=2)
    world.ends()
    assert world.disks["device-0"].memory.updates_sent == 0
    assert "a group of 2 devices" in world.machines["fog"].reason(world.now)
    released = world.disks["top"].released
    assert released is not None
    assert not released.theta.any()


def test_a_device_that_insists_sends_nothing_without_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module_of_world, "Cycle", partial(Cycle, require_masks=True))
    world = Masked(threshold=0, rounds=1)
    world.ends()
    assert not any(world.updates_of(device) for device in DEVICES)
    assert PLAIN_ASKED in world.machines["device-0"].reason(world.now)
    assert world.disks["device-0"].memory.residual is not None


def test_what_was_not_masked_before_a_device_insists_is_sent_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    world = Masked(threshold=0, rounds=2)
    world.loses = lambda target, frame: target == "fog" and frame.node in DEVICES[:2] and isinstance(frame.message, Update)
    world.until(lambda: len(world.disks["fog"].window) == 2 and all(world.disks[device].outbox for device in DEVICES[:2]))
    for device in DEVICES[:2]:
        world.kill(device)
    monkeypatch.setattr(module_of_world, "Cycle", partial(Cycle, require_masks=True))
    world.loses = lambda target, frame: False
    world.said.clear()
    for device in DEVICES[:2]:
        world.start(device)
    world.run(5000, lambda: world.machines["top"].state == "finished")
    assert world.machines["top"].state == "finished"  # they answer, and nobody waits for what they do not say
    for device in DEVICES[:2]:
        assert not world.updates_of(device)
        assert "1 updates of before have no masks" in world.machines[device].reason(world.now)
        assert [receiver for _, receiver, _ in world.disks[device].outbox.values()] == ["fog"]
    monkeypatch.setattr(module_of_world, "Cycle", Cycle)
    for device in DEVICES[:2]:
        world.kill(device)
        world.start(device)
    world.run(5000, lambda: not any(world.disks[device].outbox for device in DEVICES))
    (found,) = audit(books_of(world))
    assert found.faults == ()


def test_running_statistics_are_not_sent_beside_masked_lanes() -> None:
    layout = (Slot("w", (SIZE - 2,), 0), Slot("norm.running_mean", (2,), SIZE - 2, False))
    manifest: Manifest = replace(toy_bundle(SIZE).manifest, layout=layout)
    world = World(learn, bundle=Bundle(manifest, b"infer", b"train", np.zeros(SIZE, np.float32)))
    world.top("top", options(rounds=1))
    for device in DEVICES:
        world.device(device, "top")
    world.run(1000, lambda: world.machines["top"].state == "finished")
    assert [world.disks[device].memory.updates_sent for device in DEVICES] == [0, 0, 0, 0]
    assert "running statistics" in world.machines["device-0"].reason(world.now)


def test_devices_and_fog_nodes_below_one_node_add_up() -> None:
    """The top adds a group of its own devices to the sum of another group."""
    devices = [f"device-{n}" for n in range(8)]
    tree = Tree({"fog-0": "top"} | {device: "top" if n % 2 else "fog-0" for n, device in enumerate(devices)})
    assert rounds(tree, 67).theta.tobytes() == rounds(tree, 0).theta.tobytes()


class SignedAndMasked(Masked):
    """The same net where everybody signs, and asks for signatures; a bridge may alter what passes."""

    def start(self, name: str) -> None:
        self.trusts[name] = OFFICE.trust(name, top="top", fog=name in ("top", "fog"))
        self.credentials[name] = OFFICE.der(name)
        super().start(name)


def test_what_is_under_masks_is_signed_as_it_is_sent() -> None:
    world = SignedAndMasked(rounds=3)
    world.ends()
    assert world.machines["fog"].facts(world.now)["groups_unmasked"] == 3
    said = [frame for frame in world.said if frame.node in DEVICES and not isinstance(frame.message, Presence)]
    kinds = {type(frame.message) for frame in said if frame.signature}
    assert kinds == {Update, MaskKeys, Shares, Revealed}
    assert all(frame.signature for frame in said)


def test_keys_and_shares_that_a_device_has_not_signed_are_not_taken() -> None:
    """Somebody in between says other keys for device-3, to read what the others seal for it: it is in no group instead."""
    world = SignedAndMasked(rounds=2, deadline_s=10.0)
    deliver = world._deliver

    def altered(reader: str, topic: Topic, frame: Frame, *more: Any) -> None:
        if frame.node == "device-3" and isinstance(frame.message, MaskKeys):
            frame = replace(frame, message=replace(frame.message, cipher=bytes(range(32))))
        deliver(reader, topic, frame, *more)

    world._deliver = altered  # type: ignore[method-assign, assignment]
    world.until(lambda: 2 in world.releases)
    groups = [frame.message for frame in world.said if isinstance(frame.message, Group)]
    assert groups
    assert all([member.node for member in group.members] == DEVICES[:3] for group in groups)
    reasons = [fact.values["reason"] for name, fact in world.facts if (name, fact.name) == ("fog", "update_refused")]
    assert reasons
    assert all("sign" in str(reason) for reason in reasons)


def test_evidence_of_windows_under_masks_is_looked_at_for_its_signatures() -> None:
    world = SignedAndMasked(rounds=2)
    windows: list[Summed] = []
    save = world._save

    def note(name: str, disk: Any, action: Any) -> None:
        if name == "fog" and isinstance(action, SaveForward) and action.forwarded.members:
            members = tuple(disk.window[member] for member in action.forwarded.members)
            release, sent, whole = action.release, action.forwarded.frame, action.forwarded.whole
            windows.append(Summed(sent, members, release.number, release.parameters, whole, "" if whole else MASKED))
        save(name, disk, action)

    world._save = note  # type: ignore[method-assign]
    world.ends()
    shown = {node: (OFFICE.der(node),) for node in DEVICES}
    evidence = Evidence("net", "fog", "toy", tuple(windows), shown)
    authority = OFFICE.authority()

    def proven(node: str, der: bytes, text: bytes, signature: bytes) -> bool:
        senders = OFFICE.senders()
        return authority is not None and senders.learn(node, der) == "" and senders.refusal(node, text, signature) == ""

    (verdict,) = verify([evidence], proven)
    assert verdict.faults == ()
    assert verdict.signatures >= 8
    count = len(masked_windows(windows))
    assert verdict.notes[0] == f"{count} windows of fog {MASKED} and were not added up"
    first = masked_windows(windows)[0]
    forged = replace(first.members[0], seq=99)
    altered = replace(first, members=(forged, *first.members[1:]))
    (verdict,) = verify([replace(evidence, windows=(altered,))], proven)
    assert any("has altered or invented" in fault for fault in verdict.faults)
    less = replace(first, members=first.members[1:])  # what a member claims is not under masks
    (verdict,) = verify([replace(evidence, windows=(less,))], proven)
    assert any("is not of the 3 members that it shows" in fault for fault in verdict.faults)


def masked_windows(windows: list[Summed]) -> list[Summed]:
    return [window for window in windows if any(is_masked(member) for member in window.members)]
