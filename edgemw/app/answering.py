"""The MQTT door of a prediction service: `serving/rpc.py` on a link."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from edgemw.app.settings import Broker
from edgemw.app.wiring import mqtt_settings
from edgemw.core.errors import LinkError
from edgemw.serving.rpc import Handle, Rpc
from edgemw.transport.link import Down, Link, Received, Reply, Up
from edgemw.transport.mqtt import MqttLink

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MqttDoor:
    """Where questions are heard over MQTT.

    Attributes:
        broker: and how to log in.
        net: of the topics.
        node: by which the server is known there.
        env: of the process: passwords may stand in it.
    """

    broker: Broker
    net: str
    node: str
    env: Mapping[str, str] = field(repr=False)


async def answer_questions(door: MqttDoor, handle: Handle) -> None:
    """Answer until cancelled. Questions that come while nobody is there are not answered later.

    Raises:
        LinkError: the broker refuses this server for good.
    """
    client_id = f"{door.node}-serve-{secrets.token_hex(4)}"
    rpc = Rpc(handle, door.net, door.node)
    async with MqttLink(replace(mqtt_settings(door.broker, client_id, door.env), session_expiry_s=0)) as link:
        await link.subscribe(rpc.topic_filter)
        async for event in link.events():
            match event:
                case Up(where=where):
                    log.info("answering over MQTT", extra={"facts": {"broker": where, "questions": rpc.topic_filter}})
                case Down(reason=reason):
                    log.warning("no answers over MQTT: %s", reason)
                case Received(retained=False):
                    await _answer(link, rpc, event)


async def _answer(link: Link, rpc: Rpc, question: Received) -> None:
    """At QoS 0: who misses an answer asks again."""
    asked = question.reply or Reply()
    answer = rpc.answer(question.topic, question.payload, asked.topic)
    if answer is None:
        return
    topic, payload = answer
    try:
        await link.publish(topic, payload, qos=0, reply=Reply("", asked.correlation) if asked.correlation else None)
    except LinkError as error:
        log.warning("an answer was not sent: %s", error, extra={"facts": {"topic": topic}})
