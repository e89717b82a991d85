"""The losses that an author names with a word; each is the mean over everything that it compares.

Cross-entropy is written out, because `torch.nn.functional.cross_entropy` carries its ignore_index through the whole
backward graph (15 more nodes), and a device must refuse a label out of range instead of ignoring one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

LossFunction = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Loss:
    """A loss function, the dtype of its target, and the metrics that go with it unless the author says otherwise."""

    function: LossFunction
    target_dtype: str
    metrics: tuple[str, ...]


def cross_entropy(outputs: Tensor, target: Tensor) -> Tensor:
    """Mean of -log softmax(outputs)[target]; outputs [B, classes, ...], target int64[B, ...]."""
    return -functional.log_softmax(outputs, 1).gather(1, target.unsqueeze(1)).mean()


def mse(outputs: Tensor, target: Tensor) -> Tensor:
    """Mean of the squared differences; both [B, ...]."""
    return (outputs - target).square().mean()


def l1(outputs: Tensor, target: Tensor) -> Tensor:
    """Mean of the absolute differences; both [B, ...]."""
    return (outputs - target).abs().mean()


def bce_with_logits(outputs: Tensor, target: Tensor) -> Tensor:
    """Mean binary cross-entropy of sigmoid(outputs) with targets in [0, 1]; both [B, ...]."""
    return functional.binary_cross_entropy_with_logits(outputs, target)


LOSSES: dict[str, Loss] = {
    "cross_entropy": Loss(cross_entropy, "int64", ("accuracy",)),
    "mse": Loss(mse, "float32", ("mse",)),
    "l1": Loss(l1, "float32", ("mae",)),
    "bce_with_logits": Loss(bce_with_logits, "float32", ("accuracy",)),
}
