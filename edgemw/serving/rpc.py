"""Predictions over MQTT: a question is a publication, and so is its answer. Publications in, publications out, no socket.

    em1/{net}/{server}/pq/{asker}/{task}     the body of an Open Inference request, or nothing to be told what the model takes
    em1/{net}/{server}/pa/{asker}/{task}     the body of its answer; of an error also its `status`, as HTTP has it, and the `id`

MQTT 5 says where an answer is wanted: a response topic, which has to be under `em1/{net}/{server}/pa/{asker}/`, so that nobody
can have a server write elsewhere, and access rules by name are enough. Without one (MQTT 3.1.1) the answer goes to the topic
above; there the `id` of a request tells answers apart. Binary tensors stand right behind the JSON, in both directions. A question
that asks for an early answer may have two.

Two servers of one name would both answer. So a server asks its own name for a model that nobody has: whoever answers that is
another one.
"""

from __future__ import annotations

import functools
import json
import re
import secrets
from collections.abc import Callable

from edgemw.core.errors import WireError
from edgemw.serving.api import MAX_BODY_BYTES, MAX_ID_LENGTH, Answer
from edgemw.serving.requests import Handle
from edgemw.wire import topics

QUESTION, ANSWER = "predict", "prediction"
MAX_TOPIC_BYTES = 256
_BINARY = b'"binary_data_size"'
_SIZE = re.compile(_BINARY + rb"\s*:\s*(\d{1,9})\D")
_NOBODYS = re.compile("whoami-[0-9a-f]{32}")
_CLOSES = ord("}")
_FORBIDDEN = frozenset("+#\0")

Publish = Callable[[str, bytes], None]
"""Topic and payload."""


class Rpc:
    """See the module.

    Attributes:
        topic_filter: of questions to this server.
        own_question: where it asks its own name, with an empty payload.
        own_answer: where only another server of that name answers it.
    """

    def __init__(self, handle: Handle, net: str, server: str) -> None:
        """Answer as `server` in a net.

        Raises:
            ValueError: net or server cannot stand in a topic.
        """
        self._handle, self._net, self._server = handle, net, server
        self.topic_filter = topics.build(net, server, QUESTION, node="+", task="+")
        self._head, self._length = b"", -1  # the JSON of the last question with tensors behind it, and how long all of it was
        nobodys = f"whoami-{secrets.token_hex(16)}"
        self.own_question = topics.build(net, server, QUESTION, node=server, task=nobodys)
        self._own_questions = self.own_question.removesuffix(nobodys)
        self.own_answer = topics.build(net, server, ANSWER, node=server, task=nobodys)

    def is_from_another(self, topic: str, question: bytes) -> bool:
        """Whether it is what another server of this name asks its own name."""
        of_a_server = not question and topic.startswith(self._own_questions)
        return of_a_server and topic != self.own_question and _NOBODYS.fullmatch(topic, len(self._own_questions)) is not None

    def answer(self, topic: str, question: bytes, response_topic: str, publish: Publish) -> None:
        """Answer a question: at once, or later; a topic that is not one of questions to this server has no answer.

        Args:
            topic: of the question.
            question: its payload.
            response_topic: where the answer is wanted, or "".
            publish: told where what is to be published, in the loop.
        """
        if topic == self.own_question or (place := _place(self._net, self._server, topic)) is None:
            return
        task, usual, own = place
        if response_topic and not (len(response_topic) <= MAX_TOPIC_BYTES and _is_under(own, response_topic)):
            text = f"an answer is wanted at a topic that is not under {own}"
            publish(usual, _refusal(400, text, _identity(question)))
            return
        target = response_topic or usual

        def reply(answer: Answer) -> None:
            if answer.status < 400:
                publish(target, answer.body)
            else:
                publish(target, _refusal(answer.status, json.loads(answer.body)["error"], _identity(question)))

        if len(question) > MAX_BODY_BYTES:  # before anything looks inside
            text = f"the question has {len(question)} bytes, at most {MAX_BODY_BYTES} are accepted"
            publish(target, _refusal(413, text, ""))
        elif not question:
            self._handle("GET", f"/v2/models/{task}", b"", None, reply)
        else:
            self._handle("POST", f"/v2/models/{task}/infer", question, self._json_bytes_of(question), reply)

    def _json_bytes_of(self, question: bytes) -> int | None:
        """As `json_bytes_of`: the JSON before tensors says how long they are, and mostly is that of the question before."""
        if len(question) == self._length and question.startswith(self._head):
            return len(self._head)
        end = json_bytes_of(question)
        if end is not None:
            self._head, self._length = question[:end], len(question)
        return end


@functools.lru_cache(256)
def _place(net: str, server: str, topic: str) -> tuple[str, str, str] | None:
    """Of a question at a topic to a server: the task, where its answer usually goes, and what is before the task there."""
    try:
        asked = topics.parse(topic)
    except WireError:
        return None
    if asked.channel != QUESTION or (asked.net, asked.domain) != (net, server):
        return None
    usual = topics.build(net, server, ANSWER, node=asked["node"], task=asked["task"])
    return asked["task"], usual, usual.removesuffix(asked["task"])


@functools.lru_cache(256)
def _is_under(prefix: str, topic: str) -> bool:
    return topic.startswith(prefix) and len(topic.encode()) <= MAX_TOPIC_BYTES and not _FORBIDDEN & set(topic)


def json_bytes_of(payload: bytes) -> int | None:
    """How much of a body is JSON, where binary tensors follow it; None where it is all JSON, or none."""
    if _BINARY not in payload:
        return None
    # Most have one tensor, which ends with the payload; whatever else it may be, JSON does not end before all is closed.
    said = _SIZE.search(payload)
    end = 0 if said is None else len(payload) - int(said[1])
    ends_there = said is not None and end > said.end() and payload[end - 1] == _CLOSES and payload.count(_BINARY) == 1
    if ends_there and payload.count(b"{", 0, end) == payload.count(b"}", 0, end):
        return end
    try:
        text = payload.decode("latin-1")  # one character for each byte, so that places stay what they are
        end = json.JSONDecoder().raw_decode(text)[1]
    except (ValueError, RecursionError):
        return None
    return end


def _identity(question: bytes) -> str:
    """The `id` of a request that is refused, as far as there is one."""
    if b'"id"' not in question or len(question) > MAX_BODY_BYTES:
        return ""
    end = json_bytes_of(question)
    try:
        identity = json.loads(question if end is None else question[:end])["id"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    return identity if isinstance(identity, str) and len(identity) <= MAX_ID_LENGTH else ""


def _refusal(status: int, text: str, identity: str) -> bytes:
    return json.dumps(({"id": identity} if identity else {}) | {"error": text, "status": status}).encode()
