"""How fast this device's updates arrive, from the times at which they were sent and acknowledged.

    sample = (delivered at the acknowledgement - delivered when it was sent) / (time between the two)
    rate   = the largest of the last WINDOW samples

A sample is never more than what the path carried; it is less where little was sent, which the maximum leaves out. The window is
short, because an update comes once in a release: after a cut of the link the old rate is forgotten within four of them. Waiting
at this device's own bucket counts, as does sending again: what matters is when an update is there.

Source: Cardwell et al., BBR, ACM Queue 14(5), 2016; draft-cheng-iccrg-delivery-rate-estimation, section 2.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgemw.core.ids import UpdateId

WINDOW = 4
MAX_UNDER_WAY = 16  # beyond what a device lets wait; the oldest are given up


@dataclass(frozen=True, slots=True)
class _Sent:
    size_bytes: int
    delivered_bytes: int  # of all updates, when this one was sent
    since: float  # when the bytes began to be counted that are delivered with it


class Deliveries:
    """The updates of one task that are under way, and the rates of the last ones that arrived."""

    def __init__(self) -> None:
        self._under_way: dict[UpdateId, _Sent] = {}
        self._samples: tuple[float, ...] = ()
        self._delivered_bytes = 0
        self._delivered_at = 0.0

    @property
    def rate(self) -> float | None:
        """Bytes per second; None before the first delivery."""
        return max(self._samples, default=None)

    def sent(self, update: UpdateId, size_bytes: int, now: float) -> None:
        """An update was sent for the first time."""
        while len(self._under_way) >= MAX_UNDER_WAY:
            del self._under_way[next(iter(self._under_way))]
        if not self._under_way:
            self._delivered_at = now  # an idle path delivers nothing: that is not its rate
        self._under_way[update] = _Sent(size_bytes, self._delivered_bytes, self._delivered_at)

    def arrived(self, update: UpdateId, now: float) -> None:
        """An update is at its receiver; one that is not under way here is left out."""
        sent = self._under_way.pop(update, None)
        if sent is None:
            return
        self._delivered_bytes += sent.size_bytes
        self._delivered_at = now
        if now > sent.since:
            sample = (self._delivered_bytes - sent.delivered_bytes) / (now - sent.since)
            self._samples = (*self._samples, sample)[-WINDOW:]

    def forget(self) -> None:
        """Nothing is under way any more: a new run has begun."""
        self._under_way.clear()
