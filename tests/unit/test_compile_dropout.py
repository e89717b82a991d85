"""Masks decided by a seed: the same in torch and in the graph, fair, and different wherever they should be."""

import numpy as np
import pytest
import torch
from torch import nn

from edgemw.compile.dropout import SeededDraws, keep_mask
from edgemw.compile.export import compile_task
from edgemw.compile.task import Task
from edgemw.core.bundle import Bundle
from edgemw.learning.torch_oracle import TorchOracle
from edgemw.serving.session import TrainingSession, open_inference


def attentive() -> nn.Module:
    encoder = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
    return nn.Sequential(encoder, nn.Dropout1d(0.5), nn.Flatten(), nn.Dropout(0.25), nn.Linear(32, 3))


TASK = Task("attentive", attentive, "cross_entropy", input=(4, 8))


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return compile_task(TASK)


def test_graph_and_torch_draw_the_same_masks(bundle: Bundle) -> None:
    assert bundle.manifest.seeded
    assert bundle.train is not None
    graph, oracle = TrainingSession(bundle.train), TorchOracle(bundle.manifest, TASK)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((33, 4, 8), np.float32), rng.integers(0, 3, 33)
    losses = set()
    for seed in (0, 1, 1 << 40, -1):
        step = oracle.loss_and_grad(bundle.theta0, x, y, seed)
        loss, grad, _ = graph.step(bundle.theta0, x, y, seed)
        again, _, _ = graph.step(bundle.theta0, x, y, seed)
        assert loss == again == pytest.approx(step.loss, rel=1e-5)
        np.testing.assert_allclose(grad, step.grad, atol=1e-5 * float(np.abs(step.grad).max()))
        losses.add(loss)
    assert len(losses) == 4


def test_inference_draws_nothing(bundle: Bundle) -> None:
    x = np.random.default_rng(0).standard_normal((5, 4, 8), np.float32)
    session = open_inference(bundle.infer, bundle.theta0, size=bundle.manifest.size)
    with torch.no_grad():
        expected = TASK.program().module.eval()(torch.from_numpy(x))
    np.testing.assert_allclose(session.run(x), expected, atol=1e-5)


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9])
def test_elements_are_kept_with_the_probability(keep: float) -> None:
    n = 200_000
    share = float(keep_mask(torch.tensor(7), 1, torch.empty(n), keep).float().mean())
    assert share == pytest.approx(keep, abs=5 * (keep * (1 - keep) / n) ** 0.5)


@pytest.mark.parametrize(("seed", "draw", "shift"), [(1, 1, 0), (0, 2, 0), (1 << 32, 1, 0), (0, 1, 1), (0, 1, 64)])
def test_masks_are_independent(seed: int, draw: int, shift: int) -> None:
    """Of another seed, another draw, or of neighbouring elements: they agree as often as coins do."""
    n = 100_000
    one = keep_mask(torch.tensor(0), 1, torch.empty(n), 0.5)
    other = keep_mask(torch.tensor(seed), draw, torch.empty(n + shift), 0.5)[shift:]
    assert float((one == other).float().mean()) == pytest.approx(0.5, abs=5 * 0.5 / n**0.5)


@pytest.mark.parametrize(("p", "share"), [(0.0, 1.0), (1.0, 0.0), (0.5, 0.5)])
def test_dropout_scales_what_it_keeps(p: float, share: float) -> None:
    with SeededDraws(torch.tensor(3)):
        dropped = nn.functional.dropout(torch.ones(40_000), p)
    kept = dropped[dropped != 0]
    assert len(kept) / 40_000 == pytest.approx(share, abs=0.02)
    assert bool((kept == (1 / (1 - p) if p < 1 else 0)).all())
