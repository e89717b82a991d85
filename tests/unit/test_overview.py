"""What a fog node's page says: the tree below it, who is well and who is not, without a message while nobody looks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from edgemw.app import overview as module
from edgemw.app.history import History
from edgemw.app.overview import Overview, document
from edgemw.core.errors import LinkError
from edgemw.core.ids import Place
from edgemw.transport.link import Received
from edgemw.transport.memory import MemoryBroker, MemoryLink
from edgemw.wire import publication, topics
from edgemw.wire.messages import Frame, Presence, RoundReport, Status

NET = "test"
Facts = dict[str, int | float | str]


class Net:
    """Nodes on a broker in memory, and the page of one of them.

    Attributes:
        asked: domains that were asked, in order.
    """

    def __init__(self, folder: Path) -> None:
        self.broker = MemoryBroker()
        self.answering: dict[str, Status] = {}
        self.asked: list[str] = []
        self.history = History(folder / "history.jsonl")
        self.speaker = MemoryLink(self.broker, "nodes", is_persistent=False)

    async def say(self, node: str, parent: str, state: str, role: str = "device", boot: int = 1) -> None:
        topic = topics.build(NET, parent or node, "presence", node=node)
        await self.speaker.publish(
            topic, publication.write(topic, Frame("", node, boot, 0, Presence(state, role, parent))), retain=True
        )

    async def there(self, node: str, parent: str, role: str = "device", reason: str = "", **facts: int | float | str) -> None:
        self.answering[node] = Status(role, parent, "idle", reason, {"release": 3, **facts})
        await self.say(node, parent, "online", role)

    async def report(self, release: int, **facts: int | float | str) -> None:
        topic = topics.build(NET, "top", "event", node="top", task="digits")
        await self.speaker.publish(
            topic, publication.write(topic, Frame("digits", "top", 1, 0, RoundReport(release, False, facts, ())))
        )

    async def _answer(self) -> None:
        await self.speaker.subscribe(topics.build(NET, "+", "ask", node="+"))
        async for event in self.speaker.events():
            if isinstance(event, Received):
                asked = topics.parse(event.topic)
                self.asked.append(asked.domain)
                for node, status in self.answering.items():
                    if (status.parent or node) == asked.domain:
                        topic = topics.build(NET, asked.domain, "answer", asker=asked["node"], node=node)
                        await self.speaker.publish(topic, publication.write(topic, Frame("digits", node, 1, 0, status)))

    @asynccontextmanager
    async def page(self, node: str = "top", parent: str = "") -> AsyncIterator[Overview]:
        own = Status("fog", parent, "collecting", "", {"release": 4, "energy_j": 1.0, "energy_source": "model"})
        link = MemoryLink(self.broker, node, is_persistent=False)
        overview = Overview(Place(NET, node, parent, 1), link, self.history)

        async def listen() -> None:
            async for event in link.events():
                if isinstance(event, Received):
                    overview.hear(event.topic, event.payload)

        async with self.speaker, link, asyncio.TaskGroup() as group:
            await link.subscribe(topics.build(NET, node, "presence", node="+"))  # as the role does
            works = [listen(), overview.run(lambda: [("digits", own)]), self._answer()]
            tasks = [group.create_task(work) for work in works]
            try:
                yield overview
            finally:
                for task in tasks:
                    task.cancel()


async def until(overview: Overview, right: Callable[[dict[str, dict[str, Any]]], bool]) -> dict[str, dict[str, Any]]:
    """The nodes that the page shows, as soon as they are right."""
    for _ in range(1000):
        nodes = {node["node"]: node for node in document(await overview.look())["nodes"]}
        if right(nodes):
            return nodes
        await asyncio.sleep(0.01)
    raise AssertionError(nodes)


async def soon(true: Callable[[], bool]) -> None:
    """Wait until something is true."""
    for _ in range(1000):
        if true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never was")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVERY_S", 0.05)
    monkeypatch.setattr(module, "JOULES_S", 0.0)


def in_a_net(folder: Path, scenario: Callable[[Net], Awaitable[None]]) -> None:
    async def run() -> None:
        await scenario(Net(folder))

    asyncio.run(run())


async def three_levels(net: Net) -> None:
    await net.there("region", "top", "fog")
    await net.there("site", "region", "fog")
    await net.there("pi-1", "site", energy_j=2.5, energy_source="model")
    await net.there("pi-2", "site", reason="no data")


def test_the_first_look_shows_the_whole_tree(tmp_path: Path) -> None:
    async def scenario(net: Net) -> None:
        async with net.page() as overview:
            await three_levels(net)
            nodes = await until(overview, lambda nodes: len(nodes) == 5 and all(node["tasks"] for node in nodes.values()))
        assert {node["node"]: node["parent"] for node in nodes.values()} == {
            "top": "", "region": "top", "site": "region", "pi-1": "site", "pi-2": "site"
        }  # fmt: skip
        assert (nodes["pi-2"]["reason"], nodes["pi-1"]["reason"]) == ("no data", "")
        assert nodes["pi-1"]["tasks"] == [{"task": "digits", "state": "idle", "release": 3, "energy_j": 2.5}]
        assert nodes["top"]["tasks"][0]["release"] == 4

    in_a_net(tmp_path, scenario)


def test_a_fog_node_in_the_middle_shows_what_is_below_it_alone(tmp_path: Path) -> None:
    async def scenario(net: Net) -> None:
        async with net.page("site", "region") as overview:
            await three_levels(net)
            nodes = await until(overview, lambda nodes: {"pi-1", "pi-2"} <= nodes.keys() and bool(nodes["pi-2"]["reason"]))
            assert nodes["pi-1"]["reason"] == ""
        assert nodes.keys() == {"site", "pi-1", "pi-2"}
        assert set(net.asked) == {"site"}

    in_a_net(tmp_path, scenario)


def test_nobody_is_asked_unless_somebody_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOKING_S", 0.1)

    async def scenario(net: Net) -> None:
        async with net.page() as overview:
            await three_levels(net)
            for release in range(20):
                await net.report(release, accuracy=0.5)
            await soon(lambda: len(net.history.rounds.get("digits", [])) == 20)
            assert net.asked == []
            await until(overview, lambda nodes: len(nodes) == 5)
            assert "site" in net.asked
            for _ in range(20):
                before = len(net.asked)
                await asyncio.sleep(0.4)
                if before == len(net.asked):
                    return  # nobody looks any more
            raise AssertionError(net.asked)

    in_a_net(tmp_path, scenario)


def test_who_does_not_answer_is_silent_but_not_at_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVERY_S", 0.5)
    monkeypatch.setattr(module, "FIRST_TICKS", 1)

    async def scenario(net: Net) -> None:
        async with net.page() as overview:
            await net.there("pi-1", "top")
            await net.say("pi-2", "top", "online")
            first = await until(overview, lambda nodes: "pi-2" in nodes)
            assert (first["pi-2"]["state"], first["pi-2"]["reason"]) == ("online", "")
            later = await until(overview, lambda nodes: nodes["pi-2"]["state"] == "silent")
            assert "does not answer" in later["pi-2"]["reason"]
            assert later["pi-1"]["state"] == "idle"

    in_a_net(tmp_path, scenario)


def test_who_is_lost_stopped_or_forgotten(tmp_path: Path) -> None:
    async def scenario(net: Net) -> None:
        async with net.page() as overview:
            await three_levels(net)
            await until(overview, lambda nodes: len(nodes) == 5)
            del net.answering["pi-1"], net.answering["pi-2"]
            await net.say("pi-1", "site", "lost")
            await net.say("pi-2", "site", "offline")
            nodes = await until(overview, lambda n: (n["pi-1"]["state"], n["pi-2"]["state"]) == ("lost", "stopped"))
            assert "its connection broke" in nodes["pi-1"]["reason"]
            assert nodes["pi-2"]["reason"] == ""
            await net.speaker.publish(topics.build(NET, "site", "presence", node="pi-1"), b"", retain=True)
            await until(overview, lambda nodes: "pi-1" not in nodes)

    in_a_net(tmp_path, scenario)


def test_joules_of_who_has_gone_stay_in_the_sum(tmp_path: Path) -> None:
    async def scenario(net: Net) -> None:
        async with net.page() as overview:
            await net.there("pi-1", "top", energy_j=2.5, energy_source="model")
            await until(overview, lambda nodes: "pi-1" in nodes and bool(nodes["pi-1"]["tasks"]))
            del net.answering["pi-1"]
            await net.say("pi-1", "top", "lost")
            await until(overview, lambda nodes: nodes["pi-1"]["state"] == "lost")
            energy = document(await overview.look())["energy"]
            assert (energy["joules"], energy["nodes"]) == (3.5, 2)
            await soon(lambda: bool(net.history.joules) and net.history.joules[-1][1] == 3.5)

    in_a_net(tmp_path, scenario)


def test_an_empty_word_about_a_node_that_is_there_forgets_nobody(tmp_path: Path) -> None:
    async def scenario(net: Net) -> None:
        async with net.page() as overview:
            await three_levels(net)
            await until(overview, lambda nodes: len(nodes) == 5)
            overview.hear(topics.build(NET, "top", "presence", node="region"), b"")  # as `edgemw doctor` tries access rules
            nodes = await until(overview, lambda nodes: len(nodes) == 5 and all(node["tasks"] for node in nodes.values()))
        assert nodes["region"]["state"] == "idle"

    in_a_net(tmp_path, scenario)


@pytest.mark.parametrize(("node", "parent", "believed"), [("top", "", []), ("site", "region", ["digits"])])
def test_rounds_that_others_tell_in_their_own_domain_are_not_drawn(
    node: str, parent: str, believed: list[str], tmp_path: Path
) -> None:
    async def scenario(net: Net) -> None:
        async with net.page(node, parent) as overview:
            await net.there("pi-1", node)
            await until(overview, lambda nodes: "pi-1" in nodes)
            if parent:
                await net.report(1, accuracy=0.5)
                await soon(lambda: "digits" in net.history.rounds)
            for domain in ("pi-1", "pi-2"):  # a device that is known, and one that is not
                topic = topics.build(NET, domain, "event", node=domain, task="junk")
                overview.hear(topic, publication.write(topic, Frame("junk", domain, 1, 0, RoundReport(1, False, {}, ()))))
            assert [*net.history.rounds] == believed

    in_a_net(tmp_path, scenario)


def test_a_filter_that_was_refused_is_named_and_asked_for_again(tmp_path: Path) -> None:
    async def scenario(net: Net) -> None:
        async with net.page() as overview:
            real, refusals = overview._link.subscribe, 2

            async def moody(topic_filter: str) -> None:
                nonlocal refusals
                if "region" in topic_filter and refusals:
                    refusals -= 1
                    raise LinkError("refused a filter", where="memory", hint="see the ACL")
                await real(topic_filter)

            overview._link.subscribe = moody  # type: ignore[method-assign]
            await three_levels(net)
            await overview.look()
            await soon(lambda: "region/st/+: refused a filter: see the ACL" in overview._view().refused)
            await until(overview, lambda nodes: len(nodes) == 5)
            assert overview._view().refused == ""

    in_a_net(tmp_path, scenario)


def test_a_broker_that_does_not_let_a_node_ask_is_named(tmp_path: Path) -> None:
    async def scenario(net: Net) -> None:
        async with net.page() as overview:
            real = overview._link.publish

            async def refused(topic: str, payload: bytes, **more: Any) -> None:
                raise LinkError("not authorized", where="memory", hint="see the ACL")

            overview._link.publish = refused  # type: ignore[method-assign]
            await overview.look()
            await soon(lambda: "see the ACL" in overview._view().refused)
            overview._link.publish = real  # type: ignore[method-assign]
            await net.there("pi-1", "top")
            await until(overview, lambda nodes: "pi-1" in nodes and bool(nodes["pi-1"]["tasks"]))
            assert document(await overview.look())["refused"] == ""

    in_a_net(tmp_path, scenario)


@pytest.mark.parametrize(
    ("topic", "payload"),
    [
        ("em1/test/top/st/pi-1", b"\x00garbage"),
        ("em1/test/top/st/", b"x"),
        ("em1/test/top/rs/top/pi-1", b"\xff" * 100_000),
        ("em1/other/st/rs/ev", b""),
        ("x/st/y", b"x"),
    ],
)
def test_nonsense_changes_nothing(topic: str, payload: bytes, tmp_path: Path) -> None:
    async def scenario(net: Net) -> None:
        async with net.page() as overview:
            overview.hear(topic, payload)
            assert [node["node"] for node in document(await overview.look())["nodes"]] == ["top"]

    in_a_net(tmp_path, scenario)


def test_words_where_numbers_belong_do_not_reach_the_page(tmp_path: Path) -> None:
    async def scenario(net: Net) -> None:
        async with net.page() as overview:
            await net.there("pi-1", "top", release="<b>9</b>", energy_j="many", window=2)
            nodes = await until(overview, lambda nodes: "pi-1" in nodes and bool(nodes["pi-1"]["tasks"]))
            await net.report(1, accuracy=0.5, uplink_bytes="lots")
            json.dumps(document(await overview.look()), allow_nan=False)
        assert nodes["pi-1"]["tasks"] == [{"task": "digits", "state": "idle", "window": 2}]

    in_a_net(tmp_path, scenario)
