"""Whether a codec's updates fit into what nodes take and make; asked before anything runs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edgemw.app.settings import Codec, Deployment, FogFile
from edgemw.compression import side
from edgemw.compression.codec import Codec as Encoder
from edgemw.compression.table import codec_named
from edgemw.core.bundle import Manifest
from edgemw.core.errors import ConfigError
from edgemw.core.ranges import count, statistics_of


def check_afforded(settings: Deployment | FogFile, manifest: Manifest) -> None:
    """Refuse a codec whose updates are larger than what a node takes or makes. Raises ConfigError with the key `codec.use`.

    Where the top announces a step the size of an update follows from that: what is known is the least there is. A sum of updates
    may be larger than each of them.
    """
    codec = codec_named(settings.codec.use, **settings.codec.parameters)
    payload, beside_bytes = _least(codec, manifest)
    update_bytes = len(payload) + beside_bytes
    sum_bytes = len(codec.merge([payload, payload], manifest.size)) + beside_bytes
    for what, needed_bytes, key, limit_bytes in _limits(settings, update_bytes, sum_bytes):
        if needed_bytes > limit_bytes:
            reason = (
                f"{what} of this task takes {needed_bytes} bytes in {codec.name}, more than the {limit_bytes} of {key}: "
                "use another codec or raise that"
            )
            raise ConfigError(reason, key="codec.use")


def update_size(settings: Codec, manifest: Manifest) -> int:
    """Bytes of an update of a task, or the least that they are."""
    payload, beside_bytes = _least(codec_named(settings.use, **settings.parameters), manifest)
    return len(payload) + beside_bytes


def _least(codec: Encoder, manifest: Manifest) -> tuple[bytes, int]:
    """The payload of the smallest update, and how many bytes go beside it."""
    size, statistics = manifest.size, count(statistics_of(manifest.layout))
    vector = np.zeros(size, np.float32) if codec.stepped else np.linspace(-1, 1, size, dtype=np.float32)
    return codec.encode(vector, 0.0), len(side.encode(np.zeros(statistics))) if statistics else 0


def _limits(settings: Deployment | FogFile, update_bytes: int, sum_bytes: int) -> Iterator[tuple[str, int, str, int]]:
    """What is to fit, how many bytes that is, and the limit with its key."""
    update = "an update", update_bytes
    sum_ = ("a sum of updates", sum_bytes) if sum_bytes > update_bytes else update
    if isinstance(settings, FogFile):
        yield *update, "limits.max_update_bytes", settings.limits.max_update_bytes  # whether fogs are below it is not known
        return
    above_fogs = {tier.parent for tier in settings.tiers.values() if tier.role == "fog"}
    for name, tier in settings.tiers.items():
        has_sums = name in above_fogs or (tier.role == "fog" and tier.parent)
        yield *(sum_ if has_sums else update), f"tiers.{name}.limits.max_update_bytes", tier.limits.max_update_bytes
        if tier.role == "device" and tier.uplink.rate:
            yield *update, f"tiers.{name}.uplink.burst", tier.uplink.burst
