"""The oracle of a task that cannot be exported: the author's own torch module, on a device that has torch.

It shares the step with the exporter (`Task.program`), dropout masks included, so both oracles of one task agree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from edgemw.core.bundle import Manifest, Slot, Vector
from edgemw.core.errors import BundleError, DataError
from edgemw.learning.onnx_oracle import check_array, check_batch, check_theta
from edgemw.learning.oracle import Array, Predict, Step

if TYPE_CHECKING:
    from torch import Tensor


class TorchProgram(Protocol):
    """A module as functions of theta."""

    @property
    def layout(self) -> tuple[Slot, ...]:
        """Where each tensor lies in theta."""
        ...

    def step(self, theta: Tensor, x: Tensor, y: Tensor, seed: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Loss, gradient and buffers of one batch."""
        ...

    def infer(self, theta: Tensor, x: Tensor) -> Tensor:
        """Outputs in evaluation mode."""
        ...


class TorchTask(Protocol):
    """What is needed of `edgemw.Task`."""

    def program(self) -> TorchProgram:
        """The task's program."""
        ...


class TorchOracle:
    """Loss, gradient and predictions by torch; importing this file does not import torch.

    Raises:
        BundleError: the task's module has another layout than the bundle, so it is another version of the code.
    """

    def __init__(self, manifest: Manifest, task: TorchTask) -> None:
        self._manifest = manifest
        self._program = task.program()
        if self._program.layout != manifest.layout:
            raise BundleError(f"the Python task {manifest.python!r} is not the version that was compiled: its tensors differ")

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
        drawn = _tensor(np.array(seed, np.int64)) if self._manifest.seeded else None
        try:
            loss, grad, buffers = self._program.step(_tensor(theta), _tensor(x), _tensor(y), drawn)
        except (RuntimeError, IndexError, ValueError) as error:
            raise DataError(f"the batch does not fit the module: {error}") from error
        return Step(float(loss), grad.numpy(), None if buffers is None else buffers.numpy())

    def predictor(self, theta: Vector) -> Predict:
        """See `Oracle.predictor`.

        Raises:
            DataError: theta has another length or dtype; the predictor raises it for such an x.
        """
        check_theta(self._manifest, theta)
        weights, program, spec = _tensor(theta.copy()), self._program, self._manifest.input

        def predict(x: Array) -> Vector:
            check_array("x", x, spec)
            outputs: Vector = program.infer(weights, _tensor(x)).numpy()
            return outputs

        return predict


def _tensor(array: Array) -> Tensor:
    """The array's own memory, copied only where torch cannot take it."""
    import torch

    return torch.from_numpy(np.require(array, requirements=["C", "W"]))
