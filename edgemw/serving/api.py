"""The HTTP door to predictions: Open Inference Protocol, version 2, with JSON tensors. A request in, an answer out, no socket.

    GET  /v2                          name and version of the server
    GET  /v2/health/live | ready      whether it runs; whether every model answers
    GET  /v2/models/{m}               inputs and outputs
    GET  /v2/models/{m}/ready         whether it answers
    POST /v2/models/{m}/infer         outputs for a batch

`/versions/{v}` may follow `{m}`: v is the number of the release being served, and every answer says it as `model_version`.
A model's one input is `x` and its one output `y`. Protocol: github.com/kserve/open-inference-protocol.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgemw import __version__
from edgemw.core.bundle import Spec
from edgemw.core.errors import DataError
from edgemw.learning.oracle import Array
from edgemw.serving.slot import Served, Slot

Answer = tuple[int, str, bytes]
JSON = "application/json"
MAX_ID_LENGTH = 256
_DATATYPES = {"float32": "FP32", "int64": "INT64"}
_ACCEPTED = ("BOOL", *(f"{kind}{bits}" for kind in ("UINT", "INT") for bits in (8, 16, 32, 64)), "FP16", "FP32", "FP64")
"""Numbers; JSON writes them all alike."""


class _Refused(Exception):
    """The request gets this status and this text; never leaves `handle`."""

    def __init__(self, status: int, text: str) -> None:
        self.status = status
        super().__init__(text)


@dataclass(frozen=True, slots=True)
class _Request:
    x: Array
    id: str | None


class Api:
    """Answers requests from slots; `handle` may be called from several threads."""

    def __init__(self, slots: Mapping[str, Slot], *, max_body_bytes: int = 4 << 20) -> None:
        """Serve these slots.

        Args:
            slots: by name of the task; looked at for every request, so tasks may come and go.
            max_body_bytes: largest request.
        """
        self._slots, self._max_body_bytes = slots, max_body_bytes

    def handle(self, method: str, path: str, body: bytes) -> Answer:
        """Status, content type and body of the answer to one request."""
        try:
            return self._route(method, path.strip("/").split("/"), body)
        except _Refused as refused:
            return _error(refused.status, str(refused))

    def _route(self, method: str, levels: list[str], body: bytes) -> Answer:
        match levels:
            case ["v2"]:
                _only("GET", method)
                return _answer({"name": "edgemw", "version": __version__, "extensions": []})
            case ["v2", "health", "live"]:
                _only("GET", method)
                return _answer({"live": True})
            case ["v2", "health", "ready"]:
                _only("GET", method)
                return self._ready()
            case ["v2", "models", model, "versions", version, *rest]:
                return self._model(method, model, version, rest, body)
            case ["v2", "models", model, *rest]:
                return self._model(method, model, None, rest, body)
        raise _Refused(404, "no such path: predictions are at /v2/models/NAME/infer")

    def _ready(self) -> Answer:
        slots = dict(self._slots)
        waiting = sorted(name for name, slot in slots.items() if slot.current is None)
        if slots and not waiting:
            return _answer({"ready": True})
        reason = f"no release yet of {', '.join(waiting)}" if waiting else "no task yet"
        return 503, JSON, _json({"ready": False, "error": reason})

    def _model(self, method: str, model: str, version: str | None, rest: list[str], body: bytes) -> Answer:
        slot = self._slots.get(model)
        if slot is None:
            raise _Refused(404, f"no model {model[:80]!r}; served here: {', '.join(sorted(self._slots)) or 'none'}")
        if rest not in ([], ["ready"], ["infer"]):
            raise _Refused(404, "no such path under the model: use none, /ready or /infer")
        _only("POST" if rest == ["infer"] else "GET", method)
        served = slot.current
        if served is None:
            raise _Refused(503, f"model {model!r} has no release yet")
        if version is not None and version != str(served.release):
            raise _Refused(404, f"model {model!r} has no version {version[:80]!r}, release {served.release} is being served")
        if rest == ["infer"]:
            return self._infer(slot, served, body)
        return _answer({"name": model, "ready": True}) if rest else _answer(_metadata(served))

    def _infer(self, slot: Slot, served: Served, body: bytes) -> Answer:
        if len(body) > self._max_body_bytes:
            raise _Refused(413, f"the request has {len(body)} bytes, at most {self._max_body_bytes} are accepted")
        request = _read(body, served.manifest.input)
        try:
            outputs, release = slot.serve(request.x, served)
        except DataError as error:
            raise _Refused(400, str(error)) from error
        if not np.isfinite(outputs).all():
            raise _Refused(500, f"release {release} gives NaN or infinite outputs for this input")
        output = {"name": "y", "datatype": "FP32", "shape": list(outputs.shape), "data": outputs.ravel().tolist()}
        answer = {"model_name": served.task, "model_version": str(release), "outputs": [output]}
        return _answer(answer if request.id is None else {"id": request.id} | answer)


# -- reading


def _read(body: bytes, spec: Spec) -> _Request:
    document = _object(_parsed(body), "the request")
    _refuse_binary(document)
    inputs = document.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1:
        raise _Refused(400, 'give one tensor: {"inputs": [{"name": "x", "shape": [...], "datatype": "FP32", "data": [...]}]}')
    for output in _list(document.get("outputs", []), "outputs"):
        wanted = _object(output, "an output")
        _refuse_binary(wanted)
        if wanted.get("name") != "y":
            raise _Refused(400, "the model's only output is 'y'")
    name = document.get("id")
    if name is not None and (not isinstance(name, str) or len(name) > MAX_ID_LENGTH):
        raise _Refused(400, f"id is a text of at most {MAX_ID_LENGTH} characters")
    return _Request(_tensor(_object(inputs[0], "the input"), spec), name)


def _tensor(tensor: dict[str, Any], spec: Spec) -> Array:
    _refuse_binary(tensor)
    if tensor.get("name") != "x":
        raise _Refused(400, "the model's only input is 'x'")
    if tensor.get("datatype") not in _ACCEPTED:
        raise _Refused(400, f"datatype is one of {', '.join(_ACCEPTED)}; the model takes {_DATATYPES[spec.dtype]}")
    shape = _list(tensor.get("shape"), "shape")
    if not all(type(n) is int and n >= 0 for n in shape):
        raise _Refused(400, "shape holds whole numbers that are not negative")
    if len(shape) != len(spec.shape) + 1 or tuple(shape[1:]) != spec.shape:
        raise _Refused(400, f"shape is {shape[:16]}, the model takes {[-1, *spec.shape]}")
    try:
        data = np.array(_list(tensor.get("data"), "data"))
    except (ValueError, OverflowError) as error:
        raise _Refused(400, f"data is not an array of numbers: {error}") from error
    if data.size == 0:
        data = data.astype(spec.dtype)
    if data.dtype.kind not in "fiub":
        raise _Refused(400, "data holds something that is not a number")
    if data.size != np.prod(shape, dtype=object):  # as Python integers: a product of shapes may be beyond 64 bits
        raise _Refused(400, f"data has {data.size} values, shape {shape[:16]} needs another number")
    return data.reshape(shape)


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _Refused(400, f"the body is not JSON: {error}") from error


def _refuse_binary(part: dict[str, Any]) -> None:
    parameters = part.get("parameters")
    names = ("binary_data_size", "binary_data", "binary_data_output")
    if isinstance(parameters, dict) and any(parameters.get(name) for name in names):
        raise _Refused(400, "binary tensors are not supported here, use JSON data (tritonclient: binary_data=False)")


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _Refused(400, f"{what} is not a JSON object")
    return value


def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise _Refused(400, f"{what} is not a JSON array")
    return value


def _only(allowed: str, method: str) -> None:
    if method != allowed:
        raise _Refused(405, f"use {allowed} here")


# -- writing


def _metadata(served: Served) -> dict[str, Any]:
    manifest = served.manifest
    document: dict[str, Any] = {
        "name": served.task,
        "versions": [str(served.release)],
        "platform": "onnxruntime_onnx",
        "inputs": [_described("x", manifest.input)],
        "outputs": [_described("y", manifest.output)],
    }
    if manifest.classes is not None:
        document["parameters"] = {"classes": manifest.classes}
    return document


def _described(name: str, spec: Spec) -> dict[str, Any]:
    return {"name": name, "datatype": _DATATYPES[spec.dtype], "shape": [-1, *spec.shape]}


def _answer(document: dict[str, Any]) -> Answer:
    return 200, JSON, _json(document)


def _error(status: int, text: str) -> Answer:
    return status, JSON, _json({"error": text})


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, allow_nan=False, separators=(",", ":")).encode()
