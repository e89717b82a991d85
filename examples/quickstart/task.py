"""Handwritten digits: 8 x 8 grey values in [0, 1] to ten classes, 50 826 parameters."""

from torch import nn

from edgemw.compile.task import Task


def module() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10))


task = Task("digits", module, loss="cross_entropy", input=(64,), training={"lr": 0.1, "batch_size": 32, "epochs": 1})
