"""What is packed here is what paho packs, and what it unpacks."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edgemw.transport.link import Reply
from edgemw.transport.properties import PublishProperties, length_of, reply_of

EMPTY = frozenset(vars(Properties(PacketTypes.PUBLISH)))  # type: ignore[no-untyped-call]  # paho leaves it untyped
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
    assert (reply_of(properties) or Reply()) == (reply or Reply())
    assert length_of(properties, EMPTY) == len(data)


def test_what_is_not_known_here_counts_as_well() -> None:
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.UserProperty = ("a", "b")
    properties.ContentType = "application/json"
    assert length_of(properties, EMPTY) == len(properties.pack())  # type: ignore[no-untyped-call]
    assert length_of(None, EMPTY) == 0


def test_an_expiry_beyond_what_a_packet_can_say_is_the_longest() -> None:
    assert unpacked(PublishProperties(1 << 40, 0).pack()).MessageExpiryInterval == 0xFFFFFFFF
    assert unpacked(PublishProperties(-1, 0).pack()).MessageExpiryInterval == 0
