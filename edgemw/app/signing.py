"""Signatures in a deployment: whether those who ask for them are below, or above, those who make them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from edgemw.app.places import for_node
from edgemw.app.secrets import is_here
from edgemw.app.settings import Deployment
from edgemw.app.tiers import node_id
from edgemw.app.trust import Role, check_trust, is_among
from edgemw.core.errors import ConfigError


def check_signing(settings: Deployment, env: Mapping[str, str]) -> tuple[str, ...]:
    """Refuse signatures that are asked for and that nobody makes, and files of a node that are here and do not go together.

    Returns:
        A sentence for each tier of which a file is not here, or can be read by others.

    Raises:
        ConfigError: with the key.
    """
    _check_askers(settings)
    found = tuple(sentence for name in settings.top_down for sentence in _check_tier(settings, name, env))
    _check_top(settings, env)
    return found


def _check_askers(settings: Deployment) -> None:
    tiers, top = settings.tiers, settings.top
    for name, tier in tiers.items():
        if tier.security.release_key and tiers[top].security.key is None:
            reason = f"nobody signs releases: give tiers.{top}.security.key"
            raise ConfigError(reason, key=f"tiers.{name}.security.release_key")
        above = tier.parent
        if above is not None and tiers[above].security.ca is not None and tier.security.key is None:
            reason = f"{above} takes only updates that are signed: give this tier a key"
            raise ConfigError(reason, key=f"tiers.{name}.security.key")


def _check_tier(settings: Deployment, name: str, env: Mapping[str, str]) -> Iterator[str]:
    tier, is_top = settings.tiers[name], name == settings.top
    role: Role = "device" if tier.role == "device" else "top" if is_top else "fog"
    for number in range(tier.count):
        node = node_id(name, number, top=is_top)
        try:
            problems = check_trust(for_node(tier.security, node), node, role, env)
        except ConfigError as error:
            raise ConfigError(f"{node}: {error.reason}", key=f"tiers.{name}.{error.key or 'security'}") from error
        if problems:
            yield from (f"tiers.{name}.{problem}" for problem in problems)
            return


def _check_top(settings: Deployment, env: Mapping[str, str]) -> None:
    """Refuse release keys among which that of the top is not: its releases would be taken by nobody."""
    top = settings.top
    security = for_node(settings.tiers[top].security, top)
    if security.key is None or not is_here(security.key, env):
        return
    for name, tier in settings.tiers.items():
        if name == top:
            continue
        rings = {for_node(tier.security, node_id(name, number, top=False)).release_key for number in range(tier.count)}
        here = [keys for keys in rings if keys and all(path.is_file() for path in keys)]
        if not all(is_among(security.key, keys, env) for keys in here):
            reason = f"none of these keys is that of {top}, which signs the releases"
            raise ConfigError(reason, key=f"tiers.{name}.security.release_key")
