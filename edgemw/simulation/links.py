"""How long messages take on the link of a node: rate, delay, and loss as the time that a retry takes.

    arrival = max(now, link free) + bytes / rate + lost packets * retry + delay

The transport repeats what is lost, so nothing is missing: what a loss costs is time. Both directions of a link are apart, and
each carries one message after the other.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from edgemw.simulation.chance import Chance

PACKET_BYTES = 1460
_FEW = 64  # packets that are drawn one by one


@dataclass(frozen=True, slots=True)
class LinkSpec:
    """One link, the same in both directions.

    Attributes:
        rate: bytes in a second; infinite is no limit.
        delay_s: of everything.
        loss: of a packet of 1460 bytes.
        retry_s: until a lost packet is sent again.
    """

    rate: float = math.inf
    delay_s: float = 0.0
    loss: float = 0.0
    retry_s: float = 0.2


DIRECT = LinkSpec()
"""Everything arrives at once."""


class Links:
    """The links of all nodes, each between a node and its parent's broker.

    Attributes:
        slowed: by how much a node's link is slower than it should be, where it is.
        bytes: sent so far, by node and direction.
    """

    def __init__(self, spec: Callable[[str], LinkSpec] = lambda node: DIRECT, chance: Chance | None = None) -> None:
        self._spec, self._chance = spec, chance or Chance(0)
        self._free: dict[tuple[str, str], float] = {}
        self._last: dict[tuple[str, str], float] = {}
        self.slowed: dict[str, float] = {}
        self.bytes: Counter[tuple[str, str]] = Counter()

    def arrival(self, node: str, direction: str, size_bytes: int, now: float) -> float:
        """When something that is sent now is at the other end; `direction` is "up" or "down"."""
        spec = self._spec(node)
        self.bytes[node, direction] += size_bytes
        if spec is DIRECT and not self.slowed and not self._last:
            return now
        seconds = size_bytes / spec.rate + self._lost(node, direction, size_bytes, spec.loss) * spec.retry_s
        free = max(now, self._free.get((node, direction), 0.0)) + seconds * self.slowed.get(node, 1.0)
        self._free[node, direction] = free
        at = free + self.delay_s(node)
        self._last[node, direction] = max(at, self._last.get((node, direction), 0.0))  # nothing overtakes what was sent before
        return self._last[node, direction]

    def delay_s(self, node: str) -> float:
        """How long the smallest message takes on the link of a node."""
        return self._spec(node).delay_s * self.slowed.get(node, 1.0)

    def forget(self, node: str) -> None:
        """The connection of a node is gone, and all that was on it."""
        for direction in ("up", "down"):
            self._free.pop((node, direction), None)
            self._last.pop((node, direction), None)

    def _lost(self, node: str, direction: str, size_bytes: int, loss: float) -> int:
        """Packets that have to be sent again."""
        packets = 1 + size_bytes // PACKET_BYTES
        if loss <= 0:
            return 0
        if packets <= _FEW:
            return sum(self._chance.happens(loss, node, direction, "loss") for _ in range(packets))
        twelve = sum(self._chance.number(node, direction, "loss") for _ in range(12)) - 6  # nearly normal
        return max(0, round(packets * loss + twelve * math.sqrt(packets * loss * (1 - loss))))
