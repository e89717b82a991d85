"""The MQTT door of a prediction service: `serving/rpc.py` and `serving/stream.py` on a link."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from edgemw.app.settings import Broker
from edgemw.app.streams import StreamTable, discovery_of, streams_of
from edgemw.app.wiring import mqtt_settings
from edgemw.core.errors import LinkError
from edgemw.serving.api import MAX_BODY_BYTES
from edgemw.serving.rpc import Handle, Rpc
from edgemw.serving.slot import Slot
from edgemw.transport.filters import matches
from edgemw.transport.link import Down, Link, Received, Reply, Up
from edgemw.transport.mqtt import MqttLink

AROUND_BYTES = 64 << 10
"""Of a packet with a question: topics and correlation data."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MqttDoor:
    """Where questions are heard over MQTT.

    Attributes:
        broker: and how to log in.
        net: of the topics.
        node: by which the server is known there.
        env: of the process: passwords may stand in it.
        streams: of sensors that are read there too.
    """

    broker: Broker
    net: str
    node: str
    env: Mapping[str, str] = field(repr=False)
    streams: tuple[StreamTable, ...] = ()


async def answer_questions(door: MqttDoor, handle: Handle, slots: Mapping[str, Slot]) -> None:
    """Answer questions and read streams until cancelled. What comes while nobody is there is not looked at later.

    Raises:
        LinkError: the broker refuses this server for good.
    """
    client_id = f"{door.node}-serve-{secrets.token_hex(4)}"
    rpc, streams = Rpc(handle, door.net, door.node), streams_of(door.streams, slots)
    settings = mqtt_settings(door.broker, client_id, door.env)
    most = MAX_BODY_BYTES + AROUND_BYTES
    async with MqttLink(replace(settings, session_expiry_s=0, max_packet_bytes=most, queue_bytes=2 * most)) as link:
        for topic_filter in dict.fromkeys([rpc.topic_filter, *(stream.spec.source for stream in streams)]):
            await link.subscribe(topic_filter)
        async for event in link.events():
            match event:
                case Up(where=where):
                    facts = {"broker": where, "questions": rpc.topic_filter, "streams": len(streams)}
                    log.info("answering over MQTT", extra={"facts": facts})
                    for said in filter(None, (discovery_of(table, door.node) for table in door.streams)):
                        await _publish(link, *said, retain=True)
                case Down(reason=reason):
                    log.warning("no answers over MQTT: %s", reason)
                case Received(retained=False):
                    await _answer(link, rpc, event)
                    for stream in streams:
                        if matches(stream.spec.source, event.topic) and (prediction := stream.take(event.topic, event.payload)):
                            await _publish(link, *prediction)


async def _answer(link: Link, rpc: Rpc, question: Received) -> None:
    """At QoS 0: who misses an answer asks again."""
    asked = question.reply or Reply()
    answer = rpc.answer(question.topic, question.payload, asked.topic)
    if answer is None:
        return
    await _publish(link, *answer, reply=Reply("", asked.correlation) if asked.correlation else None)


async def _publish(link: Link, topic: str, payload: bytes, *, retain: bool = False, reply: Reply | None = None) -> None:
    try:
        await link.publish(topic, payload, qos=0, retain=retain, reply=reply)
    except LinkError as error:
        log.warning("an answer was not sent: %s", error, extra={"facts": {"topic": topic}})
