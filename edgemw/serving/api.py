"""The door to predictions: Open Inference Protocol, version 2, with its binary tensors. A request in, an answer out, no socket.

    GET  /v2                          name and version of the server
    GET  /v2/health/live | ready      whether it runs; whether every model answers
    GET  /v2/models/{m}               inputs and outputs
    GET  /v2/models/{m}/ready         whether it answers
    GET  /v2/models/{m}/config        the same in the words of Triton's clients
    GET  /v2/models/{m}/stats         what it has answered
    POST /v2/models/{m}/infer         outputs for a batch
    POST /v2/repository/index         all models

`/versions/{v}` may follow `{m}`: v is the number of the release being served, or of its canary, and every answer says it as
`model_version`. A model's one input is `x` and its one output `y` (`tensors.py`). Of a request's `parameters` two matter:
`timeout`, microseconds that an answer is worth waiting for, as Triton has it; and `early`, see `placement.py`.

Protocol: github.com/kserve/open-inference-protocol.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from edgemw import __version__
from edgemw.core.bundle import Spec
from edgemw.core.errors import DataError
from edgemw.learning.oracle import Array
from edgemw.serving.slot import Outputs, Served, Slot, all_finite, whole_batch
from edgemw.serving.tensors import (
    NAMES,
    Described,
    Malformed,
    Wanted,
    an_object,
    binary_output,
    describe,
    parameters_of,
    values_of,
    wanted_output,
    write_output,
)

JSON, BINARY = "application/json", "application/octet-stream"
MAX_ID_LENGTH = 256
MAX_BODY_BYTES = 4 << 20
MAX_KNOWN_BYTES = 512
MAX_TIMEOUT_US = 3600 * 10**6
_BINARY = Wanted(binary=True)
_ENCODER = json.JSONEncoder(allow_nan=False, separators=(",", ":"))
_LEAVES: tuple[list[str], ...] = ([], ["ready"], ["config"], ["stats"], ["infer"])


class Answer(NamedTuple):
    """What is sent back.

    Attributes:
        status: of HTTP.
        content_type: of the body.
        body: JSON, and perhaps tensors behind it.
        json_bytes: how much of the body is JSON, where tensors follow.
        final: whether none follows to the same request.
    """

    status: int
    content_type: str
    body: bytes
    json_bytes: int | None = None
    final: bool = True


@dataclass(frozen=True, slots=True)
class Question:
    """A request for a prediction, that can be answered.

    Attributes:
        slot, served: who answers it.
        x: a batch as the task takes it.
        body: as it came.
        named: whether it is to this release and no other.
        timeout_s: how long an answer is worth waiting for; None is as long as it takes.
        early: whether the client takes two answers, if the better one takes longer.
        identity: that the client gave it.
        wanted: how its output is to be written.
    """

    slot: Slot
    served: Served
    x: Array
    body: bytes = b""
    named: bool = False
    timeout_s: float | None = None
    early: bool = False
    identity: str | None = None
    wanted: Wanted = field(default_factory=Wanted)

    @property
    def size_bytes(self) -> int:
        """What it holds while it waits."""
        return len(self.body) + self.x.nbytes

    def answer(self, outputs: Outputs, release: int, **parameters: object) -> Answer:
        """Write outputs float32[B, *output] of a release; parameters stand in the answer."""
        if not all_finite(outputs):
            return problem(500, f"release {release} gives NaN or infinite outputs for this input")
        if self.wanted == _BINARY and self.identity is None and not parameters:  # most are, and their JSON is always the same
            text = _usual(self.served.task, release, outputs.shape)
            return Answer(200, BINARY, text + outputs.astype("<f4", copy=False).tobytes(), len(text))
        try:
            output, behind = write_output(outputs, self.wanted)
        except Malformed as error:
            return problem(400, str(error))
        said: dict[str, Any] = {} if self.identity is None else {"id": self.identity}
        said |= _said(self.served.task, release, output)
        if parameters:
            said["parameters"] = parameters
        text = _json(said)
        return Answer(200, BINARY, text + behind, len(text)) if behind else Answer(200, JSON, text)


@dataclass(frozen=True, slots=True)
class Unready:
    """A request for a prediction of a task that has no release here, and what is said to it where nobody else answers."""

    task: str
    answer: Answer


class _Refused(Exception):
    """The request gets this status and this text; never leaves `read`."""

    def __init__(self, status: int, text: str) -> None:
        self.status = status
        super().__init__(text)


class Api:
    """Reads requests; may be used from several threads."""

    def __init__(self, slots: Mapping[str, Slot], *, max_body_bytes: int = MAX_BODY_BYTES) -> None:
        """Serve these slots.

        Args:
            slots: by name of the task; looked at for every request, so tasks may come and go.
            max_body_bytes: largest request.
        """
        self._slots, self._max_body_bytes = slots, max_body_bytes

    def read(self, method: str, path: str, body: bytes, json_bytes: int | None = None) -> Answer | Question | Unready:
        """The answer to one request, or what is asked of a model; `json_bytes` of the body are JSON, where tensors follow."""
        try:
            return self._route(method, path.strip("/").split("/"), body, json_bytes)
        except _Refused as refused:
            return problem(refused.status, str(refused))
        except (Malformed, DataError) as error:
            return problem(400, str(error))

    def _route(self, method: str, levels: list[str], body: bytes, json_bytes: int | None) -> Answer | Question | Unready:
        match levels:
            case ["v2"]:
                _only("GET", method)
                extensions = ["binary_tensor_data", "classification", "model_configuration", "model_repository", "statistics"]
                return _answer({"name": "edgemw", "version": __version__, "extensions": extensions})
            case ["v2", "health", "live"]:
                _only("GET", method)
                return _answer({"live": True})
            case ["v2", "health", "ready"]:
                _only("GET", method)
                return self._ready()
            case ["v2", "repository", "index"]:
                _only("POST", method)
                return _answer([_indexed(name, slot.current) for name, slot in sorted(self._slots.items())])
            case ["v2", "models", "stats"]:
                _only("GET", method)
                return _answer({"model_stats": [_counted(slot, slot.current) for slot in self._slots.values() if slot.current]})
            case ["v2", "models", model, "versions", version, *rest]:
                return self._model(method, model, version, rest, body, json_bytes)
            case ["v2", "models", model, *rest]:
                return self._model(method, model, None, rest, body, json_bytes)
        raise _Refused(404, "no such path: predictions are at /v2/models/NAME/infer")

    def _ready(self) -> Answer:
        slots = dict(self._slots)
        waiting = sorted(name for name, slot in slots.items() if slot.current is None)
        if slots and not waiting:
            return _answer({"ready": True})
        reason = f"no release yet of {', '.join(waiting)}" if waiting else "no task yet"
        return Answer(503, JSON, _json({"ready": False, "error": reason}))

    def _model(
        self, method: str, model: str, version: str | None, rest: list[str], body: bytes, json_bytes: int | None
    ) -> Answer | Question | Unready:
        slot = self._slots.get(model)
        if slot is not None and rest not in _LEAVES:
            raise _Refused(404, "no such path under the model: use none, /ready, /config, /stats or /infer")
        served = slot.current if slot is not None else None
        if slot is not None:
            _only("POST" if rest == ["infer"] else "GET", method)
        if slot is None or served is None:
            missing = self._missing(model)
            return Unready(model, missing) if rest == ["infer"] and method == "POST" and version is None else missing
        if version is not None:
            served = _of_version(version, model, served, slot.canary)
        match rest:
            case ["infer"]:
                picked = slot.pick() if version is None else served
                question = self._question(slot, picked or served, body, json_bytes)
                return question if version is None else replace(question, named=True)
            case ["ready"]:
                return _answer({"name": model, "ready": True})
            case ["config"]:
                return _answer(_configured(served))
            case ["stats"]:
                return _answer({"model_stats": [_counted(slot, served)]})
        return _answer(_metadata(served, slot.canary if version is None else None))

    def _missing(self, model: str) -> Answer:
        if model in self._slots:
            return problem(503, f"model {model!r} has no release yet")
        return problem(404, f"no model {model[:80]!r}; served here: {', '.join(sorted(self._slots)) or 'none'}")

    def _question(self, slot: Slot, served: Served, body: bytes, json_bytes: int | None) -> Question:
        if len(body) > self._max_body_bytes:
            raise _Refused(413, f"the request has {len(body)} bytes, at most {self._max_body_bytes} are accepted")
        if json_bytes is not None and not 0 <= json_bytes <= len(body):
            raise _Refused(400, f"the JSON is said to have {json_bytes} bytes, the body has {len(body)}")
        view, spec = memoryview(body), served.manifest.input
        text, behind = (body, view[:0]) if json_bytes is None else (bytes(view[:json_bytes]), view[json_bytes:])
        is_usual = json_bytes is not None and json_bytes <= MAX_KNOWN_BYTES
        head = (_head_before if is_usual else _head)(text, spec)
        batch = whole_batch(values_of(head.tensor, behind, spec), spec)
        timeout_s, early, identity, wanted = head.timeout_s, head.early, head.identity, head.wanted
        return Question(slot, served, batch, body, timeout_s=timeout_s, early=early, identity=identity, wanted=wanted)


def problem(status: int, text: str) -> Answer:
    """An answer that says what was wrong."""
    return Answer(status, JSON, _json({"error": text}))


def _of_version(version: str, model: str, *releases: Served | None) -> Served:
    for served in releases:
        if served is not None and version == str(served.release):
            return served
    there = [str(served.release) for served in releases if served is not None]
    answering = f"release {there[0]} answers" if len(there) == 1 else f"releases {' and '.join(there)} answer"
    raise _Refused(404, f"model {model!r} has no version {version[:80]!r}: {answering}")


def _patience(document: dict[str, Any]) -> tuple[float | None, bool]:
    """How many seconds an answer is worth waiting for, and whether an early one is wanted besides."""
    parameters = parameters_of(document)
    timeout, early = parameters.get("timeout", 0), parameters.get("early", False)
    if type(timeout) is not int or not 0 <= timeout <= MAX_TIMEOUT_US:
        raise _Refused(400, f"timeout is a whole number of microseconds, at most {MAX_TIMEOUT_US}; 0 is none")
    if type(early) is not bool:
        raise _Refused(400, "early is true or false")
    return timeout / 1e6 if timeout else None, early


def _said(task: str, release: int, output: dict[str, Any]) -> dict[str, Any]:
    return {"model_name": task, "model_version": str(release), "outputs": [output]}


@functools.lru_cache(64)
def _usual(task: str, release: int, shape: tuple[int, ...]) -> bytes:
    """The JSON before the bytes of an output."""
    return _json(_said(task, release, binary_output(shape)))


@dataclass(frozen=True, slots=True)
class _Head:
    """What the JSON of a request for a prediction says; the attributes are those of Question."""

    tensor: Described
    timeout_s: float | None
    early: bool
    identity: str | None
    wanted: Wanted


def _head(text: bytes, spec: Spec) -> _Head:
    """Read it, for a model of this input."""
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _Refused(400, f"the body is not JSON: {error}") from error
    document = an_object(parsed, "the request")
    identity = document.get("id")
    if identity is not None and (not isinstance(identity, str) or len(identity) > MAX_ID_LENGTH):
        raise _Refused(400, f"id is a text of at most {MAX_ID_LENGTH} characters")
    inputs = document.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1:
        raise _Refused(400, 'give one tensor: {"inputs": [{"name": "x", "shape": [...], "datatype": "FP32", "data": [...]}]}')
    wanted, (timeout_s, early) = wanted_output(document), _patience(document)
    return _Head(describe(inputs[0], spec), timeout_s, early, identity, wanted)


_head_before = functools.lru_cache(64)(_head)
"""Requests with binary tensors mostly begin with the same."""


def _only(allowed: str, method: str) -> None:
    if method != allowed:
        raise _Refused(405, f"use {allowed} here")


def _metadata(served: Served, canary: Served | None) -> dict[str, Any]:
    manifest = served.manifest
    classes = {} if manifest.classes is None else {"classes": manifest.classes}
    return {
        "name": served.task,
        "versions": [str(each.release) for each in (served, canary) if each is not None],
        "platform": "onnxruntime_onnx",
        "inputs": [_described("x", manifest.input)],
        "outputs": [_described("y", manifest.output)],
        "parameters": classes | {"precision": served.precision},
    }


def _described(name: str, spec: Spec) -> dict[str, Any]:
    return {"name": name, "datatype": NAMES[spec.dtype], "shape": [-1, *spec.shape]}


def _configured(served: Served) -> dict[str, Any]:
    """What Triton calls a model's configuration; a batch has as many rows as its client likes."""
    ends = (("input", "x", served.manifest.input), ("output", "y", served.manifest.output))
    tensors = {
        side: [{"name": name, "data_type": f"TYPE_{NAMES[spec.dtype]}", "dims": [-1, *spec.shape]}] for side, name, spec in ends
    }
    return {"name": served.task, "platform": "onnxruntime_onnx", "backend": "onnxruntime", "max_batch_size": 0, **tensors}


def _counted(slot: Slot, served: Served) -> dict[str, Any]:
    """What was answered since the process began, whatever the release."""
    count, total_ns = slot.answered, int(1e9 * slot.seconds)
    success = {"count": count, "ns": total_ns}
    return {
        "name": served.task,
        "version": str(served.release),
        "inference_count": slot.samples,
        "execution_count": count,
        "inference_stats": {"success": success, "compute_infer": success},
    }


def _indexed(name: str, served: Served | None) -> dict[str, Any]:
    if served is None:
        return {"name": name, "state": "UNAVAILABLE", "reason": "no release yet"}
    return {"name": name, "version": str(served.release), "state": "READY", "reason": ""}


def _answer(document: dict[str, Any] | list[Any]) -> Answer:
    return Answer(200, JSON, _json(document))


def _json(document: dict[str, Any] | list[Any]) -> bytes:
    return _ENCODER.encode(document).encode()
