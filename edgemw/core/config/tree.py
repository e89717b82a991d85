"""A document as a tree of raw values, each with the place where it came from; nothing is typed yet."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from edgemw.core.config.lines import KeyPath, key_lines
from edgemw.core.errors import ConfigError

MAX_TEXT_CHARS = 1 << 20


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value came from; `name` is the file, the environment variable, or the profile."""

    kind: Literal["default", "profile", "file", "environment", "flag"]
    name: str = ""
    line: int | None = None

    def __str__(self) -> str:
        if self.kind == "file":
            return f"{self.name}:{self.line}"
        return f"{self.kind} {self.name}" if self.name else self.kind

    def refusal(self, reason: str, *, key: str = "", suggestion: str | None = None) -> ConfigError:
        """The error that refuses what came from here."""
        where = self.name if self.kind == "file" else f"{self.kind} {self.name}".strip()
        return ConfigError(reason, file=where, line=self.line, key=key or None, suggestion=suggestion)


@dataclass(frozen=True, slots=True)
class Source:
    """A document: its text, and the name that errors give it."""

    text: str
    file: str


@dataclass(frozen=True, slots=True)
class Leaf:
    """A raw value; `text` is set when it came as text and may be meant as a string."""

    raw: object
    origin: Origin
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Array:
    """A list of raw values."""

    items: tuple[Tree, ...]
    origin: Origin


@dataclass(frozen=True, slots=True)
class Table:
    """Raw values by key."""

    items: Mapping[str, Tree]
    origin: Origin


Tree = Leaf | Array | Table


def parse_toml(text: str, file: str) -> dict[str, Any]:
    """The plain tables of a TOML text.

    Raises:
        ConfigError: not TOML, with the line, or longer than a million characters.
    """
    if len(text) > MAX_TEXT_CHARS:
        raise ConfigError(f"a configuration file has at most {MAX_TEXT_CHARS} characters, this one has {len(text)}", file=file)
    try:
        return tomllib.loads(text)
    except ValueError as error:
        reason = re.sub(r" \(at [^()]*\)\Z", "", str(error))
        found = re.search(r"at line (\d+), column \d+\)\Z", str(error))
        line = int(found[1]) if found else text.rstrip("\n").count("\n") + 1
        raise ConfigError(f"not TOML: {reason[:1].lower()}{reason[1:]}", file=file, line=line) from error
    except RecursionError:
        raise ConfigError("not TOML: nested too deeply", file=file) from None


def read_tree(source: Source) -> Table:
    """The tree of a document. Raises ConfigError when it is not TOML."""
    document = parse_toml(source.text, source.file)
    try:
        lines = key_lines(source.text)
        tree = _grow(document, (), lambda path: Origin("file", source.file, lines.get(path, 1)))
    except RecursionError:
        raise ConfigError("nested too deeply", file=source.file) from None
    assert isinstance(tree, Table)
    return tree


def tree_of_text(text: str, origin: Origin) -> Tree:
    """A value given as text: TOML where it is TOML, the text itself where it is not."""
    try:
        document = tomllib.loads(f"v = {text}")
    except (ValueError, RecursionError):
        document = {}
    raw = document["v"] if set(document) == {"v"} else text
    return _grow(raw, (), lambda _: origin, text)


def _grow(raw: object, path: KeyPath, origin: Callable[[KeyPath], Origin], text: str | None = None) -> Tree:
    if isinstance(raw, dict):
        return Table({key: _grow(value, (*path, key), origin) for key, value in raw.items()}, origin(path))
    if isinstance(raw, list):
        return Array(tuple(_grow(value, (*path, i), origin) for i, value in enumerate(raw)), origin(path))
    return Leaf(raw, origin(path), text)
