"""The oracle of a compiled task. The sessions that run its graphs are handed in, so that learning stays free of a runtime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from edgemw.core.bundle import Manifest, Spec, Vector
from edgemw.core.errors import DataError
from edgemw.learning.oracle import Array, Predict, Step


class TrainRunner(Protocol):
    """Runs the training step's graph; `edgemw.serving.session.TrainingSession` is one."""

    def step(self, theta: Vector, x: Array, y: Array, seed: int) -> tuple[float, Vector, Vector | None]:
        """Loss, gradient float32[P], and buffers float32[Q] or None, of one batch."""
        ...


class OnnxOracle:
    """Loss, gradient and predictions by the graphs of a bundle.

    Args:
        manifest: of the bundle.
        train: session of `train.onnx`.
        open_infer: makes a predictor from theta; it must copy theta.
    """

    def __init__(self, manifest: Manifest, train: TrainRunner, open_infer: Callable[[Vector], Predict]) -> None:
        self._manifest = manifest
        self._train = train
        self._open_infer = open_infer

    @property
    def manifest(self) -> Manifest:
        """The task's manifest."""
        return self._manifest

    def loss_and_grad(self, theta: Vector, x: Array, y: Array, seed: int) -> Step:
        """See `Oracle.loss_and_grad`.

        Raises:
            DataError: theta or the batch has another shape or dtype than the manifest says, or the batch is empty.
        """
        check_batch(self._manifest, x, y)
        check_theta(self._manifest, theta)
        return Step(*self._train.step(theta, x, y, seed))

    def predictor(self, theta: Vector) -> Predict:
        """See `Oracle.predictor`.

        Raises:
            DataError: theta has another length or dtype; the predictor raises it for such an x.
        """
        check_theta(self._manifest, theta)
        run, spec = self._open_infer(theta), self._manifest.input

        def predict(x: Array) -> Vector:
            check_array("x", x, spec)
            return run(x)

        return predict


def check_batch(manifest: Manifest, x: Array, y: Array) -> None:
    """Raise DataError unless x and y are batches of the task, of one length, not empty, and every class number is in range."""
    check_array("x", x, manifest.input)
    check_array("y", y, manifest.target)
    if len(x) != len(y) or len(x) == 0:
        raise DataError(f"a batch of {len(x)} inputs and {len(y)} targets")
    classes = manifest.classes if manifest.target.dtype == "int64" else None
    # a negative number is a huge one when read as unsigned: one pass finds both kinds of stray
    if classes is not None and int(y.view(np.uint64).max(initial=0)) >= classes:
        raise DataError(f"y holds class numbers from {y.min()} to {y.max()}, the task has {classes} classes")


def check_array(name: str, array: Array, spec: Spec) -> None:
    """Raise DataError unless the array is [B, *shape] of the right dtype."""
    if array.ndim != len(spec.shape) + 1 or array.shape[1:] != spec.shape or array.dtype.name != spec.dtype:
        expected = ", ".join(["batch", *map(str, spec.shape)])
        raise DataError(f"{name} is {array.dtype}{list(array.shape)}, the task takes {spec.dtype}[{expected}]")


def check_theta(manifest: Manifest, theta: Vector) -> None:
    """Raise DataError unless theta is float32[P]."""
    if theta.shape != (manifest.size,) or theta.dtype != np.float32:
        raise DataError(f"theta is {theta.dtype}{list(theta.shape)}, the task has float32[{manifest.size}]")
