"""What a net of nodes makes of refusals, of settings that change, and of answers that come after the end."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgemw.compression.lanes import Lanes
from edgemw.compression.lattice import Lattice
from edgemw.compression.residual import give_back
from edgemw.compression.table import codec_named
from edgemw.core.bundle import Vector
from edgemw.core.encoded import Section
from edgemw.core.ids import UpdateId
from edgemw.device.cycle import ALLOWANCE
from edgemw.device.events import Work, Worked
from edgemw.fog.collector import MAX_OPEN
from edgemw.fog.events import BundleGiven
from edgemw.fog.release import TopOptions
from edgemw.fog.server import ServerOptions
from edgemw.fog.window import MAX_NAMES, WindowOptions, tally_of
from edgemw.learning.trainer import Trained
from edgemw.wire import topics
from edgemw.wire.chunks import blob_of
from edgemw.wire.messages import Frame, Outcome, Status, TaskManifest, Update, encoded_of, pack
from edgemw.wire.pending import newest
from edgemw.wire.traffic import Arrived, Fetched, FetchFailed
from tests.support.world import NET, TASK, World, toy_bundle
from tests.unit.test_roles import Learner, counted, sent, tree


class Measuring(World):
    """A world whose devices measure what `values` says."""

    def __init__(self, values: dict[str, float]) -> None:
        self.values = values
        super().__init__(Learner())

    def _work(self, name: str, work: Work) -> Worked:
        return replace(super()._work(name, work), tally={"test.mse": (self.values[name] * 10, 10.0)})


def flat(world: World | None = None, *, children: int = 2, rounds: int = 3, target: float = 0.0) -> World:
    """A top with devices right below it."""
    world = world if world is not None else World(Learner())
    window = WindowOptions(deadline_s=20.0, children=children)
    world.top("top", TopOptions(window, ServerOptions(), {}, rounds=rounds, target=target))
    return world


def send(world: World, node: str, fog: str, update: Update, seq: int = 0) -> None:
    frame = Frame(TASK, node, world.disks[node].boots, seq, update)
    world._publish(topics.build(NET, fog, "update", node=node, task=TASK), frame, retain=False)


def zeros(run: int, base: int, weight: int = 1, count: int = 1, step: float = 0.0) -> Update:
    payload = Lattice().encode(np.zeros(64, np.float32), step)
    return Update(run, "lattice", 64, (Section(base, weight, count, 0.0, payload),), {}, base)


def release_of(world: World, fog: str) -> int:
    return int(world.machines[fog].facts(world.now)["release"])


# -- another codec in the same run


def test_a_codec_that_changes_while_updates_wait_at_a_fog_returns_them_and_goes_on() -> None:
    learner = Learner()
    world = tree(learner, rounds=6, children=2)
    world.holding["device-2"], world.holding["device-3"] = [], []
    world.settle()
    assert world.disks["fog-0"].window
    world.kill("top")
    world.options["top"] = replace(world.options["top"], codec="dense")
    world.start("top")
    world.settle()
    for name in ("device-2", "device-3"):
        held = world.holding.pop(name)
        for work in held:
            world.give(name, world._work(name, work))
    world.run(600)
    assert world.machines["top"].state == "finished"
    assert counted(world) == sent(world)
    assert all(not disk.outbox for disk in world.disks.values())


def test_a_codec_that_changes_while_updates_are_on_their_way_stops_nobody() -> None:
    world = flat()
    for name in ("device-0", "device-1"):
        world.device(name, "top")
        world.holding[name] = []
    world.settle()
    world.kill("top")
    for name in ("device-0", "device-1"):
        world.finish(name)
        del world.holding[name]
    world.settle()
    world.options["top"] = replace(world.options["top"], codec="dense")
    world.start("top")
    world.run(600)
    assert world.machines["top"].state == "finished"


# -- updates that are refused


def test_a_window_whose_updates_were_all_refused_is_answered_all_the_same() -> None:
    world = tree(Learner(), rounds=3, children=2)
    for name in ("device-0", "device-2", "device-3", "device-1"):
        world.holding[name] = []
    world.settle()
    run = world.machines["device-0"]._memory.run
    for seq, name in enumerate(("device-0", "device-2")):
        world.kill(name)
        world.start(name)
        world.settle()
        send(world, name, "fog-0", Update(run, "lattice", 65, (Section(0, 1, 1, 0.0, b""),), {}, 0), 900 + seq)
    world.finish("device-1")
    world.finish("device-3")
    world.settle()
    assert release_of(world, "top") == 1


def test_a_child_that_claims_too_many_updates_is_refused_and_the_others_count() -> None:
    world = tree(Learner(), rounds=3, children=2)
    world.holding["device-2"] = []
    world.settle()
    run = world.machines["device-0"]._memory.run
    send(world, "device-2", "fog-0", zeros(run, 0, count=1 << 31), 900)
    world.settle()
    assert any(fact.name == "update_refused" for node, fact in world.facts if node == "fog-0")
    assert release_of(world, "top") >= 1


def test_an_update_that_was_refused_is_not_counted_when_a_copy_comes_after_a_restart() -> None:
    world = tree(Learner(), rounds=3, children=2)
    world.holding["device-2"] = []
    world.settle()
    run = world.machines["device-0"]._memory.run
    refused = zeros(run, 5)
    send(world, "device-2", "fog-0", refused, 900)  # release 5 is not out yet
    world.settle()
    world.kill("fog-0")
    world.start("fog-0")
    world.settle()
    outcomes: list[Outcome] = []

    def watch(target: str, frame: Frame) -> bool:
        if isinstance(frame.message, Outcome):
            outcomes.append(frame.message)
        return False

    world.loses = watch
    send(world, "device-2", "fog-0", refused, 900)
    world.settle()
    assert [outcome.counted for outcome in outcomes if outcome.seq == 900] == [False]


def test_a_child_holds_a_bounded_part_of_a_window() -> None:
    world = tree(Learner(), rounds=3, children=2)
    world.holding["device-2"] = []
    world.settle()
    run = world.machines["device-0"]._memory.run
    for seq in range(100):
        send(world, "device-0", "fog-0", zeros(run, 0), 900 + seq)
    world.settle()
    assert sum(frame.node == "device-0" for frame in world.disks["fog-0"].window.values()) <= MAX_OPEN


def test_a_step_that_was_taken_before_a_restart_is_the_step_after_it() -> None:
    world = tree(Learner(), rounds=3, children=2)
    world.holding["device-2"] = []
    world.settle()
    assert len(world.disks["fog-0"].window) == 1
    run = world.machines["device-0"]._memory.run
    world.kill("fog-0")
    world.start("fog-0")
    world.settle()
    send(world, "device-2", "fog-0", zeros(run, 0, step=0.3), 900)
    world.settle()
    refused = [str(fact.values["reason"]) for _, fact in world.facts if fact.name == "update_refused"]
    assert refused == ["step 0.30000001192092896 where release 0 announced 0.0"]
    world.run(600)
    assert world.machines["top"].state == "finished"


def test_a_window_takes_no_more_updates_than_lanes_add() -> None:
    world = World(Learner())
    options = TopOptions(WindowOptions(deadline_s=20.0, children=3), ServerOptions(), {}, rounds=3, codec="lanes")
    world.top("top", replace(options, parameters={"bits": 8, "blocks": 1, "members": 2}))
    for name in ("device-0", "device-1", "device-2"):
        world.device(name, "top")
    world.run(600)
    assert world.machines["top"].state == "finished"
    reasons = {outcome.reason for outcome in world.disks["top"].settled.values() if not outcome.counted}
    assert reasons == {"lanes of members = 2 would wrap: give more"}
    released = world.disks["top"].released
    assert released is not None
    assert released.totals.updates == 6


def test_steps_that_devices_of_two_fogs_took_of_their_own_never_wrap_a_sum() -> None:
    """Scales that are 2^24 apart: what does not fit into 32 bits with the others is returned, and what counts is right."""
    scales = {f"device-{number}": scale for number, scale in enumerate([2.0**12, 2.0**12, 2.0**12, 1.0, 1.0, 2.0**-12])}

    def teach(node: str, release: int, theta: Vector) -> Trained:
        vector = scales[node] * np.random.default_rng(int(node[-1])).standard_normal(4096)
        vector[3] = 60 * scales[node]
        return Trained(vector.astype(np.float32), 1, 1.0, 5)

    world = World(teach, size=4096)
    window = WindowOptions(deadline_s=20.0, children=2)
    world.top("top", TopOptions(window, ServerOptions(), {}, rounds=1, kappa=1.0, release_codec="dense"))
    for fog in ("fog-0", "fog-1"):
        world.fog(fog, "top", WindowOptions(deadline_s=8.0, children=3))
    for number in range(6):
        world.device(f"device-{number}", "fog-0" if number < 4 else "fog-1")
    world.run(600)
    released = world.disks["top"].released
    assert released is not None
    kept = {node for node in scales if not world.disks[node].memory.updates_returned}
    assert 0 < len(kept) < len(scales)
    assert released.theta[3] == pytest.approx(sum(60 * scales[node] for node in kept) / len(kept), rel=1e-3)


@pytest.mark.parametrize("restart", [False, True])
def test_an_update_that_does_not_add_to_the_others_is_refused(restart: bool) -> None:
    world = World(Learner())
    options = TopOptions(WindowOptions(deadline_s=20.0, children=2), ServerOptions(), {}, rounds=3, codec="lanes")
    world.top("top", replace(options, parameters={"bits": 16, "blocks": 2, "block": 1}))
    for name in ("device-0", "device-1"):
        world.device(name, "top")
    world.holding["device-1"] = []
    world.settle()
    assert len(world.disks["top"].window) == 1
    run = world.machines["device-0"]._memory.run
    payload = Lanes(bits=16, blocks=2, block=0).encode(np.ones(64, np.float32), 0.0)
    update = Update(run, "lanes", 64, (Section(0, 1, 1, 0.0, payload),), {}, 0)
    if restart:
        world.kill("top")
        world.start("top")
        world.settle()
    send(world, "device-1", "top", update, 900)
    world.settle()
    outcomes = [outcome.reason for outcome in world.disks["top"].settled.values() if not outcome.counted]
    assert outcomes == ["other parameters of lanes than was asked for in release 0"]
    world.holding.pop("device-1")
    world.run(600)
    assert world.machines["top"].state == "finished"


# -- after the end


def test_what_comes_after_the_end_of_a_run_changes_neither_its_report_nor_its_releases() -> None:
    values = {"device-0": 0.5, "device-1": 0.5, "device-2": 9.0}
    world = flat(Measuring(values), children=3, rounds=2)
    for name in values:
        world.device(name, "top")
    world.holding["device-2"] = []
    world.run(200)
    assert world.machines["top"].state == "finished"
    reports, releases = len(world.reports), list(world.releases)
    saved = world.disks["top"].released
    world.finish("device-2")
    world.run(200)
    del world.holding["device-2"]
    world.kill("device-2")
    world.start("device-2")
    world.run(200)
    assert [report.finished for report in world.reports[reports:]] in ([], [True])
    assert world.releases == releases
    assert world.disks["top"].released == saved
    assert world.disks["device-2"].memory.updates_returned == 1
    assert not world.disks["device-2"].outbox


def test_a_target_of_a_loss_is_reached_from_above_and_training_does_not_resume() -> None:
    target, good, bad = 0.4, 0.3, 0.9
    values = {"device-0": bad, "device-1": bad, "device-2": bad}
    world = Measuring(values)
    flat(world, children=3, rounds=8, target=target)
    for name in values:
        world.device(name, "top")
    world.holding["device-2"] = []
    world.run(45)
    assert release_of(world, "top") >= 2
    assert world.machines["top"].state == "collecting"
    values.update(dict.fromkeys(values, good))
    world.run(100)
    assert world.machines["top"].state == "finished"
    last = release_of(world, "top")
    assert last < 8
    world.finish("device-2")
    world.run(200)
    assert release_of(world, "top") == last


def test_how_good_a_run_was_at_first_and_is_now_survives_a_restart() -> None:
    values = {"device-0": 0.9, "device-1": 0.7, "device-2": 0.0}
    world = Measuring(values)
    flat(world, children=3, rounds=8)
    assert "metric" not in world.machines["top"].facts(world.now)
    for name in values:
        world.device(name, "top")
    world.holding["device-2"] = []  # so that a window takes its deadline
    world.run(45)
    values.update(dict.fromkeys(values, 0.2))
    world.run(100)
    world.kill("top")
    world.start("top")
    facts = world.machines["top"].facts(world.now)
    assert facts["metric"] == "mse"
    assert (facts["metric_first"], facts["metric_last"]) == (pytest.approx(0.8), pytest.approx(0.2))


# -- tasks that cannot be used


def test_a_plan_that_no_message_can_carry_is_refused_with_a_reason() -> None:
    world = flat()
    world.device("device-0", "top")
    world.run(1)
    before = world.disks["top"].released
    assert before is not None
    world.options["top"] = replace(world.options["top"], plan={"steps": 1 << 40})
    world.kill("top")
    world.disks["top"].bundle = world.disks["top"].released = None
    world.disks["top"].known = frozenset()
    world.start("top")
    world.give("top", BundleGiven(toy_bundle().to_bytes()))
    world.settle()
    assert "no message can carry" in world.machines["top"].reason(world.now)
    assert world.disks["top"].released is None


def test_a_proposal_that_the_top_cannot_fetch_gives_way_to_the_task_that_is_there() -> None:
    world = flat()
    world.device("device-0", "top")
    world.run(1)
    blob = blob_of(b"far too large")
    world.refuses = lambda name, wanted: wanted == blob
    topic = topics.build(NET, "top", "task", task=TASK)
    world._publish(topic, Frame(TASK, "console-1", 0, 0, TaskManifest(blob)), retain=True)
    world.settle()
    assert "too large" in world.machines["top"].reason(world.now)
    assert world.retained[topic].frame.node == "top"


def test_a_proposal_that_is_heard_twice_makes_one_run() -> None:
    world = flat()
    world.run(1)
    world.bundle = toy_bundle(value=0.5)
    data = world.bundle.to_bytes()
    blob = blob_of(data)
    topic = topics.build(NET, "top", "task", task=TASK)
    proposal = Arrived(topics.parse(topic), Frame(TASK, "console-1", 0, 0, TaskManifest(blob)))
    before = world.disks["top"].released
    assert before is not None
    world.blobs["top", blob.label] = data
    world.give("top", proposal)
    world.give("top", proposal)
    world.settle()
    after = world.disks["top"].released
    assert after is not None
    assert after.manifest.run == before.manifest.run + 1


def test_a_device_that_cannot_take_its_bundle_answers_so_that_nobody_waits() -> None:
    world = tree(Learner(), rounds=3, children=2)
    world.settle()
    world.kill("device-1")
    size = len(world.bundle.to_bytes())
    world.refuses = lambda name, blob: name == "device-1" and blob.size == size
    world.start("device-1")
    world.run(5)
    assert world.machines["top"].state == "finished"
    assert "cannot be taken" in world.machines["device-1"].reason(world.now)


# -- moving, starting together, many names


def test_what_waits_for_a_former_parent_does_not_keep_a_device_from_training() -> None:
    world = tree(Learner(), rounds=3, children=2)
    world.kill("device-2")
    disk = world.disks["device-2"]
    for seq in range(ALLOWANCE):
        frame = Frame(TASK, "device-2", 0, seq, zeros(1, 0))
        disk.outbox[frame.id] = frame, "fog-that-is-gone", False
    disk.memory = replace(disk.memory, run=1)
    world.start("device-2")
    world.run(60)
    assert world.machines["top"].state == "finished"
    assert disk.memory.updates_sent == 3


def test_absent_children_have_not_appeared() -> None:
    world = flat(children=3)
    world.settle()
    names = ("device-0", "device-1", "device-2")
    for name in names:
        world.device(name, "top")
        world.kill(name)
    world.kill("top")
    world.start("top")
    world.settle()
    world.start("device-0")
    world.settle()
    assert release_of(world, "top") == 0


def test_one_child_cannot_push_out_the_names_that_the_others_bring() -> None:
    honest = [Update(1, "dense", 4, (), {"test.accuracy": (9.0, 10.0)}, 3) for _ in range(2)]
    loud = Update(1, "dense", 4, (), {f"a{n:03}": (1.0, 1.0) for n in range(MAX_NAMES)}, 3)
    tally, _ = tally_of([Frame(TASK, f"d{n}", 1, 0, update) for n, update in enumerate([*honest, loud])])
    assert tally["test.accuracy"] == (18.0, 20.0)
    assert len(tally) == MAX_NAMES


# -- what is on the broker


def test_restarts_leave_nothing_behind_on_the_broker() -> None:
    world = World(Learner(4000), size=4000)
    world.top("top", TopOptions(WindowOptions(deadline_s=20.0, children=1), ServerOptions(), {}, rounds=2))
    world.fog("fog-0", "top", WindowOptions(deadline_s=10.0, children=2))
    for name in ("device-0", "device-2"):
        world.device(name, "fog-0")
    world.run(30)
    for rounds in range(4, 40, 2):
        world.options["top"] = replace(world.options["top"], rounds=rounds)
        for name in ("top", "fog-0"):
            world.kill(name)
            world.start(name)
        world.run(30)
        assert release_of(world, "top") == rounds
        for domain in ("top", "fog-0"):
            assert sum(place == domain for place, _ in world.blobs) <= 8


# -- releases


def test_an_answer_without_sections_in_a_foreign_codec_is_refused_and_ends_nobody() -> None:
    world = tree(Learner(), rounds=3, children=2)
    world.holding["device-2"] = []
    world.settle()
    run = world.machines["device-0"]._memory.run
    send(world, "device-2", "fog-0", Update(run, "nonsense", 64, ()), 900)
    world.settle()
    assert all(frame.seq != 900 for frame in world.disks["fog-0"].window.values())
    world.disks["fog-0"].window[UpdateId("device-9", 1, 0)] = Frame(TASK, "device-9", 1, 0, Update(run, "nonsense", 64, ()))
    world.kill("fog-0")
    world.start("fog-0")
    world.finish("device-2")
    world.run(300)
    assert world.machines["top"].state == "finished"


def test_a_round_in_which_nothing_moves_does_not_keep_a_late_joiner_out() -> None:
    world = World(lambda node, release, theta: Trained(np.zeros(4000, np.float32) + (release % 2), 10, 1.0, 5), size=4000)
    world.top("top", TopOptions(WindowOptions(deadline_s=20.0, children=2), ServerOptions(), {}, rounds=9))
    for name in ("device-0", "device-1"):
        world.device(name, "top")
    world.run(100)
    world.device("device-2", "top")
    world.run(100)
    assert release_of(world, "device-2") == 9
    assert world.machines["device-2"].reason(world.now) == ""


def test_what_a_restart_gave_back_is_not_counted_after_another_one() -> None:
    world = flat(children=2, rounds=4)
    world.options["top"] = replace(world.options["top"], window=WindowOptions(deadline_s=1000.0, children=2))
    for name in ("device-0", "device-1"):
        world.device(name, "top")
    world.holding["device-1"] = []
    world.settle()
    for codec in ("dense", "lattice"):
        world.kill("top")
        world.options["top"] = replace(world.options["top"], codec=codec)
        world.start("top")
        world.run(3)
        world.kill("device-0")
        world.start("device-0")
        world.run(70)
    world.finish("device-1")
    del world.holding["device-1"]
    world.run(3000)
    memories = [world.disks[name].memory for name in ("device-0", "device-1")]
    kept = sum(memory.updates_sent - memory.updates_returned for memory in memories)
    assert world.machines["top"].state == "finished"
    assert counted(world) == (kept, sum(memory.weight_sent - memory.weight_returned for memory in memories))


def test_a_theta_of_an_old_run_that_comes_late_is_not_trained_from_in_the_new_one() -> None:
    world = flat(children=1, rounds=50)
    world.settle()
    world.options["top"] = replace(world.options["top"], release_codec="dense")
    world.kill("top")
    world.start("top")
    world.device("device-0", "top")
    world.run(1)
    world.holding["device-0"] = []
    world.fetching["device-1"] = []
    world.device("device-1", "top")
    world.settle()
    world.fetch("device-1", world.fetching["device-1"].pop(0))  # its bundle; the theta is slow
    world.settle()
    late = world.fetching["device-1"].pop()
    data = world.blobs["top", late.blob.label]
    world.bundle = toy_bundle(value=0.5)
    world.give("top", BundleGiven(world.bundle.to_bytes()))
    world.settle()
    world.holding["device-1"] = []
    world.give("device-1", Fetched(late.blob, data))
    for fetch in world.fetching["device-1"]:
        world.fetch("device-1", fetch)
    world.settle()
    assert [(work.release.number, float(work.theta[0])) for work in world.holding["device-1"]] in ([(0, 0.5)], [])


def test_children_with_more_windows_than_the_quorum_asks_for_do_not_get_stuck() -> None:
    world = World(Learner())
    world.top("top", TopOptions(WindowOptions(deadline_s=20.0, quorum=10), ServerOptions(), {}, rounds=3))
    world.fog("fog-0", "top", WindowOptions(k=1, deadline_s=10.0))
    for number in range(10):
        world.device(f"device-{number}", "fog-0")
    world.run(600)
    assert world.machines["top"].state == "finished"


def test_a_target_that_was_reached_is_reached_after_a_restart_too() -> None:
    values = {"device-0": 0.9}
    world = flat(Measuring(values), children=1, rounds=50, target=0.4)
    world.holding["device-0"] = []
    world.device("device-0", "top")
    world.settle()
    for value in (0.9, 0.3):
        values["device-0"] = value
        world.finish("device-0")
        world.settle()
    assert world.machines["top"].state == "measuring"
    world.kill("top")
    world.start("top")
    world.settle()
    assert world.machines["top"].state == "measuring"
    values["device-0"] = 0.41
    world.finish("device-0")
    world.settle()
    assert world.machines["top"].state == "finished"
    world.kill("top")
    world.start("top")
    world.settle()
    assert world.machines["top"].state == "finished"


def test_refused_updates_do_not_become_a_stream_of_empty_windows() -> None:
    world = tree(Learner(), rounds=3, children=2)
    world.holding["device-1"] = []  # the other fog node is waited for
    world.settle()
    run = world.machines["device-0"]._memory.run
    before = len(world.disks["fog-0"].forwarded)
    for seq in range(50):
        send(world, "device-0", "fog-0", zeros(run, 5), 900 + seq)
        world.settle()
    assert len(world.disks["fog-0"].forwarded) == before


def test_a_blob_that_a_fog_did_not_wait_for_and_cannot_be_had_changes_nothing() -> None:
    world = flat(children=1, rounds=50)
    world.settle()
    world.options["top"] = replace(world.options["top"], release_codec="dense")
    world.kill("top")
    world.start("top")
    world.device("device-0", "top")
    world.run(1)
    world.holding["device-0"] = []
    world.fetching["fog"] = []
    world.fog("fog", "top", WindowOptions(children=1))
    world.settle()
    world.fetch("fog", world.fetching["fog"].pop(0))  # the bundle
    world.settle()
    assert len(world.fetching["fog"]) == 1  # theta as a whole
    world.give("fog", FetchFailed(blob_of(b"something else", 1024), "it is not there"))
    world.settle()
    assert world.machines["fog"].reason(world.now) == ""
    world.fetch("fog", world.fetching["fog"].pop())
    world.settle()
    assert release_of(world, "fog") == release_of(world, "top") > 0


# -- answers that were returned, and lives that do not know of them


def spoil(world: World, receiver: str, number: int) -> None:
    """What every child says of one release arrives without its payload, so that it is returned."""
    spoilt: set[str] = set()

    def lose(target: str, frame: Frame) -> bool:
        message = frame.message
        if target != receiver or frame.node in spoilt or not isinstance(message, Update) or newest(frame) != number:
            return False
        spoilt.add(frame.node)
        send(world, frame.node, receiver, replace(message, sections=(replace(message.sections[0], payload=b""),)), frame.seq)
        return True

    world.loses = lose


def again(world: World, names: tuple[str, ...]) -> None:
    for name in names:
        world.kill(name)
    for name in names:
        world.start(name)
    world.settle()


@pytest.mark.parametrize("number", [0, 1, 3])
@pytest.mark.parametrize(
    ("receiver", "slow", "killed"),
    [
        ("fog-0", "device-2", ("fog-0",)),
        ("fog-0", "device-2", ("fog-0", "device-0")),
        ("fog-0", "device-2", ("device-0", "fog-0", "top")),
        ("top", "device-1", ("top",)),
        ("top", "device-1", ("top", "fog-0")),
        ("top", "device-1", ("fog-0", "top", "device-0")),
    ],
)
def test_who_starts_again_hears_once_more_of_answers_that_were_returned(
    receiver: str, slow: str, killed: tuple[str, ...], number: int
) -> None:
    """They are on nobody's disk, and whoever gave them idles until the next release.

    After the first one a sender still has the update before, whose outcome is told with the next acknowledgement.
    """
    world = tree(Learner(), children=2)
    spoil(world, receiver, number)
    world.holding[slow] = []
    world.settle()
    for _ in range(number):
        world.finish(slow)
        world.settle()
    assert world.disks["device-0"].memory.updates_returned == 1
    again(world, killed)
    world.finish(slow)
    del world.holding[slow]
    world.run(300)
    assert world.disks[slow].memory.updates_returned == 1
    assert world.machines["top"].state == "finished"
    assert counted(world) == sent(world)


def test_an_update_for_a_former_parent_does_not_keep_a_device_from_answering_the_present_one() -> None:
    world = flat(children=1)
    for fog in ("fog-0", "fog-1"):
        world.fog(fog, "top", WindowOptions(deadline_s=10.0))
    world.loses = lambda target, frame: target == "fog-0" and isinstance(frame.message, Update)
    world.device("device-0", "fog-0")
    world.settle()
    world.loses = lambda target, frame: False
    world.kill("fog-0")  # for good
    world.kill("device-0")
    world.parents["device-0"] = "fog-1"
    world.start("device-0")
    world.run(600)
    assert [receiver for _, receiver, _ in world.disks["device-0"].outbox.values()] == ["fog-0"]
    assert world.machines["top"].state == "finished"


def test_weights_that_no_message_can_say_are_refused_and_said_as_the_most() -> None:
    world = flat(children=2, rounds=3)
    for device in ("device-0", "device-1"):
        world.holding[device] = []
        world.device(device, "top")
    world.settle()
    run = world.machines["device-0"]._memory.run
    for seq in range(3):
        send(world, "device-1", "top", zeros(run, 0, weight=(1 << 63) - 1), 900 + seq)
    world.settle()
    facts = world.machines["top"].facts(world.now)
    assert facts["weight_refused"] == (1 << 63) - 1
    assert facts["weight_taken"] == 0
    pack(Frame(TASK, "top", 1, 0, Status("fog", "", "collecting", "", facts)))


def test_a_device_that_rounds_by_chance_has_a_residual_from_a_return_to_its_next_update() -> None:
    """Its updates are unbiased one by one; what came back goes with the next one, and counts for it."""
    world = World(Learner())
    window, parameters = WindowOptions(deadline_s=20.0, children=2), {"rounding": "stochastic"}
    world.top("top", TopOptions(window, ServerOptions(), {}, rounds=4, parameters=dict(parameters)))
    devices = ("device-0", "device-1")
    for device in devices:
        world.holding[device] = []
        world.device(device, "top")
    spoil(world, "top", 1)
    sent: dict[str, Frame] = {}
    for number in range(4):
        world.settle()
        memories = [world.disks[device].memory for device in devices]
        assert [memory.residual is None for memory in memories] == [number != 2] * 2
        assert [memory.weight_owed for memory in memories] == [memory.weight_returned * (number == 2) for memory in memories]
        if number == 2:
            for device in devices:
                said = give_back(codec_named("lattice"), encoded_of(sent[device]), np.zeros(64, np.float32))
                kept = world.disks[device].memory.residual
                assert kept is not None
                assert np.array_equal(kept, said)
                assert world.machines[device].facts(world.now)["mass_imbalance"] == 0
        for device in devices:
            world.finish(device)
            name, event = world.queue.pop()
            for action in world.machines[name].handle(event, world.now):
                world._act(name, action)
            sent[device] = next(reversed(world.disks[device].outbox.values()))[0]
    world.holding.clear()
    world.run(300)
    assert world.machines["top"].state == "finished"
    assert counted(world) == (6, sum(world.disks[device].memory.weight_sent for device in devices) - 21)
