"""Inference as an ONNX graph without weights: each tensor of theta is external data at its offset in one virtual file.

A default export cannot take other weights: it folds batch normalisation into convolutions, merges tensors of equal value
and renames them. So: no optimisation by the exporter, then constants folded only where no tensor of theta is involved
(without that the graph is up to 3.4 times slower), then proof that every tensor is still there.
"""

from __future__ import annotations

from collections.abc import Mapping, Set

import onnx
import onnx_ir
import torch
from onnxscript import optimizer
from torch import nn
from torch.export import Dim

from edgemw.compile.blame import blamed
from edgemw.compile.graphs import export, to_proto, tracing
from edgemw.compile.layout import first_names
from edgemw.compile.program import Program
from edgemw.compile.samples import inputs
from edgemw.core.bundle import WEIGHTS_FILE, Slot
from edgemw.core.errors import ExportError

_TRACE_BATCH = 2  # a batch of 1 is taken for a constant by some operators
_FLOAT_BYTES = 4


def inference_graph(program: Program) -> bytes:
    """Export the module in evaluation mode for batches of any size.

    Raises:
        ExportError: an operator has no ONNX form, or a tensor of theta was lost on the way.
    """
    x = inputs(program, _TRACE_BATCH, torch.Generator().manual_seed(0))
    module: nn.Module = program.module.eval()
    with tracing(), blamed(module, (x,)):
        model = export(
            module, (x,), input_names=["x"], output_names=["y"], dynamic_shapes=({0: Dim("batch", min=1)},), optimize=False
        )
    slots = _slots(program)
    used = {name for name, value in model.graph.initializers.items() if name in slots and value.uses()}
    _fold(model, slots.keys())
    proto = to_proto(model)
    if lost := sorted(used - _externalise(proto, slots)):
        raise ExportError(f"the exporter lost {', '.join(lost)}: their values would be fixed in the graph")
    data: bytes = proto.SerializeToString(deterministic=True)
    return data


def _slots(program: Program) -> dict[str, Slot]:
    """The slot of each tensor, under every name that it has."""
    slots = {slot.name: slot for slot in program.layout}
    return {name: slots[first] for name, first in first_names(program.module).items() if first in slots}


def _fold(model: onnx_ir.Model, names: Set[str]) -> None:
    def apart(node: onnx_ir.Node) -> bool:
        return not any(value is not None and value.name in names for value in node.inputs)

    optimizer.fold_constants(model, should_fold=apart, onnx_shape_inference=False)
    optimizer.remove_unused_nodes(model)


def _externalise(proto: onnx.ModelProto, slots: Mapping[str, Slot]) -> set[str]:
    """Replace the data of each slot by its place in the weights file; the names of those that the graph uses."""
    placed: set[str] = set()
    for tensor in proto.graph.initializer:
        slot = slots.get(tensor.name)
        if slot is None:
            continue
        if tuple(tensor.dims) != slot.shape or tensor.data_type != onnx.TensorProto.FLOAT:
            raise ExportError(f"the exporter changed the shape or type of {tensor.name}")
        tensor.CopyFrom(_reference(tensor.name, slot))
        placed.add(tensor.name)
    return placed


def _reference(name: str, slot: Slot) -> onnx.TensorProto:
    tensor = onnx.TensorProto(
        name=name, dims=slot.shape, data_type=onnx.TensorProto.FLOAT, data_location=onnx.TensorProto.EXTERNAL
    )
    place = {"location": WEIGHTS_FILE, "offset": slot.offset * _FLOAT_BYTES, "length": slot.size * _FLOAT_BYTES}
    for key, value in place.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor
