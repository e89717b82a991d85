"""What MQTT adds to a payload.

A PUBLISH at QoS 1 is

    1 byte | remaining length, 1 to 4 bytes | topic length, 2 bytes | topic | packet identifier, 2 bytes | payload

and is answered by a PUBACK of 4 bytes. The headers of TCP and TLS are not counted.

Source: MQTT 3.1.1, sections 2.2.3 (remaining length), 3.3 (PUBLISH) and 3.4 (PUBACK).
"""

from __future__ import annotations

PUBACK_BYTES = 4
_FIXED_BYTES, _LENGTH_BYTES, _IDENTIFIER_BYTES = 1, 2, 2
_LARGEST_REMAINING = 268_435_455
_BITS_PER_BYTE = 7  # of a remaining length


def added_bytes(topic: str, payload_bytes: int) -> int:
    """The bytes of a PUBLISH packet besides its payload.

    Raises:
        ValueError: no packet can hold the payload.
    """
    variable = _LENGTH_BYTES + len(topic.encode()) + _IDENTIFIER_BYTES
    remaining = variable + payload_bytes
    if remaining > _LARGEST_REMAINING:
        raise ValueError(f"{payload_bytes} bytes do not fit an MQTT packet")
    return _FIXED_BYTES + -(-remaining.bit_length() // _BITS_PER_BYTE) + variable
