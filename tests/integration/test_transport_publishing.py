"""Blobs on a real broker behind an uplink that stands still: what is retired meanwhile leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from typing import Any

from edgemw.core.ids import Place
from edgemw.transport.broker import Broker
from edgemw.transport.channel import Channel, ChannelLimits
from edgemw.transport.link import Received
from edgemw.transport.mqtt import MqttLink, MqttSettings
from edgemw.wire import topics
from edgemw.wire.chunks import blob_of
from edgemw.wire.messages import Blob
from edgemw.wire.traffic import Emitted, PublishBlob, Published, Retire
from tests.contract.test_link_kinds import next_event, next_up, run
from tests.support.faultproxy import FaultProxy

PLACE = Place("uplink", "fog", "", 1)
CHUNKS = 40


async def retained(url: str) -> Counter[str]:
    """How many chunks of each blob a late reader finds."""
    async with MqttLink(MqttSettings(url=url, client_id="late", session_expiry_s=0)) as link:
        await link.subscribe(topics.build(PLACE.net, PLACE.node, "blob", digest="+", index="+"))
        await link.subscribe("barrier")
        await link.publish("barrier", b"")
        found: Counter[str] = Counter()
        events = link.events()
        while True:
            match await next_event(events):
                case Received(topic="barrier"):
                    return found
                case Received(topic=topic):
                    found[topics.parse(topic)["digest"]] += 1


def test_releases_that_were_retired_before_they_were_out_are_not_on_the_broker(mosquitto: Broker) -> None:
    blobs = [(blob_of(data, 1024), data) for data in (bytes([number]) * 1024 * CHUNKS for number in range(10))]
    there: list[Blob] = []

    def note(event: Emitted) -> None:
        assert isinstance(event, Published)
        there.append(event.blob)

    async def scenario() -> None:
        async with (
            FaultProxy(mosquitto.port) as proxy,
            MqttLink(MqttSettings(url=proxy.url, client_id="fog")) as link,
            asyncio.TaskGroup() as group,
        ):
            await next_up(link.events())

            def spawn(work: Coroutine[Any, Any, None]) -> None:
                group.create_task(work)

            channel = Channel(link, PLACE, ChannelLimits(), note, spawn)
            proxy.up.swallow()
            for number, (blob, data) in enumerate(blobs):
                if number >= 2:
                    spawn(channel.carry(Retire(PLACE.node, blobs[number - 2][0])))
                spawn(channel.carry(PublishBlob(PLACE.node, blob, data)))
                await asyncio.sleep(0)
            proxy.up.release()
        last = [blob for blob, _ in blobs[-2:]]
        assert sorted(there, key=lambda blob: blob.digest) == sorted(last, key=lambda blob: blob.digest)
        assert await retained(mosquitto.url) == {blob.name: CHUNKS for blob in last}

    run(scenario())
