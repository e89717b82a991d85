"""What a release has to pass before a device keeps it, and as what it is served.

    checks -> int8, where it was asked for -> guard, of what would be served

A release that is as good as int8 is served so; one that is not, as float32, and the verdict says why.
"""

from __future__ import annotations

import logging

from edgemw.core.bundle import Bundle, Manifest, Vector
from edgemw.core.errors import EdgeError
from edgemw.learning.dataset import Dataset, Samples
from edgemw.learning.oracle import Oracle, Predict
from edgemw.serving.check import Verdict, check_release
from edgemw.serving.guard import Guard
from edgemw.serving.quantise import Int8

log = logging.getLogger(__name__)


class Admission:
    """See the module. It belongs to one thread."""

    def __init__(self, guard: Guard | None = None, int8: Int8 | None = None) -> None:
        """Say what is asked of releases.

        Args:
            guard: compares with what is served.
            int8: makes int8 graphs; None is float32 for all.
        """
        self._guard, self._int8 = guard, int8
        self._told: dict[str, str] = {}

    def check(self, bundle: Bundle, predict: Predict, oracle: Oracle, theta: Vector, data: Dataset | None) -> Verdict:
        """Whether a release may be served, and as what.

        Args:
            bundle: of its task.
            predict: the release as float32.
            oracle: of the task.
            theta: float32[P] of the release.
            data: fitted samples of this device.
        """
        held_out = data.test if data is not None and len(data.test) else None
        reason = check_release(predict, oracle, theta, held_out)
        if reason:
            return Verdict(reason)
        note = ""
        if self._int8 is not None:
            try:
                graph, quantised = self._int8.made(bundle, theta, predict, data)
                note = self._worse(quantised, bundle.manifest, held_out)
                if not note:
                    self._told.pop(bundle.manifest.name, None)
                    return Verdict(quantised=graph)
            except EdgeError as error:
                note = str(error)
        reason = self._worse(predict, bundle.manifest, held_out)
        if reason:
            return Verdict(reason)
        self._tell(bundle.manifest.name, note)
        return Verdict(note=note)

    def _worse(self, predict: Predict, manifest: Manifest, held_out: Samples | None) -> str:
        return self._guard.check(predict, manifest, held_out) if self._guard is not None and held_out is not None else ""

    def _tell(self, task: str, note: str) -> None:
        if note and self._told.get(task) != note:
            self._told[task] = note
            log.warning("served as float32: %s", note, extra={"facts": {"task": task}})
