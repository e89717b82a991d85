"""ONNX Runtime: graphs as functions of arrays. Nothing else imports `onnxruntime`, but `quantise` its quantiser."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

from edgemw.core.bundle import WEIGHTS_FILE, Vector
from edgemw.core.errors import BundleError, DataError
from edgemw.serving.store import FLOAT32, INT8, StoredRelease

Array = npt.NDArray[Any]
_FATAL = 4
"""Severity of onnxruntime's own log: what goes wrong arrives as an exception already."""
_ERRORS: tuple[type[Exception], ...] = (
    RuntimeError,
    ValueError,
    *(kind for kind in vars(ort_state).values() if isinstance(kind, type) and issubclass(kind, Exception)),
)
"""onnxruntime's own errors have no common base below Exception."""

log = logging.getLogger(__name__)
ort.disable_telemetry_events()  # who imported onnxruntime before edgemw had it begin


class InferenceSession:
    """Outputs of a model with fixed weights; safe to call from several threads.

    Attributes:
        precision: what computes them, FLOAT32 or INT8.
    """

    def __init__(self, session: ort.InferenceSession, precision: str = FLOAT32) -> None:
        self.precision = precision
        self._run = session.run
        self._input = _names(session.get_inputs())[0]
        self._outputs = _names(session.get_outputs())

    def run(self, x: Array) -> npt.NDArray[np.float32]:
        """Outputs float32[B, *output] for x [B, *input].

        Raises:
            DataError: shape or dtype of x is not the graph's, or a value is out of the range of a table.
        """
        try:
            outputs: npt.NDArray[np.float32] = self._run(self._outputs, {self._input: x})[0]
        except _ERRORS as error:
            raise _data_error(error) from error
        return outputs

    __call__ = run


def open_inference(graph: bytes, theta: Vector, *, size: int, threads: int = 1) -> InferenceSession:
    """Build a session from a weightless graph and its weights; theta may be overwritten afterwards.

    The interpreter is free for other threads while it builds.

    Args:
        theta: float32[size], contiguous.
        size: P of the manifest. ONNX Runtime itself would take a longer vector without a word.
        threads: compute threads of one call; more than 1 pays from about a million parameters.

    Raises:
        BundleError: the graph is damaged, or theta does not fit.
    """
    options, _data = _weighted(theta, size, threads)
    return InferenceSession(_open(graph, options))


def open_graph(graph: bytes, *, threads: int = 1) -> InferenceSession:
    """Build a session from an int8 graph, which has its weights inside. Raises BundleError where the graph is damaged."""
    return InferenceSession(_open(graph, _options(threads)), INT8)


def open_release(release: StoredRelease, *, threads: int = 1) -> InferenceSession:
    """Build the session that serves a release: of its int8 graph where it has one that is whole and can be opened, else float32.

    Raises:
        BundleError: ONNX Runtime cannot open the task's graph.
    """
    damage = release.damage
    if release.quantised:
        try:
            return open_graph(release.quantised, threads=threads)
        except BundleError as error:
            damage = str(error)
    if damage:
        log.warning("served as float32: %s", damage, extra={"facts": {"task": release.task, "release": release.number}})
    return open_inference(release.bundle.infer, release.theta, size=release.manifest.size, threads=threads)


def fold_graph(graph: bytes, theta: Vector, path: Path, *, size: int) -> None:
    """Write a graph with its weights inside, constants folded and operators fused that are one on every machine.

    Raises:
        BundleError: the graph is damaged, or theta does not fit.
    """
    options, _data = _weighted(theta, size, 1)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    _open(graph, options)


class TrainingSession:
    """One training step: loss and gradient, and new running statistics where the model has some."""

    def __init__(self, graph: bytes, *, threads: int = 1) -> None:
        """Build the session.

        Raises:
            BundleError: the graph is damaged, or is no training step.
        """
        session = _open(graph, _options(threads))
        inputs, self._outputs = _names(session.get_inputs()), _names(session.get_outputs())
        if inputs[:3] != ["theta", "x", "y"] or self._outputs[:2] != ["loss", "grad"]:
            raise BundleError(f"not a training step: it maps {inputs} to {self._outputs}")
        self._seeded = inputs[3:] == ["seed"]
        self._run = session.run

    def step(self, theta: Vector, x: Array, y: Array, seed: int) -> tuple[float, Vector, Vector | None]:
        """Mean loss, gradient float32[P], and buffers float32[Q] or None, of one batch.

        Raises:
            DataError: shape or dtype of an array is not the graph's, or a label is out of range.
        """
        feeds: dict[str, Array] = {"theta": theta, "x": x, "y": y}
        if self._seeded:
            feeds["seed"] = np.array(seed, np.int64)
        try:
            loss, grad, *buffers = self._run(self._outputs, feeds)
        except _ERRORS as error:
            raise _data_error(error) from error
        return float(loss), grad, buffers[0] if buffers else None


def _weighted(theta: Vector, size: int, threads: int) -> tuple[ort.SessionOptions, Vector]:
    """Options for a weightless graph, and the memory that has to stay until it is open."""
    if theta.dtype != np.float32 or theta.shape != (size,):
        raise BundleError(f"weights are {theta.dtype}{list(theta.shape)}, the layout needs float32[{size}]")
    options = _options(threads)
    data = np.ascontiguousarray(theta)
    options.add_external_initializers_from_files_in_memory([WEIGHTS_FILE], [data], [data.nbytes])
    return options, data


def _options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL
    return options


def _open(graph: bytes, options: ort.SessionOptions) -> ort.InferenceSession:
    try:
        return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except _ERRORS as error:
        raise BundleError(f"ONNX Runtime cannot open the graph: {_first_line(error)}") from error


def _data_error(error: Exception) -> DataError:
    return DataError(f"the batch does not fit the graph: {_first_line(error)}")


def _names(nodes: Sequence[Any]) -> list[str]:
    return [node.name for node in nodes]


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
