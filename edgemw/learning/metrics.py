"""Metrics as sums that merge: each takes outputs and targets and gives (sum, weight); the value is sum / weight.

To add one: a function here and a line in METRICS.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemw.core.errors import BundleError

Array = npt.NDArray[Any]
Metric = Callable[[Array, Array], tuple[float, float]]


def accuracy(outputs: Array, targets: Array) -> tuple[float, float]:
    """Share of decisions that are right.

    The largest of outputs [N, C, ...] along C against the class in targets [N, ...]; where outputs and targets have as many
    values (a logit for each yes or no), whether its sign fits.
    """
    if outputs.size == targets.size:
        right = (outputs.reshape(-1) > 0) == (targets.reshape(-1) > 0.5)
        return float(right.sum()), float(right.size)
    return float((outputs.argmax(axis=1) == targets).sum()), float(targets.size)


def cross_entropy(outputs: Array, targets: Array) -> tuple[float, float]:
    """Mean negative log likelihood, in nats, of the classes targets [N, ...] under softmax of outputs [N, C, ...] along C."""
    shifted = outputs.astype(np.float64) - outputs.max(axis=1, keepdims=True)
    log_likelihood = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    picked = np.take_along_axis(log_likelihood, np.expand_dims(targets, 1), axis=1)
    return float(-picked.sum()), float(targets.size)


def mse(outputs: Array, targets: Array) -> tuple[float, float]:
    """Mean squared error over all values."""
    error = outputs.astype(np.float64).reshape(-1) - targets.reshape(-1)
    return float(error @ error), float(error.size)


def mae(outputs: Array, targets: Array) -> tuple[float, float]:
    """Mean absolute error over all values."""
    error = np.abs(outputs.astype(np.float64).reshape(-1) - targets.reshape(-1))
    return float(error.sum()), float(error.size)


METRICS: dict[str, Metric] = {"accuracy": accuracy, "cross_entropy": cross_entropy, "mse": mse, "mae": mae}


def metric_named(name: str) -> Metric:
    """A metric of the table. Raises BundleError for a name that is not there."""
    if name not in METRICS:
        raise BundleError(f"no metric {name!r}; known: {', '.join(METRICS)}")
    return METRICS[name]
