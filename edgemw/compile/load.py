"""Finding an author's task by name: "path/to/file.py:attribute" or "package.module:attribute"."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from edgemw.compile.task import Task
from edgemw.core.errors import ConfigError, EdgeError


def load_task(reference: str) -> Task:
    """Import the file or module and take the task out of it. This runs the author's code.

    Args:
        reference: without ":attribute", the attribute is `task`.

    Raises:
        ConfigError: no such file, module or attribute, the code fails, or the attribute is no Task.
    """
    place, _, attribute = reference.partition(":")
    attribute = attribute or "task"
    module = _run_file(Path(place)) if place.endswith(".py") else _import(place)
    try:
        found = getattr(module, attribute)
    except AttributeError:
        tasks = sorted(name for name, value in vars(module).items() if isinstance(value, Task))
        raise ConfigError(f"{place} has no {attribute!r}", key="task", suggestion=tasks[0] if tasks else None) from None
    if not isinstance(found, Task):
        raise ConfigError(f"{reference} is a {type(found).__name__}, not an edgemw.Task", key="task")
    return found


def _run_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ConfigError(f"no such file: {path}", key="task")
    name = f"edgemw_task_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and copy look a class's module up by name
    try:
        spec.loader.exec_module(module)
    except EdgeError:
        raise
    except Exception as error:  # the author's code may raise anything
        raise ConfigError(f"running it failed: {type(error).__name__}: {error}", file=str(path)) from error
    return module


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except EdgeError:
        raise
    except Exception as error:  # the author's code may raise anything
        raise ConfigError(f"importing {name!r} failed: {type(error).__name__}: {error}", key="task") from error
