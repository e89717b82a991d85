"""The models that serving.py measures with, as tasks and as files."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from torch import Tensor, nn

from benchmarks.serving_windows import ROOT, say
from edgemw import Task
from edgemw.compile.export import compile_task
from edgemw.compile.load import load_task
from edgemw.core.bundle import WEIGHTS_FILE, Bundle
from edgemw.serving.store import ReleaseStore

Array = np.ndarray[Any, Any]


class LastOutput(nn.Module):
    """What a recurrent layer says after the last step."""

    def __init__(self, layer: nn.GRU) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.layer(x)[0]
        return outputs[:, -1]


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(561, 128), nn.ReLU(), nn.Linear(128, 6))


def gru() -> nn.Module:
    """168 hours of one value to the next 24; 14 424 parameters."""
    return nn.Sequential(LastOutput(nn.GRU(1, 64, batch_first=True)), nn.Linear(64, 24))


def wide() -> nn.Module:
    return nn.Sequential(nn.Linear(561, 1024), nn.ReLU(), nn.Linear(1024, 416), nn.ReLU(), nn.Linear(416, 6))


TASKS: dict[str, Callable[[], Task]] = {
    "mlp": lambda: Task("mlp", mlp, loss="cross_entropy", input=(561,)),
    "cnn": lambda: load_task(f"{ROOT / 'examples/har/task.py'}:task"),
    "gru": lambda: Task("gru", gru, loss="mse", input=(168, 1), target=(24,)),
    "wide": lambda: Task("wide", wide, loss="cross_entropy", input=(561,)),
}
MODELS = ("mlp", "cnn", "gru")


@cache
def compiled(model: str) -> Bundle:
    """The bundle; of the GRU without a training step, whose export would unroll 168 steps and take minutes."""
    say(f"compiling {model}")
    return compile_task(TASKS[model](), python="benchmarks.serving_models:gru" if model == "gru" else None)


def stored(folder: Path, bundle: Bundle, keep: int = 3) -> Path:
    """The folder as a store that holds release 0."""
    if not folder.exists():
        ReleaseStore(folder, keep).save(bundle.manifest.name, bundle, 1, 0, bundle.theta0)
    return folder


def sample(bundle: Bundle) -> Array:
    """A batch of one."""
    return np.random.default_rng(0).random((1, *bundle.manifest.input.shape), np.float32)


def raw_session(bundle: Bundle) -> Any:
    """As somebody who writes against onnxruntime alone would have it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    theta = np.ascontiguousarray(bundle.theta0)
    options.add_external_initializers_from_files_in_memory([WEIGHTS_FILE], [theta], [theta.nbytes])
    return onnxruntime.InferenceSession(bundle.infer, options, providers=["CPUExecutionProvider"])
