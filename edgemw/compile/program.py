"""A task's module as two functions of theta, the training step and inference, to trace or to run."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from edgemw.compile.dropout import SeededDraws
from edgemw.compile.layout import views_of
from edgemw.compile.losses import LossFunction
from edgemw.core.bundle import Slot, Spec


@dataclass(frozen=True, slots=True)
class Program:
    """The functions and what they take; it owns `module`. `seeded` says whether the step draws dropout masks."""

    module: nn.Module
    loss: LossFunction
    layout: tuple[Slot, ...]
    input: Spec
    target: Spec
    output: Spec
    classes: int | None = None
    seeded: bool = False

    @property
    def size(self) -> int:
        """P, the length of theta."""
        return sum(slot.size for slot in self.layout)

    def step(self, theta: Tensor, x: Tensor, y: Tensor, seed: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Loss, gradient and new untrained coordinates of one batch, with the module in training mode.

        The gradient is taken with respect to the views of theta: with respect to theta itself, every slice would give a
        gradient of length P.

        Args:
            theta: float32[P].
            x: [B, *input].
            y: [B, *target].
            seed: int64 scalar, needed where `seeded`.

        Returns:
            loss (scalar), grad float32[P] (zero where not trained), buffers float32[Q] or None where Q is 0.
        """
        views = views_of(theta, self.layout)
        trained = {slot.name: views[slot.name].detach().requires_grad_() for slot in self.layout if slot.trainable}
        untrained = {slot.name: views[slot.name].clone() for slot in self.layout if not slot.trainable}
        _switch(self.module, training=True)
        with nullcontext() if seed is None else SeededDraws(seed), torch.enable_grad():
            outputs = functional_call(self.module, {**trained, **untrained, **_counters(self.module)}, (x,))
            loss = self.loss(outputs, y)
        found = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
        grads = dict(zip(trained, found, strict=True))
        grad = torch.cat([_flat(grads.get(slot.name), slot.size) for slot in self.layout])
        buffers = torch.cat([value.detach().reshape(-1) for value in untrained.values()]) if untrained else None
        return loss.detach(), grad, buffers

    def infer(self, theta: Tensor, x: Tensor) -> Tensor:
        """Outputs float32[B, *output] of the module in evaluation mode at this theta."""
        _switch(self.module, training=False)
        with torch.no_grad():
            outputs: Tensor = functional_call(self.module, views_of(theta, self.layout), (x,))
        return outputs


def _flat(grad: Tensor | None, size: int) -> Tensor:
    return torch.zeros(size) if grad is None else grad.reshape(-1)


def _counters(module: nn.Module) -> dict[str, Tensor]:
    """Fresh stand-ins for the batch counters of normalisation layers, so that a step changes nothing outside theta."""
    return {
        name: torch.zeros((), dtype=value.dtype)
        for name, value in module.named_buffers()
        if name.rpartition(".")[2] == "num_batches_tracked"
    }


def _switch(module: nn.Module, *, training: bool) -> None:
    if module.training is not training:
        module.train(training)
