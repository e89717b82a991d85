"""Properties of PUBLISH packets, packed and read here: paho takes longer to pack them than to send the packet.

Source: MQTT Version 5.0, sections 2.2.2 and 3.3.2.3.
"""

from __future__ import annotations

import functools
import struct

from edgemw.transport.link import Reply

_EXPIRY, _RESPONSE_TOPIC, _CORRELATION, _SUBSCRIPTION, _ALIAS = 0x02, 0x08, 0x09, 0x0B, 0x23
_FIXED = {0x01: 1, _EXPIRY: 4, _ALIAS: 2}
"""Bytes of those that have always as many."""
_STRINGS = {0x03: 1, _RESPONSE_TOPIC: 1, _CORRELATION: 1, 0x26: 2}
"""How many strings, each after its length, those are that have some."""


class PublishProperties:
    """Stands in the place of paho's Properties where a publication is handed over, which asks for nothing but `pack`."""

    __slots__ = ("_packed",)

    def __init__(self, expiry_s: int | None, alias: int, reply: Reply | None = None) -> None:
        packed = b""
        if expiry_s is not None:
            packed += struct.pack(">BI", _EXPIRY, max(0, min(expiry_s, 0xFFFFFFFF)))
        if alias:
            packed += struct.pack(">BH", _ALIAS, alias)
        if reply is not None and reply.topic:
            topic = reply.topic.encode()
            packed += struct.pack(">BH", _RESPONSE_TOPIC, len(topic)) + topic
        if reply is not None and reply.correlation:
            packed += struct.pack(">BH", _CORRELATION, len(reply.correlation)) + reply.correlation
        self._packed = variable_integer(len(packed)) + packed

    def pack(self) -> bytes:
        """The bytes, with their length before them."""
        return self._packed


@functools.lru_cache(256)
def properties_of(expiry_s: int | None, alias: int) -> PublishProperties:
    """Those of a publication that asks nothing; most are alike."""
    return PublishProperties(expiry_s, alias)


def reply_and_end(packet: bytes, at: int) -> tuple[Reply | None, int]:
    """What the properties of a publication say of an answer, or of its question (most say nothing), and where they end.

    Args:
        packet: with properties in it.
        at: where their length stands.

    Raises:
        LookupError, ValueError: they are none.
    """
    if packet[at] == 0:
        return None, at + 1
    length, at = number_and_end(packet, at)
    end, topic, correlation = at + length, "", b""
    while at < end:
        kind, at = packet[at], at + 1
        if kind in _FIXED:
            at += _FIXED[kind]
        elif kind == _SUBSCRIPTION:
            _, at = number_and_end(packet, at)
        else:
            for _ in range(_STRINGS[kind]):
                begin = at + 2
                at = begin + (packet[at] << 8 | packet[at + 1])
            if kind == _RESPONSE_TOPIC:
                topic = packet[begin:at].decode()
            elif kind == _CORRELATION:
                correlation = packet[begin:at]
    if at != end or end > len(packet):
        raise ValueError("properties that do not end where they say")
    return (Reply(topic, correlation) if topic or correlation else None), end


def number_and_end(packet: bytes | bytearray, at: int) -> tuple[int, int]:
    """MQTT's variable byte integer that stands at a place, and where it ends.

    Raises:
        IndexError: the bytes end before it does.
        ValueError: it has more than four bytes.
    """
    number = 0
    for shift in (0, 7, 14, 21):
        digit = packet[at]
        number, at = number | (digit & 127) << shift, at + 1
        if digit < 128:
            return number, at
    raise ValueError("a number without an end")


def variable_integer(number: int) -> bytes:
    """MQTT's variable byte integer."""
    if number < 128:
        return bytes((number,))
    if number < 128 * 128:
        return bytes((number & 127 | 128, number >> 7))
    digits = bytearray()
    while True:
        number, digit = number >> 7, number & 127
        digits.append(digit | 128 * (number > 0))
        if not number:
            return bytes(digits)
