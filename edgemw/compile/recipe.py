"""Which tensors of a module need not be stored, because a reader can draw them the way torch draws them by default.

    uniform   1 / sqrt(fan in)             Linear, convolutions (torch's kaiming_uniform_ with a = sqrt(5), and its bias)
              1 / sqrt(hidden size)        RNN, LSTM, GRU and their cells
              sqrt(6 / (fan in + out))     in_proj of MultiheadAttention (xavier_uniform_)
    normal    1                            Embedding without a padding index
    constant                               whatever has one value everywhere: norms, running statistics, biases of zero

The values differ from torch's (another generator), their distribution does not; for `normal` it is the sum of twelve uniform
numbers. A tensor of any other module, and one whose present values do not look like the draw (weights of the author's own), is
stored as it is.
"""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor, nn

from edgemw.compile.layout import first_names, vector_of
from edgemw.core.bundle import Slot, Vector
from edgemw.core.initial import Draw, Recipe

_BY_FAN_IN = (
    nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
)  # fmt: skip
_ENOUGH = 64  # values from which the largest says something about the bound, and the mean square about the deviation


def recipe_of(module: nn.Module, layout: tuple[Slot, ...], seed: int) -> Recipe:
    """The recipe for new first values of a module; it has no draw for a tensor that has to be stored."""
    theta, owners = vector_of(module, layout), _owners(module)
    return Recipe(seed, tuple(_draw(owners[slot.name], slot, theta[slot.offset : slot.offset + slot.size]) for slot in layout))


def _owners(module: nn.Module) -> dict[str, nn.Module]:
    """The module that each tensor of the layout belongs to."""
    owners: dict[str, nn.Module] = {}
    for name, first in first_names(module).items():
        owners.setdefault(first, module.get_submodule(name.rpartition(".")[0]))
    return owners


def _draw(owner: nn.Module, slot: Slot, values: Vector) -> Draw | None:
    if slot.size and (values == values[0]).all():
        return Draw("constant", float(values[0]))
    bound = _bound(owner, slot.name.rpartition(".")[2])
    if bound is not None:
        return Draw("uniform", float(np.float32(bound))) if _is_uniform(values, bound) else None
    return Draw("normal", 1.0) if type(owner) is nn.Embedding and owner.padding_idx is None and _is_normal(values) else None


def _bound(owner: nn.Module, name: str) -> float | None:
    """The largest value of torch's uniform default; None for what is drawn otherwise, or not known."""
    match owner:
        case _ if isinstance(owner, _BY_FAN_IN) and name in ("weight", "bias"):
            shape = owner.weight.shape
            fan_in = shape[1] * math.prod(shape[2:])
            return 1 / math.sqrt(fan_in) if fan_in else None
        case nn.RNNBase(hidden_size=hidden) | nn.RNNCellBase(hidden_size=hidden):
            return 1 / math.sqrt(hidden)
        case nn.MultiheadAttention(in_proj_weight=Tensor() as weight) if name == "in_proj_weight":
            return math.sqrt(6 / sum(weight.shape))
        case _:
            return None


def _is_uniform(values: Vector, bound: float) -> bool:
    largest = float(np.abs(values).max(initial=0.0))
    return largest <= bound * (1 + 1e-6) and (values.size < _ENOUGH or largest > 0.8 * bound)


def _is_normal(values: Vector) -> bool:
    mean_square = float(np.square(values, dtype=np.float64).mean())
    return values.size < _ENOUGH or abs(mean_square - 1) < 8 * math.sqrt(2 / values.size)
