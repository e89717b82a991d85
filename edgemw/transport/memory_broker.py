"""A broker in memory, with the faults of real ones at the call of a method.

Deterministic: it has no thread, no clock of its own and no randomness; what happens depends only on the order of calls.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from edgemw.core.errors import LinkError
from edgemw.transport.connection import BrokerUnreachable
from edgemw.transport.filters import matches
from edgemw.transport.link import Limits, Reply, Will

WHERE = "memory"
INFLIGHT_PER_SESSION = 20


@dataclass(frozen=True, slots=True)
class Message:
    """A publication on its way to one session."""

    topic: str
    payload: bytes
    qos: int
    retained: bool = False
    expires_at_s: float | None = None
    reply: Reply | None = None


class Client(Protocol):
    """What the broker asks of a connection."""

    def arrive(self, message: Message, packet_id: int) -> None:
        """Take a publication; QoS 1 is answered with `MemoryBroker.acknowledge`."""
        ...

    def settle(self, packet_id: int, error: LinkError | None) -> None:
        """A publication of this client was taken or refused."""
        ...

    def abort(self, reason: str) -> None:
        """The connection is gone."""
        ...


@dataclass(slots=True)
class _Session:
    client: Client | None = None
    will: Will | None = None
    is_persistent: bool = True
    filters: dict[str, None] = field(default_factory=dict)
    queue: deque[Message] = field(default_factory=deque)
    unacknowledged: dict[int, Message] = field(default_factory=dict)


class MemoryBroker:
    """Retained messages, persistent sessions, wills, QoS 0 and 1; one copy where several filters match.

    Attributes:
        limits: what clients are told, and held to.
        duplicate: deliver every QoS 1 publication twice.
        hold_acknowledgements: keep the answers to publications back until `release_acknowledgements`.
        dropped: publications that did not fit into the queue of an offline session.
    """

    def __init__(self, *, limits: Limits | None = None, max_queued_messages: int = 20_000) -> None:
        self.limits = limits or Limits(max_packet_bytes=2_000_000, protocol=5)
        self.duplicate = False
        self.hold_acknowledgements = False
        self.dropped = 0
        self._max_queued_messages = max_queued_messages
        self._sessions: dict[str, _Session] = {}
        self._retained: dict[str, Message] = {}
        self._denied: list[str] = []
        self._blocked: set[str] = set()
        self._is_running = True
        self._admission_changed = asyncio.Event()
        self._held: list[Callable[[], None]] = []
        self._packet_ids = itertools.count(1)

    # ---- for tests: faults

    def cut(self, client_id: str) -> None:
        """Break the connection of a client; its will is published, and it may come back at once."""
        self._lose(client_id, "the connection was cut")

    def block(self, client_id: str) -> None:
        """Cut a client and keep it away until `unblock`."""
        self._blocked.add(client_id)
        self.cut(client_id)

    def unblock(self, client_id: str) -> None:
        """Let a client come back."""
        self._blocked.discard(client_id)
        self._admission_changed.set()

    def stop(self) -> None:
        """End every connection, without wills, and accept none; sessions and retained messages are kept."""
        self._is_running = False
        for client_id, session in list(self._sessions.items()):
            session.will = None
            self._lose(client_id, "the broker was stopped")

    def start(self) -> None:
        """Accept connections again after `stop`."""
        self._is_running = True
        self._admission_changed.set()

    def deny(self, topic_filter: str) -> None:
        """Refuse publications on matching topics."""
        self._denied.append(topic_filter)

    def release_acknowledgements(self) -> None:
        """Send the answers that were held back, in order."""
        held, self._held = self._held, []
        for answer in held:
            answer()

    def retained(self, topic: str) -> bytes | None:
        """The retained message of a topic."""
        message = self._retained.get(topic)
        return None if message is None else message.payload

    # ---- for connections

    async def admission(self, client_id: str) -> None:
        """Return when this client may connect."""
        await asyncio.sleep(0)  # a client that is cut at once, each time, must not hold up the loop
        while not self.admits(client_id):
            self._admission_changed.clear()
            await self._admission_changed.wait()

    def admits(self, client_id: str) -> bool:
        """Whether this client may connect now."""
        return self._is_running and client_id not in self._blocked

    def connect(self, client_id: str, client: Client, will: Will | None, *, is_persistent: bool) -> None:
        """Open a session or take it over.

        Raises:
            BrokerUnreachable: the broker is stopped, or the client is kept away.
        """
        if not self.admits(client_id):
            raise BrokerUnreachable("the connection was refused", where=WHERE, hint="the broker is stopped or blocks this client")
        self._lose(client_id, "the session was taken over")
        session = self._sessions.get(client_id)
        if session is None or not is_persistent:
            session = self._sessions[client_id] = _Session()
        session.client, session.will, session.is_persistent = client, will, is_persistent

    def disconnect(self, client_id: str, client: Client) -> None:
        """Close cleanly: no will."""
        session = self._sessions.get(client_id)
        if session is not None and session.client is client:
            session.will = None
            self._lose(client_id, "closed")

    def lost(self, client_id: str, client: Client) -> None:
        """The client's side broke the connection: its will is published."""
        session = self._sessions.get(client_id)
        if session is not None and session.client is client:
            self._lose(client_id, "the connection was cut")

    def subscribe(self, client_id: str, topic_filter: str) -> None:
        """Add a filter and deliver what is retained under it.

        Raises:
            LinkError: a shared subscription; this broker has none.
        """
        if topic_filter.startswith("$share/"):
            raise LinkError("shared subscriptions are not available", where=WHERE, hint="see Limits.shared_subscriptions")
        session = self._sessions[client_id]
        session.filters[topic_filter] = None
        for topic, message in self._retained.items():
            if matches(topic_filter, topic):
                session.queue.append(message)
        self._pump(session)

    def unsubscribe(self, client_id: str, topic_filter: str) -> None:
        """Remove a filter."""
        self._sessions[client_id].filters.pop(topic_filter, None)

    def publish(self, sender: Client, message: Message, *, retain: bool, expiry_s: int | None) -> int:
        """Take a publication, deliver it and answer; returns its packet id."""
        packet_id = next(self._packet_ids)
        loop = asyncio.get_running_loop()
        error: LinkError | None = None
        if any(matches(topic_filter, message.topic) for topic_filter in self._denied):
            error = LinkError("the broker refused a publication (Not authorized)", where=WHERE, hint="see MemoryBroker.deny")
        else:
            expires_at_s = None if expiry_s is None else loop.time() + expiry_s
            self._spread(replace(message, expires_at_s=expires_at_s), retain=retain)
        if self.hold_acknowledgements and message.qos:
            self._held.append(lambda: sender.settle(packet_id, error))
        else:
            loop.call_soon(sender.settle, packet_id, error)
        return packet_id

    def acknowledge(self, client_id: str, packet_id: int) -> None:
        """The client has dealt with a QoS 1 publication."""
        session = self._sessions.get(client_id)
        if session is not None:
            session.unacknowledged.pop(packet_id, None)
            self._pump(session)

    def resume(self, client_id: str) -> None:
        """Deliver what waited for this client."""
        self._pump(self._sessions[client_id])

    # ---- inside

    def _spread(self, message: Message, *, retain: bool) -> None:
        if retain and message.payload:
            self._retained[message.topic] = Message(message.topic, message.payload, 1, True, message.expires_at_s)
        elif retain:
            self._retained.pop(message.topic, None)
        for session in list(self._sessions.values()):
            if any(matches(topic_filter, message.topic) for topic_filter in session.filters):
                self._enqueue(session, message)

    def _enqueue(self, session: _Session, message: Message) -> None:
        if session.client is None and message.qos == 0:
            return
        copies = 2 if self.duplicate and message.qos else 1
        for _ in range(copies):
            if len(session.queue) >= self._max_queued_messages:
                self.dropped += 1
            else:
                session.queue.append(message)
        self._pump(session)

    def _pump(self, session: _Session) -> None:
        """Deliver as far as the window of the session allows."""
        now_s = asyncio.get_running_loop().time()
        while session.client is not None and session.queue and len(session.unacknowledged) < INFLIGHT_PER_SESSION:
            message = session.queue.popleft()
            if message.expires_at_s is not None and message.expires_at_s <= now_s:
                continue
            packet_id = next(self._packet_ids)
            if message.qos:
                session.unacknowledged[packet_id] = message
            session.client.arrive(message, packet_id)

    def _lose(self, client_id: str, reason: str) -> None:
        session = self._sessions.get(client_id)
        if session is None or session.client is None:
            return
        client, session.client = session.client, None
        will, session.will = session.will, None
        session.queue.extendleft(reversed(session.unacknowledged.values()))
        session.unacknowledged.clear()
        if not session.is_persistent:
            del self._sessions[client_id]
        client.abort(reason)
        if will is not None:
            self._spread(Message(will.topic, will.payload, 1), retain=True)
