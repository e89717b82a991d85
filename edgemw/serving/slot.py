"""The slot: what is being served now. A new release takes the old one's place in one step."""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemw.core.bundle import Manifest, Spec
from edgemw.core.errors import DataError, EdgeError
from edgemw.learning.oracle import Array, Predict

Outputs = npt.NDArray[np.float32]
LATENCY_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5)
"""Bounds by which requests are counted."""
_DTYPES = {name: np.dtype(name) for name in ("float32", "int64")}


@dataclass(frozen=True, slots=True)
class Served:
    """A release that answers: all that belongs together stands in one value, so that it is swapped together."""

    predict: Predict
    task: str
    release: int
    manifest: Manifest


class Slot:
    """Holds the release that answers now; safe to use from several threads.

    Attributes:
        answered: requests so far, whichever release answered them.
        samples: in those.
        seconds: that they took.
        taking: how many took at most each of LATENCY_S, and none of the shorter ones; the last is longer.
        installed: how often a release has taken this place.
    """

    def __init__(self, observe: Callable[[float], None] | None = None) -> None:
        """Start empty.

        Args:
            observe: told the seconds of every answered request, in the thread that answered it.
        """
        self._observe = observe
        self._current: Served | None = None
        self._counting = Lock()
        self.answered, self.samples, self.seconds, self.installed = 0, 0, 0.0, 0
        self.taking = [0] * (len(LATENCY_S) + 1)

    @property
    def current(self) -> Served | None:
        """What is being served; None before the first release."""
        return self._current

    def install(self, served: Served) -> None:
        """Serve this from now on; requests that have begun are still answered by the release before it."""
        self._current = served
        self.installed += 1

    def serve(self, x: Array, served: Served | None = None) -> tuple[Outputs, int]:
        """Outputs float32[B, *output] for x [B, *input], and the number of the release that computed them.

        Args:
            served: the release to answer from, even if another has taken its place by now; None is the current one.

        Raises:
            DataError: x does not fit the task.
            EdgeError: nothing is being served yet.
        """
        served = served or self._current
        if served is None:
            raise EdgeError("no release is being served yet")
        started = time.perf_counter()
        batch, single = as_batch(x, served.manifest.input)
        if single:
            raise DataError(f"x is one sample of shape {list(x.shape)}, not a batch")
        outputs = served.predict(batch)
        seconds = time.perf_counter() - started
        with self._counting:
            self.answered += 1
            self.samples += len(batch)
            self.seconds += seconds
            self.taking[bisect_left(LATENCY_S, seconds)] += 1
        if self._observe is not None:
            self._observe(seconds)
        return outputs, served.release


def as_batch(x: Any, spec: Spec) -> tuple[Array, bool]:
    """Give x as a contiguous batch [B, *shape] of the spec's dtype, and whether it was a single sample.

    Numbers of another dtype are converted where no value changes its meaning.

    Raises:
        DataError: another shape, no numbers, an empty batch, NaN or infinite values, or fractions where integers are asked for.
    """
    if type(x) is np.ndarray and _is_ready(x, spec):
        return x, False
    try:
        array = np.asarray(x)
    except ValueError as error:
        raise DataError(f"x is not an array: {error}") from error
    wanted = ", ".join(map(str, spec.shape))
    if array.shape == spec.shape:
        array, single = array[None], True
    elif array.ndim == len(spec.shape) + 1 and array.shape[1:] == spec.shape:
        single = False
    else:
        raise DataError(
            f"x has shape {list(array.shape)}: give one sample [{wanted}] or a batch [N{', ' * bool(wanted)}{wanted}]"
        )
    if array.dtype.kind not in "fiub":
        raise DataError(f"x is of dtype {array.dtype}, the task takes {spec.dtype}")
    if len(array) == 0:
        raise DataError("x is a batch without samples")
    return _converted(array, spec.dtype), single


def _is_ready(x: Array, spec: Spec) -> bool:
    """Whether this is such a batch already; the long way finds out about what is not, and why."""
    fits = x.dtype == _DTYPES[spec.dtype] and x.shape[1:] == spec.shape and x.ndim == len(spec.shape) + 1
    return fits and len(x) > 0 and x.flags.c_contiguous and (x.dtype.kind != "f" or all_finite(x))


def all_finite(values: Array) -> bool:
    """Whether all are finite. Their sum of squares is, in a tenth of the time, unless one is very large."""
    return math.isfinite(np.vdot(values, values)) or bool(np.isfinite(values).all())


def _converted(array: Array, dtype: str) -> Array:
    if array.dtype.kind == "f" and dtype != "float32" and (array != np.floor(array)).any():
        raise DataError("x holds fractions, the task takes integers")
    with np.errstate(over="ignore", invalid="ignore"):
        converted = np.ascontiguousarray(array, dtype=dtype)
    finite = np.isfinite(converted if dtype == "float32" else array)
    if not finite.all():
        row = int(np.argmin(finite.reshape(len(array), -1).all(axis=1)))
        raise DataError(f"x holds NaN or infinite values, first in sample {row}")
    if dtype == "int64" and array.dtype.kind in "fu" and (np.abs(array) >= 2.0**63).any():
        raise DataError("x holds numbers beyond 64 bits")
    return converted
