"""Where a broker is probed: clients and topics that nobody else has, and their removal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from edgemw.transport.link import Received
from edgemw.transport.mqtt import MqttLink, MqttSettings

CLEAN_S = 3.0
_NEVER_S = 3600.0  # a probe sees every end of a connection: nothing reconnects by itself


class Dropped(Exception):
    """Ends the body of `dropping`."""


@dataclass(frozen=True, slots=True)
class Ground:
    """One round of probes.

    Attributes:
        settings: of a connection; the client id is the beginning of those of all clients.
        prefix: the beginning of all topics, in the domain that has the name of the node.
        protocol: MQTT protocol level that the broker speaks: 4 is 3.1.1, 5 is 5.0.
        says_bytes: the largest packet that the broker says it takes.
        chunk_bytes: what a chunk may have, with what is around its data.
    """

    settings: MqttSettings
    prefix: str
    protocol: int
    says_bytes: int
    chunk_bytes: int

    def topic(self, *levels: str) -> str:
        """A topic or filter of this round."""
        return "/".join((self.prefix, *levels))

    def link(self, client: str, **changes: Any) -> MqttLink:
        """A client that is not connected yet, without a session unless `session_expiry_s` is among the changes."""
        own = {"client_id": f"{self.settings.client_id}-{client}", "session_expiry_s": 0, "protocol": self.protocol}
        waits = {"reconnect_min_s": _NEVER_S, "reconnect_max_s": _NEVER_S}
        return MqttLink(replace(self.settings, **{**own, **waits, **changes}))

    @asynccontextmanager
    async def dropping(self, client: str, **changes: Any) -> AsyncIterator[MqttLink]:
        """A client that leaves without a goodbye at the end of the body, as one whose power fails."""
        try:
            async with self.link(client, **changes) as link:
                yield link
                raise Dropped
        except Dropped:
            return

    @asynccontextmanager
    async def clearing(self, *topics: str) -> AsyncIterator[None]:
        """Take what is retained on topics from the broker at the end, whatever happens. Raises LinkError, TimeoutError."""
        try:
            yield
        finally:
            async with asyncio.timeout(CLEAN_S), self.link("cleaner") as link:
                for topic in topics:
                    await link.publish(topic, b"", retain=True)

    @asynccontextmanager
    async def forgetting(self, client: str) -> AsyncIterator[None]:
        """Have the broker forget a client's session at the end, whatever happens. Raises LinkError, TimeoutError."""
        try:
            yield
        finally:
            async with asyncio.timeout(CLEAN_S), self.link(client):
                pass  # a connection without a session ends the one that was there


async def take(link: MqttLink, within_s: float, wanted: Callable[[Received], bool] = lambda _: True) -> Received | None:
    """The next publication that is wanted, not acknowledged yet; None where none comes in time."""
    try:
        async with asyncio.timeout(within_s):
            async for event in link.events():
                if isinstance(event, Received) and wanted(event):
                    return event
    except TimeoutError:
        pass
    return None
