"""Publications are read and written as MQTT has them, and what is none is refused; the contract of links holds the rest."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemw.transport.link import Reply
from edgemw.transport.packets import Incoming, Malformed, Publish, publish_of, publish_packet
from edgemw.transport.properties import PublishProperties

TOPICS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
REPLIES = st.none() | st.builds(Reply, TOPICS.filter(bool), st.binary(max_size=20))


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    incoming, packets, at = Incoming(1 << 20), list[bytes](), 0
    for size in [*sizes, len(data)]:
        incoming.feed(data[at : at + size])
        at += size
        while (packet := incoming.next()) is not None:
            packets.append(packet)
    return packets


@given(TOPICS, st.binary(max_size=300), st.booleans(), REPLIES, st.sampled_from([4, 5]))
def test_a_publication_is_read_as_it_was_written(
    topic: str, payload: bytes, retain: bool, reply: Reply | None, level: int
) -> None:
    said = reply if level == 5 else None
    properties = PublishProperties(60, 0, said).pack() if level == 5 else b""
    packet = publish_packet(topic, payload, retain=retain, properties=properties)
    assert publish_of(packet, level) == Publish(topic, payload, 0, 0, retain, said)
    at = 1 + (2 if len(packet) > 129 else 1) + 2 + len(topic.encode())
    if len(packet) < 120:  # the same at QoS 1, with a number before the properties
        asked = bytes([packet[0] | 2, packet[1] + 2]) + packet[2:at] + struct.pack(">H", 513) + packet[at:]
        assert publish_of(asked, level) == Publish(topic, payload, 1, 513, retain, said)


@given(st.lists(st.binary(max_size=300), max_size=5), st.lists(st.integers(0, 200), max_size=20))
def test_however_bytes_arrive_the_packets_are_the_same(payloads: list[bytes], sizes: list[int]) -> None:
    packets = [publish_packet("a", payload, retain=False, properties=b"") for payload in payloads]
    assert cut(b"".join(packets), sizes) == packets


def test_a_packet_that_has_not_all_come_waits() -> None:
    packet = publish_packet("a", bytes(20_000), retain=False, properties=b"")
    assert cut(packet[:-1], [1, 1, 1, 5000]) == []
    assert cut(packet + packet[:3], [7000] * 3) == [packet]


def test_a_length_that_cannot_be_is_refused() -> None:
    for begin, said in ((b"\x30\xff\xff\xff\xff", "no end"), (b"\x30\xff\xff\xff\x01", "at most 1000 were asked for")):
        incoming = Incoming(1000)
        incoming.feed(begin)
        with pytest.raises(Malformed, match=said):
            incoming.next()


def test_a_number_of_properties_without_an_end_is_refused_at_once() -> None:
    with pytest.raises(Malformed, match="without an end"):
        publish_of(b"\x30\xff\xff\x7f\x00\x01a" + b"\xff" * 1_000_000, 5)


def test_other_packets_and_qos_2_are_not_for_here() -> None:
    assert publish_of(b"\xd0\x00", 5) is None
    assert publish_of(b"\x34\x06\x00\x01a\x00\x01\x00", 5) is None


@pytest.mark.parametrize("reply_topic", [False, True])
def test_a_topic_that_is_no_text_is_nobodys(reply_topic: bool) -> None:
    properties = PublishProperties(None, 0, Reply("reply")).pack()
    packet = bytearray(b"\x32" + bytes([5 + len(properties)]) + b"\x00\x01a\x00\x07" + properties)
    packet[packet.index(b"reply") if reply_topic else 4] = 0xFF
    assert publish_of(bytes(packet), 5) == Publish(None, b"", 1, 7, False, None)


@given(st.binary(max_size=60), st.sampled_from([4, 5]), st.sampled_from([0x30, 0x31, 0x32, 0x3A]))
def test_whatever_comes_is_a_publication_or_refused(body: bytes, level: int, first: int) -> None:
    packet = bytes([first, len(body)]) + body
    try:
        publish = publish_of(packet, level)
    except Malformed:
        return
    assert publish is not None
    assert publish.payload == b"" or packet.endswith(publish.payload)
