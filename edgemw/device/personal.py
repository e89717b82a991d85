"""A device's own values: laid over every release, learned in every round, and left out of its books."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgemw.compression.residual import Contribution
from edgemw.core.bundle import Vector
from edgemw.core.ranges import Ranges, Slots, cut, put


def overlaid(theta: Vector, personal: Slots, known: Mapping[str, Vector]) -> Vector:
    """A release with the device's own values over it, as far as they are known; theta itself where none are."""
    mine = tuple(slot for slot in personal if slot.name in known)
    if not mine:
        return theta
    own = theta.copy()
    for slot in mine:
        put(own, (slot,), known[slot.name])
    return own


def learned(theta: Vector, delta: Vector, personal: Slots) -> dict[str, Vector]:
    """The device's own values after training from theta, by the name of the tensor."""
    return {slot.name: cut(theta, (slot,)) + cut(delta, (slot,)) for slot in personal}


def booked(contribution: Contribution, residual: Vector, ranges: Ranges) -> Vector:
    """The delta that is to be sent or kept, float32[P]; what another plan left in the residual is written off."""
    if not ranges.apart:
        return contribution.delta
    delta = contribution.delta.copy()
    put(delta, ranges.apart, cut(residual, ranges.apart) / np.float32(-contribution.weight))
    return delta
