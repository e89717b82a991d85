"""The kinds of link that the contract suite runs on, and what each broker cannot do."""

from __future__ import annotations

import asyncio
import enum
import itertools
import os
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import pytest

from edgemw.transport.broker import Broker, find_mosquitto, start_broker
from edgemw.transport.link import Down, LinkEvent, Received, Up, Will
from edgemw.transport.memory import MemoryBroker, MemoryLink
from edgemw.transport.mqtt import MqttLink, MqttSettings

TIMEOUT_S = 20.0
AnyLink = MqttLink | MemoryLink


class Needs(enum.Enum):
    """What a test asks of a broker beyond the basics."""

    LIMITS = "the broker says how large a packet it takes"
    EXPIRY = "publications expire"
    REDELIVERY = "what was not acknowledged is delivered again"
    OWN_ONLY = "a client gets only what it subscribed to"
    LASTING_RETAINED = "retained messages survive a restart"


KINDS = ("memory", "mosquitto-5", "mosquitto-4", "amqtt")

CANNOT: dict[str, dict[Needs, str]] = {
    "memory": {},
    "mosquitto-5": {},
    "mosquitto-4": {
        Needs.LIMITS: "the CONNACK of MQTT 3.1.1 has no properties",
        Needs.EXPIRY: "MQTT 3.1.1 has no message expiry",
    },
    "amqtt": {
        Needs.LIMITS: "amqtt speaks MQTT 3.1.1 only",
        Needs.EXPIRY: "amqtt speaks MQTT 3.1.1 only",
        Needs.REDELIVERY: "amqtt drops an unacknowledged publication after 5 s and with the connection (its issue 401)",
        Needs.OWN_ONLY: "amqtt hands whoever connects every retained message that anybody has subscribed to",
        Needs.LASTING_RETAINED: "amqtt keeps everything in memory",
    },
}


def kinds_with(*needs: Needs) -> list[str]:
    """The kinds that a test with these needs runs on."""
    return [kind for kind in KINDS if not set(needs) & set(CANNOT[kind])]


def test_every_gap_has_a_reason() -> None:
    assert set(CANNOT) == set(KINDS)
    assert all(reason for gaps in CANNOT.values() for reason in gaps.values())


def run(test: Coroutine[Any, Any, None], timeout_s: float = TIMEOUT_S) -> None:
    """Run an async test; one that hangs or leaves a task behind fails."""

    async def guarded() -> None:
        async with asyncio.timeout(timeout_s):
            await test
        leaked = asyncio.all_tasks() - {asyncio.current_task()}
        assert not leaked

    asyncio.run(guarded())


@dataclass
class Stage:
    """One broker, real or not, on which a test opens links with names of its own."""

    kind: str
    broker: Broker | MemoryBroker
    name: str

    def link(
        self,
        client: str,
        *,
        will: Will | None = None,
        wait_for_broker: bool = False,
        window_bytes: int = 256 * 1024,
        queue_size: int = 1000,
    ) -> AnyLink:
        """A link that is not open yet."""
        client_id = f"{self.name}-{client}"
        if isinstance(self.broker, MemoryBroker):
            return MemoryLink(
                self.broker,
                client_id,
                will=will,
                wait_for_broker=wait_for_broker,
                window_bytes=window_bytes,
                queue_size=queue_size,
            )
        return MqttLink(
            MqttSettings(
                url=self.broker.url,
                client_id=client_id,
                protocol=5 if self.kind == "mosquitto-5" else 4,
                will=will,
                will_delay_s=0,
                wait_for_broker=wait_for_broker,
                window_bytes=window_bytes,
                queue_size=queue_size,
                reconnect_min_s=0.02,
                reconnect_max_s=0.2,
            )
        )

    def topic(self, rest: str) -> str:
        """A topic, or filter, that no other test uses."""
        return f"{self.name}/{rest}"

    async def stop(self) -> None:
        """Take the broker away."""
        if isinstance(self.broker, MemoryBroker):
            self.broker.stop()
        else:
            await asyncio.to_thread(self.broker.stop)

    async def start(self) -> None:
        """Bring it back, at the same address."""
        if isinstance(self.broker, MemoryBroker):
            self.broker.start()
        else:
            await asyncio.to_thread(self.broker.start)


class Stages:
    """One real broker of each kind, started when first asked for."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._brokers: dict[str, Broker] = {}
        self._numbers = itertools.count(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for broker in self._brokers.values():
            broker.stop()

    def open(self, kind: str) -> Stage:
        """A stage of this kind; without mosquitto the test is skipped, but never where CI is set."""
        name = f"t{next(self._numbers)}"
        if kind == "memory":
            return Stage(kind, MemoryBroker(), name)
        if kind.startswith("mosquitto") and find_mosquitto() is None:
            if os.environ.get("CI"):
                pytest.fail("mosquitto is not installed, and CI must have it")
            pytest.skip("mosquitto is not installed")
        program: Literal["mosquitto", "amqtt"] = "amqtt" if kind == "amqtt" else "mosquitto"
        if program not in self._brokers:
            self._brokers[program] = start_broker(program, self._directory / program)
        self._brokers[program].start()  # a test may have failed while it was stopped
        return Stage(kind, self._brokers[program], name)


async def next_event(events: AsyncIterator[LinkEvent]) -> LinkEvent:
    """The next event, in time."""
    async with asyncio.timeout(TIMEOUT_S):
        return await anext(events)


async def next_up(events: AsyncIterator[LinkEvent]) -> Up:
    """Skip to the next Up."""
    while not isinstance(event := await next_event(events), Up):
        pass
    return event


async def next_down(events: AsyncIterator[LinkEvent]) -> Down:
    """Skip to the next Down."""
    while not isinstance(event := await next_event(events), Down):
        pass
    return event


async def next_received(events: AsyncIterator[LinkEvent]) -> Received:
    """Skip to the next arrival."""
    while not isinstance(event := await next_event(events), Received):
        pass
    return event
