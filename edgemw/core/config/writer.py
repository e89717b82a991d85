"""Settings as TOML: the text that loads as exactly them, the inverse of the loader."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edgemw.core.config.hints import field_types, fields_of, is_section
from edgemw.core.config.secret import Secret
from edgemw.core.config.units import Duration, Size, duration_text, size_text

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+\Z")


def toml_text(settings: object, *, without: frozenset[str] = frozenset()) -> str:
    """The text of a file that loads as exactly these settings.

    What is unset (None, or an empty list) is left out, and so are the top-level keys in `without`.
    """
    return "\n".join(_table(settings, (), without)).lstrip("\n") + "\n"


def toml_value(value: object, hint: Any = None) -> str:
    """One value as TOML; `hint` is its type where that decides how it is written (durations and sizes)."""
    if hint is Duration or hint is Size:
        assert isinstance(value, int | float)
        return _string(duration_text(value) if hint is Duration else size_text(int(value)))
    if isinstance(value, Secret):
        pairs = (("file", value.file), ("env", value.env), ("beside", value.beside))
        return _inline({key: text for key, text in pairs if text is not None})
    if isinstance(value, Mapping):
        return _inline(value)
    if isinstance(value, tuple):
        return f"[{', '.join(toml_value(item) for item in value)}]"
    if isinstance(value, str | Path):
        return _string(str(value))
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _table(value: Any, path: tuple[str, ...], without: frozenset[str] = frozenset()) -> Iterator[str]:
    """The lines of a table: its own keys first, since whatever follows a header belongs to that header."""
    hints = field_types(type(value))
    items = [(spec.name, getattr(value, spec.name)) for spec in fields_of(value) if spec.name not in without]
    for name, item in items:
        if not _is_tables(item) and item not in (None, (), {}):
            yield f"{name} = {toml_value(item, hints[name])}"
    for name, item in items:
        if is_section(type(item)):
            lines = list(_table(item, (*path, name)))
            yield from ["", f"[{'.'.join((*path, name))}]", *lines] if lines else []
        elif _is_tables(item):
            for element in item:
                yield from ["", f"[[{'.'.join((*path, name))}]]", *_table(element, (*path, name))]


def _is_tables(item: object) -> bool:
    if isinstance(item, tuple):
        return any(is_section(type(element)) for element in item)
    return is_section(type(item))


def _inline(items: Mapping[str, object]) -> str:
    pairs = (f"{key if _BARE_KEY.match(key) else _string(key)} = {toml_value(item)}" for key, item in items.items())
    return f"{{ {', '.join(pairs)} }}"


def _string(text: str) -> str:
    """A basic string; the escapes of JSON are a part of TOML's, except that TOML escapes DEL too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
