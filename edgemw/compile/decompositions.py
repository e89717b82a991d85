"""Backward operators of torch, written with operators that ONNX has.

Used beside `torch._decomp.core_aten_decompositions()` when a training step is traced. Sources: the definitions of the
operators in the PyTorch documentation; convolution gradients as in Dumoulin and Visin, "A guide to convolution arithmetic
for deep learning" (arXiv:1603.07285): the gradient of the input is a transposed convolution, that of the weight a
convolution of the transposed input with the transposed output gradient, strides and dilations exchanged.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._decomp import core_aten_decompositions, get_decompositions

aten = torch.ops.aten
_FEW = 16
"""Windows up to this many elements are compared place by place."""


def training_decompositions() -> dict[Any, Callable[..., Any]]:
    """The table with which a training step is traced."""
    return {
        **core_aten_decompositions(),
        **get_decompositions([aten._native_batch_norm_legit.default]),  # noqa: SLF001 - torch names operators so
        aten.convolution_backward.default: convolution_backward,
        aten.max_pool2d_with_indices_backward.default: max_pool_backward,
        aten.avg_pool2d_backward.default: avg_pool_backward,
        aten._adaptive_avg_pool2d_backward.default: adaptive_avg_pool_backward,  # noqa: SLF001 - see above
    }


def convolution_backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias_sizes: Sequence[int] | None, *arguments: Any
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of `aten.convolution` with respect to input, weight and bias, where the mask asks for them.

    `arguments` are stride, padding, dilation, transposed, output padding, groups, mask.
    """
    stride, padding, dilation, transposed, _, groups, mask = arguments
    x_grad = weight_grad = bias_grad = None
    if mask[0]:
        extra = [0] * len(stride) if transposed else _output_padding(x, grad, weight, stride, padding, dilation)
        x_grad = aten.convolution(grad, weight, None, stride, padding, dilation, not transposed, extra, groups)
    if mask[1]:
        long, short = (grad, x) if transposed else (x, grad)
        weight_grad = _weight_gradient(long, short, weight.shape[2:], stride, padding, dilation, groups)
    if mask[2]:
        bias_grad = grad.sum([0, *range(2, grad.ndim)])
    return x_grad, weight_grad, bias_grad


def _output_padding(
    x: Tensor, grad: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> list[int]:
    """How much of the input's end a strided convolution did not see, per axis."""
    sizes = zip(x.shape[2:], grad.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)
    return [n - ((m - 1) * s - 2 * p + d * (k - 1) + 1) for n, m, k, s, p, d in sizes]


def _weight_gradient(long: Tensor, short: Tensor, kernel: Sequence[int], *arguments: Any) -> Tensor:
    """Gradient of the weight of a convolution from `long` to `short`; `arguments` are stride, padding, dilation, groups.

    Where it can be, it is one product of matrices over all samples and places: ONNX Runtime makes a convolution whose kernel
    is as large as its input out of products with as few columns as the weight has places, about half as fast.
    """
    stride, padding, dilation, groups = arguments
    if groups == 1 and math.prod(kernel) <= _FEW:
        seen = _windows(long.transpose(0, 1), short.shape[2:], kernel, stride, padding, dilation)
        product = short.transpose(0, 1).flatten(1) @ seen.flatten(2).flatten(0, 1).T
        return product.reshape(short.shape[1], long.shape[1], *kernel)
    arithmetic = (dilation, padding, stride, False, [0] * len(stride), groups)
    found = aten.convolution(_groups_to_channels(long, groups), short.transpose(0, 1), None, *arithmetic)
    return _crop(found, kernel).transpose(0, 1)


def _windows(x: Tensor, outputs: Sequence[int], kernel: Sequence[int], *arguments: Sequence[int]) -> Tensor:
    """[N, C, *space] to [N, places of the kernel, C, *outputs]: what each place of the kernel sees."""
    stride, padding, dilation = arguments
    if any(padding):
        x = aten.constant_pad_nd(x, [side for p in reversed(padding) for side in (p, p)], 0.0)
    seen: list[Tensor] = []
    for place in itertools.product(*map(range, kernel)):
        part = x
        for axis, (start, size) in enumerate(zip(place, outputs, strict=True), start=2):
            first, step = start * dilation[axis - 2], stride[axis - 2]
            part = aten.slice(part, axis, first, first + step * (size - 1) + 1, step)
        seen.append(part)
    return torch.stack(seen, 1)


def _groups_to_channels(x: Tensor, groups: int) -> Tensor:
    """[B, groups * C, ...] to [C, groups * B, ...]."""
    batch, channels, *space = x.shape
    split = x.reshape(batch, groups, channels // groups, *space).transpose(0, 2)
    return split.reshape(channels // groups, groups * batch, *space)


def _crop(x: Tensor, space: Sequence[int]) -> Tensor:
    for axis, size in enumerate(space, start=2):
        if x.shape[axis] != size:
            x = x.narrow(axis, 0, size)
    return x


def max_pool_backward(grad: Tensor, x: Tensor, *arguments: Any) -> Tensor:
    """Gradient of `aten.max_pool2d_with_indices`: each output's gradient goes to the input that won.

    `arguments` are kernel, stride, padding, dilation, ceil mode, indices.
    """
    kernel, stride, padding, dilation, _, indices = arguments
    rows, columns = (n * k <= size for n, k, size in zip(grad.shape[-2:], kernel, x.shape[-2:], strict=True))
    tiled = rows and columns and list(stride or kernel) == list(kernel) and not any(padding) and set(dilation) == {1}
    if tiled and math.prod(kernel) <= _FEW:
        return _unpool(grad, x, list(kernel))
    flat = torch.zeros_like(x).flatten(-2)
    return flat.scatter_add(-1, indices.flatten(-2), grad.flatten(-2)).reshape(x.shape)


def _unpool(grad: Tensor, x: Tensor, kernel: list[int]) -> Tensor:
    """The same for windows that do not overlap: compare each place of the window with the maximum; the first one wins.

    ONNX Runtime is about 3 times faster at this than at a maximum with indices and a scatter.
    """
    (rows, columns), (height, width) = grad.shape[-2:], kernel
    largest = aten.max_pool2d_with_indices(x, kernel, kernel)[0]
    shares: list[Tensor] = []
    taken = torch.zeros((), dtype=torch.bool)
    for i, j in itertools.product(range(height), range(width)):
        hit = x[..., i : rows * height : height, j : columns * width : width] == largest
        shares.append(torch.where(hit & ~taken, grad, 0.0))
        taken = taken | hit
    tiles = torch.stack(shares, -1).reshape(*grad.shape, height, width).transpose(-2, -3)
    full = tiles.reshape(*grad.shape[:-2], rows * height, columns * width)
    return _fill(_fill(full, -2, x.shape[-2]), -1, x.shape[-1])


def _fill(x: Tensor, axis: int, size: int) -> Tensor:
    """Zeros at the end of an axis, up to `size`."""
    if x.shape[axis] >= size:
        return x
    tail = list(x.shape)
    tail[axis] = size - x.shape[axis]
    return torch.cat([x, torch.zeros(tail)], axis)


def avg_pool_backward(grad: Tensor, x: Tensor, *arguments: Any) -> Tensor:
    """Gradient of `aten.avg_pool2d`: each output's gradient, shared by its window.

    `arguments` are kernel, stride, padding, ceil mode, whether padding counts, divisor.
    """
    kernel, stride, padding, _, padding_counts, divisor = arguments
    kernel, padding = list(kernel), list(padding)
    stride = list(stride) or kernel
    for axis in (-2, -1):
        if divisor is None:
            counts = _window_sizes(
                x.shape[axis], grad.shape[axis], kernel[axis], stride[axis], padding[axis], padding_counts=padding_counts
            )
            grad = grad / torch.tensor(counts, dtype=grad.dtype).reshape(-1, *[1] * (-1 - axis))
    if divisor is not None:
        grad = grad / divisor
    return _spread(grad, x, kernel, stride, padding)


def _window_sizes(size: int, outputs: int, kernel: int, stride: int, padding: int, *, padding_counts: bool) -> list[int]:
    """How many elements each window of one axis averages."""
    starts = [i * stride - padding for i in range(outputs)]
    if padding_counts:
        return [min(start + kernel, size + padding) - start for start in starts]
    return [min(start + kernel, size) - max(start, 0) for start in starts]


def _spread(grad: Tensor, x: Tensor, kernel: list[int], stride: list[int], padding: list[int]) -> Tensor:
    """Add each element of `grad` to every element of its window in an array shaped like x."""
    planes = grad.reshape(-1, 1, *grad.shape[-2:])
    full: Tensor = aten.convolution(planes, torch.ones(1, 1, *kernel), None, stride, [0, 0], [1, 1], True, [0, 0], 1)
    for axis in (-2, -1):
        full = _fill(full, axis, x.shape[axis] + padding[axis])
        full = full.narrow(axis, padding[axis], x.shape[axis])
    return full.reshape(x.shape)


def adaptive_avg_pool_backward(grad: Tensor, x: Tensor) -> Tensor:
    """Gradient of `aten._adaptive_avg_pool2d`: equal windows as in avg_pool; unequal ones by a matrix per axis."""
    sizes, outputs = x.shape[-2:], grad.shape[-2:]
    kernel = [n // m for n, m in zip(sizes, outputs, strict=True)]
    if all(n % m == 0 for n, m in zip(sizes, outputs, strict=True)):
        return _spread(grad / math.prod(kernel), x, kernel, kernel, [0, 0])
    rows, columns = (torch.tensor(_shares(n, m)) for n, m in zip(sizes, outputs, strict=True))
    return rows.T @ grad @ columns


def _shares(size: int, outputs: int) -> list[list[float]]:
    """[outputs][size]: the share of each input in each output of an adaptive average along one axis."""
    windows = [(i * size // outputs, -(-(i + 1) * size // outputs)) for i in range(outputs)]
    return [[1 / (end - start) if start <= j < end else 0.0 for j in range(size)] for start, end in windows]
