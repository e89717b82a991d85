"""A tree over five brokers that are bridged with the files of brokers/mosquitto: a broker for each site, region and top."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest

from edgemw.app.broker import mqtt_settings
from edgemw.app.census import NodeStatus
from edgemw.transport.link import Received
from edgemw.transport.mqtt import MqttLink
from edgemw.wire.topics import Topic, parse
from tests.support.mosquitto import Authority, Mosquitto, started
from tests.system.fleet import BUNDLE, Fleet, fact
from tests.system.test_brokers import check_books, check_nothing_was_refused, finish, write_nodes

SITES = 3
ROUNDS = 40
DEPLOYMENT = f"""schema = 1
name = "farm"
[task]
bundle = "{BUNDLE}"
[data]
source = "digits"
partition = "dirichlet"
alpha = 0.3
seed = 1
[codec]
use = "dense"
[window]
k = "all"
deadline = "10s"
[tiers.top]
role = "fog"
[tiers.region]
role = "fog"
parent = "top"
[tiers.site]
role = "fog"
parent = "region"
count = {SITES}
[tiers.device]
role = "device"
parent = "site"
count = {2 * SITES}
"""


@dataclass(frozen=True)
class Net:
    """Nodes on brokers, each by name: "top", "region-0", "site-0" ..."""

    fleet: Fleet
    nodes: list[str]
    brokers: dict[str, Mosquitto]

    @asynccontextmanager
    async def listening(self, broker: str) -> AsyncIterator[set[str]]:
        """The topics that pass a broker meanwhile, as one hears who may read everything."""
        heard: set[str] = set()
        settings = replace(mqtt_settings(self.brokers[broker].login("monitor"), "listener", {}), session_expiry_s=0)
        async with MqttLink(settings) as link, asyncio.TaskGroup() as group:
            await link.subscribe("em1/#")

            async def listen() -> None:
                async for event in link.events():
                    if isinstance(event, Received):
                        heard.add(event.topic)

            listener = group.create_task(listen())
            yield heard
            listener.cancel()


def home(node: str) -> str:
    """The broker that a node speaks to: a fog node's own, a device's that of its site."""
    tier, _, number = node.partition("-")
    return f"site-{int(number) // 2}" if tier == "device" else node


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Net]:
    authority = Authority(tmp_path / "authority")
    sites = [f"site-{number}" for number in range(SITES)]
    brokers = {name: Mosquitto(tmp_path / "brokers" / name, "tls", authority) for name in ("top", "region-0", *sites)}
    deployment = tmp_path / "edgemw.toml"
    deployment.write_text(DEPLOYMENT)
    nodes = write_nodes(tmp_path / "nodes", deployment, lambda node: brokers[home(node)].login(node), ROUNDS)
    authority.admit(*nodes, "monitor")
    brokers["region-0"].bridge("region-0", "top", brokers["top"])
    for site in sites:
        brokers[site].bridge(site, "region-0", brokers["region-0"])
    with started(list(brokers.values())):
        top = brokers["top"]
        with Fleet(tmp_path / "nodes", top.url, "farm", top.login("monitor")) as fleet:
            yield Net(fleet, nodes, brokers)


def test_a_tree_of_sites_learns_and_nothing_of_a_device_leaves_its_site(net: Net) -> None:
    async def scenario() -> list[list[Topic]]:
        async with net.listening("top") as above, net.listening("region-0") as between, net.listening("site-0") as below:
            net.fleet.start(*net.nodes)
            await asyncio.to_thread(finish, net.fleet, "top", ROUNDS)
        return [list(map(parse, topics)) for topics in (above, between, below)]

    above, between, below = asyncio.run(scenario())
    assert updates(above) == {("top", "region-0")}
    assert updates(between) == {("top", "region-0"), *(("region-0", f"site-{number}") for number in range(SITES))}
    assert updates(below) == {("region-0", "site-0"), ("site-0", "device-0"), ("site-0", "device-1")}
    assert {"chunk", "blob"} <= {topic.channel for topic in above}  # updates too large for one message, and whole releases
    assert {topic.domain for topic in above} == {"top"}
    assert {topic.domain for topic in between} == {"top", "region-0"}
    assert {topic.domain for topic in below if topic.channel != "event"} == {"region-0", "site-0"}
    assert {(topic.domain, topic["node"]) for topic in below if topic.channel == "event"} == {("top", "top")}
    check_books(net.fleet)
    check_nothing_was_refused(net.fleet)


def updates(topics: list[Topic]) -> set[tuple[str, str]]:
    """Domains and senders of updates."""
    return {(topic.domain, topic["node"]) for topic in topics if topic.channel in ("update", "chunk")}


@pytest.mark.parametrize("victim", ["top", "region-0", "site-0"])
def test_a_broker_that_is_killed_in_the_middle_costs_time_only(net: Net, victim: str) -> None:
    net.fleet.start(*net.nodes)
    statuses = net.fleet.until(lambda s: "top" in s and fact(s["top"], "release") >= 1)
    assert statuses["top"].status.state != "finished"
    broker = net.brokers[victim]
    broker.kill()
    for node in net.nodes:
        if home(node) == victim:
            net.fleet.said(node, "link down")
    broker.start()
    finish(net.fleet, "top", ROUNDS)
    check_books(net.fleet)


def test_who_watches_asks_the_nodes_of_a_broker_and_those_right_below(net: Net) -> None:
    net.fleet.start(*net.nodes)
    for broker, nodes in (
        ("top", {"top", "region-0"}),
        ("region-0", {"region-0", *(f"site-{number}" for number in range(SITES))}),
        ("site-0", {"site-0", "device-0", "device-1"}),
    ):
        net.fleet.watcher = net.brokers[broker].login("monitor")
        net.fleet.until(partial(are_well, nodes))


def are_well(nodes: set[str], statuses: dict[str, NodeStatus]) -> bool:
    """Whether these nodes answer and have a release, and nothing is wrong with them: a parent on another broker is no fault."""
    return set(statuses) == nodes and all(
        fact(status, "release") >= 1 and not status.status.reason for status in statuses.values()
    )


def test_the_state_of_a_bridge_can_be_read(net: Net) -> None:
    states: list[bytes] = []

    async def scenario() -> None:
        settings = replace(mqtt_settings(net.brokers["site-0"].login("monitor"), "listener", {}), session_expiry_s=0)
        async with MqttLink(settings) as link:
            await link.subscribe("$SYS/broker/connection/bridge-site-0/state")
            async for event in link.events():
                if isinstance(event, Received):
                    states.append(event.payload)
                    if event.payload == b"1":
                        await asyncio.to_thread(net.brokers["region-0"].kill)
                    elif b"1" in states:
                        return

    asyncio.run(asyncio.wait_for(scenario(), 60))
    assert states[-2:] == [b"1", b"0"]
