"""The link: one node's connection to a broker, as a protocol that MQTT and memory both keep.

A link reconnects by itself, subscribes again after every connect, and never raises into its reader: what happens
arrives as an event. Delivery is at least once for QoS 1 while both ends are connected; order across reconnects and
delivery across crashes are not promised, so nothing above relies on them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Limits:
    """What the broker offers; the most cautious value where it does not say."""

    max_packet_bytes: int = 268_435_455
    receive_maximum: int = 20
    max_qos: int = 1
    retain: bool = True
    shared_subscriptions: bool = False
    protocol: int = 4  # MQTT protocol level: 4 is 3.1.1, 5 is 5.0


@dataclass(frozen=True, slots=True)
class Up:
    """The link is connected, to the broker at `where`, and every subscription has been asked for again."""

    limits: Limits
    where: str = ""


@dataclass(frozen=True, slots=True)
class Down:
    """The link is not connected; it keeps trying."""

    reason: str


@dataclass(frozen=True, slots=True)
class Reply:
    """What a question says of its answer, and the answer of its question. MQTT 5 carries it; 3.1.1 loses it on the way.

    Attributes:
        topic: where the answer is wanted; "" where this is the answer.
        correlation: as the one who asked gave it.
    """

    topic: str = ""
    correlation: bytes = b""


@dataclass(frozen=True, slots=True)
class Received:
    """A publication arrived. `retained` is set when the broker delivered a stored one."""

    topic: str
    payload: bytes
    retained: bool = False
    reply: Reply | None = None


LinkEvent = Up | Down | Received


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes for a node that went silent (QoS 1, retained)."""

    topic: str
    payload: bytes


class Link(Protocol):
    """One connection. Open it with `async with`; read `events()` from one task."""

    async def __aenter__(self) -> Link:
        """Connect. Raises LinkError when the first connection is refused for good (name, password, certificate)."""
        ...

    async def __aexit__(self, *exc: object) -> None:
        """Disconnect.

        With a goodbye where the body came to its end: the will is not published, and publications in flight are waited for
        a moment. Where an exception or a cancellation ended it, without one and at once: the broker publishes the will.
        """
        ...

    def events(self) -> AsyncIterator[LinkEvent]:
        """Everything that happens, in order of arrival; ends when the link is closed."""
        ...

    async def subscribe(self, topic_filter: str) -> None:
        """Ask for a topic filter (QoS 1), now if connected and after every connect."""
        ...

    async def unsubscribe(self, topic_filter: str) -> None:
        """Give a topic filter back."""
        ...

    async def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        expiry_s: int | None = None,
        reply: Reply | None = None,
    ) -> None:
        """Publish; returns once the broker took it (QoS 1) or it was handed to the socket (QoS 0).

        While the in-flight window (bytes and messages) is full, it waits: that is the back-pressure.

        Raises:
            LinkError: not connected, the packet is larger than the broker takes, the broker refused it, or no
                acknowledgement came in time. The caller keeps what it must not lose.
        """
        ...

    def publish_at_once(self, topic: str, payload: bytes, *, reply: Reply | None = None) -> bool:
        """Publish at QoS 0 where that needs no waiting; False where it does, and nothing was done: then await `publish`.

        Raises:
            LinkError: as `publish`.
        """
        ...

    def look_first(self, look: Callable[[Received], bool]) -> None:
        """Have an arrival shown to `look` before it becomes an event, where no event waits; True says that it is dealt with.

        It is called where packets are read, so it must be short and must not raise; what it deals with is acknowledged.
        """
        ...
