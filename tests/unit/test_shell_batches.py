"""Events that wait together are kept together, on a real database: what is said is on the disk, and nobody waits for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgemw.compression.table import codec_named
from edgemw.core.encoded import Section
from edgemw.core.errors import StorageError
from edgemw.core.events import Fact, Finished, SetTimer, Stop, Timer
from edgemw.core.ids import Place, UpdateId
from edgemw.device.agent import DeviceRole
from edgemw.device.events import Memory, OpenTask, SaveAck, SaveRound
from edgemw.fog.accounts import accounts_of
from edgemw.fog.agent import FogRole
from edgemw.fog.release import TopOptions
from edgemw.fog.server import ServerOptions
from edgemw.fog.top import Top
from edgemw.fog.window import WindowOptions
from edgemw.storage import journal, outbox
from edgemw.storage.database import Database
from edgemw.transport.channel import ChannelLimits
from edgemw.transport.memory import MemoryBroker, MemoryLink
from edgemw.transport.shell import MAX_BATCH, Doors, Shell, Wanted, last_will
from edgemw.wire import publication, topics
from edgemw.wire.chunks import blob_of
from edgemw.wire.messages import Ack, Frame, Update
from edgemw.wire.traffic import Arrived
from tests.contract.test_link_kinds import run
from tests.support.disks import NO_PARTS
from tests.support.world import NET, TASK, toy_bundle

SIZE, WEIGHT = 64, 10
TIMEOUT_S = 10.0
OPTIONS = TopOptions(WindowOptions(k=1000, deadline_s=3600.0, max_staleness=100), ServerOptions(), {}, codec="dense")
COMMIT_FAILS = (
    "PRAGMA foreign_keys = ON",
    "CREATE TEMP TABLE known (id INTEGER PRIMARY KEY)",
    "CREATE TEMP TABLE owing (id INTEGER REFERENCES known (id) DEFERRABLE INITIALLY DEFERRED)",
    "CREATE TEMP TRIGGER owe AFTER INSERT ON main.window BEGIN INSERT INTO owing VALUES (1); END",
)
"""Every statement of a transaction that keeps an update succeeds, and its commit does not."""


class Watched(MemoryLink):
    """Notes what was on the disk when an acknowledgement was to leave, and may keep it from leaving."""

    def __init__(self, broker: MemoryBroker, place: Place, db: Database) -> None:
        super().__init__(broker, place.node, will=last_will("fog", place), wait_for_broker=True)
        self._db = db
        self.acknowledged: asyncio.Queue[tuple[str, Ack, set[UpdateId]]] = asyncio.Queue()
        self.held, self.open = asyncio.Event(), asyncio.Event()
        self.open.set()

    async def publish(self, topic: str, payload: bytes, **more: Any) -> None:
        parsed = topics.parse(topic)
        if parsed.channel == "reply":
            self.held.set()
            await self.open.wait()
            message = publication.read(parsed, payload).message
            assert isinstance(message, Ack)
            self.acknowledged.put_nowait((parsed["node"], message, self.kept))
        await super().publish(topic, payload, **more)

    @property
    def kept(self) -> set[UpdateId]:
        """The updates in the open window that no kill can take back."""
        assert not self._db._db.in_transaction
        return {frame.id for frame in journal.open_window(self._db, TASK)}


class Fog:
    """One life of a top: its role, database and shell."""

    def __init__(self, broker: MemoryBroker, folder: Path, boot: int) -> None:
        place = Place(NET, "top", "", boot)
        self.db = Database(folder)
        self.statements: list[str] = []
        self.db._db.set_trace_callback(self.statements.append)
        self.link = Watched(broker, place, self.db)
        self.role = FogRole(place, self.db, OPTIONS, lambda task, fact: None)
        self.shell = Shell(Doors(place, self.link, ChannelLimits(), asyncio.get_running_loop().time), self.role)
        self.task = asyncio.ensure_future(self.shell.run())

    @property
    def top(self) -> Top:
        machine = self.shell.machines[TASK]
        assert isinstance(machine, Top)
        return machine

    def give(self, updates: Sequence[Frame]) -> None:
        """They have all arrived at once."""
        for frame in updates:
            topic = topics.build(NET, "top", "update", node=frame.node, task=TASK)
            self.shell.post(TASK, Arrived(topics.parse(topic), frame))

    async def acknowledgements(self, number: int) -> list[tuple[str, Ack, set[UpdateId]]]:
        async with asyncio.timeout(TIMEOUT_S):
            return [await self.link.acknowledged.get() for _ in range(number)]

    async def ended(self) -> BaseException | None:
        async with asyncio.timeout(TIMEOUT_S):
            await asyncio.wait([self.task])
        return None if self.task.cancelled() else self.task.exception()

    async def kill(self) -> None:
        """What was not committed, and what was not sent, is gone."""
        self.task.cancel()
        await self.ended()
        self.db.close()


@asynccontextmanager
async def fog(broker: MemoryBroker, folder: Path, boot: int = 1) -> AsyncIterator[Fog]:
    """A fog node that has announced its release."""
    life = Fog(broker, folder, boot)
    life.role.attach(life.shell)
    life.role.give_bundle(TASK, toy_bundle(SIZE).to_bytes())
    await settle()
    assert life.top.state == "collecting"
    life.statements.clear()
    try:
        yield life
    finally:
        await life.kill()


async def settle() -> None:
    """Let everything happen that can: nothing here waits for a clock."""
    for _ in range(100):
        await asyncio.sleep(0)


def updates(number: int, children: int = 10) -> list[Frame]:
    payload = codec_named("dense").encode(np.ones(SIZE, np.float32), 0.0)
    update = Update(1, "dense", SIZE, (Section(0, WEIGHT, 1, 1.0, payload),))
    return [Frame(TASK, f"device-{index % children}", 1, index // children, update) for index in range(number)]


def test_updates_that_wait_together_are_kept_in_one_transaction_before_any_is_acknowledged(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fog(MemoryBroker(), tmp_path) as life:
            sent = updates(MAX_BATCH)
            life.give(sent)
            said = await life.acknowledgements(len(sent))
            assert [UpdateId(child, ack.boot, ack.seq) for child, ack, _ in said] == [frame.id for frame in sent]
            assert all(kept == {frame.id for frame in sent} for _, _, kept in said)
            assert life.statements.count("COMMIT") == 1
            assert sum("INTO accounts" in statement for statement in life.statements) == 1
            taken = accounts_of(journal.accounts(life.db, TASK)).taken
            assert (taken.updates, taken.weight) == (len(sent), WEIGHT * len(sent))

    run(scenario())


def test_what_exceeds_a_batch_goes_into_the_next_one(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fog(MemoryBroker(), tmp_path) as life:
            sent = updates(2 * MAX_BATCH + 1)
            life.give(sent)
            said = await life.acknowledgements(len(sent))
            for child, ack, kept in said:
                assert UpdateId(child, ack.boot, ack.seq) in kept
            assert life.statements.count("COMMIT") == 3
            assert len(said[0][2]) == MAX_BATCH  # the first is acknowledged as soon as its own batch is kept

    run(scenario())


@pytest.mark.parametrize("cause", ["a commit that fails", "a full disk"])
def test_where_a_batch_cannot_be_kept_nothing_of_it_is_sent_and_the_node_ends(tmp_path: Path, cause: str) -> None:
    async def scenario() -> None:
        broker, sent = MemoryBroker(), updates(MAX_BATCH)
        async with fog(broker, tmp_path) as life:
            if cause == "a full disk":
                life.db.execute(f"PRAGMA max_page_count = {life.db.execute('PRAGMA page_count')[0][0]}")
            else:
                for statement in COMMIT_FAILS:
                    life.db.execute(statement)
            life.give(sent)
            ended = await life.ended()
            assert isinstance(ended, ExceptionGroup)
            assert [type(error) for error in ended.exceptions] == [StorageError]
            assert life.link.acknowledged.empty()
            assert life.link.kept == set()
        async with fog(broker, tmp_path, boot=2) as life:  # nobody was told, so all come again, and are counted once
            life.give(sent)
            said = await life.acknowledgements(len(sent))
            assert said[-1][2] == {frame.id for frame in sent}
            assert life.top.facts(0.0)["updates_taken"] == len(sent)

    run(scenario())


def test_a_kill_between_commit_and_send_counts_nothing_twice(tmp_path: Path) -> None:
    async def scenario() -> None:
        broker, sent = MemoryBroker(), updates(30)
        async with fog(broker, tmp_path) as life:
            life.link.open.clear()
            life.give(sent)
            async with asyncio.timeout(TIMEOUT_S):
                await life.link.held.wait()
            assert life.link.acknowledged.empty()
        async with fog(broker, tmp_path, boot=2) as life:
            assert life.link.kept == {frame.id for frame in sent}
            life.give(sent)
            said = await life.acknowledgements(len(sent))
            assert {UpdateId(child, ack.boot, ack.seq) for child, ack, _ in said} == {frame.id for frame in sent}
            facts = life.top.facts(0.0)
            assert (facts["updates_taken"], facts["updates_waiting"], facts["window"]) == (len(sent), len(sent), len(sent))
            assert life.top.reason(0.0) == ""

    run(scenario())


def test_a_batch_in_which_a_machine_fails_keeps_what_was_decided_before(tmp_path: Path) -> None:
    async def scenario() -> None:
        broker, sent = MemoryBroker(), updates(3)
        async with fog(broker, tmp_path) as life:
            life.give(sent)
            life.shell.post(TASK, Arrived(topics.parse(topics.build(NET, "top", "update", node="x", task=TASK)), None))  # type: ignore[arg-type]  # no machine can take it
            assert isinstance(await life.ended(), ExceptionGroup)
            assert life.link.kept == {frame.id for frame in sent}

    run(scenario())


def round_of(seq: int) -> SaveRound:
    """What a device keeps of a round."""
    frame = updates(1)[0]
    return SaveRound(Memory(run=1, trained_on=seq), replace(frame, node="device", seq=seq))


@pytest.mark.parametrize(
    ("wanted", "waits"), [([SaveAck(UpdateId("device", 1, 0))], False), ([SaveAck(UpdateId("device", 1, 0)), round_of(1)], True)]
)
def test_a_device_waits_for_the_disk_where_something_of_a_batch_is_not_said_again(
    tmp_path: Path, wanted: list[Any], waits: bool
) -> None:
    db = Database(tmp_path)
    role = DeviceRole(Place(NET, "device", "top", 1), db, NO_PARTS)
    role.act([(TASK, round_of(0))])
    statements: list[str] = []
    db._db.set_trace_callback(statements.append)
    role.act([(TASK, action) for action in wanted])
    assert statements.count("COMMIT") == 1
    assert ("PRAGMA synchronous = NORMAL" not in statements) == waits
    assert [row.acknowledged for row in outbox.kept_updates(db, TASK)] == [True, *(False for _ in wanted[1:])]
    role.close()
    db.close()


def test_a_device_begins_no_work_where_a_batch_cannot_be_kept(tmp_path: Path) -> None:
    db = Database(tmp_path)
    role = DeviceRole(Place(NET, "device", "top", 1), db, NO_PARTS)
    db.execute(f"PRAGMA max_page_count = {db.execute('PRAGMA page_count')[0][0]}")
    large = replace(round_of(0).frame, message=Update(1, "dense", SIZE, (Section(0, WEIGHT, 1, 1.0, bytes(100_000)),)))
    with pytest.raises(StorageError, match="full"):  # it has no shell to begin work with, and gets no further than this
        role.act([(TASK, OpenTask(blob_of(b"bundle"), b"bundle")), (TASK, SaveRound(Memory(), large))])
    assert outbox.kept_updates(db, TASK) == []
    role.close()
    db.close()


class Busy:
    """A machine that makes work for itself until a timer rings, and counts it in batches."""

    role, state = "fog", "busy"

    def __init__(self) -> None:
        self.shell: Shell | None = None
        self.batches: list[int] = []
        self.rang = False

    def subscriptions(self, place: Place) -> list[str]:
        return []

    def machine(self, task: str, now: float) -> Busy:
        return self

    def observe(self, task: str, fact: Fact) -> None:
        pass

    def reason(self, now: float) -> str:
        return ""

    def facts(self, now: float) -> dict[str, int | float | str]:
        return {}

    def act(self, wanted: Sequence[Wanted]) -> None:
        assert self.shell is not None
        self.batches.append(len(wanted))
        for task, action in wanted:
            self.shell.post(task, action)

    def handle(self, event: Any, now: float) -> list[Any]:
        self.rang = self.rang or isinstance(event, Timer)
        if isinstance(event, Timer | Stop) or len(self.batches) > 100:
            return [Finished()]
        return [SetTimer("ring", now), event] if not self.batches else [event]


def test_events_without_end_hold_up_no_timer_and_no_batch_grows_without_bound() -> None:
    async def scenario() -> None:
        busy, place = Busy(), Place(NET, "top", "", 1)
        link = MemoryLink(MemoryBroker(), "top", wait_for_broker=True)
        busy.shell = shell = Shell(Doors(place, link, ChannelLimits(), asyncio.get_running_loop().time), busy)
        shell.open_tasks([TASK])
        for number in range(3 * MAX_BATCH):
            shell.post(TASK, number)
        async with asyncio.timeout(TIMEOUT_S):
            await shell.run()
        assert busy.rang
        assert max(busy.batches) == MAX_BATCH

    run(scenario())
