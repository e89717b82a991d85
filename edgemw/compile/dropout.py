"""Dropout whose mask is decided by a number: the same in torch and in the exported graph, bit for bit.

Every random mask that a forward pass draws (dropout of any kind, between recurrent layers or inside attention, ends in a
Bernoulli draw) is replaced by a counter-based hash of (seed, number of the draw, index of the element). The hash is
`lowbias32` of C. Wellons' hash-prospector (https://github.com/skeeto/hash-prospector), here on int64 values below 2^32 with
the second multiplier taken modulo 2^32 as a negative number, so that no product leaves the int64 range.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_LOW_32 = 0xFFFFFFFF
_GOLDEN = 0x9E3779B9
_FIRST = 0x7FEB352D
_SECOND = 0x846CA68B - (1 << 32)


def _mix(x: Tensor) -> Tensor:
    """A bijection of [0, 2^32) without visible structure."""
    x = ((x ^ (x >> 16)) * _FIRST) & _LOW_32
    x = ((x ^ (x >> 15)) * _SECOND) & _LOW_32
    return x ^ (x >> 16)


def keep_mask(seed: Tensor, draw: int, like: Tensor, keep_probability: float) -> Tensor:
    """Which elements are kept, each with `keep_probability`.

    Args:
        seed: int64 scalar.
        draw: number of this draw in the forward pass; different draws are independent.
        like: gives the shape.

    Returns:
        bool, of the shape of `like`.
    """
    low, high = seed & _LOW_32, (seed >> 32) & _LOW_32
    key = _mix((_mix((low + draw * _GOLDEN) & _LOW_32) + high) & _LOW_32)
    index = torch.arange(like.numel(), dtype=torch.int64)
    bits = _mix((index + key) & _LOW_32)
    return (bits < round(keep_probability * (1 << 32))).reshape(like.shape)


class SeededDraws(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves its hooks untyped
    """While open, every Bernoulli draw and dropout uses `keep_mask` with this seed; `count` says how many there were."""

    def __init__(self, seed: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above
        self._seed = seed
        self.count = 0
        self._handlers: dict[Any, Callable[..., Any]] = {
            torch.ops.aten.bernoulli_.float: self._bernoulli_,
            torch.ops.aten.bernoulli.p: self._bernoulli,
            torch.ops.aten.native_dropout.default: self._native_dropout,
        }

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Replace the draws, pass everything else on."""
        handler = self._handlers.get(func)
        return func(*args, **(kwargs or {})) if handler is None else handler(*args)

    def _mask(self, like: Tensor, keep_probability: float) -> Tensor:
        self.count += 1
        return keep_mask(self._seed, self.count, like, keep_probability)

    def _bernoulli_(self, noise: Tensor, probability: float = 0.5) -> Tensor:
        return noise.copy_(self._mask(noise, probability))

    def _bernoulli(self, noise: Tensor, probability: float) -> Tensor:
        return self._mask(noise, probability).to(noise.dtype)

    def _native_dropout(self, values: Tensor, p: float, train: bool | None) -> tuple[Tensor, Tensor]:
        if not train or p == 0:
            return values.clone(), torch.ones_like(values, dtype=torch.bool)
        mask = self._mask(values, 1 - p)
        scale = 0.0 if p == 1 else 1 / (1 - p)
        return values * mask * scale, mask
