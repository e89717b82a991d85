"""Local optimisers on the vector, in place: `step(theta, grad)` changes theta and allocates nothing.

FedProx enters as the implicit proximal step after the gradient step, stable for every mu:

    theta <- (theta + lr mu anchor) / (1 + lr mu)  =  theta + lr mu / (1 + lr mu) (anchor - theta)

Source: Li et al., arXiv:1812.06127, equation 2; the proximal map of mu/2 |theta - anchor|^2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from edgemw.core.bundle import Vector
from edgemw.core.errors import ConfigError
from edgemw.core.plan import Plan

_EPSILON = np.float32(1e-8)
_BETA1, _BETA2 = 0.9, 0.999


class Optimiser(Protocol):
    """Moves theta along a gradient."""

    def step(self, theta: Vector, grad: Vector) -> None:
        """One step in place; `grad` may be overwritten."""
        ...


class Sgd:
    """v <- momentum v + (g + weight_decay theta); theta <- theta - lr v."""

    def __init__(self, plan: Plan, size: int) -> None:
        self._lr, self._momentum, self._decay = (np.float32(v) for v in (plan.lr, plan.momentum, plan.weight_decay))
        self._velocity = np.zeros(size, np.float32) if plan.momentum else None
        self._scratch = np.empty(size, np.float32)

    def step(self, theta: Vector, grad: Vector) -> None:
        """See Optimiser."""
        if self._decay:
            np.multiply(theta, self._decay, out=self._scratch)
            grad += self._scratch
        if self._velocity is not None:
            self._velocity *= self._momentum
            self._velocity += grad
            grad = self._velocity
        np.multiply(grad, self._lr, out=self._scratch)
        theta -= self._scratch


class Adam:
    """Adam with decoupled weight decay (Kingma and Ba, arXiv:1412.6980, algorithm 1; Loshchilov, arXiv:1711.05101)."""

    def __init__(self, plan: Plan, size: int) -> None:
        self._plan = plan
        self._m, self._v, self._scratch = (np.zeros(size, np.float32) for _ in range(3))
        self._steps = 0

    def step(self, theta: Vector, grad: Vector) -> None:
        """See Optimiser."""
        self._steps += 1
        m, v, scratch = self._m, self._v, self._scratch
        m *= np.float32(_BETA1)
        np.multiply(grad, np.float32(1 - _BETA1), out=scratch)
        m += scratch
        v *= np.float32(_BETA2)
        np.multiply(grad, grad, out=scratch)
        scratch *= np.float32(1 - _BETA2)
        v += scratch
        np.divide(v, np.float32(1 - _BETA2**self._steps), out=scratch)
        np.sqrt(scratch, out=scratch)
        scratch += _EPSILON
        np.divide(m, scratch, out=scratch)
        scratch *= np.float32(self._plan.lr / (1 - _BETA1**self._steps))
        if self._plan.weight_decay:
            theta *= np.float32(1 - self._plan.lr * self._plan.weight_decay)
        theta -= scratch


class Pull:
    """FedProx's proximal step towards the anchor, in place; see the module."""

    def __init__(self, plan: Plan, anchor: Vector) -> None:
        strength = plan.lr * plan.prox_mu
        self._share = np.float32(1 / (1 + 1 / strength)) if strength else np.float32(0)  # in this form inf gives 1
        self._anchor = anchor
        self._scratch = np.empty_like(anchor) if strength else None

    def step(self, theta: Vector) -> None:
        """One step; nothing without prox_mu."""
        if self._scratch is None:
            return
        np.subtract(self._anchor, theta, out=self._scratch)
        self._scratch *= self._share
        theta += self._scratch


OPTIMISERS: dict[str, Callable[[Plan, int], Optimiser]] = {"sgd": Sgd, "adam": Adam}


def optimiser(plan: Plan, size: int) -> Optimiser:
    """The optimiser that a plan names, for vectors of `size`. Raises ConfigError for an unknown name."""
    if plan.optimizer not in OPTIMISERS:
        raise ConfigError(f"no optimizer {plan.optimizer!r}; known: {', '.join(OPTIMISERS)}", key="plan.optimizer")
    return OPTIMISERS[plan.optimizer](plan, size)
