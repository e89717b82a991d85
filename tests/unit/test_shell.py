"""The shell over a link in memory: how a node comes, goes, and ends when something of its own fails."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from edgemw.core.events import Fact, Finished, LinkUp, SetTimer, Stop, Timer
from edgemw.core.ids import Place
from edgemw.transport.channel import ChannelLimits
from edgemw.transport.memory import MemoryBroker, MemoryLink
from edgemw.transport.shell import Doors, Shell, Wanted, last_will
from edgemw.wire import topics
from edgemw.wire.fetching import MAX_KNOWN
from edgemw.wire.messages import Ack, Blob, Frame, Presence, pack
from edgemw.wire.publication import read
from edgemw.wire.traffic import Arrived, Fetch, FetchFailed
from tests.contract.test_link_kinds import run

PLACE = Place("net", "device", "fog", 7)
REPLY = topics.build("net", "fog", "reply", node="device", task="toy")
PRESENCE = topics.build("net", "fog", "presence", node="device")
TIMEOUT_S = 10.0

Respond = Callable[[Any], list[Any]]


class Machine:
    """Keeps what it hears, and answers as the test says."""

    state = "idle"

    def __init__(self, respond: Respond) -> None:
        self.heard: asyncio.Queue[Any] = asyncio.Queue()
        self._respond = respond

    def reason(self, now: float) -> str:
        return ""

    def facts(self, now: float) -> dict[str, int | float | str]:
        return {}

    def handle(self, event: Any, now: float) -> list[Any]:
        self.heard.put_nowait(event)
        return [Finished()] if isinstance(event, Stop) else self._respond(event)

    async def next(self, kind: type[Any]) -> Any:
        """The next event of a kind."""
        async with asyncio.timeout(TIMEOUT_S):
            while not isinstance(event := await self.heard.get(), kind):
                pass
        return event


class Role:
    """One task, one machine."""

    role = "device"

    def __init__(self, respond: Respond) -> None:
        self.only = Machine(respond)

    def subscriptions(self, place: Place) -> list[str]:
        return [topics.build(place.net, place.parent, "reply", node=place.node, task="+")]

    def machine(self, task: str, now: float) -> Machine:
        return self.only

    def act(self, wanted: Sequence[Wanted]) -> None:
        raise AssertionError(f"nobody carries out {wanted}")

    def observe(self, task: str, fact: Fact) -> None:
        pass


class Node:
    """A shell with its machine, on a broker."""

    def __init__(self, broker: MemoryBroker, respond: Respond) -> None:
        self.broker = broker
        role = Role(respond)
        link = MemoryLink(broker, "device", will=last_will("device", PLACE), wait_for_broker=True)
        loop = asyncio.get_running_loop()
        self.shell = Shell(Doors(PLACE, link, ChannelLimits(), loop.time), role)
        self.machine = role.only
        self.shell.open_tasks(["toy"])
        self.task: asyncio.Task[None] | None = None

    @property
    def presence(self) -> str:
        """What the broker keeps of it."""
        payload = self.broker.retained(PRESENCE)
        if payload is None:
            return ""
        message = read(topics.parse(PRESENCE), payload).message
        assert isinstance(message, Presence)
        return message.state

    async def ended(self) -> BaseException | None:
        """How the shell ended: an exception, or None."""
        assert self.task is not None
        async with asyncio.timeout(TIMEOUT_S):
            await asyncio.wait([self.task])
        return asyncio.CancelledError() if self.task.cancelled() else self.task.exception()

    def cut_short(self) -> None:
        """What a second signal does."""
        assert self.task is not None
        self.task.cancel()


@asynccontextmanager
async def node(respond: Respond = lambda event: []) -> AsyncIterator[Node]:
    """A node that is online, until the end of the test."""
    made = Node(MemoryBroker(), respond)
    made.task = asyncio.ensure_future(made.shell.run())
    await made.machine.next(LinkUp)
    await settle()
    assert made.presence == "online"
    yield made
    made.cut_short()
    await made.ended()


async def settle() -> None:
    """Let everything happen that can: nothing in memory waits for a clock."""
    for _ in range(100):
        await asyncio.sleep(0)


async def say(broker: MemoryBroker, topic: str, payload: bytes) -> None:
    """Publish as the parent."""
    async with MemoryLink(broker, "fog") as fog:
        await fog.publish(topic, payload)


# -- coming and going


def test_a_node_that_is_stopped_says_goodbye() -> None:
    async def scenario() -> None:
        async with node() as it:
            it.shell.stop()
            assert await it.ended() is None
            assert it.presence == "offline"

    run(scenario())


def test_a_node_that_is_cut_short_is_lost() -> None:
    async def scenario() -> None:
        async with node() as it:
            it.cut_short()
            assert isinstance(await it.ended(), asyncio.CancelledError)
            assert it.presence == "lost"

    run(scenario())


def test_a_node_that_is_cut_short_while_it_says_goodbye_is_lost() -> None:
    async def scenario() -> None:
        async with node() as it:
            it.broker.hold_acknowledgements = True
            it.shell.stop()
            await settle()
            it.cut_short()
            assert isinstance(await it.ended(), asyncio.CancelledError)
            assert it.presence == "lost"

    run(scenario())


def test_every_connection_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        with caplog.at_level(logging.INFO, "edgemw.transport.shell"):
            async with node() as it:
                it.broker.cut("device")
                await it.machine.next(LinkUp)

    run(scenario())
    said = [record.getMessage() for record in caplog.records if record.getMessage().startswith("link ")]
    assert said == ["link up: memory", "link down: the connection was cut", "link up: memory"]


def test_a_presence_that_the_broker_refuses_is_an_error_that_names_the_topic(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with node() as it:
            it.broker.deny(PRESENCE)
            it.shell.stop()
            assert await it.ended() is None
            assert it.shell.channel.refused == {"refused-by-broker": 1}

    run(scenario())
    assert [PRESENCE in record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == [True]


# -- timers


def test_a_timer_that_is_set_again_for_the_same_time_rings_once_and_again_when_it_is_asked_for_after_that() -> None:
    rang: list[int] = []

    def respond(event: Any) -> list[Any]:
        if isinstance(event, Timer):
            rang.append(len(rang))
        wanted = len(rang) < 3 and isinstance(event, Arrived | Timer)
        return [SetTimer("wake", 0.0), SetTimer("wake", 0.0)] if wanted else []

    async def scenario() -> None:
        async with node(respond) as it:
            await say(it.broker, REPLY, pack(Frame("toy", "fog", 1, 0, Ack(7, 0))))
            for _ in range(3):
                await it.machine.next(Timer)
            await settle()
            assert rang == [0, 1, 2]
            assert it.shell._timers == {}

    run(scenario())


# -- what fails


def test_a_machine_that_fails_ends_its_node_which_goes_on_from_the_disk(caplog: pytest.LogCaptureFixture) -> None:
    def fail(event: Any) -> list[Any]:
        if isinstance(event, Arrived):
            raise ZeroDivisionError("half of the state is changed, and what had to be saved is gone")
        return []

    async def scenario() -> None:
        async with node(fail) as it:
            await say(it.broker, REPLY, pack(Frame("toy", "fog", 1, 0, Ack(7, 0))))
            ended = await it.ended()
            assert isinstance(ended, ExceptionGroup)
            assert [type(error) for error in ended.exceptions] == [ZeroDivisionError]
            assert it.presence == "lost"

    run(scenario())
    assert "Ack of fog for task toy" in caplog.text


@pytest.mark.parametrize("payload", [b"{}", b"\xc1", pack(Frame("toy", "attic", 1, 0, Ack(7, 0)))])
def test_what_is_malformed_or_forged_ends_nothing(payload: bytes) -> None:
    async def scenario() -> None:
        async with node() as it:
            await say(it.broker, REPLY, payload)
            await say(it.broker, REPLY, pack(Frame("toy", "fog", 1, 0, Ack(7, 0))))
            assert (await it.machine.next(Arrived)).frame.message == Ack(7, 0)
            assert it.shell.channel.refused.total() == 1

    run(scenario())


def test_blobs_that_never_come_are_given_up_and_whoever_asked_is_told() -> None:
    more = 20
    blobs = [Blob(number.to_bytes(32, "little"), 5000, 1024) for number in range(MAX_KNOWN + more)]

    def ask(event: Any) -> list[Any]:
        return [Fetch("fog", blob) for blob in blobs] if isinstance(event, Arrived) else []

    async def scenario() -> None:
        async with node(ask) as it:
            await say(it.broker, REPLY, pack(Frame("toy", "fog", 1, 0, Ack(7, 0))))
            given_up = [await it.machine.next(FetchFailed) for _ in range(more)]
            assert [failed.blob for failed in given_up] == blobs[:more]
            assert "newer" in given_up[0].reason
            assert len(it.shell._wanted) == it.shell.channel.fetching == MAX_KNOWN

    run(scenario())
