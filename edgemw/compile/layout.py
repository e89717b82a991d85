"""Where each tensor of a module lies in theta."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from edgemw.core.bundle import Slot, Vector
from edgemw.core.errors import ExportError


def layout_of(module: nn.Module) -> tuple[Slot, ...]:
    """The floating point tensors of `module.state_dict()` in its order; a tied tensor once, under its first name.

    Parameters that require a gradient are trainable; frozen parameters and running statistics are not. Integer and boolean
    buffers are no part of theta: `num_batches_tracked` is dropped, others become constants of the graphs.

    Raises:
        ExportError: no tensor to train, or a floating point tensor that is not float32.
    """
    slots: list[Slot] = []
    offset = 0
    state = module.state_dict(keep_vars=True)
    for name in dict.fromkeys(first_names(module).values()):
        value = state[name]
        if not (value.is_floating_point() or value.is_complex()):
            continue
        if value.dtype != torch.float32:
            raise ExportError(f"tensor {name!r} is {value.dtype}: convert the module with .float()")
        slot = Slot(name, tuple(value.shape), offset, trainable=isinstance(value, nn.Parameter) and value.requires_grad)
        slots.append(slot)
        offset += slot.size
    if not any(slot.trainable for slot in slots):
        raise ExportError("the module has no parameter that requires a gradient: there is nothing to train")
    return tuple(slots)


def vector_of(module: nn.Module, layout: tuple[Slot, ...]) -> Vector:
    """The module's present values as theta, float32[P]."""
    state = module.state_dict()
    return np.concatenate([state[slot.name].detach().cpu().reshape(-1).numpy() for slot in layout]).astype(np.float32, copy=False)


def views_of(theta: Tensor, layout: tuple[Slot, ...]) -> dict[str, Tensor]:
    """Cut theta [P] into named views."""
    return {slot.name: theta[slot.offset : slot.offset + slot.size].view(slot.shape) for slot in layout}


def first_names(module: nn.Module) -> dict[str, str]:
    """For each tensor's name, the name under which it is in the layout: its own, or for a tied tensor the first one.

    Raises:
        ExportError: an entry of the state_dict is no tensor.
    """
    first: dict[int, str] = {}
    names: dict[str, str] = {}
    for name, value in module.state_dict(keep_vars=True).items():
        if not isinstance(value, Tensor):
            raise ExportError(f"state_dict entry {name!r} is a {type(value).__name__}, not a tensor")
        names[name] = first.setdefault(id(value), name)
    return names
