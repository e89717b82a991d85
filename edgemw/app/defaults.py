"""Settings of a class of devices where files say nothing: `[defaults]` of its profile, above the defaults of the schema.

A node's file takes those of its own class, found or named. A deployment takes those of classes that it names, tier by tier: what
the machine is of on which it is read makes no difference, so that the same file is the same run everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from edgemw.app.checks import AUTO
from edgemw.core.config.tree import Leaf, Origin, Table
from edgemw.core.config.units import duration_text
from edgemw.profiles.catalogue import load_profile
from edgemw.profiles.device import Profile
from edgemw.profiles.known import Count, Time


def under_all(settings: Any, origins: Mapping[str, Origin]) -> Table | None:
    """What is laid under a file, an environment and flags; None where profiles say nothing.

    Args:
        settings: of any kind of file, loaded without this.
        origins: of its values.

    Raises:
        ConfigError: a profile is refused.
    """
    if not hasattr(settings, "tiers"):
        profile = _class_of(settings)
        return None if profile is None else _table(profile, [spec.name for spec in fields(settings)], frozenset())
    tiers = {}
    for name, tier in settings.tiers.items():
        if tier.profile in ("", AUTO):
            continue
        sections = ("training", "energy", "telemetry") if tier.role == "device" else ("energy", "telemetry")
        table = _table(load_profile(tier.profile), sections, frozenset(origins))
        if table is not None:
            tiers[name] = table
    return Table({"tiers": Table(tiers, Origin("profile"))}, Origin("profile")) if tiers else None


def _class_of(settings: Any) -> Profile | None:
    from edgemw.app.energy import profile_of  # with what reads sensors

    return profile_of(settings.node.profile, settings.energy)[0]


def _table(profile: Profile, sections: list[str] | tuple[str, ...], said: frozenset[str]) -> Table | None:
    """The defaults for these sections, without keys that the top of a deployment says for all tiers."""
    origin = Origin("profile", profile.name)
    found: dict[str, Table] = {}
    for section, values in _defaults(profile):
        left = {key: Leaf(value, origin) for key, value in values.items() if f"{section}.{key}" not in said}
        if section in sections and left:
            found[section] = Table(left, origin)
    return Table(found, origin) if found else None


def _defaults(profile: Profile) -> Iterator[tuple[str, dict[str, object]]]:
    """Sections of settings with what a profile says in each, as a file would write it."""
    for section in fields(profile.defaults):
        part = getattr(profile.defaults, section.name)
        given = {spec.name: getattr(part, spec.name) for spec in fields(part)}
        yield section.name, {key: _written(value) for key, value in given.items() if value is not None}


def _written(known: Count | Time) -> object:
    return duration_text(known.value) if isinstance(known, Time) else known.value
