"""Whether a deployment can add under masks: asked where a file is read, where a bundle is known, and where a node begins."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING

from edgemw.app.sections import Codec, Privacy
from edgemw.app.tiers import Tier, child_counts
from edgemw.core.errors import ConfigError
from edgemw.wire.groups import LEAST_MEMBERS, needed
from edgemw.wire.messages import MAX_MEMBERS, MAX_SEALED_BYTES

if TYPE_CHECKING:
    from edgemw.core.bundle import Manifest  # with numpy, which not everybody who reads a file needs

_MEMBER_BYTES = 112  # in the list of a group: a name and two keys
_AROUND_BYTES = 128
_SIGNED_BYTES = 256  # of a frame around sealed shares: names, a label and a signature


def check_masks(privacy: Privacy, codec: Codec) -> None:
    """Refuse masks on a codec without a ring, and beside noise, which is made for another one. Raises ConfigError."""
    if privacy.masks and privacy.mode:
        reason = (
            f"noise of privacy.mode = {privacy.mode} is added to lattice payloads, which have no masks: leave one of the two away"
        )
        raise ConfigError(reason, key="privacy.masks")
    if privacy.masks and codec.use != "lanes":
        reason = f"codec {codec.use} has no integers of a fixed width that masks could be added to: give codec.use = 'lanes'"
        raise ConfigError(reason, key="privacy.masks")


def check_groups(privacy: Privacy, tiers: Mapping[str, Tier]) -> None:
    """Refuse fog nodes with too few or too many devices for a group, or windows that close before a sum can be read.

    Raises:
        ConfigError: with the key of the tier that does not go with masks.
    """
    if not privacy.masks:
        return
    devices = {name: tier for name, tier in tiers.items() if tier.role == "device"}
    for name, tier in tiers.items():
        counts = child_counts({name: tier, **devices}, name) if tier.role == "fog" else ()
        if any(counts):
            _check_group(privacy, name, tier, min(counts), max(counts))
            for below, child in devices.items():
                if child.parent == name:
                    _check_uplink(below, child, max(counts))


def _check_group(privacy: Privacy, name: str, tier: Tier, fewest: int, most: int) -> None:
    if fewest < LEAST_MEMBERS:
        plural = "" if fewest == 1 else "s"
        reason = f"a node of this tier would add {fewest} device{plural}: the sum of fewer than {LEAST_MEMBERS} tells too much"
        raise ConfigError(f"{reason}: give it more devices, or privacy.masks = false", key=f"tiers.{name}")
    if most > MAX_MEMBERS:
        reason = f"a node of this tier has {most} devices, and a group has {MAX_MEMBERS} at most: put more nodes into this tier"
        raise ConfigError(reason, key=f"tiers.{name}.count")
    least = needed(most, privacy.threshold)
    if isinstance(tier.window.k, int) and tier.window.k < least:
        reason = (
            f"closes a window with {tier.window.k} updates, and {least} of {most} devices take masks off: give more, or 'all'"
        )
        raise ConfigError(reason, key=f"tiers.{name}.window.k")
    message_bytes = most * max(MAX_SEALED_BYTES + 2, _MEMBER_BYTES) + _AROUND_BYTES
    if message_bytes > tier.limits.max_message_bytes:
        reason = f"what a group of {most} is told takes {message_bytes} bytes in one message: give that, or fewer devices"
        raise ConfigError(reason, key=f"tiers.{name}.limits.max_message_bytes")


def _check_uplink(name: str, tier: Tier, most: int) -> None:
    said_bytes = most * (MAX_SEALED_BYTES + 2) + _SIGNED_BYTES
    if tier.uplink.rate and tier.uplink.burst < said_bytes:
        reason = f"what a device says in a group of {most} takes {said_bytes} bytes at once: give that, or fewer devices"
        raise ConfigError(reason, key=f"tiers.{name}.uplink.burst")


def check_masked_task(privacy: Privacy, manifest: Manifest, changes: dict[str, int | float | str]) -> None:
    """Refuse a task whose running statistics would be sent beside the masked lanes. Raises ConfigError."""
    if not privacy.masks:
        return
    from edgemw.core.plan import plan_of
    from edgemw.core.ranges import ranges_of

    ranges = ranges_of(manifest.layout, plan_of(manifest.training | changes))
    said = [slot.name for slot in ranges.statistics if slot not in ranges.local]
    if said:
        names = ", ".join(said[:3])
        reason = f"{names}: running statistics travel beside the lanes, where no mask is: make them personal or frozen in [plan]"
        raise ConfigError(reason, key="privacy.masks")


def check_library(*, masks: bool) -> None:
    """Refuse to begin without what masks are made with. Raises ConfigError."""
    if masks and find_spec("cryptography") is None:
        raise ConfigError("masks need cryptography: pip install 'edgemw[security]'", key="privacy.masks")
