"""What a device's cycle is given besides what it remembers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgemw.device.masks import Masking
from edgemw.device.uplink import NO_LIMIT, Uplink
from edgemw.wire.following import Advance, Following
from edgemw.wire.signed import ANYBODY, Trust

_NO_MASKS = Masking()


@dataclass(frozen=True, slots=True)
class Means:
    """See the module.

    Attributes:
        uplink: what may be sent.
        masking: what it has for masks.
        follow: makes what follows releases.
        trust: what it signs with, and whose releases it takes.
    """

    uplink: Uplink = NO_LIMIT
    masking: Masking = _NO_MASKS
    follow: Callable[[Advance], Following] = Following
    trust: Trust = ANYBODY
