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
    """Share of samples whose largest output [N, C] is the target class [N]; with one output, whether its sign fits 0 or 1."""
    if outputs.ndim == 1 or outputs.shape[-1] == 1:
        right = (outputs.reshape(len(targets), -1) > 0) == (targets.reshape(len(targets), -1) > 0.5)
        return float(right.sum()), float(right.size)
    return float((outputs.argmax(axis=-1) == targets).sum()), float(targets.size)


def cross_entropy(outputs: Array, targets: Array) -> tuple[float, float]:
    """Mean negative log likelihood of the target class under softmax(outputs), in nats."""
    shifted = outputs.astype(np.float64) - outputs.max(axis=-1, keepdims=True)
    log_likelihood = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    picked = np.take_along_axis(log_likelihood, targets[..., None], axis=-1)
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
LOWER_IS_BETTER = frozenset({"cross_entropy", "mse", "mae"})


def metric_named(name: str) -> Metric:
    """A metric of the table. Raises BundleError for a name that is not there."""
    if name not in METRICS:
        raise BundleError(f"no metric {name!r}; known: {', '.join(METRICS)}")
    return METRICS[name]
