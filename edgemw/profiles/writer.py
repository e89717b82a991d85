"""A profile as the text of its file: one line for each number, as people write them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from edgemw.core.config.hints import field_types, fields_of, is_section
from edgemw.core.config.schema import default_of
from edgemw.core.config.writer import toml_value
from edgemw.profiles.device import Profile
from edgemw.profiles.known import Known

_BARE = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


def profile_text(profile: Profile) -> str:
    """The text of a file that loads as exactly this profile; what is not known is left out."""
    return "\n".join(_table(profile, ())).lstrip("\n") + "\n"


def _table(part: Any, path: tuple[str, ...]) -> Iterator[str]:
    """The lines of a table: its own keys first, since whatever follows a header belongs to that header."""
    hints = field_types(type(part))
    there = {spec.name: getattr(part, spec.name) for spec in fields_of(part)}
    defaults = {spec.name: default_of(spec, None) for spec in fields_of(part)}
    inner = {name: value for name, value in there.items() if _is_table(value)}
    for name, value in there.items():
        if name not in inner and value != defaults[name]:
            yield f"{name} = {_inline(value) if isinstance(value, Known) else toml_value(value, hints[name])}"
    for name, value in inner.items():
        here = (*path, name)
        lines = [*_texts(value)] if isinstance(value, dict) else [*_table(value, here)]
        headed = not lines or lines[0] == ""  # there are only tables in it, which have headers of their own
        yield from lines if headed else ["", f"[{'.'.join(here)}]", *lines]


def _is_table(value: object) -> bool:
    return isinstance(value, dict) or (is_section(type(value)) and not isinstance(value, Known))


def _texts(table: dict[str, str]) -> Iterator[str]:
    return (f"{key if _BARE.fullmatch(key) else toml_value(key)} = {toml_value(text)}" for key, text in table.items())


def _inline(known: Known) -> str:
    hints = field_types(type(known))
    given = {spec.name: getattr(known, spec.name) for spec in fields_of(known)}
    names = sorted((name for name in given if given[name] != ""), key=("value", "points", "how", "source", "note").index)
    return f"{{ {', '.join(f'{name} = {_value(given[name], hints[name])}' for name in names)} }}"


def _value(value: object, hint: Any) -> str:
    """A number as short as it is exact."""
    short = f"{value:g}" if hint is float else ""
    return short if short and float(short) == value else toml_value(value, hint)
