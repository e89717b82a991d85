"""Bundles that carry a seed: what torch draws by default is drawn again, what an author made is kept."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgemw.cli.main import main
from edgemw.compile.export import compile_task
from edgemw.compile.layout import layout_of
from edgemw.compile.recipe import recipe_of
from edgemw.compile.task import Task
from edgemw.core.bundle import read_bundle
from edgemw.core.initial import Draw

QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart" / "task.py"


def draws(module: nn.Module) -> dict[str, Draw | None]:
    layout = layout_of(module)
    return dict(zip([slot.name for slot in layout], recipe_of(module, layout, 1).draws, strict=True))


@pytest.mark.parametrize(
    ("module", "bound"),
    [
        (nn.Linear(64, 32), 1 / 8),
        (nn.Conv1d(8, 16, 5), 1 / math.sqrt(40)),
        (nn.Conv2d(8, 16, 3, groups=2), 1 / 6),
        (nn.ConvTranspose1d(4, 16, 4), 1 / 8),
        (nn.GRU(10, 16), 1 / 4),
        (nn.LSTM(10, 25, bidirectional=True), 1 / 5),
        (nn.RNNCell(30, 36), 1 / 6),
    ],
)
def test_a_layer_is_drawn_as_torch_draws_it(module: nn.Module, bound: float) -> None:
    found = draws(module)
    assert set(found) == {name for name, _ in module.named_parameters()}
    assert set(found.values()) == {Draw("uniform", float(np.float32(bound)))}


def test_norms_are_constants_and_embeddings_normal() -> None:
    module = nn.Sequential(nn.BatchNorm1d(8), nn.GroupNorm(2, 8), nn.LayerNorm(8), nn.Embedding(500, 8), nn.PReLU())
    found = draws(module)
    assert found["0.weight"] == found["0.running_var"] == found["1.weight"] == found["2.weight"] == Draw("constant", 1.0)
    assert found["0.running_mean"] == found["1.bias"] == found["2.bias"] == Draw("constant", 0.0)
    assert found["3.weight"] == Draw("normal", 1.0)
    assert found["4.weight"] == Draw("constant", 0.25)


def test_attention_is_xavier_uniform() -> None:
    found = draws(nn.MultiheadAttention(16, 2))
    assert found["in_proj_weight"] == Draw("uniform", float(np.float32(math.sqrt(6 / 64))))
    assert found["in_proj_bias"] == found["out_proj.bias"] == Draw("constant", 0.0)
    assert found["out_proj.weight"] == Draw("uniform", 0.25)


class Token(nn.Module):
    """A parameter that no layer of torch owns."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(16))
        self.last = nn.Linear(16, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.last(x + self.token)
        return out


def test_what_an_author_made_is_stored() -> None:
    assert draws(Token())["token"] is None
    wide, narrow, padded = nn.Linear(16, 64), nn.Linear(16, 64), nn.Embedding(50, 8, padding_idx=0)
    nn.init.uniform_(wide.weight, -1, 1)
    nn.init.uniform_(narrow.weight, -0.01, 0.01)
    assert draws(wide)["weight"] is draws(narrow)["weight"] is draws(padded)["weight"] is None


def test_a_seeded_bundle_carries_what_is_not_drawn_and_comes_back() -> None:
    lines: list[str] = []
    task = Task("t", Token, loss="cross_entropy", input=(16,))
    bundle, plain = compile_task(task, 4, seeded=True, progress=lines.append), compile_task(task, 4)
    assert "stored as they are: token" in lines
    read = read_bundle(bundle.to_bytes())
    assert read.recipe == bundle.recipe
    np.testing.assert_array_equal(read.theta0, bundle.theta0)
    np.testing.assert_array_equal(read.theta0[:16], plain.theta0[:16])
    assert not np.array_equal(read.theta0[16:], plain.theta0[16:])
    assert plain.recipe is None
    other = read.reseeded(5)
    assert not np.array_equal(other.theta0[16:48], read.theta0[16:48])
    np.testing.assert_array_equal(read_bundle(other.to_bytes()).theta0, other.theta0)


def test_the_command_says_what_it_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["compile", f"{QUICKSTART}:task", "--initial", "seeded", "--seed", "9", "--json", "-o", str(tmp_path / "d.edge")]
    assert main(command) == 0
    assert '"initial": "seeded"' in capsys.readouterr().out
    data = (tmp_path / "d.edge").read_bytes()
    assert len(data) < 3000
    recipe = read_bundle(data).recipe
    assert recipe is not None
    assert recipe.seed == 9
