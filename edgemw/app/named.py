"""Paths of a deployment that are different for every node: `{node}` in them is the node's id."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

from edgemw.core.config.secret import Secret

NODE = "{node}"

T = TypeVar("T")


def for_node(table: T, node: str) -> T:
    """A section of a tier as a node has it: its paths and secrets, alone or in a list, with the id in the place of {node}."""
    settings: Any = table
    changed: dict[str, Any] = {spec.name: _named(getattr(settings, spec.name), node) for spec in fields(settings)}
    named: T = replace(settings, **changed)
    return named


def _named(value: Any, node: str) -> Any:
    match value:
        case Path():
            return Path(str(value).replace(NODE, node))
        case Secret(file=str(file)):
            return replace(value, file=file.replace(NODE, node))
        case tuple():
            return tuple(_named(item, node) for item in value)
        case _:
            return value
