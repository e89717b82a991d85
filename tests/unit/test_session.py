"""ONNX Runtime sessions: what they take, and what they answer when something does not fit."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from edgemw.core.bundle import Bundle, read_bundle
from edgemw.core.errors import BundleError, DataError
from edgemw.serving.session import TrainingSession, open_inference

DIGITS = Path(__file__).parents[2] / "examples" / "quickstart" / "digits.edge"


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return read_bundle(DIGITS.read_bytes())


def test_a_session_keeps_its_weights_when_the_vector_changes(bundle: Bundle) -> None:
    theta = bundle.theta0.copy()
    session = open_inference(bundle.infer, theta, size=bundle.manifest.size)
    x = np.random.default_rng(0).random((5, 64), np.float32)
    before = session.run(x)
    theta[:] = 0
    np.testing.assert_array_equal(session.run(x), before)
    assert not open_inference(bundle.infer, theta, size=bundle.manifest.size).run(x).any()


def test_a_session_serves_several_threads(bundle: Bundle) -> None:
    session = open_inference(bundle.infer, bundle.theta0, size=bundle.manifest.size)
    x = np.random.default_rng(0).random((64, 64), np.float32)
    with ThreadPoolExecutor(4) as pool:
        rows = list(pool.map(lambda row: session(row[None]), x))
    np.testing.assert_allclose(np.concatenate(rows), session(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "theta",
    [np.zeros(50_827, np.float32), np.zeros(50_825, np.float32), np.zeros(50_826, np.float64), np.zeros((1, 50_826), np.float32)],
)
def test_weights_of_another_length_or_type_are_refused(
    bundle: Bundle, theta: np.ndarray[tuple[int], np.dtype[np.float32]]
) -> None:
    with pytest.raises(BundleError, match="the layout needs"):
        open_inference(bundle.infer, theta, size=bundle.manifest.size)


def test_strided_weights_are_taken(bundle: Bundle) -> None:
    x = np.random.default_rng(0).random((3, 64), np.float32)
    strided = np.repeat(bundle.theta0, 2)[::2]
    session = open_inference(bundle.infer, strided, size=bundle.manifest.size)
    np.testing.assert_array_equal(session.run(x), open_inference(bundle.infer, bundle.theta0, size=bundle.manifest.size).run(x))


@pytest.mark.parametrize("graph", [b"", b"garbage", b"\x08\x0a" * 40])
def test_a_damaged_graph_is_refused(graph: bytes) -> None:
    with pytest.raises(BundleError, match="cannot open"):
        open_inference(graph, np.zeros(4, np.float32), size=4)
    with pytest.raises(BundleError, match="cannot open"):
        TrainingSession(graph)


def test_a_weightless_graph_is_no_training_step(bundle: Bundle) -> None:
    with pytest.raises(BundleError):
        TrainingSession(bundle.infer)


@pytest.mark.parametrize("shape", [(64,), (2, 63), (2, 1, 64)])
def test_an_input_that_does_not_fit_is_refused(bundle: Bundle, shape: tuple[int, ...]) -> None:
    session = open_inference(bundle.infer, bundle.theta0, size=bundle.manifest.size)
    with pytest.raises(DataError, match="does not fit"):
        session.run(np.zeros(shape, np.float32))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda theta, x, y: (theta[:-1], x, y),
        lambda theta, x, y: (theta, x[:, :-1], y),
        lambda theta, x, y: (theta, x.astype(np.float64), y),
        lambda theta, x, y: (theta, x, y + 10),
        lambda theta, x, y: (theta, x, y[:-1]),
    ],
)
def test_a_batch_that_does_not_fit_is_refused(bundle: Bundle, spoil: Callable[..., tuple[object, object, object]]) -> None:
    assert bundle.train is not None
    batch = spoil(bundle.theta0, np.zeros((4, 64), np.float32), np.zeros(4, np.int64))
    with pytest.raises(DataError, match="does not fit"):
        TrainingSession(bundle.train).step(*batch, 0)  # type: ignore[arg-type]  # wrong on purpose


def test_threads_change_nothing_but_time(bundle: Bundle) -> None:
    assert bundle.train is not None
    rng = np.random.default_rng(0)
    x, y = rng.random((32, 64), np.float32), rng.integers(0, 10, 32)
    one, two = (TrainingSession(bundle.train, threads=n).step(bundle.theta0, x, y, 0) for n in (1, 2))
    np.testing.assert_allclose(one[1], two[1], atol=1e-6)
