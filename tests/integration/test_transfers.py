"""Large payloads over a real broker: what was received stays received, whoever is killed, and slow links fill no queue."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from edgemw.core.encoded import Section
from edgemw.core.ids import Place
from edgemw.storage.database import Database
from edgemw.storage.parts import DiskParts
from edgemw.transport.broker import Broker, start_broker
from edgemw.transport.channel import Channel, ChannelLimits
from edgemw.transport.link import Received, Up
from edgemw.transport.mqtt import MqttLink, MqttSettings
from edgemw.wire import topics
from edgemw.wire.chunks import blob_of
from edgemw.wire.fetching import AHEAD
from edgemw.wire.messages import Frame, Update
from edgemw.wire.traffic import Arrived, Emitted, Fetch, Fetched, PublishBlob, Upload
from tests.contract.test_link_kinds import run
from tests.support.faultproxy import FaultProxy

NET, TASK = "transfers", "toy"
FOG, DEVICE = Place(NET, "fog", "", 1), Place(NET, "device", "fog", 1)
CHUNK_BYTES = 8 << 10
LIMITS = ChannelLimits(chunk_bytes=CHUNK_BYTES)
KILLS = 3
Emit = Callable[[Emitted], None]


def content(size: int) -> bytes:
    return bytes(index * 31 % 251 for index in range(size))


class Killed(Exception):
    """Ends a life without a goodbye."""


@contextlib.asynccontextmanager
async def life(url: str, place: Place, emit: Emit, state: Path | None = None) -> AsyncIterator[Channel]:
    """A node that is no more than its link and its channel, with chunks kept on disk where there is a folder."""
    db = Database(state) if state is not None else None
    link = MqttLink(MqttSettings(url=url, client_id=f"em1-{place.net}-{place.node}", session_expiry_s=0))

    async def listen(channel: Channel) -> None:
        async for event in link.events():
            match event:
                case Up():
                    spawn(channel.refresh())
                case Received(topic=topic, payload=payload):
                    await channel.receive(topic, payload)

    try:
        async with link, asyncio.TaskGroup() as group:

            def spawn(work: Coroutine[Any, Any, None]) -> None:
                group.create_task(work)

            channel = Channel(link, place, LIMITS, emit, spawn, parts=DiskParts(db, 64 << 20) if db is not None else None)
            reader = group.create_task(listen(channel))
            if place == FOG:
                await link.subscribe(topics.build(NET, "fog", "update", node="+", task="+"))
                await link.subscribe(topics.build(NET, "fog", "chunk", fog="fog", node="+", transfer="+"))
            else:
                await link.subscribe(topics.build(NET, "fog", "reply", node=place.node, task="+"))
            yield channel
            reader.cancel()
    finally:
        if db is not None:
            db.close()


async def killed_in_between(start: Callable[[], contextlib.AbstractAsyncContextManager[Channel]], act: Any) -> None:
    """One life that ends in the middle of `act`."""
    with contextlib.suppress(ExceptionGroup, Killed):
        async with start() as channel:
            await act(channel)
            raise Killed


def test_a_reader_that_is_killed_again_and_again_gets_each_chunk_about_once(mosquitto: Broker, tmp_path: Path) -> None:
    data = content(200 * CHUNK_BYTES)
    blob = blob_of(data, CHUNK_BYTES)
    got = asyncio.Event()

    def note(event: Emitted) -> None:
        assert event == Fetched(blob, data)
        got.set()

    async def scenario() -> None:
        async with life(mosquitto.url, FOG, lambda event: None) as fog:
            await fog.carry(PublishBlob("fog", blob, data))
        async with FaultProxy(mosquitto.port) as proxy:
            proxy.down.rate_bytes_per_s = 2 << 20

            def start() -> contextlib.AbstractAsyncContextManager[Channel]:
                return life(proxy.url, DEVICE, note, tmp_path)

            for kill in range(KILLS):

                async def half_way(channel: Channel, part: int = kill + 1) -> None:
                    await channel.carry(Fetch("fog", blob))
                    await proxy.down.reached(part * blob.size // (KILLS + 1))

                await killed_in_between(start, half_way)
                assert not got.is_set()
            async with start() as channel:
                await channel.carry(Fetch("fog", blob))
                await got.wait()
            again = KILLS * (AHEAD * CHUNK_BYTES + 64 * 1024)  # what was on its way, here and in the buffers of the relay
            assert blob.size < proxy.down.passed_bytes < 1.05 * blob.size + again

    run(scenario())


def test_a_fog_that_is_killed_again_and_again_gets_each_chunk_of_an_update_about_once(mosquitto: Broker, tmp_path: Path) -> None:
    update = Update(1, "lattice", 10, (Section(0, 10, 1, 0.5, content(200 * CHUNK_BYTES)),), {})
    frame = Frame(TASK, "device", 1, 0, update)
    topic = topics.build(NET, "fog", "update", node="device", task=TASK)
    got = asyncio.Event()

    def note(event: Emitted) -> None:
        assert isinstance(event, Arrived)
        assert event.frame == frame
        got.set()

    async def scenario() -> None:
        async with FaultProxy(mosquitto.port) as proxy, life(mosquitto.url, DEVICE, lambda event: None) as device:
            proxy.down.rate_bytes_per_s = 4 << 20

            async def offer_until(done: Coroutine[Any, Any, object]) -> None:
                """As a sender does that gets no acknowledgement."""
                waiting = asyncio.ensure_future(done)
                while not waiting.done():
                    await device.carry(Upload(topic, frame))
                    await asyncio.wait([waiting], timeout=0.5)

            def start() -> contextlib.AbstractAsyncContextManager[Channel]:
                return life(proxy.url, FOG, note, tmp_path)

            size = 200 * CHUNK_BYTES
            for kill in range(KILLS):

                async def half_way(_: Channel, part: int = kill + 1) -> None:
                    await offer_until(proxy.down.reached(part * size // (KILLS + 1)))

                await killed_in_between(start, half_way)
                assert not got.is_set()
            async with start():
                await offer_until(got.wait())
            assert size < proxy.down.passed_bytes < 1.5 * size

    run(scenario(), timeout_s=60)


@pytest.fixture
def cautious(has_mosquitto: None, tmp_path: Path) -> Any:
    """A broker that queues no more than a cloud's does."""
    with start_broker("mosquitto", tmp_path / "broker", extra=["max_queued_messages 100", "max_inflight_messages 20"]) as broker:
        yield broker


def test_twenty_readers_on_slow_links_that_break_lose_nothing_to_the_limits_of_a_broker(cautious: Broker) -> None:
    """An eighth of ten megabytes at 40 times 250 kbit/s, in 160 messages of which only a hundred may wait."""
    data = content(160 * CHUNK_BYTES)
    blob = blob_of(data, CHUNK_BYTES)
    readers = [Place(NET, f"device-{number}", "fog", 1) for number in range(20)]

    async def read(place: Place) -> float:
        """Fetch through a relay that is cut once; returns what came through, in blobs."""
        got = asyncio.Event()
        async with FaultProxy(cautious.port) as proxy:
            proxy.down.rate_bytes_per_s, proxy.down.delay_s = 40 * 250e3 / 8, 0.04
            async with life(proxy.url, place, lambda event: got.set()) as channel:
                await channel.carry(Fetch("fog", blob))
                await proxy.down.reached(blob.size // 2)
                proxy.cut()
                await got.wait()
            return proxy.down.passed_bytes / blob.size

    async def scenario() -> None:
        async with life(cautious.url, FOG, lambda event: None) as fog:
            await fog.carry(PublishBlob("fog", blob, data))
            passed = await asyncio.gather(*map(read, readers))
        assert max(passed) < 1.3

    run(scenario(), timeout_s=90)
