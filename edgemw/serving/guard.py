"""A release must not be worse, on this device's own held-out samples, than the one that is served."""

from __future__ import annotations

import logging
import math

from edgemw.core.bundle import Manifest
from edgemw.core.errors import EdgeError
from edgemw.learning.dataset import Samples
from edgemw.learning.oracle import Predict
from edgemw.learning.trainer import evaluate
from edgemw.serving.session import open_release
from edgemw.serving.store import ReleaseStore

log = logging.getLogger(__name__)


class Guard:
    """Compares releases by a metric of their task."""

    def __init__(self, store: ReleaseStore, metric: str, tolerance: float, *, threads: int = 1) -> None:
        """Say what counts.

        Args:
            store: where the release is that is served.
            metric: such as "accuracy".
            tolerance: how much worse a release may be: so much less accuracy, or for other metrics such a share more.
            threads: of one prediction.
        """
        self._store, self._metric, self._tolerance, self._threads = store, metric, tolerance, threads
        self._told: set[str] = set()

    def check(self, predict: Predict, manifest: Manifest, samples: Samples) -> str:
        """Why a release must not be served; "" when it is good enough, or there is nothing to compare it with."""
        if self._metric not in manifest.metrics:
            if manifest.name not in self._told:
                self._told.add(manifest.name)
                text = f"serving.guard: this task measures {', '.join(manifest.metrics) or 'nothing'} and not {self._metric}"
                log.error("%s: its releases are not compared", text, extra={"facts": {"task": manifest.name}})
            return ""
        served = self._store.wanted(manifest.name)
        if served is None or served.manifest != manifest:
            return ""
        try:
            before = open_release(served, threads=self._threads)
            was, now = (measured(model, manifest, samples, self._metric) for model in (before.run, predict))
        except EdgeError as error:
            return str(error)
        if is_as_good(self._metric, now, was, self._tolerance):
            return ""
        return f"its {self._metric} on this device's samples is {now:.4g}, that of release {served.number} is {was:.4g}"


def is_as_good(metric: str, now: float, was: float, tolerance: float) -> bool:
    """Whether a value of a metric is not worse than another: by so much less accuracy, or of another metric such a share more.

    Anything is as good as what is not finite.
    """
    if not math.isfinite(was):
        return True
    if metric == "accuracy":
        return now >= was - tolerance
    return now <= was * (1 + tolerance)  # false of what is not a number


def measured(predict: Predict, manifest: Manifest, samples: Samples, metric: str) -> float:
    """The value of a metric of the task on samples; there is at least one."""
    total, weight = evaluate(predict, manifest, samples)[metric]
    return total / weight
