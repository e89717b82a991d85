"""PUBLISH packets are read and written here: a link spends its time with them, and paho takes several times as long.

    socket -> Incoming -> publish_of -> the link
                              `-> whatever else it is: paho

Source: MQTT Version 5.0, sections 2.1, 3.3 and 2.2.2; 3.1.1 is the case without properties.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from edgemw.transport.link import Reply
from edgemw.transport.properties import number_and_end, reply_and_end, variable_integer

_PUBLISH = 3


class Malformed(ValueError):
    """What came is no packet of MQTT."""


class Publish(NamedTuple):
    """A publication that arrived, at QoS 0 or 1; `topic` is None where it is not UTF-8."""

    topic: str | None
    payload: bytes
    qos: int
    packet_id: int
    retained: bool
    reply: Reply | None


class Incoming:
    """The bytes of a connection, cut into packets."""

    def __init__(self, most_packet_bytes: int) -> None:
        self._data, self._most_bytes = bytearray(), most_packet_bytes

    def feed(self, data: bytes) -> None:
        """Some more have come."""
        self._data += data

    def next(self) -> bytes | None:
        """The next packet, whole; None before all of it has come.

        Raises:
            Malformed: its length cannot be, or is more than was asked for.
        """
        data = self._data
        end = _end_of(data)
        if end > self._most_bytes:
            raise Malformed(f"a packet of {end} bytes, at most {self._most_bytes} were asked for")
        if end == 0 or end > len(data):
            return None
        packet = bytes(memoryview(data)[:end])
        del data[:end]
        return packet


def publish_of(packet: bytes, level: int) -> Publish | None:
    """The publication that a packet is; None for any other one, also a publication at QoS 2.

    Args:
        packet: whole.
        level: of MQTT, 4 or 5.

    Raises:
        Malformed: it ends too early, or says what no publication says.
    """
    first = packet[0]
    qos = first >> 1 & 3
    if first >> 4 != _PUBLISH or qos > 1:
        return None
    try:
        _, at = number_and_end(packet, 1)
        begin = at + 2
        at = begin + (packet[at] << 8 | packet[at + 1])
        name, packet_id, reply = packet[begin:at], 0, None
        if qos:
            packet_id = packet[at] << 8 | packet[at + 1]
            at += 2
        if level == 5:
            reply, at = reply_and_end(packet, at)
    except UnicodeDecodeError:
        return Publish(None, b"", qos, packet_id, False, None)
    except (LookupError, ValueError) as error:
        raise Malformed(f"a publication of {len(packet)} bytes that is none: {error}") from error
    if at > len(packet):
        raise Malformed(f"a publication that says it has {at} bytes, but has {len(packet)}")
    try:
        topic = name.decode()
    except UnicodeDecodeError:
        return Publish(None, b"", qos, packet_id, False, None)
    return Publish(topic, packet[at:], qos, packet_id, bool(first & 1), reply)


def publish_packet(topic: str, payload: bytes, *, retain: bool, properties: bytes) -> bytes:
    """A publication at QoS 0.

    Args:
        properties: with their length before them; b"" for MQTT 3.1.1.
    """
    name = topic.encode()
    length = variable_integer(2 + len(name) + len(properties) + len(payload))
    return b"".join((b"\x31" if retain else b"\x30", length, struct.pack(">H", len(name)), name, properties, payload))


def _end_of(data: bytearray) -> int:
    """Where the packet ends that begins here; 0 before its length has come."""
    if len(data) < 2:
        return 0
    try:
        length, at = number_and_end(data, 1)
    except IndexError:
        return 0
    except ValueError as error:
        raise Malformed("a packet whose length has no end") from error
    return at + length
