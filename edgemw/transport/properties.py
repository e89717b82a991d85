"""Properties of PUBLISH packets, packed here: paho takes longer to pack them than to send the packet.

Source: MQTT Version 5.0, sections 2.2.2 and 3.3.2.3.
"""

from __future__ import annotations

import functools
import struct
from typing import Any

from edgemw.transport.link import Reply
from edgemw.transport.traffic import variable_integer_bytes

_EXPIRY, _RESPONSE_TOPIC, _CORRELATION, _ALIAS = 0x02, 0x08, 0x09, 0x23
_LENGTHS = {"MessageExpiryInterval": 5, "TopicAlias": 3}


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


def reply_of(properties: Any) -> Reply | None:
    """What a publication that arrived says of an answer, or of its question; most say nothing. `properties` is paho's."""
    said = vars(properties) if properties is not None else {}
    topic, correlation = said.get("ResponseTopic", ""), said.get("CorrelationData", b"")
    return Reply(topic, correlation) if topic or correlation else None


def length_of(properties: Any, empty: frozenset[str]) -> int:
    """How many bytes the properties of a publication that arrived were.

    Args:
        properties: paho's, or None.
        empty: attributes of paho's that has none.
    """
    if properties is None:
        return 0
    length = 0
    for name, value in vars(properties).items():
        if name in empty:
            continue
        if name in _LENGTHS:
            length += _LENGTHS[name]
        elif name in ("ResponseTopic", "CorrelationData", "ContentType"):
            length += 3 + len(value.encode() if isinstance(value, str) else value)
        else:
            return len(properties.pack())
    return length + variable_integer_bytes(length)


def variable_integer(number: int) -> bytes:
    """MQTT's variable byte integer."""
    digits = bytearray()
    while True:
        number, digit = number >> 7, number & 127
        digits.append(digit | 128 * (number > 0))
        if not number:
            return bytes(digits)
