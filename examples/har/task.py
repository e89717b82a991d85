"""Human activity from a phone: windows of 128 samples x 9 inertial channels to six classes, 12 358 parameters."""

import torch
from torch import Tensor, nn

from edgemw.compile.task import Task


class Scaled(nn.Module):
    """Acceleration and rotation to like sizes, channels first: the scaling travels inside the graph."""

    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor([4.0] * 3 + [2.0] * 3 + [2.0] * 3), persistent=False)

    def forward(self, windows: Tensor) -> Tensor:
        return (windows * self.scale).transpose(1, 2)


def module() -> nn.Module:
    first = nn.Sequential(nn.Conv1d(9, 32, 5, padding=2), nn.GroupNorm(4, 32), nn.ReLU(), nn.MaxPool1d(2))
    second = nn.Sequential(nn.Conv1d(32, 64, 5, padding=2), nn.GroupNorm(4, 64), nn.ReLU(), nn.AdaptiveAvgPool1d(1))
    return nn.Sequential(Scaled(), first, second, nn.Flatten(), nn.Linear(64, 6))


task = Task("har", module, loss="cross_entropy", input=(128, 9), training={"lr": 0.05, "batch_size": 32, "epochs": 1})
