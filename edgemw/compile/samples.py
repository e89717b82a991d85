"""Made-up batches and weights of the right shape, for tracing a program and for checking what came out."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from edgemw.compile.program import Program
from edgemw.core.bundle import Slot, Spec


def inputs(program: Program, batch: int, generator: Generator) -> Tensor:
    """[batch, *input]: normal numbers, or indices that every embedding of the module knows."""
    return values(program.input, batch, vocabulary(program.module), generator)


def targets(program: Program, batch: int, generator: Generator) -> Tensor:
    """[batch, *target]: class numbers for int64, numbers in [0, 1) otherwise."""
    if program.target.dtype == "int64":
        return values(program.target, batch, program.classes or 2, generator)
    return torch.rand(batch, *program.target.shape, generator=generator)


def weights(theta: Tensor, layout: tuple[Slot, ...], generator: Generator) -> Tensor:
    """Theta with every coordinate moved at random; untrained ones only upwards, because a running variance stays positive."""
    moved = theta + 0.1 * torch.randn(theta.shape, generator=generator)
    for slot in layout:
        if not slot.trainable:
            part = slice(slot.offset, slot.offset + slot.size)
            moved[part] = theta[part] + 0.5 * torch.rand(slot.size, generator=generator)
    return moved


def vocabulary(module: nn.Module) -> int:
    """A bound for integer inputs: the smallest embedding, or 2 where there is none."""
    return min((part.num_embeddings for part in module.modules() if isinstance(part, nn.Embedding | nn.EmbeddingBag)), default=2)


def values(spec: Spec, batch: int, bound: int, generator: Generator) -> Tensor:
    """[batch, *shape]: standard normal float32, or int64 in [0, bound)."""
    if spec.dtype == "int64":
        return torch.randint(0, bound, (batch, *spec.shape), generator=generator)
    return torch.randn(batch, *spec.shape, generator=generator)
