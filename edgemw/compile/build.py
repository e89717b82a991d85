"""From an author's module to a checked program."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from edgemw.compile.dropout import SeededDraws
from edgemw.compile.layout import layout_of, vector_of
from edgemw.compile.losses import LOSSES, Loss
from edgemw.compile.program import Program
from edgemw.compile.samples import inputs, targets, values, vocabulary
from edgemw.core.bundle import Spec
from edgemw.core.errors import ConfigError, ExportError

TRIAL_BATCH = 3


def build_program(module: nn.Module, loss: Loss, *, input: Spec, target: Spec | None, classes: int | None) -> Program:
    """Run the module once in each mode to learn its output, and whether it draws masks.

    Raises:
        ConfigError: the target does not fit the output and the loss.
        ExportError: the module fails on a batch of the given shape, has several outputs, or tensors that do not fit in theta.
    """
    output = _output(module, input)
    target = target or Spec(output.shape, loss.target_dtype)
    _fits(loss, output, target)
    if loss is LOSSES["cross_entropy"]:
        classes = classes or output.shape[0]
    program = Program(module, loss.function, layout_of(module), input, target, output, classes)
    return replace(program, seeded=_draws(program))


def _output(module: nn.Module, input: Spec) -> Spec:
    x = values(input, TRIAL_BATCH, vocabulary(module), torch.Generator().manual_seed(0))
    module.eval()
    try:
        with torch.no_grad():
            y = module(x)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise ExportError(f"the module fails on an input of shape {tuple(x.shape)}, {input.dtype}: {error}") from error
    if not isinstance(y, Tensor):
        raise ExportError(f"the module returns a {type(y).__name__}: it must return one tensor")
    if y.dtype != torch.float32 or y.ndim == 0 or y.shape[0] != TRIAL_BATCH:
        raise ExportError(
            f"for a batch of {TRIAL_BATCH} the module returns {y.dtype}{list(y.shape)}: it must be float32[batch, ...]"
        )
    return Spec(tuple(y.shape[1:]), "float32")


def _fits(loss: Loss, output: Spec, target: Spec) -> None:
    if loss not in LOSSES.values():
        return
    expected = output.shape[1:] if loss is LOSSES["cross_entropy"] else output.shape
    if target.dtype != loss.target_dtype or target.shape != expected or (loss is LOSSES["cross_entropy"] and not output.shape):
        raise ConfigError(
            f"outputs of shape {output.shape} need a {loss.target_dtype} target of shape {expected}, "
            f"not {target.dtype} {target.shape}",
            key="target",
        )


def _draws(program: Program) -> bool:
    """Whether a training step draws masks; it also proves that the step runs."""
    generator = torch.Generator().manual_seed(0)
    x, y = inputs(program, TRIAL_BATCH, generator), targets(program, TRIAL_BATCH, generator)
    theta = torch.from_numpy(vector_of(program.module, program.layout))
    try:
        with SeededDraws(torch.zeros((), dtype=torch.int64)) as draws:
            program.step(theta, x, y)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise ExportError(f"the training step fails on a batch of {TRIAL_BATCH}: {error}") from error
    return bool(draws.count)
