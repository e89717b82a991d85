"""int8 graphs of releases, which are served only where they are as good as float32 on the device's own samples.

    infer.onnx + theta -> folded (a convolution and its normalisation are one) -> calibrated -> int8.onnx, weights inside

Static quantisation, with QuantizeLinear and DequantizeLinear around what is computed in integers: weights are int8 with a scale
for each output channel, activations uint8 with the range that they have on samples of the device. Only products are quantised,
and what hands their integers on: for sums and normalisations the way there and back costs more than integers save.

The package onnx is needed for this, and for nothing else on a device: it is imported when a graph is made.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from edgemw.core.bundle import Bundle, Vector
from edgemw.core.errors import BundleError, ConfigError, DataError
from edgemw.learning.dataset import Dataset
from edgemw.learning.oracle import Array, Predict
from edgemw.serving.check import check_outputs, check_samples
from edgemw.serving.guard import is_as_good, measured
from edgemw.serving.session import fold_graph, open_graph

MAX_SAMPLES = 256
"""That activations are calibrated on."""
_BATCH = 32
_QUANTISED = (
    *("Conv", "ConvTranspose", "Gemm", "MatMul"),
    *("Relu", "Clip", "MaxPool", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Concat"),
)
_PREPARED = {"key": "onnx.quant.pre_process", "value": "onnxruntime.quant"}
"""Tells the quantiser that the graph was folded before, which it would warn of otherwise."""


def check_quantiser() -> None:
    """Raise ConfigError unless graphs can be quantised here."""
    try:
        import_module("onnx")
    except ModuleNotFoundError as error:
        raise ConfigError("int8 graphs are made with the package onnx: pip install 'edgemw[int8]'") from error


def quantised(bundle: Bundle, theta: Vector, x: Array) -> bytes:
    """An int8 graph with these weights inside, for `open_graph`. The same arguments give the same bytes.

    Args:
        bundle: of the task.
        theta: float32[P].
        x: fitted inputs [N, *input] such as will come; MAX_SAMPLES of them, evenly spaced, calibrate activations.

    Raises:
        ConfigError: the package onnx is missing.
        BundleError: theta does not fit, or nothing in the graph can be quantised.
        DataError: there are no inputs.
    """
    check_quantiser()
    if len(x) == 0:
        raise DataError("there are no samples to calibrate on")
    rows = np.linspace(0, len(x) - 1, min(MAX_SAMPLES, len(x))).astype(np.int64)
    with tempfile.TemporaryDirectory(prefix="edgemw-int8-") as name:
        folder = Path(name)
        fold_graph(bundle.infer, theta, folder / "folded.onnx", size=bundle.manifest.size)
        try:
            return _quantised(folder, x[rows])
        except Exception as error:  # the quantiser's own have no common base
            reason = str(error).strip().partition("\n")[0] or repr(error)
            raise BundleError(f"the graph cannot be quantised: {reason}") from error


def _quantised(folder: Path, x: Array) -> bytes:
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    graph, made = onnx.load(folder / "folded.onnx"), folder / "int8.onnx"
    graph.metadata_props.add(**_PREPARED)
    quantize_static(
        graph,
        made,
        _Reader(graph.graph.input[0].name, x),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=list(_QUANTISED),
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    if all(node.op_type != "QuantizeLinear" for node in onnx.load(made).graph.node):
        raise BundleError("it has no products that int8 can compute")
    return made.read_bytes()


class _Reader:
    """Batches for the quantiser, as it wants to read them."""

    def __init__(self, name: str, x: Array) -> None:
        self._batches: Iterator[dict[str, Any]] = ({name: x[at : at + _BATCH]} for at in range(0, len(x), _BATCH))

    def get_next(self) -> dict[str, Any] | None:
        """The next batch, by the name of the input; None after the last."""
        return next(self._batches, None)


class Int8:
    """Makes the int8 graphs of releases, and gives those that are as good as float32."""

    def __init__(self, metric: str, tolerance: float, *, threads: int = 1) -> None:
        """Say what counts.

        Args:
            metric: that must hold; of a task that does not measure it, its first one.
            tolerance: how much worse int8 may be: so much less accuracy, or of another metric such a share more.
            threads: of one prediction.

        Raises:
            ConfigError: the package onnx is missing.
        """
        check_quantiser()
        self._metric, self._tolerance, self._threads = metric, tolerance, threads

    def made(self, bundle: Bundle, theta: Vector, predict: Predict, data: Dataset | None) -> tuple[bytes, Predict]:
        """The graph of a release, calibrated on training samples and measured on held-out ones; and a session of it.

        Args:
            predict: the release as float32.
            data: fitted samples of this device.

        Raises:
            EdgeError: why the release has to be served as float32.
        """
        manifest = bundle.manifest
        if data is None or len(data.test) == 0:
            raise DataError("no samples are held out to measure int8 on")
        if not manifest.metrics:
            raise BundleError("the task has no metric to measure int8 by")
        metric = self._metric if self._metric in manifest.metrics else manifest.metrics[0]
        graph = quantised(bundle, theta, data.train.x)
        session = open_graph(graph, threads=self._threads)
        reason = check_outputs(session, manifest) or check_samples(session, manifest, data.test.x)
        if reason:
            raise BundleError(f"with int8 {reason}")
        was, now = (measured(model, manifest, data.test, metric) for model in (predict, session))
        if not is_as_good(metric, now, was, self._tolerance):
            raise DataError(f"its {metric} on this device's samples is {now:.4g} with int8, {was:.4g} without")
        return graph, session
