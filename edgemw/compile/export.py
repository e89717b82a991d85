"""From a task to a bundle: trace, export, check."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from edgemw.compile.check import check_inference, check_training
from edgemw.compile.inference_graph import inference_graph
from edgemw.compile.layout import vector_of
from edgemw.compile.losses import bce_with_logits
from edgemw.compile.program import Program
from edgemw.compile.recipe import recipe_of
from edgemw.compile.task import Task
from edgemw.compile.training_graph import training_graph
from edgemw.core.bundle import Bundle, Manifest, Vector
from edgemw.core.initial import Recipe
from edgemw.core.plan import plan_of
from edgemw.core.ranges import ranges_of
from edgemw.core.reference import MOST_VALUES, reference_input

Progress = Callable[[str], None]


def compile_task(
    task: Task, seed: int = 0, *, python: str | None = None, seeded: bool = False, progress: Progress | None = None
) -> Bundle:
    """Export a task's two graphs and prove them against torch; takes seconds to a minute.

    Args:
        seed: decides the initial weights where `task.module` is a function.
        python: "package.module:attribute" of the task, for a module that cannot be exported for training: the bundle then
            has no training graph, and devices that have torch and that package train it with the torch oracle.
        seeded: draw the first values anew from the seed, in a way that every reader of the bundle repeats, and store the seed
            in their place (see `recipe.py`).
        progress: called with a short line before each stage.

    Raises:
        ConfigError: the task is not well formed, or a pattern of its plan matches no tensor.
        ExportError: an operator cannot be exported, or the graphs do not compute what torch computes.
    """
    say = progress or (lambda _: None)
    say("running the module")
    program = task.program(seed)
    ranges_of(program.layout, plan_of(task.training_defaults()))
    theta0, recipe = _initial(program, seed if seeded else None, say)
    say("exporting inference")
    infer = inference_graph(program)
    say("checking inference against torch")
    check_inference(program, infer)
    train = None if python else _training(program, say)
    return Bundle(_manifest(task, program, python), infer, train, theta0, recipe, _reference(program, theta0))


def _initial(program: Program, seed: int | None, say: Progress) -> tuple[Vector, Recipe | None]:
    """Theta0, and the recipe that makes it, where one is wanted and makes any of it."""
    theta0, layout = vector_of(program.module, program.layout), program.layout
    if seed is None:
        return theta0, None
    recipe = recipe_of(program.module, layout, seed)
    sizes, kept = [slot.size for slot in layout], [s.name for s, draw in zip(layout, recipe.draws, strict=True) if draw is None]
    if kept:
        say(f"stored as they are: {', '.join(kept)}")
    return (theta0, None) if len(kept) == len(layout) else (recipe.make(sizes, recipe.stored(sizes, theta0)), recipe)


def _reference(program: Program, theta0: Vector) -> Vector | None:
    """Torch's outputs, for devices to compare theirs with; None where they are many, or the module does not take the input."""
    x = torch.from_numpy(reference_input(program.input.shape, program.input.dtype))
    if len(x) * math.prod(program.output.shape) > MOST_VALUES:
        return None
    try:
        return program.infer(torch.from_numpy(theta0), x).numpy()
    except (RuntimeError, IndexError):  # ones are beyond its table
        return None


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
