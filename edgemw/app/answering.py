"""The MQTT door of a prediction service: `serving/rpc.py` and `serving/stream.py` on a link, and questions to another service."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from edgemw.app.broker import mqtt_settings
from edgemw.app.elsewhere import AskedNode
from edgemw.app.settings import Broker
from edgemw.app.streams import StreamTable, discovery_of, streams_of
from edgemw.core.errors import LinkError
from edgemw.serving.api import MAX_BODY_BYTES
from edgemw.serving.placement import Rule
from edgemw.serving.requests import Handle
from edgemw.serving.rpc import Rpc
from edgemw.serving.slot import Slot
from edgemw.serving.stream import Stream
from edgemw.transport.filters import matches
from edgemw.transport.link import Down, Link, Received, Reply, Up
from edgemw.transport.mqtt import MqttLink

AROUND_BYTES = 64 << 10
"""Of a packet with a question: topics and correlation data."""
MOST_UNSENT, MOST_UNSENT_BYTES = 64, 4 << 20
"""Answers that wait for the broker; with more, questions wait, too."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Asks:
    """Another service, and when it is asked."""

    node: str
    rule: Rule


@dataclass(frozen=True, slots=True)
class MqttDoor:
    """Where questions are heard over MQTT.

    Attributes:
        broker: and how to log in.
        net: of the topics.
        node: by which the server is known there.
        env: of the process: passwords may stand in it.
        streams: of sensors that are read there too.
        asks: who is asked where own predictions are not sure; None is nobody.
        answers: whether questions are answered there.
    """

    broker: Broker
    net: str
    node: str
    env: Mapping[str, str] = field(repr=False)
    streams: tuple[StreamTable, ...] = ()
    asks: Asks | None = None
    answers: bool = True


async def answer_questions(door: MqttDoor, handle: Handle, slots: Mapping[str, Slot], asked: AskedNode | None = None) -> None:
    """Answer questions and read streams until cancelled. What comes while nobody is there is not looked at later.

    Args:
        door: where.
        handle: answers requests.
        slots: of the streams.
        asked: the other service, by way of the same link; None where there is none.

    Raises:
        LinkError: the broker refuses this server for good.
    """
    client_id = f"{door.node}-serve-{secrets.token_hex(4)}"
    settings = mqtt_settings(door.broker, client_id, door.env)
    most = MAX_BODY_BYTES + AROUND_BYTES
    settings = replace(settings, session_expiry_s=0, max_packet_bytes=most, queue_bytes=2 * most)
    async with MqttLink(settings) as link, asyncio.TaskGroup() as sending:
        conversation = _Conversation(
            door, Rpc(handle, door.net, door.node), streams_of(door.streams, slots), asked, link, sending
        )
        await conversation.subscribe()
        link.look_first(conversation.take_at_once)
        try:
            async for event in link.events():
                match event:
                    case Up():
                        await conversation.begin(event)
                    case Down(reason=reason):
                        conversation.lost(reason)
                        if asked is not None:
                            asked.disconnected()
                    case Received(retained=False):
                        await conversation.take(event)
        finally:
            conversation.ended = True


@dataclass(slots=True)
class _Conversation:
    door: MqttDoor
    rpc: Rpc
    streams: Sequence[Stream]
    asked: AskedNode | None
    link: Link
    sending: asyncio.TaskGroup
    unsent: dict[asyncio.Task[None], int] = field(default_factory=dict)  # with their bytes
    faults: set[str] = field(default_factory=set)
    ended: bool = False
    alone: bool = True
    why_lost: str = ""
    may_ask_itself: bool = True

    async def subscribe(self) -> None:
        """Listen to whoever asks, to who is asked, and to sensors."""
        others = [self.rpc.topic_filter] if self.door.answers else []
        others += [self.asked.topic_filter] if self.asked is not None else []
        for topic_filter in dict.fromkeys([*others, *(stream.spec.source for stream in self.streams)]):
            await self.link.subscribe(topic_filter)
        if self.door.answers:
            try:
                await self.link.subscribe(self.rpc.own_answer)
            except LinkError as error:
                log.info("whether another service has this name cannot be known: %s", error)
                self.may_ask_itself = False

    def lost(self, reason: str) -> None:
        """The link cannot be used; it tries again and again, which is said once for each reason."""
        if reason != self.why_lost:
            log.warning("no answers over MQTT: %s; trying again until it can be reached", reason)
        self.why_lost = reason

    async def begin(self, up: Up) -> None:
        """The link can be used."""
        self.why_lost = ""
        facts: dict[str, object] = {"broker": up.where, "streams": len(self.streams)}
        facts |= {"questions": self.rpc.topic_filter} if self.door.answers else {}
        facts |= {"asks": self.door.asks.node} if self.door.asks is not None else {}
        log.info("answering over MQTT", extra={"facts": facts})
        if self.asked is not None:
            self.asked.connected(self._send, up.limits.protocol)
        if self.door.answers and self.may_ask_itself:
            self.may_ask_itself = False  # once: some brokers end the connection of who publishes where it may not
            await _publish(self.link, self.rpc.own_question, b"")
        for stream in self.streams:
            if stream.fault and stream.fault not in self.faults:
                self.faults.add(stream.fault)
                log.warning("a stream has no predictions: %s", stream.fault, extra={"facts": {"stream": stream.spec.name}})
        for said in filter(None, (discovery_of(table, self.door.node) for table in self.door.streams)):
            await _publish(self.link, *said, retain=True)

    def take_at_once(self, event: Received) -> bool:
        """A question, an answer, or a sample, where nothing has to be waited for before; whether it is dealt with."""
        if self.ended or event.retained or self._is_behind():
            return False
        self._deal_with(event)
        return True

    def _is_behind(self) -> bool:
        return len(self.unsent) > MOST_UNSENT or sum(self.unsent.values()) > MOST_UNSENT_BYTES

    async def take(self, event: Received) -> None:
        """The same, after which others wait while too many answers do."""
        self._deal_with(event)
        while self._is_behind():
            await asyncio.wait(self.unsent, return_when=asyncio.FIRST_COMPLETED)

    def _deal_with(self, event: Received) -> None:
        """One that cannot be dealt with does not keep others from being so."""
        try:
            self._take(event)
        except Exception:
            log.exception("a publication at %s could not be dealt with", event.topic[:200])

    def _take(self, event: Received) -> None:
        if self.asked is not None and self.asked.hear(event.topic, event.payload):
            return
        if event.topic == self.rpc.own_answer or self.rpc.is_from_another(event.topic, event.payload):
            self._another()
        asking = event.reply or Reply()
        reply = Reply("", asking.correlation) if asking.correlation else None
        if self.door.answers:
            self.rpc.answer(event.topic, event.payload, asking.topic, partial(self._send, reply=reply))
        for stream in self.streams:
            if matches(stream.spec.source, event.topic) and (prediction := stream.take(event.topic, event.payload)):
                self._send(*prediction)

    def _another(self) -> None:
        if self.alone:
            name, net = self.door.node, self.door.net
            log.error("another service answers as %s in the net %s, too: give each a name of its own (--node)", name, net)
        self.alone = False

    def _send(self, topic: str, payload: bytes, reply: Reply | None = None) -> None:
        if self.ended:
            return
        try:
            if not self.unsent and self.link.publish_at_once(topic, payload, reply=reply):
                return
        except LinkError as error:
            _not_sent(topic, error)
            return
        task = self.sending.create_task(_publish(self.link, topic, payload, reply=reply))
        self.unsent[task] = len(payload)
        task.add_done_callback(self.unsent.pop)


async def _publish(link: Link, topic: str, payload: bytes, *, retain: bool = False, reply: Reply | None = None) -> None:
    """At QoS 0: who misses an answer asks again."""
    try:
        await link.publish(topic, payload, qos=0, retain=retain, reply=reply)
    except LinkError as error:
        _not_sent(topic, error)


def _not_sent(topic: str, error: LinkError) -> None:
    log.warning("an answer was not sent: %s", error, extra={"facts": {"topic": topic}})
