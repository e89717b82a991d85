"""Frames in their shortest form: names that the topic says, numbers in few bytes; and nothing else is taken for them."""

from __future__ import annotations

import math
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemw.core.errors import WireError
from edgemw.wire import publication, topics
from edgemw.wire.decode import decode
from edgemw.wire.encode import encode
from edgemw.wire.messages import Ack, Blob, Chunk, Frame, Message, Presence, StatusRequest, pack

SHA = bytes(range(32))
REPLY = topics.build("net", "fog", "reply", node="device", task="toy")
ST = topics.build("net", "fog", "presence", node="device")
ASK = topics.build("net", "fog", "ask", node="device")
BLOB = topics.build("net", "fog", "blob", digest=Blob(SHA, 1, 1024).name, index="0")
CASES: list[tuple[str, Frame, list[str]]] = [
    (REPLY, Frame("toy", "fog", 1, 0, Ack(1, 2)), ["", ""]),
    (ST, Frame("", "device", 1, 0, Presence("online", "device", "fog")), ["", ""]),
    (ASK, Frame("", "device", 1, 0, StatusRequest()), ["", ""]),
    (BLOB, Frame("", "x", 1, 0, Chunk(SHA, 0, b"d")), ["", "x"]),
]


@pytest.mark.parametrize(("topic", "frame", "names"), CASES)
def test_a_frame_on_its_topic_leaves_out_what_the_topic_says(topic: str, frame: Frame, names: list[str]) -> None:
    data = publication.write(topic, frame)
    assert msgpack.unpackb(data)[2:4] == names
    assert publication.read(topics.parse(topic), data) == frame
    assert publication.read(topics.parse(topic), pack(frame)) == frame


@pytest.mark.parametrize(
    ("task", "node", "message", "reason"),
    [
        ("other", "fog", Ack(1, 2), "task"),
        ("toy", "device", Ack(1, 2), "sender"),
        ("toy", "fog", StatusRequest(), "kind"),
    ],
)
def test_a_frame_that_says_otherwise_than_its_topic_is_refused(task: str, node: str, message: Message, reason: str) -> None:
    frame = Frame(task, node, 1, 0, message)
    with pytest.raises(WireError) as raised:
        publication.read(topics.parse(REPLY), publication.write(REPLY, frame))
    assert raised.value.reason == reason


def test_a_frame_that_nobody_signs_is_refused() -> None:
    with pytest.raises(WireError):
        publication.read(topics.parse(BLOB), encode([1, 5, "", "", 1, 0, [SHA, 0, b"d"]]))


integers = st.integers(-(2**63), 2**64 - 1)
leaves = st.none() | st.booleans() | integers | st.floats(allow_nan=False) | st.text(max_size=9) | st.binary(max_size=9)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4).map(tuple) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@given(values)
def test_what_is_written_is_read_and_never_longer_than_plain_messagepack(value: Any) -> None:
    data = encode(value)
    assert decode(data) == value
    assert len(data) <= len(msgpack.packb(value))


@pytest.mark.parametrize(("value", "size"), [(0.5, 5), (0.1, 9), (1e300, 9), (math.inf, 5), (1, 1)])
def test_a_float_that_float_32_holds_takes_five_bytes(value: float, size: int) -> None:
    assert len(encode(value)) == size
