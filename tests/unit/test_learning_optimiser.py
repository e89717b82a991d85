"""Local optimisers: the same path as torch's, in place, and a FedProx pull that no strength can upset."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgemw.core.bundle import Vector
from edgemw.core.errors import ConfigError
from edgemw.core.plan import Plan
from edgemw.learning.optimiser import Pull, optimiser

SIZE = 200
STEPS = 12
LARGE = 1_000_000


def gradients(seed: int = 0) -> list[Vector]:
    rng = np.random.default_rng(seed)
    return [rng.normal(0, 10.0 ** rng.integers(-2, 1), SIZE).astype(np.float32) for _ in range(STEPS)]


def ours(plan: Plan) -> Vector:
    theta = np.linspace(-1, 1, SIZE, dtype=np.float32)
    optimise = optimiser(plan, SIZE)
    for grad in gradients():
        optimise.step(theta, grad.copy())
    return theta


def torchs(make: Callable[[list[torch.Tensor]], torch.optim.Optimizer]) -> Vector:
    theta = torch.tensor(np.linspace(-1, 1, SIZE, dtype=np.float32))
    optimise = make([theta])
    for grad in gradients():
        theta.grad = torch.from_numpy(grad.copy())
        optimise.step()
    return np.asarray(theta.numpy(), np.float32)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_sgd_follows_torch(momentum: float, weight_decay: float) -> None:
    plan = Plan("sgd", lr=0.05, momentum=momentum, weight_decay=weight_decay)
    expected = torchs(lambda p: torch.optim.SGD(p, lr=0.05, momentum=momentum, weight_decay=weight_decay))
    np.testing.assert_allclose(ours(plan), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("weight_decay", [0.0, 0.01, 0.3])
def test_adam_follows_torchs_adamw(weight_decay: float) -> None:
    plan = Plan("adam", lr=0.01, weight_decay=weight_decay)
    expected = torchs(lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=weight_decay))
    np.testing.assert_allclose(ours(plan), expected, rtol=1e-6, atol=1e-6)


def test_adam_stays_finite_without_a_gradient() -> None:
    theta = np.ones(3, np.float32)
    optimise = optimiser(Plan("adam", lr=0.1), 3)
    for _ in range(5):
        optimise.step(theta, np.zeros(3, np.float32))
    np.testing.assert_array_equal(theta, 1)


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_a_step_allocates_nothing_of_the_size_of_theta(name: str) -> None:
    plan = Plan(name, lr=0.1, momentum=0.9, weight_decay=0.01, prox_mu=0.1)
    theta, grad = np.ones(LARGE, np.float32), np.ones(LARGE, np.float32)
    optimise, pull = optimiser(plan, LARGE), Pull(plan, np.zeros(LARGE, np.float32))
    tracemalloc.start()
    try:
        for _ in range(3):
            optimise.step(theta, grad)
            pull.step(theta)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < LARGE // 10


def test_theta_is_changed_in_place() -> None:
    theta = np.zeros(4, np.float32)
    optimiser(Plan("sgd", lr=0.5), 4).step(theta, np.ones(4, np.float32))
    np.testing.assert_array_equal(theta, -0.5)


def test_an_unknown_optimiser_is_refused_with_those_that_exist() -> None:
    with pytest.raises(ConfigError, match=r"no optimizer 'lamb'; known: sgd, adam"):
        optimiser(Plan("lamb"), 1)


@given(lr=st.floats(1e-4, 10), mu=st.floats(1e-6, 1e6), seed=st.integers(0, 100))
def test_the_pull_is_the_closed_form_of_the_proximal_map(lr: float, mu: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    theta, anchor = rng.normal(0, 1, (2, 50)).astype(np.float32)
    expected = (theta.astype(np.float64) + lr * mu * anchor) / (1 + lr * mu)
    Pull(Plan(lr=lr, prox_mu=mu), anchor).step(theta)
    np.testing.assert_allclose(theta, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mu", [1e9, 1e38, 1e300, 1.7e308])
@pytest.mark.parametrize("lr", [1e-3, 100.0])
def test_a_huge_pull_lands_on_the_anchor(mu: float, lr: float) -> None:
    anchor = np.array([-3, 0, 1e10, 5], np.float32)
    theta = anchor + np.float32(0.25)
    Pull(Plan(lr=lr, prox_mu=mu), anchor).step(theta)
    np.testing.assert_allclose(theta, anchor, rtol=1e-6, atol=1e-5)


def test_a_proximal_step_lowers_what_the_explicit_one_lets_explode() -> None:
    plan = Plan("sgd", lr=0.1, prox_mu=1e4)  # lr mu = 1000: an explicit step would multiply the distance by -999
    anchor, theta = np.zeros(3, np.float32), np.zeros(3, np.float32)
    optimise, pull = optimiser(plan, 3), Pull(plan, anchor)
    for _ in range(50):
        optimise.step(theta, np.ones(3, np.float32))
        pull.step(theta)
    # the fixed point of theta = (theta - lr g) / (1 + lr mu) is -g / mu
    np.testing.assert_allclose(theta, -1e-4, rtol=1e-3)


def test_without_mu_nothing_is_pulled() -> None:
    theta = np.ones(3, np.float32)
    Pull(Plan(prox_mu=0.0), np.zeros(3, np.float32)).step(theta)
    np.testing.assert_array_equal(theta, 1)
