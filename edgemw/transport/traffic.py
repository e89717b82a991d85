"""What a link has moved, counted in exact MQTT PUBLISH packets (the payload, its topic and the headers)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Traffic:
    """Totals since the link was made; they never go down.

    `sent_*` counts every hand-over to the socket, so a publication that is sent again counts again. `reconnects` counts
    connections after the first. `dropped` counts arrivals that were not taken: while the reader was behind (QoS 1 is left
    with the broker and comes again), or with a topic that is not UTF-8.
    """

    sent_bytes: int = 0
    received_bytes: int = 0
    sent_messages: int = 0
    received_messages: int = 0
    reconnects: int = 0
    dropped: int = 0


class TrafficMeter:
    """The counter behind a `Traffic`."""

    def __init__(self) -> None:
        self._sent_bytes = 0
        self._received_bytes = 0
        self._sent_messages = 0
        self._received_messages = 0
        self._reconnects = 0
        self._dropped = 0

    def sent(self, packet_bytes: int) -> None:
        """One PUBLISH went out."""
        self._sent_bytes += packet_bytes
        self._sent_messages += 1

    def received(self, packet_bytes: int) -> None:
        """One PUBLISH came in."""
        self._received_bytes += packet_bytes
        self._received_messages += 1

    def dropped(self) -> None:
        """One arrival was not taken."""
        self._dropped += 1

    def reconnected(self) -> None:
        """The link is up again."""
        self._reconnects += 1

    def total(self) -> Traffic:
        """The totals now."""
        return Traffic(
            sent_bytes=self._sent_bytes,
            received_bytes=self._received_bytes,
            sent_messages=self._sent_messages,
            received_messages=self._received_messages,
            reconnects=self._reconnects,
            dropped=self._dropped,
        )


def publish_packet_bytes(topic: str, payload_bytes: int, *, qos: int, properties_bytes: int) -> int:
    """Size of a PUBLISH packet on the wire (MQTT 5.0 section 3.3; 3.1.1 is the case without properties).

    Args:
        properties_bytes: the properties with their length field: 0 for MQTT 3.1.1, at least 1 for MQTT 5.
    """
    remaining = 2 + len(topic.encode()) + (2 if qos else 0) + properties_bytes + payload_bytes
    return 1 + variable_integer_bytes(remaining) + remaining


def variable_integer_bytes(value: int) -> int:
    """How long a number is as MQTT's variable byte integer."""
    return max(1, -(-value.bit_length() // 7))
