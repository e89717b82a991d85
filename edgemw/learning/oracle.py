"""The oracle: the only thing that knows the structure of a model. Everything else sees one vector."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgemw.core.bundle import Manifest, Vector

Array = npt.NDArray[Any]
Predict = Callable[[Array], npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Step:
    """What one batch says about theta.

    `loss` is the mean over the batch; `grad` is float32[P], zero on coordinates that are not trained;
    `buffers` (float32[Q] or None) are the new values of those coordinates, in layout order.
    `grad` may be overwritten by the next call.
    """

    loss: float
    grad: Vector
    buffers: Vector | None


class Oracle(Protocol):
    """Loss, gradient and predictions of one task."""

    @property
    def manifest(self) -> Manifest:
        """The task's manifest."""
        ...

    def loss_and_grad(self, theta: Vector, x: Array, y: Array, seed: int) -> Step:
        """Mean loss over a batch and its gradient.

        Args:
            theta: float32[P].
            x: input dtype, [B, *input shape].
            y: target dtype, [B, *target shape].
            seed: decides the dropout mask, where the task has one; ignored otherwise.
        """
        ...

    def predictor(self, theta: Vector) -> Predict:
        """A function from x [B, *input] to the model's outputs float32[B, *output] at this theta.

        It keeps answering for this theta whatever later happens to the vector.
        """
        ...
