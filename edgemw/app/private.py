"""What goes with [privacy], and what does not."""

from __future__ import annotations

from edgemw.app.sections import Codec, Plan, Privacy, Window
from edgemw.core.accountant import MISSING, epsilon_of, is_installed
from edgemw.core.bundle import Bundle
from edgemw.core.errors import ConfigError
from edgemw.core.plan import plan_of
from edgemw.core.ranges import ranges_of
from edgemw.fog import privacy as promised
from edgemw.fog.protection import NOT_PRIVATE


def check_privacy(privacy: Privacy, codec: Codec, plan: Plan) -> None:
    """Refuse what would break a promise of privacy, or be without effect.

    Raises:
        ConfigError: with the key.
    """
    if not privacy.mode:
        if privacy != Privacy(masks=privacy.masks, threshold=privacy.threshold):
            raise ConfigError('says something where privacy.mode is not given: "central" or "local"', key="privacy")
        return
    _check_codec(codec)
    if plan.rare:
        raise ConfigError(promised.RARE_IS_LOST, key="plan.rare")
    if plan.personal and privacy.unit == promised.SAMPLE:
        raise ConfigError(promised.NO_PERSONAL, key="plan.personal")


def _check_codec(codec: Codec) -> None:
    if codec.use != "lattice":
        raise ConfigError(f"privacy counts in integers, and {codec.use} has none: use lattice", key="codec.use")
    if codec.parameters.get("rounding", "stochastic") != "stochastic":
        reason = 'rounding = "nearest" says later what it could not say at once, past the bound of an update: leave it away'
        raise ConfigError(reason, key="codec.parameters")
    if codec.parameters.get("steps", "free") != "free":
        reason = 'with steps = "dyadic" several updates of a device become one sum: leave it away'
        raise ConfigError(reason, key="codec.parameters")
    for name in ("budget_round", "budget_run"):
        if getattr(codec, name) is not None:
            raise ConfigError("follows what updates weigh; under privacy privacy.kappa alone decides", key=f"codec.{name}")
    if "most" in codec.parameters:
        raise ConfigError("follows from [privacy]: leave it away", key="codec.parameters")


def check_window(privacy: Privacy, window: Window, key: str) -> None:
    """Refuse robust merging where releases promise privacy. Raises ConfigError with the key."""
    if privacy.mode == promised.CENTRAL and window.robust:
        raise ConfigError(NOT_PRIVATE, key=key)


def check_uplink(privacy: Privacy, max_upload_s: float, key: str) -> None:
    """Refuse an uplink that makes updates coarser. Raises ConfigError with the key."""
    if privacy.mode and max_upload_s:
        raise ConfigError("makes updates coarser, and longer than their bound: leave it away under privacy", key=key)


def check_bundle(privacy: Privacy, bundle: Bundle, plan: Plan) -> None:
    """Refuse a task with tensors that no bound holds. Raises ConfigError with the key."""
    ranges = ranges_of(bundle.manifest.layout, plan_of(bundle.manifest.training | plan.changes()))
    promised.check_bounded(privacy_of(privacy), ranges)


def check_account(privacy: Privacy) -> None:
    """Refuse where epsilon cannot be computed, or is above its budget with the first release. Raises ConfigError."""
    given = privacy_of(privacy)
    if given is None:
        return
    if not is_installed():
        raise ConfigError(MISSING, key="privacy.mode")
    least = epsilon_of([given.promise.mechanisms(1, train=False)], given.delta)
    if given.budget and least > given.budget:
        reason = f"one release costs {least:.3g} with privacy.noise = {privacy.noise:g}: allow more, or add more noise"
        raise ConfigError(reason, key="privacy.epsilon")


def privacy_of(privacy: Privacy) -> promised.Privacy | None:
    """What the top promises; None where it promises nothing."""
    if not privacy.mode:
        return None
    promise = promised.Promise(privacy.mode, privacy.clip, privacy.noise, privacy.unit)
    return promised.Privacy(promise, privacy.delta, privacy.epsilon, privacy.kappa)
