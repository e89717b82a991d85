"""From a task to a bundle: trace, export, check."""

from __future__ import annotations

import math
from collections.abc import Callable

from edgemw.compile.check import check_inference, check_training
from edgemw.compile.inference_graph import inference_graph
from edgemw.compile.layout import vector_of
from edgemw.compile.losses import bce_with_logits
from edgemw.compile.program import Program
from edgemw.compile.task import Task
from edgemw.compile.training_graph import training_graph
from edgemw.core.bundle import Bundle, Manifest
from edgemw.core.plan import Plan
from edgemw.core.ranges import ranges_of

Progress = Callable[[str], None]


def compile_task(task: Task, seed: int = 0, *, python: str | None = None, progress: Progress | None = None) -> Bundle:
    """Export a task's two graphs and prove them against torch; takes seconds to a minute.

    Args:
        seed: decides the initial weights where `task.module` is a function.
        python: "package.module:attribute" of the task, for a module that cannot be exported for training: the bundle then
            has no training graph, and devices that have torch and that package train it with the torch oracle.
        progress: called with a short line before each stage.

    Raises:
        ConfigError: the task is not well formed, or a pattern of its plan matches no tensor.
        ExportError: an operator cannot be exported, or the graphs do not compute what torch computes.
    """
    say = progress or (lambda _: None)
    say("running the module")
    program = task.program(seed)
    ranges_of(program.layout, Plan(**task.training_defaults()))  # type: ignore[arg-type]  # checked when the task was made
    theta0 = vector_of(program.module, program.layout)
    say("exporting inference")
    infer = inference_graph(program)
    say("checking inference against torch")
    check_inference(program, infer)
    train = None if python else _training(program, say)
    return Bundle(_manifest(task, program, python), infer, train, theta0)


def _training(program: Program, say: Progress) -> bytes:
    say("exporting the training step")
    graph = training_graph(program)
    say("checking the training step against torch")
    check_training(program, graph)
    return graph


def _metrics(task: Task, program: Program) -> tuple[str, ...]:
    if task.metrics is not None:
        return task.metrics
    if program.loss is bce_with_logits and math.prod(program.output.shape) != 1:
        return ()  # "accuracy" means one decision per sample
    return task.loss_spec().metrics


def _manifest(task: Task, program: Program, python: str | None) -> Manifest:
    return Manifest(
        name=task.name,
        layout=program.layout,
        input=program.input,
        target=program.target,
        output=program.output,
        loss=task.loss if isinstance(task.loss, str) else "custom",
        metrics=_metrics(task, program),
        training=task.training_defaults(),
        classes=program.classes,
        seeded=program.seeded,
        python=python,
    )
