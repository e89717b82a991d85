"""TOML text in, frozen dataclasses out, and for every value the place where it came from.

* keys that no field names are an error, which tells all of them, with the nearest names that exist;
* keys are dotted paths (`window.deadline`, `tiers.fog.count`, `data.0.path`); in the environment `EDGEMW_WINDOW__DEADLINE`;
* a relative path is relative to the file that names it, or to `cwd` when a flag or the environment does;
* no file is opened and no secret read: text, environment and working directory are arguments.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from edgemw.core.config.build import Builder
from edgemw.core.config.hints import field_types, fields_of, inner_section, is_section
from edgemw.core.config.layers import overlay, with_environment, with_overrides
from edgemw.core.config.tree import Origin, Source, Table, Tree, read_tree
from edgemw.core.config.unknown import refuse_unknown_keys
from edgemw.core.errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Loaded(Generic[T]):
    """A configuration and the origin of each of its values."""

    value: T
    origins: Mapping[str, Origin]

    def origin(self, key: str) -> str:
        """Where a value came from, by its dotted key: "flag", "environment NAME", "FILE:LINE", "profile NAME" or "default".

        Raises:
            ConfigError: there is no such key.
        """
        value_at(self.value, key)
        return str(self.origins.get(key, Origin("default")))


def load(
    cls: type[T],
    text: str,
    file: str,
    *,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    overrides: Sequence[str] = (),
    under: Sequence[Source | Table] = (),
    also: Sequence[type] = (),
) -> Loaded[T]:
    """Build `cls` from a TOML text and what stands above and below it.

    Args:
        file: the name of the text in errors and origins; relative paths in the text are relative to its folder.
        cwd: the working directory, absolute: what a relative `file`, and relative paths of flags and environment, start from.
        env: the environment; `EDGEMW_A__B` sets `a.b`.
        overrides: "a.b=value" each, as a flag gives them; the last one wins.
        under: documents of the same schema, or their trees, with lower precedence, strongest first.
        also: other schemas whose environment names are left alone instead of being refused.

    Raises:
        ConfigError: bad TOML, an unknown or missing key, a wrong type, a value out of range; with file, line and key.
    """
    tree: Tree = read_tree(Source(text, file))
    for source in under:
        tree = overlay(tree, source if isinstance(source, Table) else read_tree(source), cls) or tree
    tree = with_environment(cls, tree, env or {}, also)
    tree = with_overrides(cls, tree, overrides)
    assert isinstance(tree, Table)
    refuse_unknown_keys(cls, tree)
    builder = Builder(tree, cwd)
    return Loaded(builder.build(cls, tree), builder.origins)


def value_at(value: object, key: str) -> object:
    """The value at a dotted key of loaded settings. Raises ConfigError when there is none."""
    for part in key.split("."):
        if dataclasses.is_dataclass(value) and part in [spec.name for spec in fields_of(value)]:
            value = getattr(value, part)
        elif isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, tuple) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            raise ConfigError("no such setting", key=key)
    return value


def leaves(value: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, object]]:
    """Every dotted key of loaded settings with its value, sections opened."""
    if is_section(type(value)):
        types = field_types(type(value))
        for spec in fields_of(value):
            inner = getattr(value, spec.name)
            if inner or inner_section(types[spec.name])[0] is None:  # of no tables there is no key
                yield from leaves(inner, (*path, spec.name))
    elif isinstance(value, Mapping) and any(is_section(type(item)) for item in value.values()):
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    elif isinstance(value, tuple) and any(is_section(type(item)) for item in value):
        for number, item in enumerate(value):
            yield from leaves(item, (*path, str(number)))
    else:
        yield ".".join(path), value
