"""What `edgemw check` says about settings that are given and change nothing, or show something else than they seem to."""

from __future__ import annotations

import math
from collections.abc import Iterator

from edgemw.app.sections import Codec, Privacy, Release, Window
from edgemw.app.settings import Deployment, DeviceFile, FogFile, Tier, Uplink
from edgemw.app.tiers import fan_in
from edgemw.compression.coarse import can_coarsen
from edgemw.compression.table import codec_named
from edgemw.core.bundle import Manifest
from edgemw.core.config.units import duration_text
from edgemw.fog.privacy import CENTRAL, LOCAL, SAMPLE
from edgemw.robust.options import FEWEST, protects
from edgemw.wire.groups import GROUP_DEADLINES, needed

_DROWNED = 30  # times; `benchmarks/privacy.py`: 13 keeps 80 % of the accuracy, 24 three fifths, 54 a third
_OF_STEPS = ("optimizer", "momentum", "weight_decay", "prox_mu", "epochs", "steps", "batch_size", "clip")


def unused(settings: Deployment | FogFile) -> Iterator[str]:
    """Keys about learning that others leave without effect."""
    plan, codec, release = settings.plan, settings.codec, settings.release
    if settings.privacy.unit == SAMPLE:
        given = [name for name in _OF_STEPS if name in plan.changes()]
        yield from (f"plan.{name}: not used, since privacy.unit = {SAMPLE!r} takes one step, over all samples" for name in given)
    elif plan.steps and plan.epochs:
        yield "plan.epochs: not used, since plan.steps is given"
    if settings.privacy.unit == SAMPLE and settings.privacy.mode == CENTRAL and settings.privacy.kappa != Privacy().kappa:
        yield f"privacy.kappa: not used, since sums over samples (privacy.unit = {SAMPLE!r}) are sent to the last integer"
    if codec.kappa != Codec().kappa and settings.privacy.mode:
        yield "codec.kappa: not used, since privacy.kappa decides under privacy"
    elif codec.kappa != Codec().kappa and not codec_named(codec.use, **codec.parameters).stepped:
        yield f"codec.kappa: not used, since {codec.use} has no step"
    if release.kappa != Release().kappa and release.use == "dense":
        yield "release.kappa: not used, since release.use is dense"
    if settings.privacy.threshold != Privacy().threshold and not settings.privacy.masks:
        yield "privacy.threshold: not used, since privacy.masks is false"
    if isinstance(settings, FogFile) and settings.is_top and settings.window.budget:
        yield _budget_of_the_top("")


def plan_oddities(settings: Deployment | FogFile, manifest: Manifest) -> Iterator[str]:
    """What the patterns of the plan, or else of the bundle, make odd."""
    said = manifest.training | settings.plan.changes()
    if settings.plan.rare_every and not said.get("rare"):
        yield "plan.rare_every: not used, since plan.rare names no tensor"
    data = settings.data if isinstance(settings, Deployment) else None
    if said.get("personal") and data is not None and data.partition != "natural":
        yield (
            f"plan.personal: data.partition {data.partition} deals out test samples at random, so a device's own tensors are "
            "measured on others' samples too: natural keeps each client's together"
        )


def drowned(settings: Deployment | FogFile, manifest: Manifest) -> Iterator[str]:
    """Noise for whole devices in which so many devices say nothing to so many parameters (docs/security-privacy.md)."""
    privacy = settings.privacy
    if not isinstance(settings, Deployment) or not privacy.mode or privacy.unit == SAMPLE:
        return
    devices = sum(tier.count for tier in settings.tiers.values() if tier.role == "device")
    times = privacy.noise * math.sqrt(manifest.size * (devices if privacy.mode == LOCAL else 1)) / devices
    if times > _DROWNED:
        yield (
            f"privacy.noise: the noise of a release on {manifest.size} parameters is {times:.0f} times as long as the most that "
            f"{devices} devices can agree on, so next to nothing is learned: a smaller model, privacy.unit = {SAMPLE!r}, more "
            "devices, or less noise"
        )


def robust_oddities(key: str, window: Window, children: int) -> Iterator[str]:
    """Windows of a tier that its deadline may close with too few children to compare."""
    use, quorum = window.robust, window.quorum
    if not use or use == "norm" or quorum >= children:  # norm remembers children of earlier windows
        return
    if quorum < FEWEST:
        yield f"{key}.window.quorum: a window that its deadline closes with {quorum} is given back: {use} takes {FEWEST} or more"
    elif use != "median" and not protects(use, quorum, window.robust_share):
        yield f"{key}.window.quorum: a window that its deadline closes with {quorum} is not protected by {use}"


def unused_in_tiers(settings: Deployment) -> Iterator[str]:
    """The same of tiers."""
    if settings.tiers[settings.top].window.budget and not settings.window.budget:
        yield _budget_of_the_top(f"tiers.{settings.top}.")
    coarser = can_coarsen(codec_named(settings.codec.use, **settings.codec.parameters))
    for name, tier in settings.tiers.items():
        if tier.role != "device":
            continue
        if tier.uplink.max_upload and not coarser:
            yield f"tiers.{name}.uplink.max_upload: not used, since {settings.codec.use} cannot be made coarser"
        yield from unused_burst(tier, f"tiers.{name}.")


def quorum_of_masks(settings: Deployment, name: str) -> Iterator[str]:
    """A deadline that closes windows whose masks nobody can take off."""
    devices = {child for child, tier in settings.tiers.items() if tier.role == "device" and tier.parent == name}
    children, window = fan_in(settings.tiers, name)[1], settings.tiers[name].window
    least = needed(children, settings.privacy.threshold)
    if settings.privacy.masks and devices and window.quorum < least:
        after = duration_text(window.deadline)
        yield (
            f"tiers.{name}.window.quorum: {least} of {children} devices take masks off; with fewer after {after} a window goes "
            f"back to its devices: quorum = {least} waits for them"
        )


def patience_with_masks(settings: Deployment, name: str) -> Iterator[str]:
    """Nodes above a tier that adds under masks, and make a release before its groups are through: their updates go back."""
    tiers, tier = settings.tiers, settings.tiers[name]
    adds = any(child.role == "device" and child.parent == name for child in tiers.values())
    if not (settings.privacy.masks and adds):
        return
    group_s, above = GROUP_DEADLINES * float(tier.window.deadline), tier.parent
    while above is not None:
        window, key, children = tiers[above].window, f"tiers.{above}.window", fan_in(tiers, above)[0]
        if isinstance(window.k, int) and window.k < children:
            yield (
                f"{key}.k: a group of {name} that is not among the first {window.k} of {children} gives up, and its updates go "
                'back: "all" waits for it'
            )
        elif window.quorum < children and float(window.deadline) < group_s:
            yield (
                f"{key}.deadline: a group of {name} takes up to {duration_text(group_s)} where devices are silent, and gives up "
                f"where a release comes before: {duration_text(group_s)} waits for it"
            )
        above = tiers[above].parent


def unused_burst(settings: Tier | DeviceFile, prefix: str = "") -> Iterator[str]:
    """A burst without a rate."""
    if settings.uplink.burst != Uplink().burst and not settings.uplink.rate:
        yield f"{prefix}uplink.burst: not used, since there is no {prefix}uplink.rate"


def unused_unit(settings: DeviceFile) -> Iterator[str]:
    """A unit of noise that a device does not insist on."""
    if settings.privacy.unit == SAMPLE and not settings.privacy.least_noise:
        yield "privacy.unit: not used, since privacy.least_noise is not given"


def _budget_of_the_top(prefix: str) -> str:
    return f"{prefix}window.budget: not used, since the top sends nothing up"
