"""What an author writes: a module, a loss, and the shape of one sample."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from types import MappingProxyType

import torch
from torch import nn

from edgemw.compile.build import build_program
from edgemw.compile.losses import LOSSES, Loss, LossFunction
from edgemw.compile.program import Program
from edgemw.core.bundle import Spec
from edgemw.core.errors import ConfigError
from edgemw.core.ids import valid_id
from edgemw.core.plan import PATTERNS, check_plan

Shape = tuple[int, ...]
TRAINING: Mapping[str, int | float | str] = MappingProxyType({"optimizer": "sgd", "lr": 0.1, "batch_size": 32, "epochs": 1})


@dataclass(frozen=True, slots=True)
class Task:
    """A learning task of a fleet; `edgemw compile` turns it into a bundle.

    Whatever the raw samples need (scaling, a change of axes) belongs into the module, so that it travels with the task.

    Attributes:
        name: 1 to 40 of a-z, 0-9 and '-'.
        module: a torch module of one input and one output, or a function that makes one (then the seed of the compilation
            decides the initial weights).
        loss: "cross_entropy", "mse", "l1", "bce_with_logits", or a function (outputs, target) -> scalar.
        input: shape of one sample without the batch; float32 unless written as (shape, "int64").
        target: the same for the target. Left out, it follows from a named loss: int64 class numbers for cross_entropy,
            the shape of the output for the others.
        metrics: names of what an evaluation reports; left out, what suits the loss.
        training: defaults of local training, by the names of `Plan`, over {"optimizer": "sgd", "lr": 0.1, "batch_size": 32,
            "epochs": 1}.
        classes: number of classes; left out, the size of the output's first axis for cross_entropy.
        personal, frozen, rare: names or patterns (`head.*`) of tensors that every device keeps for itself, that stay as they
            are, or that are sent seldom; an operator may say otherwise.

    Raises:
        ConfigError: a value that cannot be meant.
    """

    name: str
    module: nn.Module | Callable[[], nn.Module]
    loss: str | LossFunction
    input: Shape | tuple[Shape, str] | Spec
    target: Shape | tuple[Shape, str] | Spec | None = None
    metrics: tuple[str, ...] | None = None
    training: Mapping[str, int | float | str] = field(default_factory=dict)
    classes: int | None = None
    personal: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()
    rare: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not valid_id(self.name):
            raise ConfigError(f"{self.name!r}: use 1 to 40 of a-z, 0-9 and '-'", key="name")
        if not callable(self.module):
            raise ConfigError("neither a torch.nn.Module nor a function that makes one", key="module")
        self.loss_spec()
        self.input_spec()
        self.target_spec()
        if self.metrics is not None and (isinstance(self.metrics, str) or not all(isinstance(m, str) for m in self.metrics)):
            raise ConfigError('a tuple of names, such as ("accuracy",)', key="metrics")
        if self.classes is not None and (not isinstance(self.classes, int) or self.classes < 2):
            raise ConfigError(f"{self.classes!r} is not a number of classes", key="classes")
        check_plan(self.training, "training")
        for key in PATTERNS:
            value = getattr(self, key)
            if isinstance(value, str) or not all(isinstance(pattern, str) and pattern.split() == [pattern] for pattern in value):
                raise ConfigError('a tuple of names or patterns, such as ("head.*",)', key=key)
        check_plan(self._patterns(), "training")

    def loss_spec(self) -> Loss:
        """The loss function, with the dtype of its target."""
        if callable(self.loss):
            if self.target is None:
                raise ConfigError("a loss of your own needs the shape of the target", key="target")
            return Loss(self.loss, "float32", ())
        if self.loss not in LOSSES:
            near = get_close_matches(str(self.loss), LOSSES, n=1)
            reason = f"unknown loss {self.loss!r}; one of {', '.join(LOSSES)}, or a function"
            raise ConfigError(reason, key="loss", suggestion=near[0] if near else None)
        return LOSSES[self.loss]

    def input_spec(self) -> Spec:
        """Shape and dtype of one sample."""
        return _spec("input", self.input, "float32")

    def target_spec(self) -> Spec | None:
        """Shape and dtype of one target, or None where it follows from the module's output."""
        if self.target is None:
            return Spec((), "int64") if self.loss == "cross_entropy" else None
        return _spec("target", self.target, self.loss_spec().target_dtype)

    def training_defaults(self) -> dict[str, int | float | str]:
        """The flat table of the manifest."""
        return {**TRAINING, **self.training, **self._patterns()}

    def _patterns(self) -> dict[str, str]:
        return {key: " ".join(getattr(self, key)) for key in PATTERNS if getattr(self, key)}

    def program(self, seed: int = 0) -> Program:
        """The task as functions of theta; `seed` decides the initial weights where `module` is a function.

        Raises:
            ConfigError: `module` makes something else, or the target does not fit the output.
            ExportError: the module does not run on a batch of the given shape, or has tensors that do not fit in theta.
        """
        return build_program(
            self._make(seed), self.loss_spec(), input=self.input_spec(), target=self.target_spec(), classes=self.classes
        )

    def _make(self, seed: int) -> nn.Module:
        if isinstance(self.module, nn.Module):
            return copy.deepcopy(self.module)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = self.module()
        if not isinstance(module, nn.Module):
            raise ConfigError(f"the function returned a {type(module).__name__}, not a torch.nn.Module", key="module")
        return module


def _spec(key: str, value: object, dtype: str) -> Spec:
    match value:
        case Spec(shape=shape, dtype=dtype):
            pass
        case (tuple() as shape, str() as dtype):
            pass
        case tuple() as shape:
            pass
        case _:
            raise ConfigError(f'{value!r}: write a shape such as (9, 128), or a shape with a dtype, ((20,), "int64")', key=key)
    if not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in shape):
        raise ConfigError(f"{shape!r} is not a shape: positive integers, without the batch", key=key)
    if dtype not in ("float32", "int64"):
        raise ConfigError(f"dtype {dtype!r}; one of float32, int64", key=key)
    return Spec(tuple(shape), dtype)
