"""int8 graphs: what they are, and that one is served only where it is as good as float32."""

from __future__ import annotations

import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from edgemw.compile.export import compile_task
from edgemw.compile.task import Task
from edgemw.core.bundle import Bundle, Vector, read_bundle
from edgemw.core.errors import BundleError, DataError
from edgemw.learning.dataset import Dataset, Samples
from edgemw.learning.oracle import Array, Oracle, Predict, Step
from edgemw.serving.admission import Admission
from edgemw.serving.guard import Guard
from edgemw.serving.quantise import MAX_SAMPLES, Int8, quantised
from edgemw.serving.session import open_graph, open_inference
from edgemw.serving.store import ReleaseStore

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "examples" / "quickstart" / "digits.edge"
RNG = np.random.default_rng(3)


class Scale(nn.Module):
    """Nothing that int8 could compute."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


def normalised() -> nn.Module:
    first = nn.Sequential(nn.Conv1d(3, 16, 5, padding=2), nn.BatchNorm1d(16), nn.ReLU(), nn.MaxPool1d(2))
    second = nn.Sequential(nn.Conv1d(16, 32, 5, padding=2), nn.BatchNorm1d(32), nn.ReLU(), nn.AdaptiveAvgPool1d(1))
    return nn.Sequential(first, second, nn.Flatten(), nn.Linear(32, 4))


@pytest.fixture(scope="module")
def mlp() -> tuple[Bundle, Vector]:
    bundle = read_bundle(DIGITS.read_bytes())
    bundle = replace(bundle, manifest=replace(bundle.manifest, metrics=("accuracy", "cross_entropy")))
    return bundle, RNG.normal(0, 0.2, bundle.manifest.size).astype(np.float32)


@pytest.fixture(scope="module")
def conv() -> tuple[Bundle, Vector]:
    """With running statistics that are far from those of a new net, so that folding them is seen."""
    bundle = compile_task(Task("conv", normalised, loss="cross_entropy", input=(3, 32)))
    theta = RNG.normal(0, 0.3, bundle.manifest.size).astype(np.float32)
    for slot in bundle.manifest.buffers:
        part = slice(slot.offset, slot.offset + slot.size)
        theta[part] = RNG.uniform(0.5, 2, slot.size) if "var" in slot.name else RNG.normal(0, 0.3, slot.size)
    return bundle, theta


def inputs(bundle: Bundle, count: int = 300) -> Array:
    return np.random.default_rng(5).random((count, *bundle.manifest.input.shape), np.float32)


def as_float(bundle: Bundle, theta: Vector) -> Predict:
    return open_inference(bundle.infer, theta, size=bundle.manifest.size).run


def samples(bundle: Bundle, theta: Vector, x: Array) -> Samples:
    """Of which theta knows every class."""
    return Samples(x, as_float(bundle, theta)(x).argmax(axis=1))


def dataset(bundle: Bundle, theta: Vector, shrunk: float = 1.0) -> Dataset:
    """Training samples are smaller than those that are held out, so that calibration on them goes wrong."""
    x = inputs(bundle)
    return Dataset(samples(bundle, theta, shrunk * x), samples(bundle, theta, x))


@pytest.mark.parametrize("model", ["mlp", "conv"])
def test_an_int8_graph_is_small_and_close(model: str, request: pytest.FixtureRequest) -> None:
    bundle, theta = request.getfixturevalue(model)
    x = inputs(bundle)
    graph = quantised(bundle, theta, x)
    session, expected = open_graph(graph), as_float(bundle, theta)(x)
    outputs = session.run(x)
    assert session.precision == "int8"
    assert outputs.shape == expected.shape
    assert 0 < np.abs(outputs - expected).max() < 0.05 * np.abs(expected).max()
    assert (outputs.argmax(axis=1) == expected.argmax(axis=1)).mean() > 0.9
    np.testing.assert_allclose(session.run(x[:1]), outputs[:1], rtol=1e-5, atol=1e-5)
    if model == "mlp":
        assert len(graph) < 0.35 * 4 * bundle.manifest.size
    assert quantised(bundle, theta, x) == graph


def test_products_are_int8_and_normalisation_is_part_of_them(conv: tuple[Bundle, Vector]) -> None:
    graph = onnx.load_model_from_string(quantised(*conv, inputs(conv[0]))).graph
    kinds = [node.op_type for node in graph.node]
    assert {"QuantizeLinear", "DequantizeLinear", "Conv", "Gemm"} <= set(kinds)
    assert "BatchNormalization" not in kinds
    weights = [tensor for tensor in graph.initializer if np.prod(tensor.dims) > 100]
    assert [(tensor.data_type, tensor.data_location) for tensor in weights] == 3 * [(onnx.TensorProto.INT8, 0)]
    scales = {tuple(tensor.dims) for tensor in graph.initializer if "weight" in tensor.name and "scale" in tensor.name}
    assert {(16,), (32,)} <= scales  # one for each channel


def test_no_more_samples_are_calibrated_on_than_are_needed(mlp: tuple[Bundle, Vector]) -> None:
    x = inputs(mlp[0], 10 * MAX_SAMPLES)
    few = x[np.linspace(0, len(x) - 1, MAX_SAMPLES).astype(np.int64)]
    assert quantised(*mlp, x) == quantised(*mlp, few)
    assert open_graph(quantised(*mlp, x[:1])).run(x[:2]).shape == (2, 10)


def test_what_cannot_be_quantised_says_so(mlp: tuple[Bundle, Vector], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, theta = mlp
    x = inputs(bundle)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(DataError, match="no samples to calibrate on"):
        quantised(bundle, theta, x[:0])
    with pytest.raises(BundleError, match="the layout needs float32"):
        quantised(bundle, theta[1:], x)
    with pytest.raises(BundleError, match="cannot open the graph"):
        quantised(replace(bundle, infer=b"no graph"), theta, x)
    with pytest.raises(BundleError, match="cannot be quantised"):
        quantised(bundle, theta, x[:, :9])
    scale = compile_task(Task("scale", Scale, loss="mse", input=(4,), metrics=("mse",)))
    with pytest.raises(BundleError, match="it has no products that int8 can compute"):
        quantised(scale, scale.theta0, inputs(scale))
    assert list(tmp_path.iterdir()) == []


# -- whether it is served


def test_an_int8_graph_that_holds_is_given(mlp: tuple[Bundle, Vector]) -> None:
    bundle, theta = mlp
    data = dataset(bundle, theta)
    for metric in ("", "accuracy", "cross_entropy", "mse"):  # the task has no mse: its first metric stands in
        graph, session = Int8(metric, 0.05).made(bundle, theta, as_float(bundle, theta), data)
        np.testing.assert_array_equal(session(data.test.x), open_graph(graph)(data.test.x))


def test_an_int8_graph_that_is_worse_is_not_given(mlp: tuple[Bundle, Vector]) -> None:
    bundle, theta = mlp
    data, predict = dataset(bundle, theta, shrunk=0.05), as_float(bundle, theta)
    for metric in ("accuracy", "cross_entropy"):
        with pytest.raises(DataError, match=f"its {metric} on this device's samples is .* with int8, .* without"):
            Int8(metric, 0.02).made(bundle, theta, predict, data)


def test_without_anything_to_measure_on_a_release_is_float32(mlp: tuple[Bundle, Vector]) -> None:
    bundle, theta = mlp
    data, predict = dataset(bundle, theta), as_float(bundle, theta)
    for nothing in (None, Dataset(data.train, data.test.take(np.arange(0)))):
        with pytest.raises(DataError, match="no samples are held out"):
            Int8("accuracy", 0.1).made(bundle, theta, predict, nothing)
    blind = replace(bundle, manifest=replace(bundle.manifest, metrics=()))
    with pytest.raises(BundleError, match="no metric"):
        Int8("accuracy", 0.1).made(blind, theta, predict, data)


def test_outputs_that_are_not_finite_are_refused_with_their_reason(conv: tuple[Bundle, Vector]) -> None:
    bundle, theta = conv
    data, broken = dataset(bundle, theta), theta.copy()
    broken[-4:] = np.inf
    with pytest.raises(BundleError, match=r"not finite|cannot be quantised"):
        Int8("accuracy", 10).made(bundle, broken, as_float(bundle, theta), data)


class Gradientless:
    """The oracle of a task with dropout: its loss is not compared."""

    def __init__(self, bundle: Bundle) -> None:
        self.manifest = replace(bundle.manifest, seeded=True)

    def loss_and_grad(self, theta: Vector, x: Array, y: Array, seed: int) -> Step:
        raise NotImplementedError

    def predictor(self, theta: Vector) -> Predict:
        raise NotImplementedError


def test_a_release_is_admitted_as_int8_where_that_holds(mlp: tuple[Bundle, Vector]) -> None:
    bundle, theta = mlp
    oracle: Oracle = Gradientless(bundle)
    data, predict = dataset(bundle, theta), as_float(bundle, theta)
    verdict = Admission(int8=Int8("", 0.05)).check(bundle, predict, oracle, theta, data)
    assert (verdict.reason, verdict.note) == ("", "")
    assert verdict.quantised == quantised(bundle, theta, data.train.x)
    assert Admission().check(bundle, predict, oracle, theta, data).quantised == b""


def test_a_release_that_int8_makes_worse_is_admitted_as_float32_and_it_is_said_once(
    mlp: tuple[Bundle, Vector], caplog: pytest.LogCaptureFixture
) -> None:
    bundle, theta = mlp
    data, predict = dataset(bundle, theta, shrunk=0.05), as_float(bundle, theta)
    admission = Admission(int8=Int8("", 0.02))
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            verdict = admission.check(bundle, predict, Gradientless(bundle), theta, data)
            assert (verdict.reason, verdict.quantised) == ("", b"")
            assert "with int8" in verdict.note
    assert [record.getMessage() for record in caplog.records] == [f"served as float32: {verdict.note}"]


def test_the_guard_looks_at_what_would_be_served(tmp_path: Path, mlp: tuple[Bundle, Vector]) -> None:
    """int8 is within its own tolerance of float32, but not within the guard's of what is served."""
    bundle, theta = mlp
    store = ReleaseStore(tmp_path, 3)
    store.save("digits", bundle, 1, 7, theta)
    data, predict = dataset(bundle, theta, shrunk=0.05), as_float(bundle, theta)
    admission = Admission(Guard(store, "accuracy", 0.0), Int8("", 1.0))
    verdict = admission.check(bundle, predict, Gradientless(bundle), theta, data)
    assert (verdict.reason, verdict.quantised) == ("", b"")
    assert "that of release 7 is 1" in verdict.note
    graph, session = Int8("", 1.0).made(bundle, theta, predict, data)
    store.save("digits", bundle, 1, 8, theta, graph)  # by now what is served is as bad
    assert admission.check(bundle, predict, Gradientless(bundle), theta, data).quantised == graph
    assert Guard(store, "accuracy", 0.0).check(session, bundle.manifest, data.test) == ""


def test_where_neither_is_good_enough_a_release_is_refused(tmp_path: Path, mlp: tuple[Bundle, Vector]) -> None:
    bundle, theta = mlp
    store = ReleaseStore(tmp_path, 3)
    store.save("digits", bundle, 1, 7, theta)
    other = (theta + RNG.normal(0, 0.5, theta.size)).astype(np.float32)
    data, admission = dataset(bundle, theta), Admission(Guard(store, "accuracy", 0.05), Int8("", 1.0))
    verdict = admission.check(bundle, as_float(bundle, other), Gradientless(bundle), other, data)
    assert "that of release 7 is 1" in verdict.reason
    assert (verdict.quantised, verdict.note) == (b"", "")


# -- without the package onnx

WITHOUT_ONNX = """
import sys
sys.modules["onnx"] = None
from edgemw.cli.main import main
sys.exit(main())
"""
DEVICE = """schema = 1
net = "test"
[node]
id = "device-0"
parent = "top"
state = "state"
[broker]
url = "mqtt://127.0.0.1:9"
[serving]
int8 = true
[[data]]
path = "none.npz"
"""


@pytest.mark.parametrize(
    "command", [["bench", "serve", "--task", str(DIGITS), "--data", "digits"], ["device", "--config", "device.toml"]]
)
def test_without_onnx_it_is_said_what_to_install(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "device.toml").write_text(DEVICE)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_ONNX, *command],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        timeout=60,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert done.stderr.endswith("edgemw: int8 graphs are made with the package onnx: pip install 'edgemw[int8]'\n")
