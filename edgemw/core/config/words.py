"""Types, values and bounds in the words of an error message or of the documentation."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args, get_origin

from edgemw.core.config.hints import is_section, members
from edgemw.core.config.named import NameOrFile
from edgemw.core.config.secret import Secret
from edgemw.core.config.units import Duration, Size, duration_text, size_text

_TYPES: Mapping[Any, str] = MappingProxyType(
    {
        str: "a string",
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        Duration: 'a duration such as "30s"',
        Size: 'a size such as "256KiB"',
        Path: "a path",
        NameOrFile: "a name, or the path of a .toml file",
        Secret: '{ file = "NAME" } or { env = "NAME" }',
    }
)


def expected(hint: Any) -> str:
    """A type: `a whole number or "all"`."""
    alternatives = members(hint)
    if len(alternatives) > 1:
        return " or ".join(expected(alternative) for alternative in alternatives)
    bare = alternatives[0]
    if get_origin(bare) is Literal:
        return one_of(get_args(bare))
    if get_origin(bare) is tuple:
        return "a list of tables" if is_section(get_args(bare)[0]) else f"a list ({expected(get_args(bare)[0])} each)"
    return _TYPES.get(bare, "a table")


def amount(value: float, hint: Any) -> str:
    """A bound, in the unit of the field that it belongs to."""
    if hint is Duration:
        return duration_text(value)
    return size_text(int(value)) if hint is Size else f"{value:.12g}"


def one_of(choices: Sequence[object]) -> str:
    """A choice: `"low" or "high"`."""
    return " or ".join(quoted(choice) for choice in choices)


def quoted(raw: object) -> str:
    """A raw value as a file would hold it, cut to one short line."""
    text = raw if isinstance(raw, str) else str(raw)
    text = text if len(text) <= 60 else f"{text[:57]}..."
    if isinstance(raw, str):
        return json.dumps(text, ensure_ascii=False)
    return text.lower() if isinstance(raw, bool) else text


def nearest(name: str, known: Sequence[str]) -> str | None:
    """The known name that a typing error most likely meant; a key of the right name in another section counts too."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    same = [candidate for candidate in known if candidate.rpartition(".")[2] == name]
    return close[0] if close else same[0] if len(same) == 1 else None
