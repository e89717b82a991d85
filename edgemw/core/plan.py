"""Values that learning and the wire share: how to train, and sums that merge."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from edgemw.core.config.words import nearest, one_of, quoted
from edgemw.core.errors import ConfigError

Tally = dict[str, tuple[float, float]]
"""Sums by name, each with its weight; two tallies merge by adding both places."""

LOWER_IS_BETTER = frozenset({"cross_entropy", "mse", "mae"})
"""Metrics that training makes smaller; every other one grows."""

OPTIMIZERS = ("sgd", "adam")
LIMITS: Mapping[str, tuple[int, int]] = MappingProxyType(
    {"epochs": (0, 10**6), "steps": (0, 10**9), "batch_size": (1, 10**6), "rare_every": (1, 10**6)}
)
"""The whole numbers of a plan: least and most that a release can say."""
PATTERNS = ("personal", "frozen", "rare")
"""What a plan says by patterns over the names of tensors, with spaces between them."""

OF_THE_RUN = ("update_clip", "update_noise", "by_sample")
"""What the top alone says, since it keeps the account of what that promises."""

MAX_PATTERNS = 1000  # characters
_SINGLE, _LARGEST_SINGLE = struct.Struct("<f"), 3.4e38
_LARGEST = (1 << 64) - 1  # integer that a message can hold


@dataclass(frozen=True, slots=True)
class Plan:
    """How a device trains from a release.

    Attributes:
        optimizer: "sgd" or "adam".
        lr: learning rate.
        momentum: of sgd; 0 is none.
        weight_decay: coefficient.
        prox_mu: FedProx pull towards the release; 0 is none.
        epochs: passes over the device's samples.
        steps: optimiser steps instead of epochs; 0 means use epochs.
        batch_size: samples per step.
        clip: largest norm of a gradient; 0 is no limit.
        personal, frozen, rare: patterns of tensors that stay at home, stay as they are, or are sent from every
            `rare_every`-th release only; see `core/ranges.py`.
        rare_every: for `rare`.
        update_clip: largest norm of what an update says, which then weighs 1; 0 is no limit. See `compression/bounded.py`.
        update_noise: deviation of the noise that a device adds to it, as a multiple of `update_clip`; 0 is none.
        by_sample: 1: `update_clip` is of what each sample adds to the update. See `learning/summing.py`.
    """

    optimizer: str = "sgd"
    lr: float = 0.1
    momentum: float = 0.0
    weight_decay: float = 0.0
    prox_mu: float = 0.0
    epochs: int = 1
    steps: int = 0
    batch_size: int = 32
    clip: float = 0.0
    personal: str = ""
    frozen: str = ""
    rare: str = ""
    rare_every: int = 5
    update_clip: float = 0.0
    update_noise: float = 0.0
    by_sample: int = 0


def check_plan(values: Mapping[str, object], key: str) -> None:
    """Refuse values of a plan that no release can say or no device trains by.

    Args:
        values: any of the attributes of `Plan`, by name.
        key: what the error calls the table.

    Raises:
        ConfigError: a name that no plan has or that the top alone says, or a value of another type or out of its range.
    """
    names = tuple(name for name in Plan.__dataclass_fields__ if name not in OF_THE_RUN)
    for name, value in values.items():
        if name not in names:
            raise ConfigError("unknown key", key=f"{key}.{name[:60]}", suggestion=nearest(name, names))
        if wanted := _wanted(name, value):
            raise ConfigError(f"expected {wanted}, found {quoted(value)}", key=f"{key}.{name}")


def _wanted(name: str, value: object) -> str:
    """What a value should be; empty when it is."""
    if name == "optimizer":
        return "" if value in OPTIMIZERS else one_of(OPTIMIZERS)
    if name in PATTERNS:
        fits = isinstance(value, str) and len(value) <= MAX_PATTERNS and value.isprintable()
        return "" if fits else f"patterns with spaces between them, of at most {MAX_PATTERNS} printable characters"
    least, most = LIMITS.get(name, (0, _LARGEST))
    match value:
        case bool():
            fits = False
        case int():
            fits = least <= value <= most
        case float():
            fits = name not in LIMITS and 0 <= value < math.inf
        case _:
            fits = False
    whole = f"a whole number from {least} to {most}"
    return "" if fits else whole if name in LIMITS else "a finite number that is not negative"


def plan_of(values: Mapping[str, int | float | str]) -> Plan:
    """The plan of values that `check_plan` accepts; what they leave out is as in `Plan`."""
    return Plan(**values)  # type: ignore[arg-type]  # the types of values are checked, by name, where they are read


def within(plan: Plan, max_batch: int) -> Plan:
    """The same plan with batches of at most so many samples; 0 is no limit."""
    return replace(plan, batch_size=max_batch) if max_batch and plan.batch_size > max_batch else plan


def as_carried(tally: Tally) -> Tally:
    """The sums as they travel: whole numbers exactly, others as float 32, which is finer than any measure."""
    return {name: (_carried(value), _carried(weight)) for name, (value, weight) in tally.items()}


def _carried(value: float) -> float:
    if float(value).is_integer() or not math.isfinite(value) or abs(value) > _LARGEST_SINGLE:
        return value
    narrowed: float = _SINGLE.unpack(_SINGLE.pack(value))[0]
    return narrowed


def add_tallies(tallies: list[Tally]) -> Tally:
    """The sum of tallies."""
    total: Tally = {}
    for tally in tallies:
        for name, (value, weight) in tally.items():
            old = total.get(name, (0.0, 0.0))
            total[name] = (old[0] + value, old[1] + weight)
    return total
