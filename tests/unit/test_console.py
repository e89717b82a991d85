"""The operator's view: what the console makes of what nodes say, and of what they do not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from edgemw.app.console import Console
from edgemw.core.errors import ConfigError, LinkError
from edgemw.transport.link import Received
from edgemw.transport.memory import MemoryBroker, MemoryLink
from edgemw.wire import topics
from edgemw.wire.messages import Blob, Frame, Presence, ReleaseManifest, Status, pack

NET = "test"
TIMEOUT_S = 0.2


class Net:
    """Nodes on a broker in memory; those of `answering` answer when they are asked."""

    def __init__(self) -> None:
        self.broker = MemoryBroker()
        self.answering: dict[str, Status] = {}

    async def say(self, node: str, parent: str, state: str, *, role: str = "device", boot: int = 1) -> None:
        """Leave a retained presence."""
        topic = topics.build(NET, parent or node, "presence", node=node)
        async with MemoryLink(self.broker, f"{node}-{boot}", is_persistent=False) as link:
            await link.publish(topic, pack(Frame("", node, boot, 0, Presence(state, role, parent))), retain=True)

    async def there(self, node: str, parent: str = "", *, role: str = "device", reason: str = "") -> None:
        """A node that is online and answers."""
        await self.say(node, parent, "online", role=role)
        self.answering[node] = Status(role, parent, "idle", reason, {"release": 3})

    async def answer(self) -> None:
        async with MemoryLink(self.broker, "nodes", is_persistent=False) as link:
            await link.subscribe(topics.build(NET, "+", "ask", node="+"))
            async for event in link.events():
                if isinstance(event, Received):
                    asked = topics.parse(event.topic)
                    for node, status in self.answering.items():
                        if (status.parent or node) == asked.domain:
                            answer = topics.build(NET, asked.domain, "answer", asker=asked["node"], node=node)
                            await link.publish(answer, pack(Frame("digits", node, 1, 0, status)))

    @asynccontextmanager
    async def console(self) -> AsyncIterator[Console]:
        async with MemoryLink(self.broker, "console", is_persistent=False) as link, asyncio.TaskGroup() as group:
            console = Console(link, NET)
            helpers = [group.create_task(self.answer()), group.create_task(console.run())]
            try:
                yield console
            finally:
                for helper in helpers:
                    helper.cancel()

    async def ask(self) -> dict[str, Status]:
        """The status of everybody, as a new console sees it."""
        async with self.console() as console:
            return {status.node: status.status for status in await console.ask(TIMEOUT_S)}


def in_a_net(scenario: Callable[[Net], Awaitable[None]]) -> None:
    async def run() -> None:
        net = Net()
        await net.there("top", role="fog")
        await net.there("fog-0", "top", role="fog")
        await scenario(net)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("state", "parent", "reason"),
    [
        (None, "fog-0", ""),
        (None, "tpo", "its parent 'tpo' has never been seen (did you mean 'top'?)"),
        (None, "kitchen", "its parent 'kitchen' has never been seen"),
        ("lost", "fog-1", "its parent 'fog-1' is lost"),
        ("offline", "fog-1", "its parent 'fog-1' is stopped"),
        ("online", "fog-1", ""),
    ],
)
def test_a_node_whose_parent_is_not_there_says_so(state: str | None, parent: str, reason: str) -> None:
    async def scenario(net: Net) -> None:
        if state is not None:
            await net.say(parent, "top", state, role="fog")
        await net.there("phone-2", parent)
        assert (await net.ask())["phone-2"].reason == reason

    in_a_net(scenario)


def test_a_parent_beyond_a_bridge_is_known_by_its_releases() -> None:
    release = ReleaseManifest(1, 2, bytes(16), Blob(bytes(32), 4, 1024), True, "lattice", {}, 0.5, None, 4)

    async def scenario(net: Net) -> None:
        await net.there("fog-2", "region", role="fog")
        async with MemoryLink(net.broker, "bridge", is_persistent=False) as link:
            topic = topics.build(NET, "region", "release", task="digits")
            await link.publish(topic, pack(Frame("digits", "region", 1, 0, release)), retain=True)
        assert (await net.ask())["fog-2"].reason == ""

    in_a_net(scenario)


def test_who_may_not_ask_says_so_and_blames_nobody() -> None:
    async def scenario(net: Net) -> None:
        async with MemoryLink(net.broker, "watcher", is_persistent=False) as link, asyncio.TaskGroup() as group:
            console = Console(link, NET, "monitor")
            helpers = [group.create_task(net.answer()), group.create_task(console.run())]
            assert {status.node for status in await console.ask(TIMEOUT_S) if status.status.state == "idle"} == {"top", "fog-0"}
            assert console.refused == ""
            asked = link.publish

            async def denied(topic: str, payload: bytes, **more: object) -> None:
                assert topic.endswith("/rq/status/monitor")
                raise LinkError("not authorized", where="memory", hint="check its rights")

            link.publish = denied  # type: ignore[method-assign]
            await console.ask(TIMEOUT_S)
            assert "not authorized" in console.refused
            link.publish = asked  # type: ignore[method-assign]
            for helper in helpers:
                helper.cancel()

    in_a_net(scenario)


def test_a_parent_that_is_a_device_is_none() -> None:
    async def scenario(net: Net) -> None:
        await net.there("phone-1", "top")
        await net.there("phone-2", "phone-1", reason="no task has been published here yet")
        reason = (await net.ask())["phone-2"].reason
        assert reason == "its parent 'phone-1' is a device; no task has been published here yet"

    in_a_net(scenario)


def test_a_node_that_is_away_is_not_blamed_for_its_parent() -> None:
    async def scenario(net: Net) -> None:
        for state in ("lost", "offline"):
            await net.say(f"was-{state}", "tpo", state)
        statuses = await net.ask()
        assert (statuses["was-offline"].state, statuses["was-offline"].reason) == ("stopped", "")
        assert (statuses["was-lost"].state, statuses["was-lost"].reason[:21]) == ("lost", "its connection broke:")

    in_a_net(scenario)


def test_a_node_that_is_gone_is_forgotten_wherever_it_ever_was() -> None:
    async def scenario(net: Net) -> None:
        await net.say("phone-1", "tpo", "lost")
        await net.say("phone-1", "fog-0", "offline", boot=2)
        await net.say("phone-2", "fog-0", "online")  # its will was lost with an earlier broker: it does not answer
        async with net.console() as console:
            await console.forget(["phone-1", "phone-2"], TIMEOUT_S)
        assert set(await net.ask()) == {"top", "fog-0"}

    in_a_net(scenario)


@pytest.mark.parametrize(("node", "says"), [("fog-0", "fog-0 is online: stop it first"), ("phone-11", "did you mean 'phone-1'")])
def test_who_is_there_or_was_never_seen_is_not_forgotten_and_neither_are_the_others(node: str, says: str) -> None:
    async def scenario(net: Net) -> None:
        await net.say("phone-1", "fog-0", "lost")
        async with net.console() as console:
            with pytest.raises(ConfigError, match=says):
                await console.forget(["phone-1", node], TIMEOUT_S)
        assert set(await net.ask()) == {"top", "fog-0", "phone-1"}

    in_a_net(scenario)


def test_the_top_is_the_fog_without_a_parent() -> None:
    async def scenario(net: Net) -> None:
        await net.say("phone-1", "fog-0", "lost")
        async with net.console() as console:
            await console.settle()
            roles = {node: console.census.role(node) for node in ("top", "fog-0", "phone-1", "nobody")}
            assert console.census.top() == "top"
        assert roles == {"top": "top", "fog-0": "fog", "phone-1": "device", "nobody": ""}

    in_a_net(scenario)
