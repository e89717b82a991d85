"""One connection to a broker, from its acceptance to its end: what MQTT and memory each implement.

The link above (see `reconnecting.py`) owns everything that outlives a connection: subscriptions, the queue of events,
the back-off, the counters.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from edgemw.core.errors import LinkError
from edgemw.transport.link import Limits, Received, Reply

Deliver = Callable[[Received, int, Callable[[], None] | None], bool]
"""Takes an arrival, its packet size in bytes and its acknowledgement (None at QoS 0); False when it was not taken."""


Asked = tuple[Sequence[str], asyncio.Future[None]]
"""Topic filters that were asked for together; the future fails with LinkError where one was refused, or the connection ended."""


class BrokerUnreachable(LinkError):
    """No broker answered, or it cannot serve now: trying again may help. A plain LinkError is a refusal for good."""


class NotConnected(BrokerUnreachable):
    """There was no connection, so nothing has left this node."""


class Connection(Protocol):
    """An accepted connection. Nothing arrives before `start`."""

    @property
    def where(self) -> str:
        """The broker's address, or that of the server of a cluster that answered."""
        ...

    @property
    def limits(self) -> Limits:
        """What the broker said about itself."""
        ...

    def start(self, topic_filters: Sequence[str]) -> list[Asked]:
        """Ask for the subscriptions, then begin to deliver."""
        ...

    def subscribe(self, topic_filter: str) -> asyncio.Future[None]:
        """Ask for one more; the future fails with LinkError when refused or when the connection ends."""
        ...

    def unsubscribe(self, topic_filter: str) -> asyncio.Future[None]:
        """Give one back."""
        ...

    async def publish(
        self, topic: str, payload: bytes, *, qos: int, retain: bool, expiry_s: int | None, reply: Reply | None
    ) -> None:
        """See `Link.publish`."""
        ...

    def publish_at_once(self, topic: str, payload: bytes, reply: Reply | None) -> bool:
        """See `Link.publish_at_once`."""
        ...

    async def ended(self) -> str:
        """Wait for the end of the connection; the reason in words."""
        ...

    async def close(self, flush_s: float) -> None:
        """Wait that long for what is in flight, then disconnect cleanly."""
        ...

    def abort(self, reason: str) -> None:
        """Cut the connection at once, so that the broker publishes the will."""
        ...


def check_publication(limits: Limits, size_bytes: int, *, qos: int, retain: bool, where: str) -> None:
    """Refuse here what the broker would refuse with the loss of the connection.

    Raises:
        LinkError: the packet is too large, or asks for what the broker does not have.
    """
    if size_bytes > limits.max_packet_bytes:
        what = f"a packet is larger than the broker takes ({limits.max_packet_bytes} bytes)"
        hint = f"it has {size_bytes} bytes: send less at once (limits.max_message_bytes), or let the broker take more"
        raise LinkError(what, where=where, hint=hint)
    if qos > limits.max_qos:
        raise LinkError("the broker does not take QoS 1", where=where, hint="use a broker that acknowledges")
    if retain and not limits.retain:
        raise LinkError("the broker keeps no retained messages", where=where, hint="allow them in its configuration")
