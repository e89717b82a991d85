"""The work of simulated devices with a real oracle: what `edgemw.device.agent` does in its worker thread, for all of them."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edgemw.core.bundle import Vector
from edgemw.core.errors import DataError
from edgemw.core.plan import Tally, plan_of, within
from edgemw.device.events import Work, Worked
from edgemw.learning.dataset import Samples
from edgemw.learning.oracle import Oracle, Predict
from edgemw.learning.trainer import evaluate, train

_TEST = "test."
SITS_OUT = "this device sits this round out"


@dataclass(frozen=True, slots=True)
class Share:
    """The samples of one device, fitted to the task.

    Attributes:
        train: to train on.
        held: samples that are only measured on, by what goes before the names of their metrics ("" for the test samples).
        max_batch: largest batch that fits the device; 0 is no limit.
    """

    train: Samples
    held: Mapping[str, Samples]
    max_batch: int = 0


@dataclass(frozen=True, slots=True)
class Participation:
    """Who trains in which round, by chance, but the same whenever it is asked.

    Attributes:
        chance: of one device in one round.
        seed: of the run.
    """

    chance: float = 1.0
    seed: int = 0

    def of(self, node: str, release: int) -> bool:
        """Whether a device trains from a release."""
        drawn = hashlib.blake2b(f"{self.seed} {release} {node}".encode(), digest_size=8).digest()
        return int.from_bytes(drawn, "little") < self.chance * 2**64


ALWAYS = Participation()


class Learner:
    """Trains and measures for every device, with one oracle.

    Attributes:
        seconds: spent training and measuring so far.
        refused: why devices without samples cannot train.
    """

    def __init__(
        self,
        oracle: Oracle,
        shares: Mapping[str, Share],
        refused: Mapping[str, str] | None = None,
        participation: Participation = ALWAYS,
    ) -> None:
        """Take what devices have; `refused` says of the others why they cannot train."""
        self._oracle, self._shares, self.refused, self._participation = oracle, shares, refused or {}, participation
        self._predictor: tuple[Vector, Predict] | None = None
        self.seconds = 0.0

    def __call__(self, node: str, work: Work) -> Worked:
        """Measure the release and, if asked to, train from it."""
        if node not in self._shares:
            return Worked(work.release.number, None, {}, self.refused.get(node, "this device has no samples"))
        started = time.perf_counter()
        worked = self._do(self._shares[node], work, trains=self._participation.of(node, work.release.number))
        self.seconds += time.perf_counter() - started
        return worked

    def _do(self, share: Share, work: Work, *, trains: bool) -> Worked:
        number, tally, broken = work.release.number, self._measure(share, work), ""
        lost = sorted(name for name, (value, _) in tally.items() if not math.isfinite(value))
        if lost:
            tally = {name: value for name, value in tally.items() if name not in lost}
            broken = f"{', '.join(lost)} on held-out samples: not a finite number"
        if not work.train:
            return Worked(number, None, tally, broken)
        if not trains:
            return Worked(number, None, tally, broken or SITS_OUT)
        try:
            plan = within(work.release.plan or plan_of(self._oracle.manifest.training), share.max_batch)
            trained = train(self._oracle, work.theta, share.train, plan, work.seed, lambda: False)
        except DataError as error:
            return Worked(number, None, tally, str(error))
        return Worked(number, trained, tally | {"train_loss": (trained.loss * trained.weight, trained.weight)}, broken)

    def _measure(self, share: Share, work: Work) -> Tally:
        predict, manifest = self._predict(work), self._oracle.manifest
        return {
            f"{_TEST}{prefix}{name}": value
            for prefix, samples in share.held.items()
            for name, value in evaluate(predict, manifest, samples).items()
        }

    def _predict(self, work: Work) -> Predict:
        """The predictions of a release, made once for all devices that have no values of their own."""
        if self._predictor is None or not np.array_equal(self._predictor[0], work.theta):
            self._predictor = work.theta, self._oracle.predictor(work.theta)
        return self._predictor[1]
