"""The two oracles: they agree with each other and with torch, and refuse what is not a batch of the task."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from edgemw.compile.export import compile_task
from edgemw.compile.load import load_task
from edgemw.core.bundle import Bundle, read_bundle
from edgemw.core.errors import BundleError, DataError
from edgemw.learning.onnx_oracle import OnnxOracle
from edgemw.learning.oracle import Oracle
from edgemw.learning.torch_oracle import TorchOracle
from edgemw.serving.session import TrainingSession, open_inference

EXAMPLES = Path(__file__).parents[2] / "examples"
DIGITS = EXAMPLES / "quickstart" / "digits.edge"
Spoil = Callable[[Any, Any, Any], tuple[Any, Any, Any]]


def onnx_oracle(bundle: Bundle) -> OnnxOracle:
    assert bundle.train is not None
    size = bundle.manifest.size
    return OnnxOracle(
        bundle.manifest, TrainingSession(bundle.train), lambda theta: open_inference(bundle.infer, theta, size=size)
    )


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return read_bundle(DIGITS.read_bytes())


@pytest.fixture(scope="module", params=["onnx", "torch"])
def oracle(request: pytest.FixtureRequest, bundle: Bundle) -> Oracle:
    if request.param == "onnx":
        return onnx_oracle(bundle)
    return TorchOracle(bundle.manifest, load_task(f"{EXAMPLES / 'quickstart' / 'task.py'}:task"))


def test_the_stored_bundle_is_what_its_source_compiles_to(bundle: Bundle) -> None:
    fresh = compile_task(load_task(f"{EXAMPLES / 'quickstart' / 'task.py'}:task"), seeded=True)
    assert fresh.manifest == bundle.manifest
    assert bundle.manifest.size == 50_826
    assert fresh.recipe == bundle.recipe
    np.testing.assert_array_equal(fresh.theta0, bundle.theta0)
    x, y = _batch()
    old, new = (onnx_oracle(b).loss_and_grad(bundle.theta0, x, y, 0) for b in (bundle, fresh))
    assert old.loss == pytest.approx(new.loss, rel=1e-6)
    np.testing.assert_allclose(old.grad, new.grad, atol=1e-7)
    first, second = (onnx_oracle(b).predictor(bundle.theta0)(x) for b in (bundle, fresh))
    np.testing.assert_allclose(first, second, atol=1e-6)


def test_an_author_needs_at_most_twenty_lines() -> None:
    for name in ("quickstart", "har"):
        lines = (EXAMPLES / name / "task.py").read_text().splitlines()
        code = [line for line in lines if line.strip() and not line.strip().startswith(('"""', "#", "import", "from"))]
        assert len(code) <= 20


def test_the_activity_example_trains() -> None:
    task = load_task(f"{EXAMPLES / 'har' / 'task.py'}:task")
    bundle = compile_task(task)
    assert bundle.manifest.size <= 25_000
    assert (bundle.manifest.input.shape, bundle.manifest.output.shape) == ((128, 9), (6,))
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((32, 128, 9), np.float32), rng.integers(0, 6, 32)
    ours, torchs = onnx_oracle(bundle), TorchOracle(bundle.manifest, task)
    theta = bundle.theta0.copy()
    losses = []
    for _ in range(10):
        step, expected = (each.loss_and_grad(theta, x, y, 0) for each in (ours, torchs))
        np.testing.assert_allclose(step.grad, expected.grad, atol=1e-5 * np.abs(expected.grad).max())
        losses.append(step.loss)
        theta -= np.float32(0.05) * step.grad
    assert losses[-1] < losses[0]


def test_loss_gradient_and_predictions_are_those_of_torch(oracle: Oracle, bundle: Bundle) -> None:
    x, y = _batch()
    theta = torch.from_numpy(bundle.theta0.copy()).requires_grad_()
    outputs = torch.from_numpy(x)
    for i, (weight, bias) in enumerate(zip(bundle.manifest.layout[::2], bundle.manifest.layout[1::2], strict=True)):
        w = theta[weight.offset : weight.offset + weight.size].view(weight.shape)
        outputs = functional.linear(outputs.relu() if i else outputs, w, theta[bias.offset : bias.offset + bias.size])
    loss = functional.cross_entropy(outputs, torch.from_numpy(y))
    torch.autograd.backward(loss)
    step = oracle.loss_and_grad(bundle.theta0, x, y, 0)
    assert step.loss == pytest.approx(loss.item(), rel=1e-6)
    assert step.buffers is None
    assert theta.grad is not None
    np.testing.assert_allclose(step.grad, theta.grad, atol=1e-6)
    np.testing.assert_allclose(oracle.predictor(bundle.theta0)(x), outputs.detach(), atol=1e-5)


def test_a_predictor_keeps_its_theta(oracle: Oracle, bundle: Bundle) -> None:
    theta, (x, _) = bundle.theta0.copy(), _batch()
    predict = oracle.predictor(theta)
    before = predict(x)
    theta[:] = 0
    np.testing.assert_array_equal(predict(x), before)


def test_theta_is_left_alone(oracle: Oracle, bundle: Bundle) -> None:
    theta = bundle.theta0.copy()
    theta.flags.writeable = False
    oracle.loss_and_grad(theta, *_batch(), 0)
    np.testing.assert_array_equal(theta, bundle.theta0)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda t, x, y: (t, x.astype(np.float64), y), "x is float64"),
        (lambda t, x, y: (t, x[:, :-1], y), r"float32\[32, 63\], the task takes float32\[batch, 64\]"),
        (lambda t, x, y: (t, x[0], y), "the task takes"),
        (lambda t, x, y: (t, x, y.astype(np.int32)), "y is int32"),
        (lambda t, x, y: (t, x, y[:-1]), "32 inputs and 31 targets"),
        (lambda t, x, y: (t, x[:0], y[:0]), "0 inputs"),
        (lambda t, x, y: (t, x, y - 10), "from -10 to"),
        (lambda t, x, y: (t, x, y + 1), "to 10, the task has 10 classes"),
        (lambda t, x, y: (t[:-1], x, y), "theta is float32"),
        (lambda t, x, y: (t.astype(np.float64), x, y), "theta is float64"),
    ],
)
def test_what_is_not_a_batch_of_the_task_is_refused(oracle: Oracle, bundle: Bundle, spoil: Spoil, words: str) -> None:
    x, y = _batch()
    y[0] = 9
    with pytest.raises(DataError, match=words):
        oracle.loss_and_grad(*spoil(bundle.theta0, x, y), 0)


def test_a_predictor_refuses_another_shape(oracle: Oracle, bundle: Bundle) -> None:
    with pytest.raises(DataError, match="the task takes"):
        oracle.predictor(bundle.theta0)(np.zeros((2, 63), np.float32))
    with pytest.raises(DataError, match="theta is"):
        oracle.predictor(bundle.theta0[1:])


def test_another_version_of_the_python_task_is_refused(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="not the version that was compiled"):
        TorchOracle(bundle.manifest, load_task(f"{EXAMPLES / 'har' / 'task.py'}:task"))


def test_a_device_imports_no_torch() -> None:
    code = (
        "import sys, edgemw.learning.onnx_oracle, edgemw.learning.torch_oracle\n"
        "assert not {'torch', 'onnxruntime', 'onnx'} & sys.modules.keys()\n"
        "import edgemw.serving.session\n"
        "assert not {'torch', 'onnx', 'onnxscript'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=EXAMPLES.parent)


def _batch() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    return rng.random((32, 64), np.float32), rng.integers(0, 10, 32)
