"""Exporting to ONNX quietly, and leaving nothing of the author's machine in the file."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from typing import Any

import onnx
import onnx_ir
import torch
from torch import Tensor, nn

OPSET = 20
_TORCH_LOGGER = "torch"


@contextmanager
def tracing() -> Iterator[None]:
    """Settings for tracing and exporting: nothing that the exporter says about itself, no oneDNN.

    Besides warnings and log lines, it prints a whole graph to stderr when a branch depends on data.
    oneDNN would run an LSTM as one operator of its own, which ONNX does not know.
    """
    logger = logging.getLogger(_TORCH_LOGGER)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with redirect_stderr(io.StringIO()), torch.backends.mkldnn.flags(enabled=False):
                yield
    finally:
        logger.setLevel(level)


def export(
    module: nn.Module,
    arguments: Sequence[Tensor],
    *,
    input_names: Sequence[str],
    output_names: Sequence[str],
    dynamic_shapes: Sequence[Any],
    optimize: bool,
) -> onnx_ir.Model:
    """`torch.onnx.export` by way of dynamo."""
    program = torch.onnx.export(
        module,
        tuple(arguments),
        dynamo=True,
        verbose=False,
        optimize=optimize,
        opset_version=OPSET,
        input_names=list(input_names),
        output_names=list(output_names),
        dynamic_shapes=tuple(dynamic_shapes),
    )
    assert program is not None
    return program.model


def to_proto(model: onnx_ir.Model) -> onnx.ModelProto:
    """The model without doc strings, stack traces, names of nodes and shapes of intermediate values.

    The exporter writes the paths of the author's source files into the first two; ONNX Runtime needs none of them.
    """
    proto: onnx.ModelProto = onnx_ir.serde.serialize_model(model)
    for message in (proto, proto.graph, *proto.graph.input, *proto.graph.output, *proto.graph.initializer, *proto.functions):
        _strip(message)
    for node in _nodes(proto):
        _strip(node)
        node.name = ""
    del proto.graph.value_info[:]
    proto.producer_name, proto.producer_version = "edgemw", ""
    return proto


def _nodes(proto: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Every node, those of sub-graphs included."""
    stack = [proto.graph, *proto.functions]
    while stack:
        graph = stack.pop()
        for node in graph.node:
            yield node
            for attribute in node.attribute:
                attribute.doc_string = ""
                stack.extend([attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else attribute.graphs)


def _strip(message: Any) -> None:
    message.doc_string = ""
    del message.metadata_props[:]
