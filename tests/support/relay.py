"""A bridge between two brokers that belongs to somebody else: it alters what it carries, with every right that a bridge has."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from edgemw.app.broker import mqtt_settings
from edgemw.app.settings import Broker
from edgemw.core.errors import WireError
from edgemw.transport.link import Received
from edgemw.transport.mqtt import MqttLink
from edgemw.wire import publication, topics
from edgemw.wire.messages import Frame

UP = ("presence", "update", "chunk", "answer", "telemetry")
DOWN = ("reply", "release", "task", "blob", "ask")

Alter = Callable[[Frame], Frame]


class Relay:
    """Carries the channels that nodes below write up, and those that fog nodes write down.

    Attributes:
        alter: what becomes of a frame.
        altered: how many were altered.
    """

    def __init__(self, net: str, below: str, above: str, alter: Alter) -> None:
        self._net, self._below, self._above, self.alter = net, below, above, alter
        self.altered = 0

    async def run(self) -> None:
        """Carry until cancelled."""
        below = MqttLink(mqtt_settings(Broker(url=self._below), "relay-below", {}, wait=True))
        above = MqttLink(mqtt_settings(Broker(url=self._above), "relay-above", {}, wait=True))
        async with below, above, asyncio.TaskGroup() as group:
            group.create_task(self._carry(below, above, UP))
            group.create_task(self._carry(above, below, DOWN))

    async def _carry(self, source: MqttLink, target: MqttLink, channels: tuple[str, ...]) -> None:
        every = {"node": "+", "task": "+", "fog": "+", "transfer": "+", "digest": "+", "index": "+", "asker": "+"}
        for channel in topics.CHANNELS:
            if channel.name in channels:
                values = {place: every[place] for place in channel.places}
                await source.subscribe(topics.build(self._net, "+", channel.name, **values))
        retained = {channel.name for channel in topics.CHANNELS if channel.retained}
        async for event in source.events():
            if isinstance(event, Received):
                topic = topics.parse(event.topic)
                payload = self._through(topic, event.topic, event.payload) if event.payload else b""
                await target.publish(event.topic, payload, retain=topic.channel in retained)

    def _through(self, topic: topics.Topic, text: str, payload: bytes) -> bytes:
        try:
            frame = publication.read(topic, payload)
        except WireError:
            return payload
        changed = self.alter(frame)
        if changed == frame:
            return payload
        self.altered += 1
        return publication.write(text, changed)


@contextmanager
def relaying(relay: Relay) -> Iterator[None]:
    """Let it carry in a thread of its own."""
    loop = asyncio.new_event_loop()
    task = loop.create_task(relay.run())

    def work() -> None:
        try:
            loop.run_until_complete(task)
        except asyncio.CancelledError:
            pass
        finally:
            loop.close()

    thread = threading.Thread(target=work, name="relay")
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(10)
