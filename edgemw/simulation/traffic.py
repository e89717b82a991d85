"""What has crossed the links of a tree, in bytes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Flow:
    """What has gone one way over one link, or over several.

    Attributes:
        frame_bytes: payloads of publications: packed messages and chunks.
        mqtt_bytes: what MQTT adds to them, and acknowledgements of what went the other way.
        codec_bytes: the part of `frame_bytes` that a codec made.
        vectors: how many updates, or releases, those are of.
        messages: publications.
    """

    frame_bytes: int = 0
    mqtt_bytes: int = 0
    codec_bytes: int = 0
    vectors: int = 0
    messages: int = 0

    @property
    def wire_bytes(self) -> int:
        """All bytes, up to the headers of TCP."""
        return self.frame_bytes + self.mqtt_bytes

    def bits_per_parameter(self, size: int) -> float:
        """Bits of codec payload for each of `size` parameters of a vector; 0 where no vector has gone."""
        return 8 * self.codec_bytes / (size * self.vectors) if self.vectors else 0.0

    def __add__(self, other: Flow) -> Flow:
        return Flow(
            self.frame_bytes + other.frame_bytes,
            self.mqtt_bytes + other.mqtt_bytes,
            self.codec_bytes + other.codec_bytes,
            self.vectors + other.vectors,
            self.messages + other.messages,
        )


@dataclass(frozen=True, slots=True)
class Traffic:
    """What has crossed the link between a node and its parent."""

    up: Flow = Flow()
    down: Flow = Flow()

    @property
    def wire_bytes(self) -> int:
        """All bytes, both ways."""
        return self.up.wire_bytes + self.down.wire_bytes

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(self.up + other.up, self.down + other.down)


class Meter:
    """The counter behind a `Flow`."""

    __slots__ = ("_codec", "_frame", "_messages", "_mqtt", "_vectors")

    def __init__(self) -> None:
        self._frame = self._mqtt = self._codec = self._vectors = self._messages = 0

    def publication(self, frame_bytes: int, mqtt_bytes: int, codec_bytes: int) -> None:
        """Count a publication; one with codec bytes brings a vector."""
        self._frame += frame_bytes
        self._mqtt += mqtt_bytes
        self._codec += codec_bytes
        self._vectors += codec_bytes > 0
        self._messages += 1

    def acknowledgement(self, mqtt_bytes: int) -> None:
        """Count the answer to a publication that came the other way."""
        self._mqtt += mqtt_bytes

    @property
    def wire_bytes(self) -> int:
        """All bytes so far."""
        return self._frame + self._mqtt

    def flow(self) -> Flow:
        """The totals now."""
        return Flow(self._frame, self._mqtt, self._codec, self._vectors, self._messages)
