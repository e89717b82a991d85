"""What an author may write, and what the answer is when it cannot work."""

import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn

from edgemw.cli.main import main
from edgemw.compile.export import compile_task
from edgemw.compile.load import load_task
from edgemw.compile.task import Task
from edgemw.core.bundle import Bundle, read_bundle
from edgemw.core.errors import ConfigError, ExportError
from edgemw.learning.torch_oracle import TorchOracle


def linear() -> nn.Module:
    return nn.Linear(4, 3)


class Singular(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(torch.linalg.svdvals(x))


class Cell(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = Singular()

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.cell(x.reshape(-1, 2, 2)))


class Branching(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        outputs = super().forward(input)
        return outputs if bool(outputs.sum() > 0) else 2 * outputs


class Noisy(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input + torch.randn_like(input) if self.training else input)


class Wide(nn.Linear):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.register_buffer("shift", torch.zeros(2, dtype=torch.float64))


class Pair(nn.Linear):
    def forward(self, input: Tensor) -> Any:
        return super().forward(input), input


BASE: dict[str, Any] = {"name": "t", "module": linear, "loss": "cross_entropy", "input": (4,)}


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return compile_task(Task(**BASE))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "Not A Name"}, "1 to 40"),
        ({"module": 3}, "module"),
        ({"loss": "cross_entrpy"}, "did you mean 'cross_entropy'"),
        ({"loss": nn.MSELoss()}, "needs the shape of the target"),
        ({"input": [4]}, "write a shape"),
        ({"input": (4, -1)}, "positive integers"),
        ({"input": ((4,), "float64")}, "float32, int64"),
        ({"metrics": "accuracy"}, "tuple of names"),
        ({"training": {"lr": float("nan")}}, "training.lr"),
        ({"training": {"lr": [0.1]}}, "training.lr"),
        ({"training": {"lrr": 0.1}}, r"training\.lrr: unknown key \(did you mean 'lr'\?\)"),
        ({"training": {"epochs": 10**7}}, "training.epochs: expected a whole number from 0 to 1000000"),
        ({"training": {"optimizer": "adm"}}, 'training.optimizer: expected "sgd" or "adam"'),
        ({"classes": 1}, "classes"),
        ({"personal": "head.*"}, "personal: a tuple of names or patterns"),
        ({"frozen": ("a b",)}, "frozen: a tuple of names or patterns"),
        ({"rare": ("x" * 1001,)}, "training.rare: expected patterns"),
    ],
)
def test_a_task_that_cannot_be_meant_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Task(**(BASE | change))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"module": int}, ConfigError, "returned a int"),
        ({"target": (2,)}, ConfigError, "need a int64 target of shape"),
        ({"loss": "mse", "target": ()}, ConfigError, "need a float32 target"),
        ({"input": (5,)}, ExportError, "fails on an input of shape"),
        ({"module": lambda: Pair(4, 3)}, ExportError, "must return one tensor"),
        ({"module": lambda: nn.Flatten(0)}, ExportError, "must be float32"),
        ({"module": nn.Identity}, ExportError, "nothing to train"),
        ({"module": lambda: nn.Linear(4, 3, dtype=torch.float64)}, ExportError, "dtype"),
        ({"module": lambda: Wide(4, 3)}, ExportError, "tensor 'shift' is torch.float64"),
    ],
)
def test_a_module_that_does_not_fit_is_refused(change: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Task(**(BASE | change)).program()


def test_a_bundle_says_which_tensors_stay_at_home() -> None:
    bundle = compile_task(Task(**BASE, personal=("bias",), training={"rare_every": 3}))
    assert bundle.manifest.training["personal"] == "bias"
    assert bundle.manifest.training["rare_every"] == 3
    assert read_bundle(bundle.to_bytes()).manifest == bundle.manifest


def test_a_pattern_that_matches_nothing_is_refused_when_compiled() -> None:
    with pytest.raises(ConfigError, match=r"plan.personal: 'bais' matches no tensor of the task \(did you mean 'bias'"):
        compile_task(Task(**BASE, personal=("bais",)))


def test_the_command_line_replaces_what_the_task_says(tmp_path: Path) -> None:
    source = tmp_path / "tasks.py"
    source.write_text(
        "from torch import nn\nfrom edgemw.compile.task import Task\n"
        "task = Task('t', lambda: nn.Linear(4, 3), 'cross_entropy', (4,), personal=('weight',), frozen=('bias',))\n"
    )
    out = tmp_path / "t.edge"
    assert main(["compile", f"{source}:task", "-o", str(out), "--personal", "b*", "--frozen", "weight"]) == 3
    assert main(["compile", f"{source}:task", "-o", str(out), "--personal", "b*", "--frozen", "none"]) == 3
    assert not out.exists()
    source.write_text(source.read_text().replace(", frozen=('bias',)", ""))
    assert main(["compile", f"{source}:task", "-o", str(out), "--personal", "b*"]) == 0
    assert read_bundle(out.read_bytes()).manifest.training["personal"] == "b*"


def test_an_operator_that_cannot_be_exported_is_named_with_its_module() -> None:
    task = Task("cell", lambda: nn.Sequential(nn.Linear(4, 4), Cell(), nn.Linear(2, 3)), "cross_entropy", input=(4,))
    with pytest.raises(ExportError) as caught:
        compile_task(task)
    assert caught.value.operator == "aten._linalg_svd"
    assert caught.value.module == "1.cell"
    assert "operator aten._linalg_svd in module '1.cell'" in str(caught.value)


def test_random_numbers_other_than_masks_are_refused() -> None:
    with pytest.raises(ExportError, match="dropout masks only") as caught:
        compile_task(Task("noisy", lambda: Noisy(4, 3), "cross_entropy", input=(4,)))
    assert str(caught.value.operator).startswith("aten.rand")


def test_a_module_that_branches_on_data_is_refused() -> None:
    with pytest.raises(ExportError, match="path depends on values") as caught:
        compile_task(Task("branching", lambda: nn.Sequential(nn.Linear(4, 4), Branching(4, 3)), "cross_entropy", input=(4,)))
    assert caught.value.module == "1"


def test_a_module_that_cannot_be_exported_for_training_is_trained_by_torch() -> None:
    task = Task("noisy", lambda: Noisy(4, 3), "cross_entropy", input=(4,))
    made = compile_task(task, python="pkg.mod:task")
    assert made.train is None
    read = read_bundle(made.to_bytes())
    assert read.manifest.python == "pkg.mod:task"
    x, y = torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1])
    step = TorchOracle(read.manifest, task).loss_and_grad(read.theta0, x.numpy(), y.numpy(), 0)
    assert step.grad.shape == (15,)


def test_progress_is_told() -> None:
    told: list[str] = []
    compile_task(Task(**BASE), python="pkg.mod:task", progress=told.append)
    assert told[0] == "running the module"
    assert len(told) == 3


def test_manifest_has_the_defaults(bundle: Bundle) -> None:
    manifest = bundle.manifest
    assert (manifest.metrics, manifest.classes, manifest.target.dtype) == (("accuracy",), 3, "int64")
    assert manifest.training == {"optimizer": "sgd", "lr": 0.1, "batch_size": 32, "epochs": 1}
    assert not manifest.seeded


def test_equal_tasks_give_equal_bundles(bundle: Bundle) -> None:
    assert compile_task(Task(**BASE)).to_bytes() == bundle.to_bytes()


def test_the_seed_decides_the_weights_and_disturbs_nobody() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second = (Task(**BASE).program(seed).module.state_dict()["weight"] for seed in (0, 1))
    assert not torch.equal(first, second)
    assert torch.equal(torch.rand(3), expected)


def test_graphs_hold_no_weights_and_nothing_of_this_machine(bundle: Bundle) -> None:
    assert bundle.train is not None
    for graph in (bundle.infer, bundle.train):
        proto = onnx.load_model_from_string(graph)
        assert not proto.doc_string
        assert not proto.metadata_props
        for node in proto.graph.node:
            assert not node.doc_string
            assert not node.metadata_props
        for word in (b"site-packages", b".py", str(Path.home()).encode(), b"pkg.torch"):
            assert word not in graph
    weights = {t.name: t for t in onnx.load_model_from_string(bundle.infer).graph.initializer if t.external_data}
    assert weights.keys() == {"weight", "bias"}
    assert {entry.key: entry.value for entry in weights["bias"].external_data} == {
        "location": "w.bin",
        "offset": "48",
        "length": "12",
    }


def test_load_task_from_a_file_and_from_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "from torch import nn\nfrom edgemw.compile.task import Task\nmine = Task('mine', nn.Linear(2, 2), 'mse', input=(2,))\n"
    path = tmp_path / "loaded_by_test.py"
    path.write_text(code)
    assert load_task(f"{path}:mine").name == "mine"
    monkeypatch.syspath_prepend(tmp_path)
    assert load_task("loaded_by_test:mine").name == "mine"
    del sys.modules["loaded_by_test"]
    with pytest.raises(ConfigError, match="has no 'task'"):
        load_task(str(path))
    with pytest.raises(ConfigError, match="not an edgemw"):
        load_task(f"{path}:nn")
    with pytest.raises(ConfigError, match="no such file"):
        load_task(f"{tmp_path / 'none.py'}:task")
    with pytest.raises(ConfigError, match="importing 'no"):
        load_task("no.such.module:task")
    path.write_text("1 / 0")
    with pytest.raises(ConfigError, match="ZeroDivisionError"):
        load_task(str(path))
