"""What a plan's patterns mean for one layout: which tensors stay at home, stay as they are, or are seldom sent.

    frozen      as the release says: neither trained nor sent
    personal    trained on every device, never sent: each device has values of its own
    rare        trained in every round, sent from every `rare_every`-th release only; until then the change waits
    statistics  what gradient descent does not train (running means and variances), whatever the plan says: it travels
                beside the codec

A pattern is a shell-style glob over the names of tensors (`head.*`, `*.norm.*`); several stand with spaces between them.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemw.core.bundle import Slot, Vector
from edgemw.core.config.words import nearest
from edgemw.core.errors import ConfigError
from edgemw.core.plan import Plan

Slots = tuple[Slot, ...]

_NAMED = 8  # names in a message


@dataclass(frozen=True, slots=True)
class Ranges:
    """The tensors of a layout by what becomes of them; `size` is P. A statistic may be frozen, personal or rare as well."""

    size: int
    frozen: Slots = ()
    personal: Slots = ()
    rare: Slots = ()
    rare_every: int = 1
    statistics: Slots = ()

    @property
    def local(self) -> Slots:
        """What never leaves a device."""
        return self.frozen + self.personal

    @property
    def apart(self) -> Slots:
        """What no codec speaks of, in any release."""
        return tuple(dict.fromkeys(self.local + self.statistics))

    def waiting(self, release: int) -> Slots:
        """What an update trained from this release does not say yet."""
        return () if release % self.rare_every == 0 else self.rare

    def coded(self, release: int) -> int:
        """How many coordinates the codec of an update trained from this release speaks of."""
        return self.size - count(dict.fromkeys(self.apart + self.waiting(release)))


@functools.lru_cache(8)  # every release asks, and nearly all have the same plan
def ranges_of(layout: Slots, plan: Plan) -> Ranges:
    """The ranges of a layout under a plan.

    Raises:
        ConfigError: a pattern matches no tensor, a tensor is matched under two names, or nothing is left to train or to send.
    """
    found = {name: _matched(layout, name, getattr(plan, name).split()) for name in ("frozen", "personal", "rare")}
    for one, other in (("personal", "frozen"), ("rare", "frozen"), ("rare", "personal")):
        both = set(found[one]) & set(found[other])
        if both:
            raise ConfigError(f"tensor {min(slot.name for slot in both)!r} is {other} as well", key=f"plan.{one}")
    ranges = Ranges(count(layout), rare_every=plan.rare_every, statistics=statistics_of(layout), **found)
    if ranges.local and not any(slot.trainable and slot not in ranges.local for slot in layout):
        key = "plan.personal" if ranges.personal else "plan.frozen"
        raise ConfigError("no trained tensor is left to send: nothing would be learned together", key=key)
    return ranges


def statistics_of(layout: Slots) -> Slots:
    """The tensors that gradient descent does not train."""
    return tuple(slot for slot in layout if not slot.trainable)


def count(slots: Sequence[Slot] | dict[Slot, None]) -> int:
    """How many coordinates the tensors have together."""
    return sum(slot.size for slot in slots)


def blank(vector: npt.NDArray[np.floating[Any]], slots: Slots) -> None:
    """Set the coordinates of these tensors to zero, in place."""
    for slot in slots:
        vector[_place(slot)] = 0


def cut(vector: Vector, slots: Slots) -> Vector:
    """The values of these tensors, one after the other, as a new vector."""
    return np.concatenate([vector[_place(slot)] for slot in slots]) if slots else vector[:0].copy()


def put(vector: Vector, slots: Slots, values: Vector) -> None:
    """Write values, as `cut` gives them, over the tensors, in place."""
    start = 0
    for slot in slots:
        vector[_place(slot)] = values[start : start + slot.size]
        start += slot.size


def _place(slot: Slot) -> slice:
    return slice(slot.offset, slot.offset + slot.size)


def _matched(layout: Slots, name: str, patterns: list[str]) -> Slots:
    for pattern in patterns:
        if not any(fnmatchcase(slot.name, pattern) for slot in layout):
            names = [slot.name for slot in layout]
            near = nearest(pattern, names)
            reason = f"{pattern[:80]!r} matches no tensor of the task" + ("" if near else f": it has {_listed(names)}")
            raise ConfigError(reason, key=f"plan.{name}", suggestion=near)
    return tuple(slot for slot in layout if any(fnmatchcase(slot.name, pattern) for pattern in patterns))


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(name[:80] for name in names[:_NAMED]) + more
