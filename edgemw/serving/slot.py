"""The slot: what is being served now. A new release takes the old one's place in one step."""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemw.core.bundle import Manifest, Spec
from edgemw.core.errors import DataError, EdgeError
from edgemw.learning.oracle import Array, Predict
from edgemw.serving.pace import Pace

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
    precision: str = "float32"
    pace: Pace = field(default_factory=Pace)


@dataclass(slots=True)
class _Canary:
    """A release that answers a share of the requests only. `due` grows by the share with each; at 1 it is the canary's turn."""

    served: Served
    share: float
    due: float = 0.0


class Slot:
    """Holds the release that answers now, and perhaps a canary; safe to use from several threads.

    Attributes:
        answered: requests so far, whichever release answered them.
        samples: in those.
        seconds: that each of them took; requests that were computed together took all of it, each.
        taking: how many took at most each of LATENCY_S, and none of the shorter ones; the last is longer.
        installed: how often a release has taken this place.
        failed: the last canary that could not answer, and why; None where none did since a release was installed.
    """

    def __init__(self, observe: Callable[[float], None] | None = None) -> None:
        """Start empty.

        Args:
            observe: told the seconds of every answered request, in the thread that answered it.
        """
        self._observe = observe
        self._current: Served | None = None
        self._canary: _Canary | None = None
        self.failed: tuple[Served, str] | None = None
        self._counting = Lock()
        self.answered, self.samples, self.seconds, self.installed = 0, 0, 0.0, 0
        self.taking = [0] * (len(LATENCY_S) + 1)

    @property
    def current(self) -> Served | None:
        """What is being served; None before the first release."""
        return self._current

    @property
    def canary(self) -> Served | None:
        """What answers a share of the requests; None where nothing does."""
        return self._canary.served if self._canary is not None else None

    def install(self, served: Served) -> None:
        """Serve this from now on; requests that have begun are still answered by the release before it."""
        with self._counting:
            self._canary, self.failed = None, None
            self._current = served
            self.installed += 1

    def try_out(self, served: Served, share: float) -> None:
        """Have a canary answer this share of the requests, until it is installed, fails, or another one takes its place."""
        with self._counting:
            self._canary = _Canary(served, share)

    def pick(self) -> Served | None:
        """What is to answer the next request."""
        canary = self._canary
        if canary is None:
            return self._current
        with self._counting:
            canary.due += canary.share
            if canary.due < 1:
                return self._current
            canary.due -= 1
        return canary.served

    def serve(self, x: Array, served: Served | None = None) -> tuple[Outputs, int]:
        """Outputs float32[B, *output] for x [B, *input], and the number of the release that computed them.

        Args:
            x: of any number type.
            served: the release to answer from, even if another has taken its place by now; None is the current one.

        Raises:
            DataError: x does not fit the task.
            EdgeError: nothing is being served yet.
        """
        served = served or self._current
        if served is None:
            raise EdgeError("no release is being served yet")
        [outputs], release = self.compute([whole_batch(x, served.manifest.input)], served)
        return outputs, release

    def compute(self, batches: Sequence[Array], served: Served) -> tuple[list[Outputs], int]:
        """Outputs of the batches of several requests, with one run, and the number of the release that computed them.

        Where a canary gives none, or such as are not finite, the current release answers instead; if that one can, the canary
        has failed, and gets no more requests.

        Args:
            batches: as `whole_batch` gives them.
            served: the release to answer from.

        Raises:
            DataError: a value is out of the range of a table.
        """
        started = time.perf_counter()
        outputs, release = self._computed(batches, served)
        seconds = time.perf_counter() - started
        with self._counting:
            self.answered += len(batches)
            self.samples += sum(map(len, batches))
            self.seconds += len(batches) * seconds
            self.taking[bisect_left(LATENCY_S, seconds)] += len(batches)
        if self._observe is not None:
            for _ in batches:
                self._observe(seconds)
        return outputs, release

    def _computed(self, batches: Sequence[Array], served: Served) -> tuple[list[Outputs], int]:
        current, canary = self._current, self._canary
        if current is not None and self.failed is not None and self.failed[0] is served:
            return _run(batches, current), current.release  # it failed while these waited
        if canary is None or served is not canary.served or current is None:
            return _run(batches, served), served.release
        try:
            outputs = _run(batches, served)
            if all(map(all_finite, outputs)):
                return outputs, served.release
            reason = "it gives NaN or infinite outputs"
        except EdgeError as error:
            reason = str(error)
        outputs = _run(batches, current)
        if all(map(all_finite, outputs)):
            with self._counting:
                if self._canary is canary:
                    self._canary, self.failed = None, (served, reason)
        return outputs, current.release


def _run(batches: Sequence[Array], served: Served) -> list[Outputs]:
    if len(batches) == 1:
        return [served.predict(batches[0])]
    ends = np.cumsum([len(batch) for batch in batches])
    return np.split(served.predict(np.concatenate(batches)), ends[:-1])


def whole_batch(x: Any, spec: Spec) -> Array:
    """As `as_batch`, of what has to be a batch.

    Raises:
        DataError: as there, or it is one sample.
    """
    batch, single = as_batch(x, spec)
    if single:
        raise DataError(f"x is one sample of shape {list(x.shape)}, not a batch")
    return batch


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
