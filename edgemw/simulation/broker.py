"""What a broker keeps for its readers, who have persistent sessions and quality of service 1.

    sent, or kept while the reader is away --acknowledged--> gone

A message that was on its way when the connection ended is sent again on the next one, also one that had arrived and whose
acknowledgement was lost. What finds a queue full is dropped, and so is what is larger than a packet may be. Updates are sent
again; a release is said again only to who connects anew.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from edgemw.wire.messages import Frame
from edgemw.wire.topics import Topic

ON_THEIR_WAY = 20
"""Messages that mosquitto sends before the first is acknowledged; others wait in its queue, 1000 of them at most."""

Message = tuple[Topic, Frame, int]
"""With its size in bytes."""


@dataclass(frozen=True, slots=True)
class BrokerSpec:
    """A broker.

    Attributes:
        queued: messages for one reader that are not acknowledged; 0 is no limit.
        packet_bytes: the largest message; 0 is no limit.
        session_s: how long the session of a reader that is away is kept.
    """

    queued: int = ON_THEIR_WAY + 1000
    packet_bytes: int = 0
    session_s: float = 3600.0


MOSQUITTO = BrokerSpec()
"""As it is delivered."""


class Sessions:
    """The queues of all readers.

    Attributes:
        dropped: messages, by why: "queue full" or "too large".
    """

    def __init__(self, spec: BrokerSpec) -> None:
        self._spec = spec
        self._queues: dict[str, list[tuple[float, Message]]] = {}  # with when each is acknowledged; most are short
        self._to_look_at: Iterator[str] = iter(())
        self._away_since: dict[str, float] = {}
        self.dropped: Counter[str] = Counter()

    def takes(self, size_bytes: int) -> bool:
        """Whether a message is no larger than a packet may be."""
        fits = not self._spec.packet_bytes or size_bytes <= self._spec.packet_bytes
        if not fits:
            self.dropped["too large"] += 1
        return fits

    def keep(self, reader: str, message: Message, now: float, acknowledged_at: float = math.inf) -> bool:
        """Keep a message until it is acknowledged, which is never as long as it is not sent; False where it is dropped."""
        self._look_at_another(now)
        queue = self._queues.setdefault(reader, [])
        _forget_acknowledged(queue, now)
        if self._spec.queued and len(queue) >= self._spec.queued:
            self.dropped["queue full"] += 1
            return False
        queue.append((acknowledged_at, message))
        return True

    def _look_at_another(self, now: float) -> None:
        """Forget what the next of all readers has acknowledged, who may never be sent anything again."""
        reader = next(self._to_look_at, None)
        if reader is None:
            self._to_look_at = iter([*self._queues])
            return
        queue = self._queues.get(reader)
        if queue is not None:
            _forget_acknowledged(queue, now)
            if not queue:
                del self._queues[reader]

    def leaves(self, reader: str, now: float) -> None:
        """The connection of a reader has ended: what is not acknowledged by now stays."""
        queue = self._queues.get(reader)
        if queue is not None:
            self._queues[reader] = [(math.inf, message) for at, message in queue if at > now]
        self._away_since.setdefault(reader, now)

    def returns(self, reader: str, now: float) -> list[Message]:
        """A reader is back: what has to be sent to it, in order."""
        queue, since = self._queues.pop(reader, ()), self._away_since.pop(reader, now)
        return [message for _, message in queue] if now - since <= self._spec.session_s else []


def _forget_acknowledged(queue: list[tuple[float, Message]], now: float) -> None:
    if queue and queue[0][0] <= now:
        del queue[: next((i for i, (at, _) in enumerate(queue) if at > now), len(queue))]
