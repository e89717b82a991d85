"""Configuration: TOML text in, frozen dataclasses out, and for every value the place where it came from.

A dataclass is the schema. Its fields carry help and bounds (`option`, `required`, `section`); its `__post_init__` may refuse
a combination with `ConfigError(reason, key="relative.key")`, and the loader adds file and line. Rules:

* a key that no field names is an error, with the nearest name that exists;
* flag > environment > file > files under it > default, key by key; a list or a secret is replaced as a whole;
* keys are dotted paths (`window.deadline`, `tiers.fog.count`, `data.0.path`); in the environment `EDGEMW_WINDOW__DEADLINE`;
* a relative path is relative to the file that names it, or to the working directory when a flag or the environment does;
* loading opens no file: only `Secret.read` and `secret_warnings` do.
"""

from __future__ import annotations

import bisect
import dataclasses
import difflib
import functools
import json
import math
import operator
import os
import re
import tomllib
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Generic, Literal, NewType, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

from edgemw.core.errors import ConfigError

T = TypeVar("T")
KeyPath = tuple[str | int, ...]

ENV_PREFIX = "EDGEMW_"
ENV_RESERVED = frozenset({"EDGEMW_CONFIG"})
ENV_SECRET_PREFIX = "EDGEMW_SECRET_"  # noqa: S105 - a prefix of names, not a password
MAX_TEXT_CHARS = 1 << 20
MAX_INTEGER = (1 << 63) - 1
MAX_SECRET_BYTES = 1 << 16
CREDENTIAL_FOLDERS = ("/run/secrets",)

# ---------------------------------------------------------------------------------------------------------------- units

Duration = NewType("Duration", float)
"""Seconds; written "500ms", "30s", "5m", "2h" or "1d"."""

Size = NewType("Size", int)
"""Bytes; written 1000, "120kB" (thousands) or "256KiB" (1024s)."""

_SECONDS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_BYTES = {"GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10, "GB": 10**9, "MB": 10**6, "kB": 10**3, "B": 1}
_QUANTITY = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,40})?) ?([A-Za-z]+)\Z")


def duration(text: str) -> Duration:
    """Seconds from "500ms", "30s", "5m", "2h" or "1d". Raises ValueError for anything else."""
    match = _QUANTITY.match(text)
    if match and match[2] == "ms":
        return Duration(float(match[1]) / 1000)
    if match and match[2] in _SECONDS:
        return Duration(float(match[1]) * _SECONDS[match[2]])
    raise ValueError(f"not a duration: {text!r}")


def duration_text(seconds: float) -> str:
    """The shortest text that `duration` reads back as exactly these seconds."""
    for unit, factor in _SECONDS.items():
        if seconds and seconds == int(seconds) and seconds % factor == 0:
            return f"{int(seconds // factor)}{unit}"
    return f"{Decimal(repr(float(seconds))).normalize():f}s"


def size(text: str) -> Size:
    """Bytes from "120kB" or "256KiB". Raises ValueError for anything else, and for a part of a byte."""
    match = _QUANTITY.match(text)
    if not match or match[2] not in _BYTES:
        raise ValueError(f"not a size: {text!r}")
    count = Decimal(match[1]) * _BYTES[match[2]]
    if count != int(count):
        raise ValueError(f"not a size: {text!r}")
    return Size(int(count))


def size_text(size_bytes: int) -> str:
    """The shortest text that `size` reads back as exactly these bytes."""
    unit = next(u for u, factor in _BYTES.items() if (size_bytes and size_bytes % factor == 0) or u == "B")
    return f"{size_bytes // _BYTES[unit]}{unit}"


# -------------------------------------------------------------------------------------------------------------- secrets


@dataclass(frozen=True, slots=True)
class Secret:
    """Where a secret stands, never the secret itself: `{ file = "NAME" }` or `{ env = "NAME" }`.

    A relative `file` is looked for in $CREDENTIALS_DIRECTORY, then in /run/secrets, then in `beside`, the folder of the
    configuration file that names it.
    """

    file: str | None = None
    env: str | None = None
    beside: str | None = None

    def __repr__(self) -> str:
        return f"Secret({'file' if self.file else 'env'}={self.file or self.env!s}, value=***)"

    def candidates(self, env: Mapping[str, str]) -> tuple[Path, ...]:
        """The files that may hold it, in the order in which they are tried."""
        if self.file is None:
            return ()
        folders = (env.get("CREDENTIALS_DIRECTORY"), *CREDENTIAL_FOLDERS, self.beside)
        return tuple(dict.fromkeys(Path(folder) / self.file for folder in folders if folder))

    def read(self, env: Mapping[str, str]) -> str:
        """The secret, without a final newline.

        Raises:
            ConfigError: it is not there, is empty, is not text, or is larger than 64 KiB.
        """
        value = self._from_env(env) if self.env is not None else self._from_file(env)
        if not value:
            raise ConfigError(f"the secret in {self.env or self.file!r} is empty")
        return value

    def _from_env(self, env: Mapping[str, str]) -> str:
        if self.env is None or self.env not in env:
            raise ConfigError(f"the environment variable {self.env} that holds a secret is not set")
        return env[self.env]

    def _from_file(self, env: Mapping[str, str]) -> str:
        paths = self.candidates(env)
        path = next((p for p in paths if p.is_file()), None)
        if path is None:
            raise ConfigError(f"no secret file {self.file!r}; looked for {', '.join(map(str, paths))}")
        try:
            with path.open("rb") as stream:
                data = stream.read(MAX_SECRET_BYTES + 1)
            text = data.decode()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"the secret cannot be read: {error}", file=str(path)) from error
        if len(data) > MAX_SECRET_BYTES:
            raise ConfigError(f"a secret has at most {MAX_SECRET_BYTES} bytes", file=str(path))
        return text.removesuffix("\n").removesuffix("\r")


# --------------------------------------------------------------------------------------------------------------- schema


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """What a field says about itself besides its type.

    `check` gives the reason why a value is refused, or "". A refused value of a `private` field is not repeated.
    """

    help: str
    min: float | None = None
    max: float | None = None
    above: float | None = None
    below: float | None = None
    example: str = ""
    check: Callable[[Any], str] | None = None
    inherit: bool = False
    private: bool = False

    def limits(self) -> Iterator[tuple[str, float, Callable[[float, float], bool]]]:
        """Each bound: in words, its value, and the test that a value must pass against it."""
        if self.min is not None:
            yield "at least", self.min, operator.ge
        if self.above is not None:
            yield "more than", self.above, operator.gt
        if self.max is not None:
            yield "at most", self.max, operator.le
        if self.below is not None:
            yield "less than", self.below, operator.lt

    def problem(self, value: object, hint: Any) -> str:
        """Why the value is refused; empty when it is not."""
        if isinstance(value, int | float) and not isinstance(value, bool):
            failed = (
                f"must be {words} {_amount(bound, hint)}" for words, bound, holds in self.limits() if not holds(value, bound)
            )
            return next(failed, "")
        return self.check(value) if self.check is not None else ""


def _amount(value: float, hint: Any) -> str:
    if hint is Duration:
        return duration_text(value)
    return size_text(int(value)) if hint is Size else f"{value:.12g}"


def option(default: T, **about: Any) -> T:
    """A dataclass field with a default; `about` is the fields of `Option`."""
    metadata = {"option": Option(**about)}
    if isinstance(default, dict):
        return field(default_factory=default.copy, metadata=metadata)  # type: ignore[return-value]  # it stands for a T
    return field(default=default, metadata=metadata)


def required(**about: Any) -> Any:
    """A dataclass field that a file must give."""
    return field(metadata={"option": Option(**about)})


def section(cls: type[T], *, help: str, inherit: bool = False, **defaults: Any) -> T:
    """A nested dataclass, made of its own defaults and of `defaults` where the file is silent.

    With `inherit`, keys that are missing here come from the section of the same name at the top of the file.
    """
    return field(default_factory=lambda: cls(**defaults), metadata={"option": Option(help=help, inherit=inherit)})


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a schema; `path` has NAME and N where a user chooses a name or a number."""

    path: str
    hint: Any
    option: Option
    default: object = dataclasses.MISSING

    @property
    def expected(self) -> str:
        """The type in words."""
        return _expected(self.hint)

    @property
    def bounds(self) -> str:
        """The range in words; empty when there is none."""
        return ", ".join(f"{words} {_amount(bound, self.hint)}" for words, bound, _ in self.option.limits())


def env_name(key: str) -> str:
    """Name of the environment variable that sets a dotted key."""
    return ENV_PREFIX + key.upper().replace(".", "__")


def schema_keys(cls: type) -> Iterator[Key]:
    """Every key that a file for `cls` may hold, sections opened, in the order of the fields."""
    yield from _keys(cls, (), None)


def _keys(cls: type, path: tuple[str, ...], base: object) -> Iterator[Key]:
    for spec in dataclasses.fields(cls):
        here, hint = (*path, spec.name), field_types(cls)[spec.name]
        default = _default(spec, base)
        inner, name = _inner_section(hint)
        if inner is None:
            yield Key(".".join(here), hint, spec.metadata["option"], default)
        else:
            yield from _keys(inner, here + name, default if isinstance(default, inner) else None)


def _inner_section(hint: Any) -> tuple[type | None, tuple[str, ...]]:
    """The dataclass behind a section, a table of sections or a list of sections, with the part of the path between."""
    hint = _bare(hint)
    arguments = get_args(hint)
    if _is_section(hint):
        return hint, ()
    if get_origin(hint) is dict and _is_section(arguments[1]):
        return arguments[1], ("NAME",)
    if get_origin(hint) is tuple and _is_section(arguments[0]):
        return arguments[0], ("N",)
    return None, ()


def _default(spec: dataclasses.Field[Any], base: object) -> object:
    if base is not None:
        return getattr(base, spec.name)
    if spec.default_factory is not dataclasses.MISSING:
        return spec.default_factory()
    return spec.default


def field_types(cls: type) -> Mapping[str, Any]:
    """The types of a dataclass's fields, worked out once per class."""
    return _resolved(cls)


@functools.cache
def _resolved(cls: type) -> Mapping[str, Any]:
    return types.MappingProxyType(get_type_hints(cls))


def _is_section(hint: Any) -> bool:
    return dataclasses.is_dataclass(hint) and hint is not Secret


def _members(hint: Any) -> tuple[Any, ...]:
    """The alternatives of a union without None; the hint itself otherwise."""
    if get_origin(hint) in (Union, types.UnionType):
        return tuple(member for member in get_args(hint) if member is not types.NoneType)
    return (hint,)


def _bare(hint: Any) -> Any:
    members = _members(hint)
    return members[0] if len(members) == 1 else hint


def _child(hint: Any, part: str) -> Any:
    """The type one step further down a dotted key; None when there is no such step."""
    hint = _bare(hint)
    if _is_section(hint):
        return field_types(hint).get(part)
    if get_origin(hint) is dict:
        return get_args(hint)[1]
    return get_args(hint)[0] if get_origin(hint) is tuple and part.isdecimal() else None


# ---------------------------------------------------------------------------------------------------------------- lines

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_SCALAR = re.compile(r"[^,\]}\n#]*")
_STRING = re.compile("|".join((r'"""(?:\\.|[^\\])*?"{3,5}', r"'''.*?'{3,5}", r'"(?:\\.|[^"\\])*"', r"'[^']*'")), re.DOTALL)


class _Lines:
    """Finds the line of every key in a text that is already known to be TOML."""

    def __init__(self, text: str) -> None:
        self.found: dict[KeyPath, int] = {}
        self._text, self._at = text, 0
        self._ends = [match.start() for match in re.finditer("\n", text)]
        self._counts: dict[KeyPath, int] = {}
        table: KeyPath = ()
        while self._blank() < len(text):
            if text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)

    def _blank(self) -> int:
        return self._take(_BLANK)

    def _take(self, pattern: re.Pattern[str]) -> int:
        match = pattern.match(self._text, self._at)
        self._at = match.end() if match else self._at
        return self._at

    def _note(self, path: KeyPath, start: int) -> None:
        line = bisect.bisect_left(self._ends, start) + 1
        for length in range(1, len(path) + 1):
            self.found.setdefault(path[:length], line)

    def _header(self) -> KeyPath:
        start, is_array = self._at, self._text.startswith("[[", self._at)
        self._at += 2 if is_array else 1
        path: KeyPath = ()
        parts = self._key()
        for number, part in enumerate(parts, 1):
            path = (*path, part)
            if path in self._counts and not (is_array and number == len(parts)):
                path = (*path, self._counts[path] - 1)
        if is_array:
            self._counts[path] = self._counts.get(path, 0) + 1
            path = (*path, self._counts[path] - 1)
        self._note(path, start)
        self._at += 2 if is_array else 1
        return path

    def _key(self) -> tuple[str, ...]:
        parts: list[str] = []
        while True:
            start = self._blank()
            if self._text[start] in "\"'":
                parts.append(tomllib.loads(f"k = {self._text[start : self._take(_STRING)]}")["k"])
            else:
                parts.append(self._text[start : self._take(_BARE_KEY)])
            if self._text[self._blank()] != ".":
                return tuple(parts)
            self._at += 1

    def _pair(self, table: KeyPath) -> None:
        start = self._at
        path = table + self._key()
        self._note(path, start)
        self._at += 1
        self._value(path)

    def _value(self, path: KeyPath) -> None:
        first = self._text[self._blank()]
        if first in "\"'":
            self._take(_STRING)
        elif first in "[{":
            self._group(path, is_array=first == "[")
        else:
            self._take(_SCALAR)

    def _group(self, path: KeyPath, *, is_array: bool) -> None:
        self._at += 1
        index = 0
        while self._text[self._blank()] not in "]}":
            if is_array:
                self._note((*path, index), self._at)
                self._value((*path, index))
            else:
                self._pair(path)
            index += 1
            if self._text[self._blank()] == ",":
                self._at += 1
        self._at += 1


def key_lines(text: str) -> dict[KeyPath, int]:
    """The line (from 1) of every table, key and list element of a valid TOML text, by path: `("data", 0, "path")`."""
    return _Lines(text).found


# ----------------------------------------------------------------------------------------------------------------- tree


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value came from; `name` is the file or the environment variable."""

    kind: Literal["default", "file", "environment", "flag"]
    name: str = ""
    line: int | None = None

    def __str__(self) -> str:
        if self.kind == "file":
            return f"{self.name}:{self.line}"
        return f"{self.kind} {self.name}" if self.name else self.kind


@dataclass(frozen=True, slots=True)
class Source:
    """A document: its text, and the name that errors give it."""

    text: str
    file: str


@dataclass(frozen=True, slots=True)
class _Leaf:
    """A raw value; `text` is set when it came as text and may be meant as a string."""

    raw: object
    origin: Origin
    text: str | None = None


@dataclass(frozen=True, slots=True)
class _Array:
    items: tuple[_Tree, ...]
    origin: Origin


@dataclass(frozen=True, slots=True)
class _Table:
    items: Mapping[str, _Tree]
    origin: Origin


_Tree = _Leaf | _Array | _Table


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


def _read(source: Source) -> _Table:
    document = parse_toml(source.text, source.file)
    try:
        lines = key_lines(source.text)
    except RecursionError:
        raise ConfigError("nested too deeply", file=source.file) from None
    tree = _grow(document, (), lambda path: Origin("file", source.file, lines.get(path, 1)))
    assert isinstance(tree, _Table)
    return tree


def _grow(raw: object, path: KeyPath, origin: Callable[[KeyPath], Origin], text: str | None = None) -> _Tree:
    if isinstance(raw, dict):
        return _Table({key: _grow(value, (*path, key), origin) for key, value in raw.items()}, origin(path))
    if isinstance(raw, list):
        return _Array(tuple(_grow(value, (*path, i), origin) for i, value in enumerate(raw)), origin(path))
    return _Leaf(raw, origin(path), text)


def _from_text(text: str, origin: Origin) -> _Tree:
    """A value given as text: TOML where it is TOML, the text itself where it is not."""
    try:
        document = tomllib.loads(f"v = {text}")
    except (ValueError, RecursionError):
        document = {}
    raw = document["v"] if set(document) == {"v"} else text
    return _grow(raw, (), lambda _: origin, text)


def _overlay(over: _Tree | None, under: _Tree | None, hint: Any) -> _Tree | None:
    """`over` where it speaks, `under` elsewhere; only sections are merged key by key."""
    if over is None or under is None:
        return over or under
    merges = _is_section(_bare(hint)) or (get_origin(_bare(hint)) is dict and _is_section(get_args(_bare(hint))[1]))
    if not (merges and isinstance(over, _Table) and isinstance(under, _Table)):
        return over
    items = dict(under.items)
    for key, value in over.items.items():
        merged = _overlay(value, under.items.get(key), _child(hint, key))
        items[key] = value if merged is None else merged
    return _Table(items, over.origin)


def _put(tree: _Tree | None, parts: Sequence[str], value: _Tree, hint: Any) -> _Tree:
    """A copy of the tree with one value set; a list may grow by one element."""
    if not parts:
        return value
    first, rest, inner = parts[0], parts[1:], _child(hint, parts[0])
    origin = tree.origin if tree is not None else value.origin
    if get_origin(_bare(hint)) is tuple:
        items = tree.items if isinstance(tree, _Array) else ()
        index = int(first)
        if index > len(items):
            raise _refusal(value.origin, "", f"there are {len(items)} elements, numbered from 0: {index} is too far", None)
        old = items[index] if index < len(items) else None
        return _Array((*items[:index], _put(old, rest, value, inner), *items[index + 1 :]), origin)
    table = tree.items if isinstance(tree, _Table) else {}
    return _Table({**table, first: _put(table.get(first), rest, value, inner)}, origin)


def _has_key(cls: type, parts: Sequence[str]) -> bool:
    hint: Any = cls
    for part in parts:
        hint = _child(hint, part)
        if hint is None:
            return False
    return True


def _with_environment(cls: type, tree: _Tree, env: Mapping[str, str], also: Sequence[type]) -> _Tree:
    for name in sorted(name for name in env if name.startswith(ENV_PREFIX)):
        if name in ENV_RESERVED or name.startswith(ENV_SECRET_PREFIX):
            continue
        parts = name.removeprefix(ENV_PREFIX).lower().split("__")
        if _has_key(cls, parts):
            tree = _put(tree, parts, _from_text(env[name], Origin("environment", name)), cls)
        elif not any(_has_key(other, parts) for other in also):
            known = [env_name(key.path) for key in schema_keys(cls)]
            raise ConfigError("this environment variable names no setting", key=name, suggestion=nearest(name, known))
    return tree


def _with_overrides(cls: type, tree: _Tree, overrides: Sequence[str]) -> _Tree:
    for item in overrides:
        key, equals, text = item.partition("=")
        key = key.strip()
        if not equals:
            raise ConfigError(f"write KEY=VALUE, not {item!r}")
        if not _has_key(cls, key.split(".")):
            raise ConfigError("no such setting", key=key, suggestion=nearest(key, [k.path for k in schema_keys(cls)]))
        tree = _put(tree, key.split("."), _from_text(text.strip(), Origin("flag")), cls)
    return tree


def nearest(name: str, known: Sequence[str]) -> str | None:
    """The known name that a typing error most likely meant; a key of the right name in another section counts too."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    same = [candidate for candidate in known if candidate.rpartition(".")[2] == name]
    return close[0] if close else same[0] if len(same) == 1 else None


# ---------------------------------------------------------------------------------------------------------------- build


class _MismatchError(Exception):
    """A raw value is not of the wanted type; `_Builder` turns it into a ConfigError with the place."""


class _Builder:
    """Turns a tree into values and notes the origin of each."""

    def __init__(self, root: _Table) -> None:
        self.origins: dict[str, Origin] = {}
        self._root = root

    def build(self, cls: type[T], table: _Table, path: KeyPath, base: object) -> T:
        """An instance of `cls`; `base` is where defaults come from, None for the field's own."""
        self.origins[_dotted(path)] = table.origin
        hints = field_types(cls)
        names = [spec.name for spec in dataclasses.fields(cls)]  # type: ignore[arg-type]  # mypy has no "type of dataclass"
        for name in table.items:
            if name not in names:
                self._refuse_unknown(cls, (*path, name), table.items[name].origin, names)
        values = {}
        for spec in dataclasses.fields(cls):  # type: ignore[arg-type]  # as above
            about: Option = spec.metadata["option"]
            tree = table.items.get(spec.name)
            if about.inherit:
                tree = _overlay(tree, self._root.items.get(spec.name), hints[spec.name])
            default = _default(spec, base)
            if tree is not None:
                values[spec.name] = self._checked(hints[spec.name], tree, (*path, spec.name), about, default)
            elif default is dataclasses.MISSING:
                self.fail((*path, spec.name), f"is missing: {about.help} ({about.example or _expected(hints[spec.name])})")
            else:
                values[spec.name] = _folder(self._root.origin) / default if isinstance(default, Path) else default
        try:
            return cls(**values)
        except ConfigError as error:
            if error.file is not None or error.key is None:
                raise
            self.fail((*path, *error.key.split(".")), error.reason, error.suggestion)

    def fail(self, path: KeyPath, reason: str, suggestion: str | None = None) -> NoReturn:
        """Refuse the value at `path`, at the place where it, or the nearest table around it, came from."""
        around = (self.origins.get(_dotted(path[:n])) for n in range(len(path), -1, -1))
        raise _refusal(next(o for o in around if o is not None), _dotted(path), reason, suggestion)

    def _refuse_unknown(self, cls: type, path: KeyPath, origin: Origin, names: Sequence[str]) -> NoReturn:
        name = str(path[-1])
        elsewhere = [key.path for key in schema_keys(cls) if not {"NAME", "N"} & set(key.path.split("."))]
        raise _refusal(origin, _dotted(path), "unknown key", nearest(name, names) or nearest(name, elsewhere))

    def _checked(self, hint: Any, tree: _Tree, path: KeyPath, about: Option, default: object) -> object:
        self.origins[_dotted(path)] = tree.origin
        try:
            value = self._value(hint, tree, path, default)
        except _MismatchError as error:
            example = f", for example {about.example}" if about.example else ""
            reason = str(error) or f"expected {_expected(hint)}{example}, found {_shown(tree)}"
            self.fail(path, reason)
        problem = about.problem(value, hint)
        if problem:
            self.fail(path, problem if about.private else f"{problem}, found {_shown(tree)}")
        return value

    def _value(self, hint: Any, tree: _Tree, path: KeyPath, default: object = None) -> object:
        members = _members(hint)
        if len(members) > 1:
            return self._first_that_fits(members, tree, path)
        hint = members[0]
        if _is_section(hint):
            base = default if isinstance(default, hint) else None
            return self.build(hint, _need(tree, _Table), path, base)
        if hint is Secret:
            return _secret(tree)
        if get_origin(hint) is tuple:
            return tuple(self._element(get_args(hint)[0], item, (*path, i)) for i, item in enumerate(_need(tree, _Array).items))
        if get_origin(hint) is dict:
            items = _need(tree, _Table).items
            return {key: self._element(get_args(hint)[1], item, (*path, key)) for key, item in items.items()}
        return _scalar(hint, _need(tree, _Leaf))

    def _element(self, hint: Any, tree: _Tree, path: KeyPath) -> object:
        return self._checked(hint, tree, path, Option(help=""), None)

    def _first_that_fits(self, members: Sequence[Any], tree: _Tree, path: KeyPath) -> object:
        for member in members:
            try:
                return self._value(member, tree, path)
            except _MismatchError:
                continue
        raise _MismatchError


def _refusal(origin: Origin, key: str, reason: str, suggestion: str | None) -> ConfigError:
    where = origin.name if origin.kind == "file" else f"{origin.kind} {origin.name}".strip()
    return ConfigError(reason, file=where, line=origin.line, key=key or None, suggestion=suggestion)


def _dotted(path: KeyPath) -> str:
    return ".".join(map(str, path))


def _need(tree: _Tree, kind: type[T]) -> T:
    if not isinstance(tree, kind):
        raise _MismatchError
    return tree


def _secret(tree: _Tree) -> Secret:
    """A reference to a secret; whatever else stands there is refused without being shown."""
    if not isinstance(tree, _Table):
        raise _MismatchError('a secret is never written here: give { file = "NAME" } or { env = "NAME" }')
    texts = {
        key: leaf.raw for key, leaf in tree.items.items() if isinstance(leaf, _Leaf) and isinstance(leaf.raw, str) and leaf.raw
    }
    if len(texts) != len(tree.items) or set(texts) not in ({"file"}, {"file", "beside"}, {"env"}):
        raise _MismatchError('a secret is exactly { file = "NAME" } or { env = "NAME" }')
    if "env" in texts and texts["env"].startswith(ENV_PREFIX) and not texts["env"].startswith(ENV_SECRET_PREFIX):
        raise _MismatchError(f"{ENV_PREFIX}* names settings: keep the secret in {ENV_SECRET_PREFIX}NAME or in a name of your own")
    if "file" in texts:
        return Secret(file=texts["file"], beside=texts.get("beside") or str(_folder(tree.origin)))
    return Secret(env=texts["env"])


def _folder(origin: Origin) -> Path:
    """What relative paths are relative to."""
    return Path(origin.name).absolute().parent if origin.kind == "file" else Path.cwd()


def _scalar(hint: Any, leaf: _Leaf) -> object:
    text = leaf.text if leaf.text is not None else leaf.raw
    if get_origin(hint) is Literal:
        return _choice(get_args(hint), (leaf.raw, text))
    if hint is str and isinstance(text, str):
        return text
    if hint is Path and isinstance(text, str) and text and "\0" not in text:
        return Path(os.path.normpath(_folder(leaf.origin) / text))
    if hint in (Duration, Size):
        return _quantity(hint, leaf.raw)
    return _number(hint, leaf.raw)


def _choice(choices: Sequence[object], given: Sequence[object]) -> object:
    for choice in choices:
        if any(type(value) is type(choice) and value == choice for value in given):
            return choice
    near = nearest(str(given[0]), [str(choice) for choice in choices])
    raise _MismatchError(
        f"expected {_one_of(choices)}, found {_quoted(given[0])}" + (f"; did you mean {near!r}?" if near else "")
    )


def _quantity(hint: Any, raw: object) -> object:
    if hint is Size and isinstance(raw, int) and not isinstance(raw, bool):
        return _number(int, raw)
    if not isinstance(raw, str):
        raise _MismatchError
    try:
        return duration(raw) if hint is Duration else size(raw)
    except ValueError:
        raise _MismatchError from None


def _number(hint: Any, raw: object) -> object:
    if isinstance(raw, int) and abs(raw) > MAX_INTEGER:
        raise _MismatchError("is a larger number than fits in 64 bits")
    if hint is float and isinstance(raw, int | float) and not isinstance(raw, bool):
        if not math.isfinite(raw):
            raise _MismatchError("must be a finite number")
        return float(raw)
    if hint in (int, bool) and type(raw) is hint:
        return raw
    raise _MismatchError


_WORDS = {
    str: "a string",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    Duration: 'a duration such as "30s"',
    Size: 'a size such as "256KiB"',
    Path: "a path",
    Secret: '{ file = "NAME" } or { env = "NAME" }',
}


def _expected(hint: Any) -> str:
    members = _members(hint)
    if len(members) > 1:
        return " or ".join(_expected(member) for member in members)
    bare = members[0]
    if get_origin(bare) is Literal:
        return _one_of(get_args(bare))
    if get_origin(bare) is tuple:
        return "a list of tables" if _is_section(get_args(bare)[0]) else f"a list ({_expected(get_args(bare)[0])} each)"
    return _WORDS.get(bare, "a table")


def _one_of(choices: Sequence[object]) -> str:
    return " or ".join(_quoted(choice) for choice in choices)


def _quoted(raw: object) -> str:
    if isinstance(raw, str):
        return json.dumps(raw if len(raw) <= 60 else f"{raw[:57]}...", ensure_ascii=False)
    return str(raw).lower() if isinstance(raw, bool) else str(raw)


def _shown(tree: _Tree) -> str:
    if isinstance(tree, _Leaf):
        return _quoted(tree.raw)
    return "a table" if isinstance(tree, _Table) else "a list"


# --------------------------------------------------------------------------------------------------------------- public


@dataclass(frozen=True, slots=True)
class Loaded(Generic[T]):
    """A configuration and the origin of each of its values."""

    value: T
    origins: Mapping[str, Origin]

    def origin(self, key: str) -> str:
        """Where the value of a dotted key came from: "flag", "environment NAME", "FILE:LINE" or "default".

        Raises:
            ConfigError: there is no such key.
        """
        value_at(self.value, key)
        return str(self.origins.get(key, Origin("default")))


@dataclass(frozen=True, slots=True)
class Explanation:
    """One key: its value, where that came from, and what the schema says about it."""

    key: str
    value: object
    origin: str
    about: Key

    @property
    def env(self) -> str:
        """Name of the environment variable that sets this key."""
        return env_name(self.key)


def load(
    cls: type[T],
    text: str,
    file: str,
    *,
    env: Mapping[str, str] | None = None,
    overrides: Sequence[str] = (),
    under: Sequence[Source] = (),
    also: Sequence[type] = (),
) -> Loaded[T]:
    """Build `cls` from a TOML text and what stands above and below it.

    Args:
        file: the name of the text in errors and origins, and what its relative paths are relative to.
        env: the environment; `EDGEMW_A__B` sets `a.b`.
        overrides: "a.b=value" each, as a flag gives them; the last one wins.
        under: documents of the same schema with lower precedence, strongest first.
        also: other schemas whose environment names are left alone instead of being refused.

    Raises:
        ConfigError: bad TOML, an unknown or missing key, a wrong type, a value out of range; with file, line and key.
    """
    tree: _Tree = _read(Source(text, file))
    for source in under:
        tree = _overlay(tree, _read(source), cls) or tree
    tree = _with_environment(cls, tree, env or {}, also)
    tree = _with_overrides(cls, tree, overrides)
    assert isinstance(tree, _Table)
    builder = _Builder(tree)
    return Loaded(builder.build(cls, tree, (), None), builder.origins)


def explain(cls: type[T], loaded: Loaded[T], key: str) -> Explanation:
    """The value of a dotted key, its origin, help and bounds.

    Raises:
        ConfigError: there is no such key, or it is a whole section.
    """
    for known in schema_keys(cls):
        if _same_key(known.path, key):
            return Explanation(key, value_at(loaded.value, key), loaded.origin(key), known)
    raise ConfigError("no such setting", key=key, suggestion=nearest(key, [k.path for k in schema_keys(cls)]))


def _same_key(pattern: str, key: str) -> bool:
    wanted, given = pattern.split("."), key.split(".")
    return len(wanted) == len(given) and all(
        w in (g, "NAME") or (w == "N" and g.isdecimal()) for w, g in zip(wanted, given, strict=True)
    )


def value_at(value: object, key: str) -> object:
    """The value at a dotted key of loaded settings. Raises ConfigError when there is none."""
    for part in key.split("."):
        if dataclasses.is_dataclass(value) and part in [spec.name for spec in dataclasses.fields(value)]:
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
    if dataclasses.is_dataclass(value) and not isinstance(value, Secret | type):
        for spec in dataclasses.fields(value):
            yield from leaves(getattr(value, spec.name), (*path, spec.name))
    elif isinstance(value, Mapping) and any(dataclasses.is_dataclass(item) for item in value.values()):
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    elif isinstance(value, tuple) and any(dataclasses.is_dataclass(item) for item in value):
        for number, item in enumerate(value):
            yield from leaves(item, (*path, str(number)))
    else:
        yield ".".join(path), value


def secret_warnings(settings: object, env: Mapping[str, str]) -> tuple[str, ...]:
    """A sentence for each secret that cannot be found, or whose file others than its owner can read."""
    found: list[str] = []
    for key, value in leaves(settings):
        if not isinstance(value, Secret):
            continue
        path = next((p for p in value.candidates(env) if p.is_file()), None)
        if value.env is not None:
            found += [] if value.env in env else [f"{key}: the environment variable {value.env} is not set"]
        elif path is None:
            found.append(f"{key}: no file {value.file!r} in {', '.join(str(p.parent) for p in value.candidates(env))}")
        elif path.stat().st_mode & 0o077:
            found.append(f"{key}: {path} can be read by others than its owner: chmod 600 {path}")
    return tuple(found)
