"""The training step as an ONNX graph: (theta[P], x, y[, seed]) -> (loss, grad[P][, buffers[Q]])."""

from __future__ import annotations

import torch
from torch import Tensor, fx
from torch._ops import OpOverload
from torch.export import Dim
from torch.fx.experimental.proxy_tensor import make_fx

from edgemw.compile.blame import blamed, module_of
from edgemw.compile.decompositions import training_decompositions
from edgemw.compile.graphs import export, to_proto, tracing
from edgemw.compile.layout import vector_of
from edgemw.compile.program import Program
from edgemw.compile.samples import inputs, targets
from edgemw.core.errors import ExportError

_TRACE_BATCH = 7


def training_graph(program: Program) -> bytes:
    """Trace, differentiate and export the training step for batches of any size.

    Raises:
        ExportError: an operator of the step has no ONNX form, or draws random numbers other than masks.
    """
    arguments = _arguments(program)
    rows = {0: Dim("batch", min=1)}

    def step(*tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(tensor for tensor in program.step(*tensors) if tensor is not None)

    with tracing(), blamed(step, arguments):
        # tensors that are no part of theta (constants of the module) are real ones among the traced
        trace = make_fx(step, training_decompositions(), tracing_mode="symbolic", _allow_non_fake_inputs=True)
        traced = trace(*arguments)
        traced.graph.eliminate_dead_code()
        traced.recompile()
        _refuse_randomness(traced, program, arguments)
        model = export(
            traced,
            arguments,
            input_names=["theta", "x", "y", "seed"][: len(arguments)],
            output_names=["loss", "grad", "buffers"][: 2 if all(slot.trainable for slot in program.layout) else 3],
            dynamic_shapes=(None, rows, rows, None)[: len(arguments)],
            optimize=True,
        )
    data: bytes = to_proto(model).SerializeToString(deterministic=True)
    return data


def _arguments(program: Program) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    theta = torch.from_numpy(vector_of(program.module, program.layout))
    seed = (torch.zeros((), dtype=torch.int64),) if program.seeded else ()
    return (theta, inputs(program, _TRACE_BATCH, generator), targets(program, _TRACE_BATCH, generator), *seed)


def _refuse_randomness(traced: fx.GraphModule, program: Program, arguments: tuple[Tensor, ...]) -> None:
    for node in traced.graph.nodes:
        if isinstance(node.target, OpOverload) and torch.Tag.nondeterministic_seeded in node.target.tags:
            operator = str(node.target.overloadpacket)
            raise ExportError(
                "draws random numbers; a training step may draw dropout masks only",
                operator=operator,
                module=module_of(operator, program.step, arguments),
            )
