"""Every supported layer and loss: the exported training step against torch's own backward pass, for batches of any size."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgemw.compile.export import compile_task
from edgemw.compile.task import Task
from edgemw.core.bundle import Manifest, Vector
from edgemw.serving.session import TrainingSession, open_inference

BATCHES = (1, 2, 7, 32, 33)
Loss = Callable[[Tensor, Tensor], Tensor]


class Residual(nn.Module):
    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*parts)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.as_tensor(self.body(x))


class LastStep(nn.Module):
    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.cell(x)[0])[:, -1]


class TiedWords(nn.Module):
    """Predicts a word at every place; the embedding is the output layer too."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.mix = nn.Linear(6, 6)
        self.out = nn.Linear(6, 11, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, words: Tensor) -> Tensor:
        return torch.as_tensor(self.out(torch.tanh(self.mix(self.embed(words))))).transpose(1, 2)


def dense() -> nn.Module:
    body = Residual(nn.LayerNorm(8), nn.Linear(8, 8), nn.GELU())
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), body, nn.Linear(8, 8), nn.Sigmoid(), nn.Linear(8, 3))


def signal() -> nn.Module:
    first = [nn.Conv1d(4, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.MaxPool1d(3, 2, padding=1)]
    second = [nn.Conv1d(8, 8, 3, stride=2, groups=8, bias=False), nn.ReLU(), nn.Conv1d(8, 12, 3, dilation=2, groups=2, padding=2)]
    return nn.Sequential(
        *first, *second, nn.AvgPool1d(2, ceil_mode=True), nn.AdaptiveAvgPool1d(3), nn.Flatten(), nn.Linear(36, 2)
    )


def image() -> nn.Module:
    first = [nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()]
    second = [nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 12, 1), nn.MaxPool2d(2, 1)]
    third = [
        nn.AvgPool2d(3, 2, padding=1, count_include_pad=False),
        nn.ConvTranspose2d(12, 6, 3, stride=2, padding=1, output_padding=1),
    ]
    return nn.Sequential(
        *first, *second, *third, nn.AdaptiveAvgPool2d((3, 3)), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)
    )


def recurrent() -> nn.Module:
    return nn.Sequential(LastStep(nn.GRU(3, 5, batch_first=True)), nn.Linear(5, 3))


def smooth(outputs: Tensor, target: Tensor) -> Tensor:
    return functional.huber_loss(outputs, target)


CASES: dict[str, tuple[Task, Loss]] = {
    "dense": (Task("dense", dense, "bce_with_logits", input=(6,)), functional.binary_cross_entropy_with_logits),
    "signal": (Task("signal", signal, "mse", input=(4, 30)), functional.mse_loss),
    "image": (Task("image", image, "l1", input=(3, 13, 14)), functional.l1_loss),
    "recurrent": (Task("recurrent", recurrent, smooth, input=(4, 3), target=(3,)), smooth),
    "words": (Task("words", TiedWords, "cross_entropy", input=((5,), "int64"), target=(5,)), functional.cross_entropy),
}


@pytest.mark.parametrize("name", CASES)
def test_graphs_agree_with_torch(name: str) -> None:
    task, loss = CASES[name]
    bundle = compile_task(task)
    module = task.program().module
    _put(module, bundle.manifest, bundle.theta0)
    assert bundle.train is not None
    training = TrainingSession(bundle.train)
    inference = open_inference(bundle.infer, bundle.theta0, size=bundle.manifest.size)
    generator = torch.Generator().manual_seed(0)
    for batch in BATCHES:
        x, y = _batch(bundle.manifest, batch, generator)
        value, grad, buffers = training.step(bundle.theta0, x.numpy(), y.numpy(), 0)
        before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
        module.train().zero_grad()
        expected = loss(module(x), y)
        torch.autograd.backward(expected)
        assert value == pytest.approx(expected.item(), rel=1e-5, abs=1e-6)
        wanted = _gradient(module, bundle.manifest)
        np.testing.assert_allclose(grad, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
        after = module.state_dict()
        if bundle.manifest.buffers:
            assert buffers is not None
            statistics = np.concatenate([after[slot.name].numpy().ravel() for slot in bundle.manifest.buffers])
            np.testing.assert_allclose(buffers, statistics, rtol=1e-5, atol=1e-6)
        else:
            assert buffers is None
        module.load_state_dict(before)
        with torch.no_grad():
            np.testing.assert_allclose(inference.run(x.numpy()), module.eval()(x), rtol=1e-5, atol=1e-5)


def test_running_statistics_are_in_the_layout_but_not_counters() -> None:
    layout = CASES["image"][0].program().layout
    assert [slot.name for slot in layout if not slot.trainable] == ["1.running_mean", "1.running_var"]
    assert sum(slot.size for slot in layout) == layout[-1].offset + layout[-1].size


def test_tied_weights_appear_once() -> None:
    assert [slot.name for slot in CASES["words"][0].program().layout] == ["embed.weight", "mix.weight", "mix.bias"]


def _put(module: nn.Module, manifest: Manifest, theta: Vector) -> None:
    for slot in manifest.layout:
        part = torch.from_numpy(theta[slot.offset : slot.offset + slot.size].copy())
        module.state_dict()[slot.name].copy_(part.reshape(slot.shape))


def _gradient(module: nn.Module, manifest: Manifest) -> Vector:
    grads = {name: value.grad for name, value in module.named_parameters()}
    parts = [grads.get(slot.name) for slot in manifest.layout]
    sizes = [slot.size for slot in manifest.layout]
    return np.concatenate(
        [np.zeros(n, np.float32) if part is None else part.numpy().ravel() for part, n in zip(parts, sizes, strict=True)]
    )


def _batch(manifest: Manifest, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    x = torch.randn(batch, *manifest.input.shape, generator=generator)
    y = torch.rand(batch, *manifest.target.shape, generator=generator)
    if manifest.input.dtype == "int64":
        x = torch.randint(0, 11, x.shape, generator=generator)
    if manifest.target.dtype == "int64":
        y = torch.randint(0, manifest.classes or 2, y.shape, generator=generator)
    return x, y
