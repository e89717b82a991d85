"""Proof, at compile time, that the graphs compute what the module computes."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edgemw.compile.layout import vector_of
from edgemw.compile.program import Program
from edgemw.compile.samples import inputs, targets, weights
from edgemw.core.errors import ExportError
from edgemw.serving.session import TrainingSession, open_inference

TOLERANCE = 1e-4
_BATCHES = (1, 3)
_SEEDS = (1, 2)

Array = npt.NDArray[np.float32]


def check_inference(program: Program, graph: bytes) -> None:
    """Compare inference with torch at two random weight vectors and batches of 1 and 3.

    Raises:
        ExportError: the outputs differ by more than `TOLERANCE` of their largest value.
    """
    for seed in _SEEDS:
        generator = torch.Generator().manual_seed(seed)
        theta = _theta(program, generator)
        session = open_inference(graph, theta.numpy(), size=program.size)
        for batch in _BATCHES:
            x = inputs(program, batch, generator)
            _same("the output", program.infer(theta, x), session.run(x.numpy()), batch)


def check_training(program: Program, graph: bytes) -> None:
    """Compare loss, gradient and buffers with torch, in the same way.

    Raises:
        ExportError: one of them differs by more than `TOLERANCE` of its largest value.
    """
    session = TrainingSession(graph)
    for seed in _SEEDS:
        generator = torch.Generator().manual_seed(seed)
        theta = _theta(program, generator)
        for batch in _possible(program):
            x, y = inputs(program, batch, generator), targets(program, batch, generator)
            loss, grad, buffers = program.step(theta, x, y, torch.tensor(seed) if program.seeded else None)
            found = session.step(theta.numpy(), x.numpy(), y.numpy(), seed)
            _same("the loss", loss, np.float32(found[0]), batch)
            _same("the gradient", grad, found[1], batch)
            if buffers is not None:
                _same("the running statistics", buffers, found[2], batch)


def _theta(program: Program, generator: torch.Generator) -> Tensor:
    return weights(torch.from_numpy(vector_of(program.module, program.layout)), program.layout, generator)


def _possible(program: Program) -> Iterable[int]:
    """The batches to check. Torch itself refuses to normalise a batch of 1 where it holds a single value per channel."""
    generator = torch.Generator().manual_seed(0)
    x, y = inputs(program, 1, generator), targets(program, 1, generator)
    try:
        program.step(_theta(program, generator), x, y)
    except ValueError:
        return _BATCHES[1:]
    return _BATCHES


def _same(what: str, expected: Tensor, found: Array | np.float32 | None, batch: int) -> None:
    wanted = expected.numpy()
    if found is None or found.shape != wanted.shape:
        raise ExportError(f"{what} of the exported graph has shape {getattr(found, 'shape', None)}, torch gives {wanted.shape}")
    scale = max(1e-3, float(np.abs(wanted).max(initial=0.0)))
    error = float(np.abs(wanted - found).max(initial=0.0)) / scale
    if not error <= TOLERANCE:
        raise ExportError(
            f"{what} of the exported graph differs from torch by {error:.1e} of its largest value at batch {batch} "
            f"(at most {TOLERANCE:.0e} is accepted)"
        )
