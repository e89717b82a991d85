"""Values that learning and the wire share: how to train, and sums that merge."""

from __future__ import annotations

from dataclasses import dataclass

Tally = dict[str, tuple[float, float]]
"""Sums by name, each with its weight; two tallies merge by adding both places."""


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


def add_tallies(tallies: list[Tally]) -> Tally:
    """The sum of tallies."""
    total: Tally = {}
    for tally in tallies:
        for name, (value, weight) in tally.items():
            old = total.get(name, (0.0, 0.0))
            total[name] = (old[0] + value, old[1] + weight)
    return total
