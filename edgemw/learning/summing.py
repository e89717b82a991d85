"""What an update is where single samples are protected: a sum, in which each sample has a bound.

    v_i = -lr grad f_i(theta) min(1, S / |lr grad f_i(theta)|) ,  update = sum over i of trunc(v_i / u)        S: plan.update_clip

in integers of a unit u, a power of two from S / 2^13 to S / 2^12. A sample that is there or is not changes the sum by a vector of
norm S at most, exactly. All gradients are at the release, so no step of a device follows from an earlier one: optimisers, epochs
and batches of a plan say nothing here. Nor may anything else of a sample follow from which others there are: its dropout mask is
drawn from the sample itself, and one whose gradient is not finite adds nothing, where a refusal would tell of it.

A sum over samples is also what a sketch is: where f_i is linear in theta, v_i is a feature of sample i and the update their sum
(`compile/sketch.py`).

Source: per-example gradients, clipped: Abadi et al., Deep learning with differential privacy, CCS 2016, algorithm 1.
"""

from __future__ import annotations

import hashlib
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
    """The sum, int64[P] in `unit_of(plan.update_clip)`, and the mean loss at theta of what is finite; NaN if nothing is.

    Args:
        oracle: loss and gradient.
        theta: float32[P], the release.
        samples: fitted training samples, at least one.
        plan: with `by_sample`; its `lr` and `frozen` count.
        seed: of dropout masks.
        stopped: asked before every sample.

    Raises:
        DataError: it was stopped; which samples were seen by then depends on how many there are.
        ConfigError: the patterns of the plan do not fit the task.
    """
    frozen = ranges_of(oracle.manifest.layout, plan).frozen
    unit, total, loss, seen = unit_of(plan.update_clip), np.zeros(theta.size, np.int64), 0.0, 0
    for row in range(len(samples)):
        if stopped():
            raise DataError("stopped before all samples were seen")
        one = samples.take(np.array([row]))
        step = oracle.loss_and_grad(theta, one.x, one.y, _mask_of(one, seed))
        with np.errstate(over="ignore", invalid="ignore"):  # what leaves float64 is not finite, and left out below
            v = -plan.lr * step.grad.astype(np.float64)
            blank(v, frozen)
            norm = math.sqrt(float(np.dot(v, v)))
        if not (math.isfinite(step.loss) and math.isfinite(norm)):
            continue
        total += np.trunc(v * (min(1.0, plan.update_clip * _WITHIN / max(norm, 1e-300)) / unit)).astype(np.int64)
        loss, seen = loss + step.loss, seen + 1
    return total, loss / seen if seen else math.nan


def _mask_of(one: Samples, seed: int) -> int:
    """The seed of a sample's dropout mask, in 31 bits: a row number would change with every sample before it."""
    hashed = hashlib.blake2b(b"%d:%d:" % (seed, one.x.nbytes), digest_size=4)
    hashed.update(one.x.tobytes() + one.y.tobytes())
    return int.from_bytes(hashed.digest(), "little") >> 1
