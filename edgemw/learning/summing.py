"""What an update is where single samples are protected: a sum, in which each sample has a bound.

    v_i = -lr grad f_i(theta) min(1, S / |lr grad f_i(theta)|) ,  update = sum over i of trunc(v_i / u)        S: plan.update_clip

in integers of a unit u, a power of two from S / 2^13 to S / 2^12. A sample that is there or is not changes the sum by a vector of
norm S at most, exactly. All gradients are at the release, so no step of a device follows from an earlier one: optimisers, epochs
and batches of a plan say nothing here.

A sum over samples is also what a sketch is: where f_i is linear in theta, v_i is a feature of sample i and the update their sum
(`compile/sketch.py`).

Source: per-example gradients, clipped: Abadi et al., Deep learning with differential privacy, CCS 2016, algorithm 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from edgemw.core.bundle import Vector
from edgemw.core.errors import DataError
from edgemw.core.noise import Integers, unit_of
from edgemw.core.plan import Plan
from edgemw.core.ranges import blank, ranges_of
from edgemw.learning.dataset import Samples
from edgemw.learning.oracle import Oracle

_WITHIN = 1 - 1e-9  # what float64 may make of a norm


def sum_over_samples(
    oracle: Oracle, theta: Vector, samples: Samples, plan: Plan, seed: int, stopped: Callable[[], bool]
) -> tuple[Integers, float]:
    """The sum, int64[P] in `unit_of(plan.update_clip)`, and the mean loss at theta.

    Args:
        oracle: loss and gradient.
        theta: float32[P], the release.
        samples: fitted training samples, at least one.
        plan: with `by_sample`; its `lr` and `frozen` count.
        seed: of dropout masks.
        stopped: asked before every sample; True sums over those that were seen.

    Raises:
        DataError: a loss or gradient is not finite.
        ConfigError: the patterns of the plan do not fit the task.
    """
    frozen = ranges_of(oracle.manifest.layout, plan).frozen
    masks = np.random.Generator(np.random.Philox(seed))
    unit, total, loss, seen = unit_of(plan.update_clip), np.zeros(theta.size, np.int64), 0.0, 0
    for row in range(len(samples)):
        if stopped():
            break
        one = samples.take(np.array([row]))
        step = oracle.loss_and_grad(theta, one.x, one.y, int(masks.integers(1 << 31)))
        v = -plan.lr * step.grad.astype(np.float64)
        blank(v, frozen)
        norm = math.sqrt(float(np.dot(v, v)))
        if not (math.isfinite(step.loss) and math.isfinite(norm)):
            raise DataError("the loss or gradient of a sample is not finite")
        total += np.trunc(v * (min(1.0, plan.update_clip * _WITHIN / max(norm, 1e-300)) / unit)).astype(np.int64)
        loss, seen = loss + step.loss, seen + 1
    return total, loss / max(seen, 1)
