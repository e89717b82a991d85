"""The slot swaps in one step, and the checks keep a bad release out of it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgemw.core.bundle import Bundle, Manifest, Spec, Vector, read_bundle
from edgemw.core.errors import DataError, EdgeError
from edgemw.learning.dataset import Samples
from edgemw.learning.onnx_oracle import OnnxOracle
from edgemw.learning.oracle import Array, Oracle, Predict, Step
from edgemw.serving.check import check_release
from edgemw.serving.session import TrainingSession, open_inference
from edgemw.serving.slot import Served, Slot, all_finite, as_batch

DIGITS = Path(__file__).parents[2] / "examples" / "quickstart" / "digits.edge"


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return read_bundle(DIGITS.read_bytes())


@pytest.fixture(scope="module")
def oracle(bundle: Bundle) -> OnnxOracle:
    def open_infer(theta: Vector) -> Predict:
        return open_inference(bundle.infer, theta, size=bundle.manifest.size)

    assert bundle.train is not None
    return OnnxOracle(bundle.manifest, TrainingSession(bundle.train), open_infer)


@pytest.fixture(scope="module")
def samples() -> Samples:
    rng = np.random.default_rng(0)
    return Samples(rng.random((100, 64), np.float32), rng.integers(0, 10, 100))


def constant(value: float, manifest: Manifest) -> Served:
    return Served(lambda x: np.full((len(x), 10), value, np.float32), "digits", int(value), manifest)


# -- slot


def test_an_empty_slot_says_so() -> None:
    slot = Slot()
    assert slot.current is None
    with pytest.raises(EdgeError, match="no release"):
        slot.serve(np.zeros((1, 64), np.float32))


def test_a_slot_answers_with_its_release_and_tells_the_time(bundle: Bundle) -> None:
    seconds: list[float] = []
    slot = Slot(seconds.append)
    slot.install(constant(3, bundle.manifest))
    outputs, release = slot.serve(np.zeros((2, 64), np.float32))
    assert release == 3
    assert outputs.shape == (2, 10)
    assert len(seconds) == 1
    assert seconds[0] >= 0


def test_a_sample_alone_or_of_another_shape_is_refused_and_not_counted(bundle: Bundle) -> None:
    seconds: list[float] = []
    slot = Slot(seconds.append)
    slot.install(constant(3, bundle.manifest))
    for x in (np.zeros(64), np.zeros((2, 63))):
        with pytest.raises(DataError, match="shape"):
            slot.serve(x)
    assert seconds == []


def test_a_request_that_has_begun_is_answered_by_the_release_it_began_with(bundle: Bundle) -> None:
    begun, go_on = Event(), Event()

    def slow(x: Array) -> npt.NDArray[np.float32]:
        begun.set()
        assert go_on.wait(10)
        return np.zeros((len(x), 10), np.float32)

    slot = Slot()
    slot.install(Served(slow, "digits", 0, bundle.manifest))
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(slot.serve, np.zeros((1, 64), np.float32))
        assert begun.wait(10)
        slot.install(constant(1, bundle.manifest))
        outputs, release = slot.serve(np.zeros((1, 64), np.float32))
        assert (outputs[0, 0], release) == (1, 1)
        go_on.set()
        assert answer.result()[1] == 0


def test_outputs_and_release_belong_together_while_releases_change(bundle: Bundle) -> None:
    slot, x = Slot(), np.zeros((1, 64), np.float32)
    slot.install(constant(0, bundle.manifest))

    def swap() -> None:
        for number in range(2000):
            slot.install(constant(number, bundle.manifest))

    with ThreadPoolExecutor(1) as pool:
        swaps = pool.submit(swap)
        answers = [slot.serve(x) for _ in range(2000)]
        swaps.result()
    assert all(outputs[0, 0] == release for outputs, release in answers)


# -- samples


@pytest.mark.parametrize(
    ("x", "spec", "shape", "single"),
    [
        (np.zeros(64), Spec((64,), "float32"), (1, 64), True),
        ([[0] * 64] * 3, Spec((64,), "float32"), (3, 64), False),
        (5, Spec((), "int64"), (1,), True),
        ([5, 6], Spec((), "int64"), (2,), False),
        ([5.0, 6.0], Spec((), "int64"), (2,), False),
        (np.zeros((2, 3, 4), np.uint8), Spec((3, 4), "float32"), (2, 3, 4), False),
    ],
)
def test_samples_become_a_batch(x: Any, spec: Spec, shape: tuple[int, ...], single: bool) -> None:
    batch, alone = as_batch(x, spec)
    assert (batch.shape, batch.dtype.name, alone) == (shape, spec.dtype, single)
    assert batch.flags.c_contiguous


@pytest.mark.parametrize(
    ("x", "spec", "text"),
    [
        (np.zeros((2, 3)), Spec((4,), "float32"), r"shape \[2, 3\]: give one sample \[4\] or a batch \[N, 4\]"),
        ([[1.0], [1.0, 2.0]], Spec((2,), "float32"), "not an array"),
        (["a", "b"], Spec((2,), "float32"), "dtype"),
        ([None, 1], Spec((2,), "float32"), "dtype"),
        (np.zeros((0, 4)), Spec((4,), "float32"), "without samples"),
        ([[0.0, np.nan]], Spec((2,), "float32"), "first in sample 0"),
        ([[0.0, 0.0], [1e300, 0.0]], Spec((2,), "float32"), "first in sample 1"),
        ([0.5], Spec((), "int64"), "fractions"),
        ([np.inf], Spec((), "int64"), "infinite"),
        ([1e300], Spec((), "int64"), "beyond 64 bits"),
        (np.array([2**64 - 1], np.uint64), Spec((), "int64"), "beyond 64 bits"),
    ],
)
def test_samples_that_do_not_fit_are_refused_with_the_reason(x: Any, spec: Spec, text: str) -> None:
    with pytest.raises(DataError, match=text):
        as_batch(x, spec)


# -- checks


def test_a_good_release_passes(bundle: Bundle, oracle: OnnxOracle, samples: Samples) -> None:
    theta = bundle.theta0
    assert check_release(oracle.predictor(theta), oracle, theta, samples) == ""
    assert check_release(oracle.predictor(theta), oracle, theta, None) == ""
    assert check_release(oracle.predictor(theta), oracle, theta, Samples(samples.x[:0], samples.y[:0])) == ""


def test_outputs_of_other_weights_are_found(bundle: Bundle, oracle: OnnxOracle, samples: Samples) -> None:
    other = oracle.predictor(bundle.theta0 * np.float32(1.5))
    assert "the training graph says" in check_release(other, oracle, bundle.theta0, samples)


def test_outputs_that_overflow_are_found_also_without_samples(bundle: Bundle, oracle: OnnxOracle, samples: Samples) -> None:
    theta = np.full_like(bundle.theta0, 1e30)
    predict = oracle.predictor(theta)
    assert "not finite" in check_release(predict, oracle, theta, samples)
    assert check_release(predict, oracle, theta, None) == "outputs of 4 of 4 samples are not finite"


def test_outputs_of_another_shape_are_found(bundle: Bundle, oracle: OnnxOracle, samples: Samples) -> None:
    def predict(x: Array) -> npt.NDArray[np.float32]:
        return np.zeros((len(x), 9), np.float32)

    assert "shape [64, 9]" in check_release(predict, oracle, bundle.theta0, samples)


def test_a_predictor_that_refuses_is_a_reason(bundle: Bundle, oracle: OnnxOracle) -> None:
    wrong = Samples(np.zeros((3, 63), np.float32), np.zeros(3, np.int64))
    assert "the task takes" in check_release(oracle.predictor(bundle.theta0), oracle, bundle.theta0, wrong)


class Formula:
    """An oracle whose loss is written down, for the losses that the bundle at hand does not have."""

    def __init__(self, manifest: Manifest, loss: float) -> None:
        self.manifest, self._loss = manifest, loss

    def loss_and_grad(self, theta: Vector, x: Array, y: Array, seed: int) -> Step:
        return Step(self._loss, theta, None)

    def predictor(self, theta: Vector) -> Predict:
        return lambda x: x


@pytest.mark.parametrize(
    ("loss", "outputs", "target", "value"),
    [
        ("mse", [[1.0], [3.0]], np.array([[0.0], [1.0]], np.float32), 2.5),
        ("l1", [[1.0], [3.0]], np.array([[0.0], [1.0]], np.float32), 1.5),
        ("bce_with_logits", [[0.0], [0.0]], np.array([[0.0], [1.0]], np.float32), float(np.log(2))),
        ("cross_entropy", [[0.0, 0.0, 0.0]], np.array([2]), float(np.log(3))),
        ("cross_entropy", [[[0.0, 9.0], [0.0, 9.0]]], np.array([[0, 1]]), float(np.log(2))),
    ],
)
def test_every_named_loss_is_compared(
    bundle: Bundle, loss: str, outputs: list[Any], target: npt.NDArray[Any], value: float
) -> None:
    x = np.array(outputs, np.float32)
    spec = Spec(x.shape[1:], "float32")
    manifest = replace(bundle.manifest, loss=loss, input=spec, output=spec, classes=None)

    def reason(oracle: Oracle) -> str:
        return check_release(lambda x: x, oracle, bundle.theta0, Samples(x, target))

    assert reason(Formula(manifest, value)) == ""
    assert "the training graph says" in reason(Formula(manifest, value * 1.01))
    assert "the training graph says nan" in reason(Formula(manifest, float("nan")))
    for free in (replace(manifest, seeded=True), replace(manifest, loss="own:loss")):
        assert reason(Formula(free, value * 2)) == ""


@pytest.mark.parametrize(
    ("values", "finite"),
    [
        ([0.0, 1.0], True),
        ([3e38, -3e38], True),
        ([1e30] * 4, True),
        ([1e30, np.nan], False),
        ([np.inf, -np.inf], False),
        ([np.nan], False),
        ([-np.inf, 1.0], False),
        ([], True),
    ],
)
def test_finite_is_what_every_value_is(values: list[float], finite: bool) -> None:
    array = np.array(values, np.float32)
    assert all_finite(array) is finite
    assert all_finite(np.stack([array, array])) is finite
