"""What a device may send: whether it can afford to train now, and how large its next update may be."""

from __future__ import annotations

from dataclasses import dataclass

from edgemw.core.ids import UpdateId
from edgemw.device.deliveries import Deliveries
from edgemw.wire.bucket import Bucket
from edgemw.wire.messages import Frame, pack

ANSWER_BYTES = 512  # an update without symbols has less; what one is taken for before any was made
_LEAST_BYTES = 1024  # what the cap always allows: where this takes too long it is latency, and sending less would not help


@dataclass(frozen=True, slots=True)
class Uplink:
    """The uplink of a device, the same for all of its tasks.

    Attributes:
        bucket: the bytes that may leave; None is no limit. Whoever publishes takes from it, a machine only looks.
        max_upload_s: the longest that an update should take to arrive; 0 is no limit.
    """

    bucket: Bucket | None = None
    max_upload_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Shortage:
    """Why a device waits: it has `level_bytes` of `needed_bytes`, and the rest in `wait_s`."""

    level_bytes: int
    needed_bytes: int
    wait_s: float

    def __str__(self) -> str:
        return f"out of tokens: {self.level_bytes} of {self.needed_bytes} bytes, more in {self.wait_s:.1f} s"


NO_LIMIT = Uplink()


class Budget:
    """What one task of a device may send."""

    def __init__(self, uplink: Uplink) -> None:
        self._uplink = uplink
        self._deliveries = Deliveries()
        self._last_bytes = ANSWER_BYTES

    @property
    def limited(self) -> bool:
        """Whether there is a bucket."""
        return self._uplink.bucket is not None

    def shortage(self, now: float) -> Shortage | None:
        """Why an update as large as the last one cannot be sent at once; None where it can."""
        bucket = self._uplink.bucket
        if bucket is None:
            return None
        needed = min(self._last_bytes, bucket.burst)
        wait_s = bucket.wait_s(needed, now)
        return Shortage(max(0, int(bucket.level(now)) - bucket.asked), needed, wait_s) if wait_s > 0 else None

    def limit_bytes(self, *, coarser: bool) -> int | None:
        """The largest frame that may be sent; None is no limit.

        Args:
            coarser: the codec can make an update smaller. One that cannot is held to what the bucket can ever have, not to the
                time that an upload takes.
        """
        limits = [] if self._uplink.bucket is None else [self._uplink.bucket.burst]
        rate = self._deliveries.rate
        if coarser and self._uplink.max_upload_s and rate is not None:
            limits.append(max(_LEAST_BYTES, int(rate * self._uplink.max_upload_s)))
        return min(limits, default=None)

    def sent(self, frame: Frame, now: float, *, trained: bool) -> None:
        """A new update was sent."""
        size_bytes = len(pack(frame))
        if trained:
            self._last_bytes = size_bytes
        self._deliveries.sent(frame.id, size_bytes, now)

    def arrived(self, update: UpdateId, now: float) -> None:
        """An update was acknowledged."""
        self._deliveries.arrived(update, now)

    def forget(self) -> None:
        """A new run has begun."""
        self._deliveries.forget()

    def facts(self, now: float) -> dict[str, int | float | str]:
        """Numbers for `status`, of what is limited."""
        facts: dict[str, int | float | str] = {}
        if self._uplink.bucket is not None:
            facts["tokens_bytes"] = int(self._uplink.bucket.level(now))
        if self._deliveries.rate is not None:
            facts["delivered_bytes_per_s"] = round(self._deliveries.rate)
        return facts
