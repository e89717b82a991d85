"""A node as a real process on a real broker: what stays of it when it is told to stop at once."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from edgemw.transport.broker import Broker
from edgemw.transport.mqtt import MqttLink, MqttSettings
from edgemw.wire import topics
from edgemw.wire.messages import Presence
from edgemw.wire.publication import read
from tests.contract.test_link_kinds import next_received, run
from tests.system.fleet import Fleet, fact


async def presence_becomes(url: str, topic: str, state: str) -> None:
    """Return when that is what the broker keeps, or says, of a node."""
    async with MqttLink(MqttSettings(url=url, client_id="watcher", session_expiry_s=0)) as link:
        await link.subscribe(topic)
        events = link.events()
        while True:
            received = await next_received(events)
            message = read(topics.parse(received.topic), received.payload).message
            assert isinstance(message, Presence)
            if message.state == state:
                return


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_node_that_is_told_twice_to_stop_is_lost_and_not_online_for_ever(
    tmp_path: Path, mosquitto: Broker, protocol: str
) -> None:
    net = f"twice-{protocol[0]}"
    with Fleet(tmp_path, mosquitto.url, net) as fleet:
        fleet.fog("top", broker={"url": mosquitto.url, "keepalive": "5s", "protocol": protocol})
        fleet.device("device-0", "top", broker={"url": mosquitto.url, "keepalive": "60s"})
        fleet.start("top", "device-0")
        fleet.until(lambda s: "top" in s and fact(s["top"], "release") >= 1)
        fleet.signal("device-0", signal.SIGSTOP)  # the top waits for it
        fleet.signal("top", signal.SIGTERM)
        fleet.said("top", "once more stops at once")
        fleet.signal("top", signal.SIGTERM)
        assert fleet.wait("top") == 0
        run(presence_becomes(mosquitto.url, f"em1/{net}/top/st/top", "lost"), timeout_s=60)


def test_a_node_that_is_told_once_is_offline(tmp_path: Path, mosquitto: Broker) -> None:
    with Fleet(tmp_path, mosquitto.url, "once") as fleet:
        fleet.fog("top")
        fleet.start("top")
        run(presence_becomes(mosquitto.url, "em1/once/top/st/top", "online"))
        fleet.signal("top", signal.SIGTERM)
        assert fleet.wait("top") == 0
        run(presence_becomes(mosquitto.url, "em1/once/top/st/top", "offline"))
