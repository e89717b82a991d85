"""Tensors of the Open Inference Protocol, version 2: as JSON numbers, or as bytes behind the JSON (its binary extension).

    body = JSON | tensor | tensor ...        each little endian, row by row; a tensor's `binary_data_size` says how long it is

A model has one input and one output here. Results may also be asked for as a classification: the best k of each row, as texts
"score:index". Texts among bytes (BYTES) have their length before them, as uint32.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgemw.core.bundle import Spec
from edgemw.learning.oracle import Array
from edgemw.serving.slot import Outputs

NAMES = {"float32": "FP32", "int64": "INT64"}
"""What the protocol calls the dtypes of a task."""

_SIZED = {
    f"{name}{8 * size}": np.dtype(f"<{kind}{size}") for name, kind in (("UINT", "u"), ("INT", "i")) for size in (1, 2, 4, 8)
}
DATATYPES = {"BOOL": np.dtype("u1"), **_SIZED, "FP16": np.dtype("<f2"), "FP32": np.dtype("<f4"), "FP64": np.dtype("<f8")}
_LENGTH = struct.Struct("<I")


class Malformed(Exception):
    """What was sent is no tensor of this model; the text says why."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """How the output is to be written.

    Attributes:
        binary: behind the JSON.
        best: the best so many of each row, as a classification; 0 is all values.
    """

    binary: bool = False
    best: int = 0


@dataclass(frozen=True, slots=True)
class Described:
    """A tensor as JSON describes it.

    Attributes:
        dtype, shape: of it.
        count: how many values a tensor of this shape has.
        size: bytes behind the JSON, as it was said; None where it has none.
        data: its values, where they are JSON.
        has_data: whether there are such.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    count: int
    size: Any
    data: Any
    has_data: bool


def describe(tensor: Any, spec: Spec) -> Described:
    """What JSON says of the input of a request.

    Args:
        tensor: as JSON gave it.
        spec: of the model's input.

    Raises:
        Malformed: it is no tensor, or not of this shape.
    """
    tensor = an_object(tensor, "the input")
    if tensor.get("name") != "x":
        raise Malformed("the model's only input is 'x'")
    name = tensor.get("datatype")
    dtype = DATATYPES.get(name) if isinstance(name, str) else None
    if dtype is None:
        raise Malformed(f"datatype is one of {', '.join(DATATYPES)}; the model takes {NAMES[spec.dtype]}")
    shape = a_list(tensor.get("shape"), "shape")
    if not all(type(n) is int and n >= 0 for n in shape):
        raise Malformed("shape holds whole numbers that are not negative")
    if len(shape) != len(spec.shape) + 1 or tuple(shape[1:]) != spec.shape:
        raise Malformed(f"shape is {shape[:16]}, the model takes {[-1, *spec.shape]}")
    size = parameters_of(tensor).get("binary_data_size")
    return Described(dtype, tuple(shape), math.prod(shape), size, tensor.get("data"), "data" in tensor)


def values_of(tensor: Described, behind: memoryview, spec: Spec) -> Array:
    """The input of a request, [B, *shape] of any number type.

    Args:
        tensor: as `describe` gave it.
        behind: the bytes after the JSON; all of them are to belong to this tensor.
        spec: of the model's input.

    Raises:
        Malformed: it has other values, or other bytes.
    """
    if tensor.size is None and len(behind):
        raise Malformed(f"{len(behind)} bytes follow the JSON, and the input says nothing of them (binary_data_size)")
    data = _numbers(tensor.data, spec) if tensor.size is None else _bytes(tensor.size, behind, tensor.dtype, tensor.has_data)
    if data.size != tensor.count:
        raise Malformed(f"data has {data.size} values, shape {list(tensor.shape[:16])} needs another number")
    return data.reshape(tensor.shape)


def _numbers(values: Any, spec: Spec) -> Array:
    listed = a_list(values, "data")
    if not _are_numbers(listed):
        raise Malformed("data holds something that is not a number")
    try:
        data = np.array(listed)
    except (ValueError, OverflowError) as error:
        raise Malformed(f"data is not an array of numbers: {error}") from error
    if data.size == 0:
        data = data.astype(spec.dtype)
    if data.dtype.kind not in "fiub":
        raise Malformed("data holds something that is not a number")
    return data


def _are_numbers(values: list[Any]) -> bool:
    """Whether lists within lists hold numbers alone: one text among them would make numpy take its length for each of them."""
    waiting = [values]
    while waiting:
        kinds = set(map(type, inner := waiting.pop()))
        if not kinds <= {int, float, bool, list}:
            return False
        if list in kinds:
            waiting += [value for value in inner if type(value) is list]
    return True


def _bytes(size: Any, behind: memoryview, dtype: np.dtype[Any], twice: bool) -> Array:
    if twice:
        raise Malformed("the input has data and binary_data_size: give one")
    if type(size) is not int or size != len(behind):
        raise Malformed(f"binary_data_size is {str(size)[:32]}, and {len(behind)} bytes follow the JSON")
    if size % dtype.itemsize:
        raise Malformed(f"{size} bytes are no whole number of values of {dtype.itemsize} bytes")
    data = np.frombuffer(behind, dtype)
    return data if data.flags.aligned else data.copy()


def wanted_output(document: dict[str, Any]) -> Wanted:
    """What a request asks of the output. Raises Malformed where that is not to be had."""
    binary = parameters_of(document).get("binary_data_output") is True
    best = 0
    for output in a_list(document.get("outputs", []), "outputs"):
        asked = an_object(output, "an output")
        if asked.get("name") != "y":
            raise Malformed("the model's only output is 'y'")
        parameters = parameters_of(asked)
        binary = parameters.get("binary_data", binary) is True
        best = parameters.get("classification", 0)
        if type(best) is not int or best < 0:
            raise Malformed("classification is a number of classes")
    return Wanted(binary, best)


def write_output(outputs: Outputs, wanted: Wanted) -> tuple[dict[str, Any], bytes]:
    """The output as the JSON says it, and what follows the JSON.

    Raises:
        Malformed: a classification was asked for of something else.
    """
    if wanted.best:
        return _classified(outputs, wanted)
    if wanted.binary:
        return binary_output(outputs.shape), outputs.astype("<f4", copy=False).tobytes()
    return _floats(outputs.shape) | {"data": outputs.ravel().tolist()}, b""


def binary_output(shape: tuple[int, ...]) -> dict[str, Any]:
    """The output as the JSON says it, where its values follow the JSON."""
    return _floats(shape) | {"parameters": {"binary_data_size": 4 * math.prod(shape)}}


def _floats(shape: tuple[int, ...]) -> dict[str, Any]:
    return {"name": "y", "datatype": "FP32", "shape": list(shape)}


def _classified(outputs: Outputs, wanted: Wanted) -> tuple[dict[str, Any], bytes]:
    if outputs.ndim != 2:
        raise Malformed(f"the output has shape {[-1, *outputs.shape[1:]]}: there are no classes to choose among")
    order = np.argsort(-outputs, axis=1, kind="stable")[:, : wanted.best]
    texts = [f"{outputs[row, column]:f}:{column}" for row, columns in enumerate(order) for column in columns]
    said: dict[str, Any] = {"name": "y", "datatype": "BYTES", "shape": list(order.shape)}
    if not wanted.binary:
        return said | {"data": texts}, b""
    data = b"".join(_LENGTH.pack(len(text)) + text.encode() for text in texts)
    return said | {"parameters": {"binary_data_size": len(data)}}, data


def parameters_of(part: dict[str, Any]) -> dict[str, Any]:
    """The parameters of a request, or of a tensor; those that are none are nobody's."""
    parameters = part.get("parameters")
    return parameters if isinstance(parameters, dict) else {}


def an_object(value: Any, what: str) -> dict[str, Any]:
    """A JSON object. Raises Malformed."""
    if not isinstance(value, dict):
        raise Malformed(f"{what} is not a JSON object")
    return value


def a_list(value: Any, what: str) -> list[Any]:
    """A JSON array. Raises Malformed."""
    if not isinstance(value, list):
        raise Malformed(f"{what} is not a JSON array")
    return value
