"""The link over MQTT, on paho-mqtt (the only file that imports it).

paho runs without its thread: the event loop drives it (see `driver.py`), and reads for it. Publications that arrive, and those
that are sent at QoS 0, go past it (see `packets.py`); it connects, subscribes, acknowledges and pings. So its callbacks run in
the loop and need no locks, no thread can die unseen, and there is no limit of some 340 clients in a process (paho's thread
waits with `select`, which ends at file descriptor 1023).

Every connection has a paho client of its own. paho's memory of unacknowledged publications ends with it: on a reconnect
paho would send all of them at once whatever the broker's Receive Maximum says, in another order, and repeat for ever a
packet that the broker refuses to take. The broker keeps its half of the session, which hangs on the client id.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from edgemw.core.errors import LinkError
from edgemw.transport import refusal
from edgemw.transport.addresses import Address, in_turn
from edgemw.transport.aliases import TopicAliases
from edgemw.transport.answers import Answers
from edgemw.transport.backoff import Backoff
from edgemw.transport.causes import cause_logger
from edgemw.transport.connection import Asked, BrokerUnreachable, Deliver, check_publication
from edgemw.transport.driver import SocketDriver
from edgemw.transport.inbox import Inbox
from edgemw.transport.link import Limits, Received, Reply
from edgemw.transport.offload import run_abandonable
from edgemw.transport.outgoing import SENT, Outgoing
from edgemw.transport.packets import Publish, publish_of, publish_packet
from edgemw.transport.properties import PublishProperties, properties_of
from edgemw.transport.reconnecting import ReconnectingLink
from edgemw.transport.rivals import Rivals
from edgemw.transport.settings import MqttSettings, TlsSettings
from edgemw.transport.tls import tls_context
from edgemw.transport.traffic import TrafficMeter, publish_packet_bytes
from edgemw.transport.window import Window

__all__ = ["MqttLink", "MqttSettings", "TlsSettings"]

FILTERS_PER_SUBSCRIBE = 8  # the smallest limit among the brokers we know (AWS IoT Core)
MAX_RECEIVE_MAXIMUM = 20
LARGEST_PACKET_BYTES = 268_435_460  # of MQTT, with its header
GOODBYE_S = 1.0
MAX_STRING_BYTES = 65535
AROUND_BYTES = 64
"""More than a PUBLISH has besides texts and bytes that somebody gave."""
ALIAS_BYTES = 5  # of the property, where two lengths before it grow by a byte as well
_REST = -1  # stands for the packet id of what goes past paho

log = logging.getLogger(__name__)


class MqttLink(ReconnectingLink):
    """A `Link` to an MQTT broker, 5 or 3.1.1."""

    def __init__(self, settings: MqttSettings, *, rng: random.Random | None = None) -> None:
        """Prepare; nothing is opened before `async with`.

        Args:
            rng: spreads the attempts to reconnect; give a seeded one for a reproducible run.
        """
        meter = TrafficMeter()
        inbox = Inbox(max_messages=settings.queue_size, max_bytes=settings.queue_bytes)
        super().__init__(
            _Dialer(settings, inbox.offer, meter),
            Backoff(min_s=settings.reconnect_min_s, max_s=settings.reconnect_max_s, rng=rng or random.SystemRandom()),
            where=", ".join(map(str, settings.addresses)),
            inbox=inbox,
            meter=meter,
            wait_for_broker=settings.wait_for_broker,
            flush_s=settings.flush_s,
        )


class _NotAccepted(BrokerUnreachable):
    """The broker hung up on CONNECT or fell silent: some do on a level of MQTT that they do not know."""


class _LevelRefused(BrokerUnreachable):
    """The broker said that it does not speak this level of MQTT."""


class _Dialer:
    """Opens connections to the servers in turn, and remembers which level of MQTT they speak."""

    def __init__(self, settings: MqttSettings, deliver: Deliver, meter: TrafficMeter) -> None:
        self._settings = settings
        self._deliver = deliver
        self._meter = meter
        self._rivals = Rivals(settings.client_id)
        self._turn = in_turn(settings.addresses, settings.client_id)
        self._level = 4 if settings.protocol == 4 else 5
        self._is_known = settings.protocol != "auto"

    async def __call__(self) -> _PahoConnection:
        """Ask every server once, beginning with the one after the last that was asked: that one may be gone."""
        refusals: list[LinkError] = []
        for _ in range(len(self._turn)):
            self._turn.rotate(-1)
            try:
                return await self._reach(self._turn[-1])
            except LinkError as error:
                refusals.append(error)
        raise refusal.of_all(refusals)

    async def _reach(self, address: Address) -> _PahoConnection:
        try:
            connection = await self._attempt(address, self._level)
        except (_NotAccepted, _LevelRefused) as error:
            if isinstance(error, _NotAccepted) and self._is_known:
                raise
            other = 9 - self._level
            log.info("%s; trying MQTT %s", error, _version(other))
            connection = await self._attempt(address, other)
            self._level = other
        self._is_known = True
        return connection

    async def _attempt(self, address: Address, level: int) -> _PahoConnection:
        connection = _PahoConnection(self._settings, address, level, self._deliver, self._meter, self._rivals)
        # A broker of 3.1.1 may wait for ever for the rest of a CONNECT of MQTT 5 (amqtt does), so half the time each.
        share = 1.0 if self._is_known else 0.5
        try:
            await connection.open(self._settings.connect_timeout_s * share)
        except BaseException:
            connection.abort("not opened")
            raise
        return connection


class _PahoClient(Client):
    """paho's client, which reads what it is handed instead of its socket."""

    _handed, _place = b"", 0
    _failure: OSError | None = None

    def hand(self, packet: bytes) -> None:
        """Deal with a packet."""
        self._handed, self._place = packet, 0
        self.loop_read()

    def heard(self, now_s: float) -> None:
        """See `Steps.heard`. A large packet on its way counts for paho's keepalive, which sees whole ones only."""
        self._last_bytes_received = now_s

    def lost(self, error: OSError | None) -> int:
        """See `Steps.lost`."""
        self._handed, self._failure = b"", error
        return self.loop_read()

    def _sock_recv(self, bufsize: int) -> bytes:
        if self._failure is not None:
            raise self._failure
        data = self._handed[self._place : self._place + bufsize]
        if not data and self._handed:
            raise BlockingIOError
        self._place += len(data)
        return data


class _PahoConnection:
    """One paho client for the life of one connection; keeps the `Connection` protocol."""

    def __init__(
        self, settings: MqttSettings, address: Address, level: int, deliver: Deliver, meter: TrafficMeter, rivals: Rivals
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._settings = settings
        self._address = address
        self._level = level
        self._deliver = deliver
        self._meter = meter
        self._rivals = rivals
        self._where = str(address)
        self._limits = Limits(protocol=level)
        self._aliases = TopicAliases()
        self._outgoing = Outgoing(Window(max_bytes=settings.window_bytes, max_messages=settings.window_messages))
        self._answers = Answers()
        self._accepted: asyncio.Future[Limits] = self._loop.create_future()
        self._ended: asyncio.Future[str] = self._loop.create_future()
        self._cause: Exception | None = None
        self._client = _make_client(settings, level)
        self._driver = SocketDriver(
            self._client,
            take=self._on_packet,
            most_packet_bytes=settings.max_packet_bytes if level == 5 else LARGEST_PACKET_BYTES,
            sent=lambda: self._outgoing.settle(_REST),
            end=self.abort,
            progressed=self._on_progress,
            overdue=self._is_overdue,
        )
        self._client.on_socket_open = _set_no_delay
        self._client.on_socket_close = self._on_socket_close
        self._client.on_socket_register_write = self._on_want_write
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_publish = self._on_publish
        self._client.on_subscribe = self._on_answer
        self._client.on_unsubscribe = self._on_answer
        self._client.enable_logger(cause_logger(self._note_cause, self._on_bug))

    @property
    def where(self) -> str:
        """See `Connection`."""
        return self._where

    @property
    def limits(self) -> Limits:
        """See `Connection`."""
        return self._limits

    async def open(self, answer_timeout_s: float) -> None:
        """Connect and wait until the broker accepts.

        Raises:
            LinkError: it does not; BrokerUnreachable where trying again may help.
        """
        try:
            await run_abandonable(partial(_connect, self._client, self._address, self._settings, self._level), self._discard)
        except (OSError, ValueError) as error:
            raise refusal.from_exception(error, self._where) from error
        opened = self._client.socket()
        if not isinstance(opened, socket.socket):
            raise BrokerUnreachable("the connection was lost at once", where=self._where, hint="look into the broker's log")
        self._driver.attach(opened)
        try:
            async with asyncio.timeout(answer_timeout_s):
                self._limits = await asyncio.shield(self._accepted)
        except TimeoutError as error:
            raise self._why_not_accepted("no answer in time") from error
        slots = min(self._settings.window_messages, self._limits.receive_maximum)
        self._outgoing = Outgoing(Window(max_bytes=self._settings.window_bytes, max_messages=slots))

    def start(self, topic_filters: Sequence[str]) -> list[Asked]:
        """See `Connection`."""
        starts = range(0, len(topic_filters), FILTERS_PER_SUBSCRIBE)
        batches = [topic_filters[first : first + FILTERS_PER_SUBSCRIBE] for first in starts]
        asked = [(batch, self._ask(batch)) for batch in batches]
        self._driver.resume_reading()
        return asked

    def subscribe(self, topic_filter: str) -> asyncio.Future[None]:
        """See `Connection`."""
        return self._ask([topic_filter])

    def unsubscribe(self, topic_filter: str) -> asyncio.Future[None]:
        """See `Connection`."""
        return self._expect(self._client.unsubscribe(topic_filter)[1])

    async def publish(
        self, topic: str, payload: bytes, *, qos: int, retain: bool, expiry_s: int | None, reply: Reply | None
    ) -> None:
        """See `Link.publish`."""
        size_bytes = self._packet_bytes(topic, payload, qos, self._properties(expiry_s, 0, reply))
        check_publication(self._limits, size_bytes, qos=qos, retain=retain, where=self._where)

        def hand_over() -> int:  # in the order of sending: the broker learns a number before it is used
            written, number = (topic, 0) if retain else self._alias(topic, size_bytes)  # what is retained is seldom said twice
            properties = self._properties(expiry_s, number, reply)
            if qos == 0 and self._driver.idle:
                return self._send_at_once(written, payload, properties, retain=retain)
            packed = cast("Properties | None", properties)
            info = self._client.publish(written, payload, qos=qos, retain=retain, properties=packed)
            if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
                raise BrokerUnreachable(f"not sent ({info.rc.name})", where=self._where, hint="publish again")
            self._meter.sent(self._packet_bytes(written, payload, qos, properties))
            return info.mid

        await self._outgoing.send(size_bytes, qos=qos, hand_over=hand_over)
        if qos == 0:
            await asyncio.sleep(0)  # whoever publishes without end lets others have their turn

    def publish_at_once(self, topic: str, payload: bytes, reply: Reply | None) -> bool:
        """See `Link.publish_at_once`."""
        most_bytes = len(payload) + AROUND_BYTES + 4 * len(topic)
        if reply is not None:
            if not reply.topic.isascii() or len(reply.correlation) > MAX_STRING_BYTES:
                return False  # `publish` finds out what is wrong with it before a number stands for the topic
            most_bytes += len(reply.topic) + len(reply.correlation)
        if not self._driver.idle or most_bytes > self._limits.max_packet_bytes:
            return False

        def hand_over() -> int:
            written, number = self._alias(topic, most_bytes)
            return self._send_at_once(written, payload, self._properties(None, number, reply), retain=False)

        return self._outgoing.send_at_once(most_bytes, hand_over)

    def _alias(self, topic: str, size_bytes: int) -> tuple[str, int]:
        """What is written for a topic, and its number, where there is room for that."""
        return self._aliases.use(topic) if size_bytes + ALIAS_BYTES <= self._limits.max_packet_bytes else (topic, 0)

    def _send_at_once(self, topic: str, payload: bytes, properties: PublishProperties | None, *, retain: bool) -> int:
        packed = b"" if properties is None else properties.pack()
        packet = publish_packet(topic, payload, retain=retain, properties=packed)
        took_all = self._driver.send(packet)
        if self._ended.done():
            raise BrokerUnreachable(
                f"not sent ({self._ended.result()})", where=self._where, hint="publish again after the next Up"
            )
        self._meter.sent(len(packet))
        return SENT if took_all else _REST

    def _properties(self, expiry_s: int | None, alias: int, reply: Reply | None) -> PublishProperties | None:
        if self._level != 5:
            return None
        return properties_of(expiry_s, alias) if reply is None else PublishProperties(expiry_s, alias, reply)

    def _packet_bytes(self, topic: str, payload: bytes, qos: int, properties: PublishProperties | None) -> int:
        properties_bytes = 0 if properties is None else len(properties.pack())
        return publish_packet_bytes(topic, len(payload), qos=qos, properties_bytes=properties_bytes)

    async def ended(self) -> str:
        """See `Connection`."""
        return await asyncio.shield(self._ended)

    async def close(self, flush_s: float) -> None:
        """See `Connection`."""
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(flush_s):
                    await self._outgoing.drain()
            if self._driver.attached:
                self._client.disconnect()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(GOODBYE_S):
                        await asyncio.shield(self._ended)
        finally:
            self.abort("closed")

    def abort(self, reason: str) -> None:
        """See `Connection`. Safe to call more than once: the first reason counts."""
        opened = self._driver.detach()
        if opened is not None:
            opened.close()
        if self._ended.done():
            return
        self._ended.set_result(reason)
        error = BrokerUnreachable(reason, where=self._where, hint="the link reconnects; publish again after the next Up")
        self._outgoing.fail(error)
        self._answers.fail(error)
        if not self._accepted.done():
            self._reject(self._why_not_accepted(reason))

    def _reject(self, error: LinkError) -> None:
        self._accepted.set_exception(error)
        self._accepted.exception()  # seen, even if nobody waits for it any more

    def _discard(self) -> None:
        opened = self._client.socket()
        if opened is not None:
            opened.close()

    def _ask(self, topic_filters: Sequence[str]) -> asyncio.Future[None]:
        if self._level == 5:
            return self._expect(self._client.subscribe([(name, SubscribeOptions(qos=1)) for name in topic_filters])[1])
        return self._expect(self._client.subscribe([(name, 1) for name in topic_filters])[1])

    def _expect(self, packet_id: int | None) -> asyncio.Future[None]:
        future = self._answers.expect(packet_id or 0)
        if packet_id is None:
            self._answers.settle(0, BrokerUnreachable("not connected", where=self._where, hint="the link reconnects"))
        return future

    def _why_not_accepted(self, reason: str) -> LinkError:
        if self._address.tls and isinstance(self._cause, OSError):
            return refusal.from_exception(self._cause, self._where)
        return _NotAccepted(
            f"the broker did not accept MQTT {_version(self._level)} ({reason})",
            where=self._where,
            hint="is it an MQTT broker, on a port with the right encryption?",
        )

    # What the driver asks and paho calls; all in the event loop.

    def _on_progress(self) -> None:
        self._outgoing.progressed()

    def _is_overdue(self) -> bool:
        timeout_s = self._settings.ack_timeout_s
        return self._outgoing.overdue(timeout_s) or self._answers.overdue(timeout_s)

    def _note_cause(self, cause: Exception) -> None:
        self._cause = cause

    def _on_bug(self, error: Exception) -> None:
        self._loop.call_soon_threadsafe(self.abort, f"internal error ({error!r})")

    def _on_socket_close(self, _client: Client, _userdata: Any, _socket: Any) -> None:
        self._driver.detach()

    def _on_want_write(self, _client: Client, _userdata: Any, _socket: Any) -> None:
        self._driver.plan_write()

    def _on_connect(
        self, _client: Client, _userdata: Any, _flags: ConnectFlags, reason: ReasonCode, properties: Properties | None
    ) -> None:
        if self._accepted.done():
            return
        self._driver.pause_reading()  # nothing is delivered before `start`
        if not reason.is_failure:
            self._aliases = TopicAliases(getattr(properties, "TopicAliasMaximum", 0))
            self._accepted.set_result(_limits(self._level, properties))
        elif reason.value == refusal.UNSUPPORTED_PROTOCOL and self._settings.protocol == "auto":
            self._reject(_LevelRefused(str(reason), where=self._where, hint="another level may do"))
        else:
            self._reject(refusal.from_connack(reason.value, str(reason), self._where))

    def _on_disconnect(
        self, _client: Client, _userdata: Any, flags: DisconnectFlags, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        if flags.is_disconnect_packet_from_server:
            taken_over = reason.value == refusal.SESSION_TAKEN_OVER
            self.abort(self._rivals.taken_over() if taken_over else f"the broker disconnected this node ({reason})")
        elif self._cause is not None:
            self.abort(f"the connection was lost ({self._cause})")
        elif reason.is_failure and self._accepted.done():
            self.abort(self._rivals.hung_up(self._loop.time()))
        else:
            self.abort("the broker closed the connection" if reason.is_failure else "closed")

    def _on_packet(self, packet: bytes) -> None:
        publish = publish_of(packet, self._level)
        if publish is None:
            self._client.hand(packet)
        else:
            self._on_publication(publish, len(packet))

    def _on_publication(self, publish: Publish, size_bytes: int) -> None:
        acknowledge = partial(self._acknowledge, publish.packet_id) if publish.qos else None
        if publish.topic is None:  # a broken publisher must not make this node reconnect for ever
            self._meter.dropped()
            if acknowledge is not None:
                acknowledge()
            return
        self._meter.received(size_bytes)
        received = Received(publish.topic, publish.payload, publish.retained, publish.reply)
        if not self._deliver(received, size_bytes, acknowledge):
            self._meter.dropped()

    def _acknowledge(self, packet_id: int) -> None:
        if self._driver.attached:
            self._client.ack(packet_id, 1)

    def _on_publish(
        self, _client: Client, _userdata: Any, packet_id: int, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        error = None
        if reason.is_failure:
            hint = "check the access rules and quotas of the broker"
            error = LinkError(f"the broker refused a publication ({reason})", where=self._where, hint=hint)
        self._outgoing.settle(packet_id, error)

    def _on_answer(
        self, _client: Client, _userdata: Any, packet_id: int, reasons: list[ReasonCode], _properties: Properties | None
    ) -> None:
        refused = [str(reason) for reason in reasons if reason.is_failure]
        error = None
        if refused:
            hint = "check its access rules; a cluster that has just lost a server refuses for some seconds"
            error = LinkError(f"the broker refused a topic filter ({refused[0]})", where=self._where, hint=hint)
        self._answers.settle(packet_id, error)


def _make_client(settings: MqttSettings, level: int) -> _PahoClient:
    client = _PahoClient(
        CallbackAPIVersion.VERSION2,
        client_id=settings.client_id,
        clean_session=None if level == 5 else settings.session_expiry_s == 0,
        protocol=MQTTProtocolVersion.MQTTv5 if level == 5 else MQTTProtocolVersion.MQTTv311,
        reconnect_on_failure=False,
        manual_ack=True,  # see inbox.py
    )
    client.suppress_exceptions = True  # they are logged and end the connection (see causes.py), not paho's parser
    client.connect_timeout = settings.connect_timeout_s
    client.max_inflight_messages_set(0)  # our window is the only one
    if settings.username is not None:
        client.username_pw_set(settings.username, settings.password)
    if settings.addresses[0].tls:
        client.tls_set_context(tls_context(settings.tls or TlsSettings()))
    if settings.will is not None:
        properties = None
        if level == 5:
            properties = _properties(PacketTypes.WILLMESSAGE)
            properties.WillDelayInterval = settings.will_delay_s
        client.will_set(settings.will.topic, settings.will.payload, qos=1, retain=True, properties=properties)
    return client


def _connect(client: Client, address: Address, settings: MqttSettings, level: int) -> None:
    """Open the socket and queue CONNECT; blocks for at most the connect timeout."""
    if level != 5:
        client.connect(address.host, address.port, settings.keepalive_s)
        return
    properties = _properties(PacketTypes.CONNECT)
    properties.SessionExpiryInterval = settings.session_expiry_s
    properties.ReceiveMaximum = settings.receive_maximum
    properties.MaximumPacketSize = settings.max_packet_bytes
    clean_start = settings.session_expiry_s == 0  # paho's default wipes the session of a node that restarts
    client.connect(address.host, address.port, settings.keepalive_s, clean_start=clean_start, properties=properties)


def _set_no_delay(_client: Client, _userdata: Any, opened: Any) -> None:
    # Nagle's algorithm with delayed acknowledgements costs 40 ms per QoS 1 answer; paho leaves it on.
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _limits(level: int, properties: Properties | None) -> Limits:
    if level != 5:
        return Limits(protocol=4)

    def said(name: str, otherwise: int) -> int:
        return int(getattr(properties, name, otherwise))

    return Limits(
        max_packet_bytes=said("MaximumPacketSize", 268_435_455),
        receive_maximum=min(said("ReceiveMaximum", 65535), MAX_RECEIVE_MAXIMUM),
        max_qos=min(said("MaximumQoS", 1), 1),
        retain=bool(said("RetainAvailable", 1)),
        shared_subscriptions=bool(said("SharedSubscriptionAvailable", 1)),
        protocol=5,
    )


def _properties(packet_type: int) -> Properties:
    return Properties(packet_type)  # type: ignore[no-untyped-call]  # paho leaves these methods untyped


def _version(level: int) -> str:
    return "5" if level == 5 else "3.1.1"
