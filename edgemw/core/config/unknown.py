"""Keys of a document that no field names: all of them at once, each at its place and with the nearest name that exists."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edgemw.core.config.hints import field_types, inner_section
from edgemw.core.config.lines import KeyPath
from edgemw.core.config.schema import schema_keys
from edgemw.core.config.tree import Array, Table, Tree
from edgemw.core.config.words import nearest
from edgemw.core.errors import ConfigError

MAX_NAMED = 8


def refuse_unknown_keys(cls: type, table: Table) -> None:
    """Raise ConfigError for the first key that the schema does not have; its reason tells the others too."""
    found = list(_unknown(cls, table, ()))
    if len(found) < 2:
        for error in found:
            raise error
        return
    first, *others = found
    told = [str(ConfigError(first.reason, suggestion=first.suggestion)), *map(str, others[: MAX_NAMED - 1])]
    told += [f"and {len(found) - MAX_NAMED} more"] * (len(found) > MAX_NAMED)
    raise ConfigError("; ".join(told), file=first.file, line=first.line, key=first.key)


def _unknown(cls: type, table: Table, path: KeyPath) -> Iterator[ConfigError]:
    types = field_types(cls)
    for name, tree in table.items.items():
        here = (*path, name)
        if name in types:
            for section, step, inner in _sections(types[name], tree):
                yield from _unknown(section, inner, (*here, *step))
        else:
            elsewhere = [key.path for key in schema_keys(cls) if not {"NAME", "N"} & set(key.path.split("."))]
            near = nearest(name, list(types)) or nearest(name, elsewhere)
            yield tree.origin.refusal("unknown key", key=".".join(map(str, here)), suggestion=near)


def _sections(hint: Any, tree: Tree) -> Iterator[tuple[type, KeyPath, Table]]:
    """The dataclass, the step down and the table of a section, or of each one in a table or list of sections."""
    match inner_section(hint), tree:
        case (type() as cls, ()), Table():
            yield cls, (), tree
        case (type() as cls, ("NAME",)), Table(items=items):
            yield from ((cls, (name,), item) for name, item in items.items() if isinstance(item, Table))
        case (type() as cls, ("N",)), Array(items=elements):
            yield from ((cls, (number,), item) for number, item in enumerate(elements) if isinstance(item, Table))
