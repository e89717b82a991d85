"""Asks a prediction service over MQTT: one question at a time, by way of `serving/rpc.py`'s topics."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from edgemw.app.broker import mqtt_settings
from edgemw.app.settings import Broker
from edgemw.core.errors import DataError, LinkError
from edgemw.core.ids import valid_id
from edgemw.transport.link import Link, Received, Reply, Up
from edgemw.transport.mqtt import MqttLink
from edgemw.wire import topics

UNAVAILABLE = 503


class Asker:
    """Questions to one server. Under access rules by name it is who it logs in as, else somebody with a name of its own."""

    def __init__(self, link: Link, net: str, server: str, name: str) -> None:
        self._link, self._net, self._server, self._name = link, net, server, name
        self._events = link.events()

    async def ready(self, timeout_s: float) -> None:
        """Wait until answers can be heard. Raises LinkError where the broker does not answer in time."""
        await self._link.subscribe(topics.build(self._net, self._server, "prediction", node=self._name, task="+"))
        try:
            async with asyncio.timeout(timeout_s):
                async for event in self._events:
                    if isinstance(event, Up):
                        return
        except TimeoutError as error:
            raise LinkError("the broker cannot be used", where=self._net, hint="look into its log") from error

    async def ask(self, task: str, question: dict[str, Any] | None, timeout_s: float) -> dict[str, Any]:
        """The answer to a request; to none, what the model takes.

        Raises:
            DataError: the server refuses it.
            LinkError: no answer in time, or one that is none.
        """
        identity = secrets.token_hex(8)
        answer_topic = topics.build(self._net, self._server, "prediction", node=self._name, task=identity)
        usual = topics.build(self._net, self._server, "prediction", node=self._name, task=task)
        topic = topics.build(self._net, self._server, "predict", node=self._name, task=task)
        try:
            async with asyncio.timeout(timeout_s):
                data = b"" if question is None else json.dumps(question | {"id": identity}).encode()
                await self._link.publish(topic, data, reply=Reply(answer_topic))
                async for event in self._events:
                    if not isinstance(event, Received) or event.retained:
                        continue
                    if event.topic == answer_topic or (event.topic == usual and _is_ours(event.payload, question, identity)):
                        return _understood(event.payload, topic)
                raise LinkError("the link was closed", where=self._server, hint="ask again")
        except TimeoutError as error:
            hint = f"is `edgemw serve` running with --node {self._server}, and may {self._name} ask it?"
            raise LinkError(f"no answer from {self._server} in {timeout_s:g} s", where=topic, hint=hint) from error


@asynccontextmanager
async def open_asker(
    broker: Broker, net: str, server: str, env: Mapping[str, str], timeout_s: float, name: str = ""
) -> AsyncIterator[Asker]:
    """An asker that is connected.

    Args:
        broker: of the server.
        net: of its topics.
        server: its name there.
        env: of the process: passwords may stand in it.
        timeout_s: for the broker.
        name: of the asker; "" takes the one to log in with, or makes one.

    Raises:
        LinkError: the broker cannot be used.
    """
    name = name or (broker.username if valid_id(broker.username) else f"asker-{secrets.token_hex(4)}")
    settings = mqtt_settings(broker, f"{name}-{secrets.token_hex(4)}", env, wait=False)
    async with MqttLink(replace(settings, session_expiry_s=0)) as link:
        asker = Asker(link, net, server, name)
        await asker.ready(timeout_s)
        yield asker


def _is_ours(payload: bytes, question: dict[str, Any] | None, identity: str) -> bool:
    """Whether an answer at the topic that all questions of a name share, without MQTT 5, is to this one; errors may not say."""
    try:
        document = json.loads(payload)
        named = document.get("id", identity if "error" in document else None)
        return "error" in document or "inputs" in document if question is None else named == identity
    except (ValueError, TypeError, AttributeError):
        return False


def _understood(payload: bytes, topic: str) -> dict[str, Any]:
    try:
        document = json.loads(payload)
        if "error" not in document:
            return dict(document)
        status, text = int(document["status"]), str(document["error"])
    except (ValueError, TypeError, KeyError) as error:
        raise LinkError("an answer that is no prediction", where=topic, hint="who answers there?") from error
    if status == UNAVAILABLE:
        raise LinkError(text, where=topic, hint="try again when the server has a release")
    raise DataError(text)
