"""How long messages take on the link of a node: rate, delay, and loss as the time that a retry takes.

    arrival = max(now, link free) + bytes / rate + lost packets * retry + delay

The transport repeats what is lost, so nothing is missing: what a loss costs is time. Both directions of a link are apart, and
each carries one message after the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from edgemw.simulation.chance import Chance

PACKET_BYTES = 1460
_FEW = 64  # packets that are drawn one by one


@dataclass(frozen=True, slots=True)
class LinkSpec:
    """One link, the same in both directions but for its rate.

    Attributes:
        rate: bytes in a second; infinite is no limit.
        delay_s: of everything.
        loss: of a packet of 1460 bytes.
        retry_s: until a lost packet is sent again.
        down_rate: bytes in a second towards the node; 0 is `rate`.
    """

    rate: float = math.inf
    delay_s: float = 0.0
    loss: float = 0.0
    retry_s: float = 0.2
    down_rate: float = 0.0


DIRECT = LinkSpec()
"""Everything arrives at once."""


@dataclass(slots=True)
class _Way:
    """One direction of a link."""

    free: float = 0.0  # when what was sent before has left
    last: float = 0.0  # when it arrives
    sent_bytes: int = 0
    drawn: int = 0  # random numbers


class Links:
    """The links of all nodes, each between a node and its parent's broker.

    Attributes:
        slowed: by how much a node's link is slower than it should be, where it is.
    """

    def __init__(self, spec: Callable[[str], LinkSpec] = lambda node: DIRECT, chance: Chance | None = None) -> None:
        self._spec, self._chance = spec, chance or Chance(0)
        self._ways: dict[str, dict[str, _Way]] = {"up": {}, "down": {}}
        self._takes_time = False  # whether something was sent that did not arrive at once
        self.slowed: dict[str, float] = {}

    def sent_bytes(self, node: str, direction: str) -> int:
        """What was sent so far."""
        way = self._ways[direction].get(node)
        return 0 if way is None else way.sent_bytes

    def arrival(self, node: str, direction: str, size_bytes: int, now: float) -> float:
        """When something that is sent now is at the other end; `direction` is "up" or "down"."""
        spec = self._spec(node)
        ways = self._ways[direction]
        way = ways.get(node)
        if way is None:
            way = ways[node] = _Way()
        way.sent_bytes += size_bytes
        if spec is DIRECT and not self.slowed and not self._takes_time:
            return now
        self._takes_time = True
        lost = self._lost(way, node, direction, size_bytes, spec.loss) if spec.loss > 0 else 0
        slower = self.slowed.get(node, 1.0) if self.slowed else 1.0
        rate = spec.down_rate or spec.rate if direction == "down" else spec.rate
        way.free = max(now, way.free) + (size_bytes / rate + lost * spec.retry_s) * slower
        way.last = max(way.free + spec.delay_s * slower, way.last)  # nothing overtakes what was sent before
        return way.last

    def delay_s(self, node: str) -> float:
        """How long the smallest message takes on the link of a node."""
        return self._spec(node).delay_s * self.slowed.get(node, 1.0)

    def forget(self, node: str) -> None:
        """The connection of a node is gone, and all that was on it."""
        for ways in self._ways.values():
            if node in ways:
                ways[node].free = ways[node].last = 0.0

    def _lost(self, way: _Way, node: str, direction: str, size_bytes: int, loss: float) -> int:
        """Packets that have to be sent again."""
        packets = 1 + size_bytes // PACKET_BYTES
        if packets <= _FEW:
            return packets if loss >= 1 else sum(number < loss for number in self._draw(way, packets, node, direction))
        twelve = sum(self._draw(way, 12, node, direction)) - 6  # nearly normal
        return max(0, round(packets * loss + twelve * math.sqrt(packets * loss * (1 - loss))))

    def _draw(self, way: _Way, count: int, node: str, direction: str) -> list[float]:
        first, way.drawn = way.drawn + 1, way.drawn + count
        return [self._chance.nth(number, node, direction, "loss") for number in range(first, first + count)]
