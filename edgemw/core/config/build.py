"""From a tree of raw values to dataclasses, with the origin of every value; what does not fit is refused at its place."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_args, get_origin

from edgemw.core.config.hints import field_types, fields_of, is_section, may_be_unset, members
from edgemw.core.config.layers import overlay
from edgemw.core.config.lines import KeyPath
from edgemw.core.config.scalars import MismatchError, read_scalar, read_secret
from edgemw.core.config.schema import Option, default_of
from edgemw.core.config.secret import Secret
from edgemw.core.config.tree import Array, Leaf, Origin, Table, Tree
from edgemw.core.config.words import expected, quoted
from edgemw.core.errors import ConfigError

T = TypeVar("T")


class Builder:
    """Builds the settings of one tree.

    Attributes:
        origins: of every table and value that the tree holds, by dotted key; complete after `build`.
    """

    def __init__(self, root: Table, cwd: Path) -> None:
        self.origins: dict[str, Origin] = {}
        self._root, self._cwd = root, cwd

    def build(self, cls: type[T], table: Table, path: KeyPath = (), base: object = None) -> T:
        """An instance of `cls`; `base` is where defaults come from, None for the field's own.

        Raises:
            ConfigError: a key is missing, or its value is refused.
        """
        self.origins[_dotted(path)] = table.origin
        values = {spec.name: self._field(cls, spec, table, path, base) for spec in fields_of(cls)}
        try:
            return cls(**values)
        except ConfigError as error:
            inner = error.key.split(".") if error.key else ()
            self._fail((*path, *inner), error.reason, error.suggestion)

    def _field(self, cls: type, spec: dataclasses.Field[Any], table: Table, path: KeyPath, base: object) -> object:
        hint, about = field_types(cls)[spec.name], spec.metadata["option"]
        here, default = (*path, spec.name), default_of(spec, base)
        tree = table.items.get(spec.name)
        if about.inherit:
            tree = overlay(tree, self._root.items.get(spec.name), hint)
        if tree is not None:
            return self._checked(hint, tree, here, about, default)
        if default is dataclasses.MISSING:
            self._fail(here, f"is missing: {about.help} ({about.example or expected(hint)})")
        return self._folder(self._root.origin) / default if isinstance(default, Path) else default

    def _folder(self, origin: Origin) -> Path:
        """What relative paths are relative to."""
        return (self._cwd / origin.name).parent if origin.kind == "file" else self._cwd

    def _fail(self, path: KeyPath, reason: str, suggestion: str | None = None) -> NoReturn:
        """Refuse the value at `path`, at the place where it, or the nearest table around it, came from."""
        around = (self.origins.get(_dotted(path[:n])) for n in range(len(path), -1, -1))
        raise next(o for o in around if o is not None).refusal(reason, key=_dotted(path), suggestion=suggestion)

    def _checked(self, hint: Any, tree: Tree, path: KeyPath, about: Option, default: object = None) -> object:
        self.origins[_dotted(path)] = tree.origin
        try:
            value = self._value(hint, tree, path, default)
        except MismatchError as error:
            example = f", for example {about.example}" if about.example else ""
            self._fail(path, str(error) or f"expected {expected(hint)}{example}, found {_shown(tree)}")
        problem = about.problem(value, hint)
        if problem:
            self._fail(path, problem if about.private else f"{problem}, found {_shown(tree)}")
        return value

    def _value(self, hint: Any, tree: Tree, path: KeyPath, default: object = None) -> object:
        if isinstance(tree, Leaf) and tree.raw == "" and tree.origin.kind != "file" and may_be_unset(hint):
            return None
        alternatives = members(hint)
        if len(alternatives) > 1:
            return self._first_that_fits(alternatives, tree, path)
        hint = alternatives[0]
        if is_section(hint):
            base = default if isinstance(default, hint) else None
            return self.build(hint, _need(tree, Table), path, base)
        if hint is Secret:
            return read_secret(tree, self._folder(tree.origin))
        if get_origin(hint) is tuple:
            return tuple(self._element(get_args(hint)[0], item, (*path, i)) for i, item in enumerate(_need(tree, Array).items))
        if get_origin(hint) is dict:
            items = _need(tree, Table).items
            return {key: self._element(get_args(hint)[1], item, (*path, key)) for key, item in items.items()}
        return read_scalar(hint, _need(tree, Leaf), self._folder(tree.origin))

    def _element(self, hint: Any, tree: Tree, path: KeyPath) -> object:
        return self._checked(hint, tree, path, Option(help=""))

    def _first_that_fits(self, alternatives: Sequence[Any], tree: Tree, path: KeyPath) -> object:
        for hint in alternatives:
            try:
                return self._value(hint, tree, path)
            except MismatchError:
                continue
        raise MismatchError


def _dotted(path: KeyPath) -> str:
    return ".".join(map(str, path))


def _need(tree: Tree, kind: type[T]) -> T:
    if not isinstance(tree, kind):
        raise MismatchError
    return tree


def _shown(tree: Tree) -> str:
    if isinstance(tree, Leaf):
        return quoted(tree.raw)
    return "a table" if isinstance(tree, Table) else "a list"
