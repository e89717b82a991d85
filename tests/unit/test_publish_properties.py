"""What is packed here is what paho packs, and what it unpacks."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edgemw.transport.link import Reply
from edgemw.transport.properties import PublishProperties, reply_and_end

TOPICS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="+#\0"), max_size=200)


def unpacked(data: bytes) -> Any:
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    _, length = properties.unpack(data)  # type: ignore[no-untyped-call]
    assert length == len(data)
    return properties


@given(
    expiry_s=st.none() | st.integers(0, 2**32 - 1),
    alias=st.integers(0, 65535),
    reply=st.none() | st.builds(Reply, TOPICS, st.binary(max_size=300)),
)
def test_paho_reads_what_is_packed(expiry_s: int | None, alias: int, reply: Reply | None) -> None:
    data = PublishProperties(expiry_s, alias, reply).pack()
    properties = unpacked(data)
    assert getattr(properties, "MessageExpiryInterval", None) == expiry_s
    assert getattr(properties, "TopicAlias", 0) == alias
    said = Reply(getattr(properties, "ResponseTopic", ""), getattr(properties, "CorrelationData", b""))
    assert said == (reply or Reply())
    assert reply_and_end(b"xy" + data + b"z", 2) == (reply if reply != Reply() else None, 2 + len(data))


@given(
    TOPICS,
    st.binary(max_size=300),
    st.lists(st.tuples(TOPICS, TOPICS), max_size=3),
    st.lists(st.integers(1, 268_435_455), max_size=3),
)
def test_what_paho_packs_is_read(topic: str, correlation: bytes, pairs: list[tuple[str, str]], numbers: list[int]) -> None:
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.PayloadFormatIndicator, properties.ContentType = 1, "application/json"
    properties.MessageExpiryInterval, properties.TopicAlias = 7, 3
    properties.ResponseTopic, properties.CorrelationData = topic, correlation
    for pair in pairs:
        properties.UserProperty = pair
    for number in numbers:
        properties.SubscriptionIdentifier = number
    data = properties.pack()  # type: ignore[no-untyped-call]  # paho leaves it untyped, as it does the other two
    assert reply_and_end(data, 0) == (Reply(topic, correlation) if topic or correlation else None, len(data))


def test_an_expiry_beyond_what_a_packet_can_say_is_the_longest() -> None:
    assert unpacked(PublishProperties(1 << 40, 0).pack()).MessageExpiryInterval == 0xFFFFFFFF
    assert unpacked(PublishProperties(-1, 0).pack()).MessageExpiryInterval == 0
