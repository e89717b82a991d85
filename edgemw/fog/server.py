"""The server step: from a merged window to the next theta. Only the top does this.

mean  = sum_b s(tau_b) decode(section_b) / sum_b s(tau_b) weight_b       tau_b = release - base of section b
        with dyadic steps: decode(folded window) / weight, by `compression/merge.py`, whose s(tau) is a power of two
average   theta += lr mean                                               FedAvg, arXiv:1602.05629, algorithm 1
momentum  m <- beta m + mean ; theta += lr m                             FedAvgM, arXiv:1909.06335, section 4.3
adam      m <- b1 m + (1 - b1) mean ; v <- b2 v + (1 - b2) mean^2 ;
          theta += lr m / (sqrt(v) + tau), v = tau^2 at the start        FedAdam, arXiv:2003.00295, algorithm 2
statistics        theta = mean of base + delta, whatever the optimiser: they are no gradients
s(tau) = 1 / sqrt(1 + tau), or 1                                         FedBuff, arXiv:2106.06639, section 5
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edgemw.compression import side
from edgemw.compression.codec import Codec
from edgemw.compression.lattice import Lattice
from edgemw.compression.merge import gathered
from edgemw.core.bundle import Vector
from edgemw.core.encoded import Encoded, Section
from edgemw.fog.privacy import SectionNoise


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """The server's optimiser; `tau` is FedAdam's floor under the square root.

    `staleness` is "sqrt" or "none". Fog nodes weigh already where steps are dyadic; "none" cannot undo that.
    """

    optimizer: str = "average"
    lr: float = 1.0
    momentum: float = 0.9
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3
    staleness: str = "sqrt"


@dataclass(frozen=True, slots=True)
class ServerState:
    """Theta and the optimiser's moments, each float32[P]."""

    theta: Vector
    first: Vector | None = None
    second: Vector | None = None


def mean_update(codec: Codec, merged: Encoded, release: int, staleness: str, noise: SectionNoise | None = None) -> Vector:
    """The weighted mean of the devices' deltas, float32[P]; older bases weigh less. Noise is added to the sum of each base."""
    merged = gathered(codec, merged, release)
    total = np.zeros(merged.size, np.float64)
    weight = 0.0
    for section in merged.sections:
        discount = _discount(section, release, staleness)
        if noise is not None and isinstance(codec, Lattice):  # no other codec goes with noise
            # before anything is rounded: what is weighed apart leaves its low bits, and float32 would move two sums
            # that are a bound apart further apart
            summed = codec.exact(section.payload, merged.size) + noise(section)
        else:
            summed = codec.decode(section.payload, merged.size).astype(np.float64)
        total += discount * summed
        weight += discount * section.weight
    return (total / weight).astype(np.float32)


def mean_statistics(merged: Encoded, past: Mapping[int, Vector], release: int, staleness: str) -> Vector:
    """The weighted mean of what the devices measured, float32[Q].

    Each delta is added to the release that it was measured against, so that the mean lies between what was measured: were a
    late one added to a later release, a variance could become negative.

    Args:
        merged: the window.
        past: the statistics of releases by number, the present one among them. Devices that trained from one that is not
            there count as if they had measured what the present one says.
        release: the present one.
        staleness: see ServerOptions.

    Raises:
        WireError: malformed side values.
    """
    now = past[release].astype(np.float64)
    total, weight = np.zeros_like(now), 0.0
    for section in merged.sections:
        discount = _discount(section, release, staleness)
        base = past.get(section.base)
        moved = section.weight * (now if base is None else base.astype(np.float64))
        if base is not None:
            moved += side.decode(section.side, now.size)
        total += discount * moved
        weight += discount * section.weight
    return (total / weight).astype(np.float32)


def server_step(state: ServerState, mean: Vector, options: ServerOptions) -> ServerState:
    """The next theta and moments; the state given stays as it is."""
    lr = np.float32(options.lr)
    zero = np.zeros_like(state.theta)
    if options.optimizer == "momentum":
        first = (state.first if state.first is not None else zero) * np.float32(options.momentum) + mean
        return ServerState(state.theta + lr * first, first)
    if options.optimizer == "adam":
        b1, b2 = np.float32(options.beta1), np.float32(options.beta2)
        first = b1 * (state.first if state.first is not None else zero) + (1 - b1) * mean
        tau = np.float32(options.tau)
        second = b2 * (state.second if state.second is not None else zero + tau * tau) + (1 - b2) * mean * mean
        theta = state.theta + lr * first / (np.sqrt(second) + tau)
        return ServerState(theta.astype(np.float32), first, second)
    return ServerState(state.theta + lr * mean)


def _discount(section: Section, release: int, staleness: str) -> float:
    return 1 / math.sqrt(1 + max(0, release - section.base)) if staleness == "sqrt" else 1.0
