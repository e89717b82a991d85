"""A link that keeps itself connected, over any kind of connection."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Protocol, Self

from edgemw.core.errors import LinkError
from edgemw.transport.connection import Asked, BrokerUnreachable, Connection, NotConnected
from edgemw.transport.filters import check_filter, check_topic
from edgemw.transport.inbox import Inbox
from edgemw.transport.link import Down, LinkEvent, Received, Reply, Up
from edgemw.transport.traffic import Traffic, TrafficMeter

STABLE_AFTER_S = 10.0
"""A connection that lasted this long resets the back-off; two nodes that share a client id stay below it."""
ASK_AGAIN_S, LONGEST_ASK_AGAIN_S = 10.0, 600.0
"""How long until a subscription that was refused after a reconnect is asked for again; twice as long after each time."""

log = logging.getLogger(__name__)


class Retry(Protocol):
    """When to try again."""

    async def wait(self) -> None:
        """Return when the next attempt may start."""
        ...

    def reset(self) -> None:
        """The last connection was a stable one."""
        ...


class Dial(Protocol):
    """Makes a connection."""

    async def __call__(self) -> Connection:
        """Connect once. Raises BrokerUnreachable when trying again may help, LinkError when refused for good."""
        ...


class ReconnectingLink:
    """The part of a `Link` that outlives its connections.

    Publications in flight when a connection ends fail with LinkError and are not sent again here: the caller knows
    whether they still matter, and a fresh connection never starts with a backlog.
    """

    def __init__(
        self,
        dial: Dial,
        retry: Retry,
        *,
        where: str,
        inbox: Inbox,
        meter: TrafficMeter,
        wait_for_broker: bool,
        flush_s: float,
    ) -> None:
        self._dial = dial
        self._retry = retry
        self._where = where
        self._inbox = inbox
        self._meter = meter
        self._wait_for_broker = wait_for_broker
        self._flush_s = flush_s
        self._filters: dict[str, None] = {}  # a set that keeps its order
        self._given_back: dict[str, None] = {}
        self._connection: Connection | None = None
        self._was_up = False
        self._group = asyncio.TaskGroup()
        self._tasks: tuple[asyncio.Task[None], ...] = ()

    @property
    def traffic(self) -> Traffic:
        """What this link has moved so far."""
        return self._meter.total()

    async def __aenter__(self) -> Self:
        """Connect once; see `Link.__aenter__`."""
        connection: Connection | None = None
        try:
            connection = await self._dial()
        except BrokerUnreachable as error:
            if not self._wait_for_broker:
                raise
            self._inbox.put_state(Down(str(error)))
        if connection is not None:
            self._adopt(connection)
        await self._group.__aenter__()
        self._tasks = (
            self._group.create_task(self._keep(connection), name=f"link to {self._where}"),
            self._group.create_task(self._fetch_what_was_left(), name=f"overflow of {self._where}"),
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Disconnect; see `Link.__aexit__`."""
        is_goodbye = exc[:1] in ((), (None,))
        if is_goodbye:
            self._inbox.acknowledge_in_hand()
        for task in self._tasks:
            task.cancel()
        connection, self._connection = self._connection, None
        try:
            if connection is not None and is_goodbye:
                await connection.close(self._flush_s)
            elif connection is not None:
                connection.abort("cut short")
        finally:
            self._inbox.close()
            # The body's own exception is not passed on: the group would wrap it and hide it from `except LinkError`.
            await self._group.__aexit__(None, None, None)

    async def events(self) -> AsyncIterator[LinkEvent]:
        """See `Link.events`. Taking the next event acknowledges the one before; one reader at a time."""
        while (event := await self._inbox.get()) is not None:
            yield event

    async def subscribe(self, topic_filter: str) -> None:
        """See `Link.subscribe`; waits for the broker's answer when connected.

        Raises:
            LinkError: the broker refused the filter; it is forgotten.
        """
        check_filter(topic_filter, self._where)
        self._filters[topic_filter] = None
        self._given_back.pop(topic_filter, None)
        if self._connection is None:
            return
        try:
            await self._connection.subscribe(topic_filter)
        except BrokerUnreachable:
            return  # the connection ended: asked for again on the next one
        except LinkError:
            self._filters.pop(topic_filter, None)
            raise

    async def unsubscribe(self, topic_filter: str) -> None:
        """See `Link.unsubscribe`; the broker may remember a filter, so it is told on the next connection if not now."""
        self._filters.pop(topic_filter, None)
        self._given_back[topic_filter] = None
        if self._connection is not None:
            with contextlib.suppress(BrokerUnreachable):
                await self._connection.unsubscribe(topic_filter)
                self._given_back.pop(topic_filter, None)

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
        """See `Link.publish`."""
        check_topic(topic, self._where)
        if qos not in (0, 1):
            raise LinkError(f"QoS {qos} was asked for", where=self._where, hint="use 0 or 1")
        await self._connected().publish(topic, payload, qos=qos, retain=retain, expiry_s=expiry_s, reply=reply)

    def publish_at_once(self, topic: str, payload: bytes, *, reply: Reply | None = None) -> bool:
        """See `Link.publish_at_once`."""
        check_topic(topic, self._where)
        return self._connected().publish_at_once(topic, payload, reply)

    def _connected(self) -> Connection:
        if self._connection is None:
            raise NotConnected("not connected", where=self._where, hint="publish again after the next Up")
        return self._connection

    def look_first(self, look: Callable[[Received], bool]) -> None:
        """See `Link.look_first`."""
        self._inbox.look_first(look)

    def cut(self, reason: str = "cut on request") -> None:
        """Break the connection without a goodbye, as a fault would: the broker publishes the will, the link reconnects."""
        if self._connection is not None:
            self._connection.abort(reason)

    async def _keep(self, connection: Connection | None) -> None:
        while True:
            if connection is not None:
                await self._watch(connection)
            connection = await self._redial()
            self._adopt(connection)

    async def _fetch_what_was_left(self) -> None:
        while True:
            await self._inbox.caught_up()
            self._inbox.nothing_owed()
            self.cut("the reader was behind and has caught up: the broker delivers again what was left with it")

    async def _redial(self) -> Connection:
        while True:
            await self._retry.wait()
            try:
                return await self._dial()
            except LinkError as error:
                self._inbox.put_state(Down(str(error)))

    def _adopt(self, connection: Connection) -> None:
        if self._was_up:
            self._meter.reconnected()
        self._was_up = True
        self._connection = connection
        self._inbox.put_state(Up(connection.limits, connection.where))
        for topic_filter in self._given_back:
            connection.unsubscribe(topic_filter).add_done_callback(partial(self._on_given_back, topic_filter))
        for asked in connection.start(list(self._filters)):
            self._expect_granted(connection, asked, ASK_AGAIN_S)

    def _expect_granted(self, connection: Connection, asked: Asked, pause_s: float) -> None:
        topic_filters, answer = asked
        answer.add_done_callback(partial(self._on_asked, connection, topic_filters, pause_s))

    def _on_asked(
        self, connection: Connection, topic_filters: Sequence[str], pause_s: float, answer: asyncio.Future[None]
    ) -> None:
        """Ask again for what was refused: a cluster without a leader refuses, and nobody else would ask on this connection."""
        error = None if answer.cancelled() else answer.exception()
        if error is None or isinstance(error, BrokerUnreachable):
            return
        if len(topic_filters) > 1:  # which of them, it does not say
            self._ask_again(connection, topic_filters, pause_s)
            return
        level = logging.WARNING if pause_s == ASK_AGAIN_S else logging.DEBUG  # once for each connection
        log.log(level, "%s: %s; asking again in %g s, and ever less often", error, topic_filters[0], pause_s)
        longer_s = min(2 * pause_s, LONGEST_ASK_AGAIN_S)
        asyncio.get_running_loop().call_later(pause_s, self._ask_again, connection, topic_filters, longer_s)

    def _ask_again(self, connection: Connection, topic_filters: Sequence[str], pause_s: float) -> None:
        if connection is self._connection:
            for topic_filter in filter(self._filters.__contains__, topic_filters):
                self._expect_granted(connection, ([topic_filter], connection.subscribe(topic_filter)), pause_s)

    def _on_given_back(self, topic_filter: str, answer: asyncio.Future[None]) -> None:
        if not answer.cancelled() and answer.exception() is None:
            self._given_back.pop(topic_filter, None)

    async def _watch(self, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        reason = await connection.ended()
        self._connection = None
        self._inbox.nothing_owed()
        self._inbox.put_state(Down(reason))
        if loop.time() - started_s >= STABLE_AFTER_S:
            self._retry.reset()
