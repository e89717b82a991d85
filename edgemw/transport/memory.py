"""A link without a network, for the tests of applications: `MemoryLink` keeps the contract of `MqttLink`.

    broker = MemoryBroker()
    async with MemoryLink(broker, "one") as one, MemoryLink(broker, "two") as two: ...
    broker.cut("one")        # the link reconnects by itself; its will goes out

Both links share everything above a connection (see `reconnecting.py`), so only delivery itself is imitated here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from functools import partial

from edgemw.core.errors import LinkError
from edgemw.transport.answers import finish
from edgemw.transport.connection import Asked, BrokerUnreachable, Deliver, check_publication
from edgemw.transport.inbox import Inbox
from edgemw.transport.link import Limits, Received, Reply, Will
from edgemw.transport.memory_broker import WHERE, MemoryBroker, Message
from edgemw.transport.outgoing import Outgoing
from edgemw.transport.reconnecting import ReconnectingLink
from edgemw.transport.traffic import TrafficMeter, publish_packet_bytes
from edgemw.transport.window import Window

__all__ = ["MemoryBroker", "MemoryLink"]

_NO_PROPERTIES_BYTES = 1  # packets are counted as in MQTT 5


class MemoryLink(ReconnectingLink):
    """A `Link` to a `MemoryBroker` in the same event loop."""

    def __init__(
        self,
        broker: MemoryBroker,
        client_id: str,
        *,
        will: Will | None = None,
        is_persistent: bool = True,
        wait_for_broker: bool = False,
        window_bytes: int = 256 * 1024,
        queue_size: int = 1000,
    ) -> None:
        """Prepare; see `MqttSettings` for what the arguments mean.

        Args:
            is_persistent: the broker keeps the session while the client is away.
        """
        meter = TrafficMeter()
        inbox = Inbox(max_messages=queue_size, max_bytes=16 * 1024 * 1024)

        async def dial() -> _MemoryConnection:
            await asyncio.sleep(0)
            connection = _MemoryConnection(broker, client_id, window_bytes, inbox.offer, meter)
            broker.connect(client_id, connection, will, is_persistent=is_persistent)
            return connection

        super().__init__(
            dial,
            _Admission(broker, client_id),
            where=WHERE,
            inbox=inbox,
            meter=meter,
            wait_for_broker=wait_for_broker,
            flush_s=2.0,
        )


class _Admission:
    """Tries again when the broker lets the client in, so that no time passes in tests."""

    def __init__(self, broker: MemoryBroker, client_id: str) -> None:
        self._broker = broker
        self._client_id = client_id

    async def wait(self) -> None:
        await self._broker.admission(self._client_id)

    def reset(self) -> None:
        pass


class _MemoryConnection:
    """Keeps `Connection` towards the link and `memory_broker.Client` towards the broker."""

    def __init__(self, broker: MemoryBroker, client_id: str, window_bytes: int, deliver: Deliver, meter: TrafficMeter) -> None:
        self._broker = broker
        self._client_id = client_id
        self._deliver = deliver
        self._meter = meter
        self._limits = broker.limits
        self._outgoing = Outgoing(Window(max_bytes=window_bytes, max_messages=broker.limits.receive_maximum))
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    @property
    def where(self) -> str:
        return WHERE

    @property
    def limits(self) -> Limits:
        return self._limits

    def start(self, topic_filters: Sequence[str]) -> list[Asked]:
        asked: list[Asked] = [([topic_filter], self.subscribe(topic_filter)) for topic_filter in topic_filters]
        self._broker.resume(self._client_id)
        return asked

    def subscribe(self, topic_filter: str) -> asyncio.Future[None]:
        return self._answer(partial(self._broker.subscribe, self._client_id, topic_filter))

    def unsubscribe(self, topic_filter: str) -> asyncio.Future[None]:
        return self._answer(partial(self._broker.unsubscribe, self._client_id, topic_filter))

    async def publish(
        self, topic: str, payload: bytes, *, qos: int, retain: bool, expiry_s: int | None, reply: Reply | None
    ) -> None:
        size_bytes = publish_packet_bytes(topic, len(payload), qos=qos, properties_bytes=_NO_PROPERTIES_BYTES)
        check_publication(self._limits, size_bytes, qos=qos, retain=retain, where=WHERE)

        def hand_over() -> int:
            self._meter.sent(size_bytes)
            said = reply if self._limits.protocol == 5 else None
            return self._broker.publish(self, Message(topic, payload, qos, reply=said), retain=retain, expiry_s=expiry_s)

        await self._outgoing.send(size_bytes, qos=qos, hand_over=hand_over)

    def publish_at_once(self, topic: str, payload: bytes, reply: Reply | None) -> bool:
        return False  # a turn of the loop is part of what tests are about

    async def ended(self) -> str:
        return await asyncio.shield(self._ended)

    async def close(self, flush_s: float) -> None:
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(flush_s):
                    await self._outgoing.drain()
        finally:
            self._broker.disconnect(self._client_id, self)

    def abort(self, reason: str) -> None:
        if self._ended.done():
            return
        self._ended.set_result(reason)
        self._outgoing.fail(BrokerUnreachable(reason, where=WHERE, hint="the link reconnects; publish again after the next Up"))
        self._broker.lost(self._client_id, self)

    def arrive(self, message: Message, packet_id: int) -> None:
        size_bytes = publish_packet_bytes(
            message.topic, len(message.payload), qos=message.qos, properties_bytes=_NO_PROPERTIES_BYTES
        )
        self._meter.received(size_bytes)
        acknowledge = partial(self._acknowledge, packet_id) if message.qos else None
        if not self._deliver(Received(message.topic, message.payload, message.retained, message.reply), size_bytes, acknowledge):
            self._meter.dropped()

    def settle(self, packet_id: int, error: LinkError | None) -> None:
        self._outgoing.settle(packet_id, error)

    def _acknowledge(self, packet_id: int) -> None:
        self._broker.acknowledge(self._client_id, packet_id)

    def _answer(self, request: Callable[[], None]) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            request()
        except LinkError as error:
            finish(future, error)
        else:
            finish(future, None)
        return future
