"""Another prediction service, asked over MQTT: `serving/placement.py`'s Elsewhere on the topics of `serving/rpc.py`."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import Callable
from typing import Any

from edgemw.core.errors import WireError
from edgemw.core.ids import valid_id
from edgemw.serving.api import BINARY, JSON, Answer, problem
from edgemw.serving.rpc import ANSWER, QUESTION, json_bytes_of
from edgemw.transport.link import Reply
from edgemw.wire import topics

MOST_ASKED = 64
"""Questions that have no answer yet; one more is not asked."""

MAX_TEXT = 500
"""Of what a refusal says."""

Send = Callable[[str, bytes, Reply], None]
"""Topic, payload, and where the answer is wanted."""

log = logging.getLogger(__name__)


class AskedNode:
    """See the module. It can be asked between `connected` and `disconnected`; all of it is called in one loop."""

    def __init__(self, net: str, node: str, own: str) -> None:
        """Name the net, the service that is asked, and who asks.

        Raises:
            ValueError: they cannot stand in a topic.
        """
        self.node, self._net, self._own = node, net, own
        self.topic_filter = topics.build(net, node, ANSWER, node=own, task="+")
        self._pending: dict[str, tuple[Callable[[Answer | None], None], asyncio.TimerHandle]] = {}
        self._send: Send | None = None

    def connected(self, send: Send, protocol: int) -> None:
        """Ask from now on, by way of `send`; below MQTT 5 answers would not find their question."""
        self._send = send if protocol >= 5 else None
        if self._send is None:
            log.error("%s cannot be asked: the broker speaks MQTT 3.1.1, which has no response topics", self.node)

    def disconnected(self) -> None:
        """Ask no more; answers of before may still come."""
        self._send = None

    def ask(self, task: str, body: bytes, timeout_s: float, heard: Callable[[Answer | None], None]) -> None:
        """See `placement.Elsewhere.ask`."""
        if self._send is None or len(self._pending) >= MOST_ASKED or not valid_id(task):
            heard(None)
            return
        identity = secrets.token_hex(8)
        self._pending[identity] = heard, asyncio.get_running_loop().call_later(timeout_s, self._tell, identity, None)
        answer_topic = topics.build(self._net, self.node, ANSWER, node=self._own, task=identity)
        self._send(topics.build(self._net, self.node, QUESTION, node=self._own, task=task), body, Reply(answer_topic))

    def hear(self, topic: str, payload: bytes) -> bool:
        """Take a publication; whether it was at a topic of answers to these questions."""
        try:
            parsed = topics.parse(topic)
        except WireError:
            return False
        if parsed.channel != ANSWER or (parsed.net, parsed.domain, parsed["node"]) != (self._net, self.node, self._own):
            return False
        identity = parsed["task"]
        if identity in self._pending:
            answer = _answer(payload, self.node)
            if answer is None:
                log.warning("%s has sent what is no answer", self.node)
            if answer is None or answer.final:
                self._tell(identity, answer)
        return True

    def _tell(self, identity: str, answer: Answer | None) -> None:
        heard, timer = self._pending.pop(identity)
        timer.cancel()
        heard(answer)


def _answer(payload: bytes, node: str) -> Answer | None:
    """What an answer over MQTT is over HTTP, where it says who gave it; None where it is none."""
    json_bytes = json_bytes_of(payload)
    end = len(payload) if json_bytes is None else json_bytes
    try:
        document: Any = json.loads(payload[:end], parse_constant=_refused)
        if isinstance(document, dict) and "error" in document:
            status = document.get("status")
            if type(status) is not int or not 400 <= status <= 599:
                return None
            return problem(status, f"{node}: {str(document['error'])[:MAX_TEXT]}")
        if not isinstance(document, dict) or not isinstance(document.get("outputs"), list):
            return None
        given = document.get("parameters")
        parameters = given if isinstance(given, dict) else {}
        text = json.dumps(document | {"parameters": parameters | {"node": node}}, allow_nan=False, separators=(",", ":")).encode()
    except (ValueError, RecursionError):
        return None
    final = parameters.get("final") is not False
    if json_bytes is None:
        return Answer(200, JSON, text, None, final)
    return Answer(200, BINARY, text + payload[end:], len(text), final)


def _refused(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")
