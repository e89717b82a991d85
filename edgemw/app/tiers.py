"""The tree of a deployment: its tiers, who is whose parent, and which trees cannot work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from edgemw.app.checks import AUTO, EMBEDDED, check_optional_id, check_profile
from edgemw.app.sections import (
    Broker,
    Data,
    Energy,
    Limits,
    Security,
    Serving,
    Telemetry,
    Training,
    Uplink,
    Window,
    check_enough,
)
from edgemw.core.config.named import NameOrFile
from edgemw.core.config.schema import option, required, section
from edgemw.core.config.units import duration
from edgemw.core.config.words import nearest
from edgemw.core.errors import ConfigError
from edgemw.core.ids import valid_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """[tiers.NAME]: nodes of one kind. Sections say what differs from those at the top of the file."""

    role: Literal["fog", "device"] = required(help="what its nodes do")
    parent: str | None = option(None, help="name of the tier above; absent for the top")
    count: int = option(1, help="number of nodes", min=1, max=1_000_000)
    site: str = option("", help="where they stand: a label on their metrics", check=check_optional_id)
    profile: NameOrFile = option(
        NameOrFile(AUTO),
        help='class of devices, of `edgemw profile list`, or a .toml file of your own; auto: detected; "": unknown',
        example='"raspberry-pi-4b"',
        check=check_profile,
    )
    data: tuple[Data, ...] = option((), help="devices: their own samples instead of a part of [data]")
    broker: Broker = section(Broker, help="broker of these nodes", inherit=True, url=EMBEDDED)
    window: Window = section(Window, help="fog: window", inherit=True)
    training: Training = section(Training, help="devices: training", inherit=True)
    uplink: Uplink = section(Uplink, help="devices: uplink", inherit=True)
    serving: Serving = section(Serving, help="devices: serving", inherit=True)
    telemetry: Telemetry = section(Telemetry, help="metrics and logs", inherit=True, http="127.0.0.1:0", publish=duration("0s"))
    energy: Energy = section(Energy, help="joules", inherit=True, scope="process")
    limits: Limits = section(Limits, help="limits", inherit=True)
    security: Security = section(Security, help="signatures", inherit=True)


def node_id(tier: str, number: int, *, top: bool) -> str:
    """Name of a node: the tier's own for the top, numbered for all others."""
    return tier if top else f"{tier}-{number}"


def parent_of(child: int, children: int, parents: int) -> int:
    """Number of the parent of a child when children are given out in contiguous blocks whose sizes differ by at most 1."""
    return child * parents // children


def child_counts(tiers: Mapping[str, Tier], name: str) -> tuple[int, ...]:
    """How many children each node of a tier has, by number."""
    parents = tiers[name].count
    counts = [0] * parents
    for tier in tiers.values():
        if tier.parent == name:
            for parent in range(parents):
                first, after = (-(-n * tier.count // parents) for n in (parent, parent + 1))
                counts[parent] += after - first
    return tuple(counts)


def fan_in(tiers: Mapping[str, Tier], name: str) -> tuple[int, int]:
    """The fewest and the most children that a node of a tier has."""
    counts = child_counts(tiers, name)
    return min(counts), max(counts)


def check_tree(tiers: Mapping[str, Tier]) -> None:
    """Refuse tiers that are not one tree of fogs with devices at its ends.

    Raises:
        ConfigError: with the key of the tier that is wrong.
    """
    tops = [name for name, tier in tiers.items() if tier.parent is None]
    if not tops:
        raise ConfigError("no tier is the top: one must have no parent", key="tiers")
    if len(tops) > 1:
        raise ConfigError(f"{tops[0]!r} is the top already; give this tier a parent", key=f"tiers.{tops[1]}")
    top = tiers[tops[0]]
    if top.role != "fog":
        raise ConfigError("the top tier is a fog", key=f"tiers.{tops[0]}.role")
    if top.count != 1:
        raise ConfigError("there is one top fog", key=f"tiers.{tops[0]}.count")
    for name, tier in tiers.items():
        _check_parent(tiers, name, tier)
    _check_ids(tiers, tops[0])


def _check_parent(tiers: Mapping[str, Tier], name: str, tier: Tier) -> None:
    key = f"tiers.{name}.parent"
    if tier.parent is None:
        return
    if tier.parent not in tiers:
        raise ConfigError(f"there is no tier {tier.parent!r}", key=key, suggestion=nearest(tier.parent, [*tiers]))
    if tiers[tier.parent].role == "device":
        raise ConfigError(f"{tier.parent!r} is a tier of devices: a parent is a fog", key=key)
    chain = [name]
    while (above := tiers[chain[-1]].parent) is not None and above in tiers:
        if above in chain:
            raise ConfigError(f"goes in a circle: {' -> '.join([*chain, above])}", key=key)
        chain.append(above)


def _check_ids(tiers: Mapping[str, Tier], top: str) -> None:
    for name, tier in tiers.items():
        longest = node_id(name, tier.count - 1, top=name == top)
        if not valid_id(longest):
            raise ConfigError(f"its node {longest!r} would have a name of more than 40 characters", key=f"tiers.{name}")
        prefix, _, number = top.rpartition("-")
        if name == prefix and number.isdecimal() and str(int(number)) == number and int(number) < tier.count:
            raise ConfigError(f"two nodes would be called {top!r}: rename this tier or the top", key=f"tiers.{name}")


def check_reachable(tiers: Mapping[str, Tier], name: str) -> None:
    """Refuse a fog tier whose windows can never close, or whose nodes have more children than they take.

    Raises:
        ConfigError: with the key of the setting that is wrong.
    """
    tier = tiers[name]
    fewest, most = fan_in(tiers, name)
    if fewest == 0:
        reason = "no tier has it as its parent" if most == 0 else f"{tier.count} nodes for fewer children"
        raise ConfigError(f"a fog node without children would wait for ever: {reason}", key=f"tiers.{name}")
    for key, needed in (("k", tier.window.k), ("quorum", tier.window.quorum)):
        if isinstance(needed, int) and needed > fewest:
            reason = f"{needed} updates never come: a node of this tier has {fewest} child{'ren' if fewest > 1 else ''}"
            # A device tier has no window of its own, so its window is what [window] says.
            if all(getattr(other.window, key) == needed for other in tiers.values() if other.role == "device"):
                reason += f"; it is window.{key} that says {needed} for every tier"
            raise ConfigError(reason, key=f"tiers.{name}.window.{key}")
    if tier.window.robust and tier.window.k == "all":
        why = f"a node of this tier has {fewest} child{'ren' if fewest > 1 else ''}: give another robust to this tier, or none"
        check_enough(tier.window, fewest, f"tiers.{name}.window.robust", why)
    if most > tier.limits.max_children:
        reason = f"a node of this tier has {most} children, more than the {tier.limits.max_children} it takes"
        raise ConfigError(reason, key=f"tiers.{name}.limits.max_children")
