"""Local training and evaluation of one task: from a release and samples to a delta and sums.

Everything random comes from the seed given, so the same call gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgemw.core.bundle import Manifest, Vector
from edgemw.core.errors import DataError
from edgemw.core.noise import Integers, unit_of
from edgemw.core.plan import Plan, Tally
from edgemw.core.ranges import blank, cut, put, ranges_of
from edgemw.learning.dataset import Samples
from edgemw.learning.metrics import metric_named
from edgemw.learning.optimiser import Pull, optimiser
from edgemw.learning.oracle import Oracle, Predict
from edgemw.learning.summing import sum_over_samples

EVALUATION_BATCH = 256

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Trained:
    """What local training produced.

    Attributes:
        delta: float32[P], theta after minus theta before.
        weight: number of training examples of the device.
        loss: mean training loss over the steps.
        steps: optimiser steps made.
        sums: int64[P], delta in integers of a unit, where the plan asks for a sum over samples; else None.
    """

    delta: Vector
    weight: int
    loss: float
    steps: int
    sums: Integers | None = None


def train(oracle: Oracle, theta: Vector, samples: Samples, plan: Plan, seed: int, stopped: Callable[[], bool]) -> Trained:
    """Run the plan from theta (left as it is).

    Args:
        oracle: loss and gradient.
        theta: float32[P], the release.
        samples: fitted training samples, at least one.
        plan: optimiser and amount of work; `steps` > 0 replaces `epochs`, `by_sample` both.
        seed: decides the order of the samples and dropout masks.
        stopped: asked before every step; True ends training early and counts what was done.

    Raises:
        DataError: there are no samples, or a loss or gradient is not finite.
        ConfigError: the patterns of the plan do not fit the task.
    """
    if len(samples) == 0:
        raise DataError("no samples to train on")
    if plan.by_sample:
        sums, loss = sum_over_samples(oracle, theta, samples, plan, seed, stopped)
        return Trained((sums * unit_of(plan.update_clip)).astype(np.float32), len(samples), loss, 1, sums)
    manifest = oracle.manifest
    current = theta.copy()
    optimise = optimiser(plan, theta.size)
    pull = Pull(plan, theta)
    running = manifest.buffers
    frozen = ranges_of(manifest.layout, plan).frozen
    fixed = cut(theta, frozen)
    rng = np.random.Generator(np.random.Philox(seed))
    total, steps = 0.0, 0
    for rows in batches(len(samples), plan, rng):  # a plan from the network may be long: nothing is made ahead
        if stopped():
            break
        batch = samples.take(rows)
        step = oracle.loss_and_grad(current, batch.x, batch.y, int(rng.integers(1 << 31)))
        grad = step.grad
        blank(grad, frozen)
        with np.errstate(over="ignore"):  # what leaves float32 is infinite, and said below
            norm = float(np.linalg.norm(grad))
        if not (np.isfinite(step.loss) and np.isfinite(norm)):
            raise DataError(f"loss or gradient is not finite after {steps} steps: the learning rate may be too large")
        if plan.clip and norm > plan.clip:
            grad *= np.float32(plan.clip / norm)
        optimise.step(current, grad)
        pull.step(current)
        if step.buffers is not None:
            put(current, running, step.buffers)
        put(current, frozen, fixed)  # weight decay and statistics move without a gradient
        total, steps = total + step.loss, steps + 1
    return Trained(current - theta, len(samples), total / max(steps, 1), steps)


def batches(count: int, plan: Plan, rng: np.random.Generator) -> Iterator[Rows]:
    """Row numbers of every batch of the plan, in order; each epoch visits every one of `count` > 0 rows once."""
    per_epoch = -(-count // plan.batch_size)
    left = plan.steps or plan.epochs * per_epoch
    while left > 0:
        order = rng.permutation(count)
        for start in range(0, min(left, per_epoch) * plan.batch_size, plan.batch_size):
            yield order[start : start + plan.batch_size]
        left -= per_epoch


def evaluate(predict: Predict, manifest: Manifest, samples: Samples) -> Tally:
    """The task's metrics on held-out samples, as sums; empty without samples."""
    sums = dict.fromkeys(manifest.metrics, (0.0, 0.0))
    for start in range(0, len(samples), EVALUATION_BATCH):
        part = Samples(samples.x[start : start + EVALUATION_BATCH], samples.y[start : start + EVALUATION_BATCH])
        outputs = predict(part.x)
        for name, (total, weight) in sums.items():
            value, count = metric_named(name)(outputs, part.y)
            sums[name] = (total + value, weight + count)
    return {name: value for name, value in sums.items() if value[1] > 0}
