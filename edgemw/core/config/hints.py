"""The type of a field, taken apart: which hints are sections, and what lies one step further down a dotted key."""

from __future__ import annotations

import dataclasses
import functools
import types
from collections.abc import Mapping
from typing import Any, Union, get_args, get_origin, get_type_hints

from edgemw.core.config.secret import Secret


def fields_of(cls: Any) -> tuple[dataclasses.Field[Any], ...]:
    """The fields of a schema."""
    return dataclasses.fields(cls)


def field_types(cls: type) -> Mapping[str, Any]:
    """The types of a schema's fields, worked out once per class."""
    return _resolved(cls)


@functools.cache
def _resolved(cls: type) -> Mapping[str, Any]:
    return types.MappingProxyType(get_type_hints(cls))


def is_section(hint: Any) -> bool:
    """Whether a hint is a dataclass that a file writes as a table."""
    return dataclasses.is_dataclass(hint) and hint is not Secret


def members(hint: Any) -> tuple[Any, ...]:
    """The alternatives of a union without None; the hint itself otherwise."""
    if get_origin(hint) in (Union, types.UnionType):
        return tuple(member for member in get_args(hint) if member is not types.NoneType)
    return (hint,)


def may_be_unset(hint: Any) -> bool:
    """Whether nothing at all is a value, and no text is one that could be meant by an empty one."""
    alternatives = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else ()
    return types.NoneType in alternatives and str not in alternatives


def bare(hint: Any) -> Any:
    """`T` of `T | None`; other hints as they are."""
    alternatives = members(hint)
    return alternatives[0] if len(alternatives) == 1 else hint


def merges(hint: Any) -> bool:
    """Whether two values of this type are merged key by key: a section, or a table of sections."""
    hint = bare(hint)
    return is_section(hint) or (get_origin(hint) is dict and is_section(get_args(hint)[1]))


def child(hint: Any, part: str) -> Any:
    """The type one step further down a dotted key; None when there is no such step."""
    hint = bare(hint)
    if is_section(hint):
        return field_types(hint).get(part)
    if get_origin(hint) is dict:
        return get_args(hint)[1]
    return get_args(hint)[0] if get_origin(hint) is tuple and part.isdecimal() else None


def has_key(cls: type, parts: tuple[str, ...]) -> bool:
    """Whether a schema has a place for a dotted key, given in parts."""
    hint: Any = cls
    for part in parts:
        hint = child(hint, part)
        if hint is None:
            return False
    return True


def inner_section(hint: Any) -> tuple[type | None, tuple[str, ...]]:
    """The dataclass behind a section, a table of sections or a list of sections, with the part of the path between."""
    hint = bare(hint)
    arguments = get_args(hint)
    if is_section(hint):
        return hint, ()
    if get_origin(hint) is dict and is_section(arguments[1]):
        return arguments[1], ("NAME",)
    if get_origin(hint) is tuple and is_section(arguments[0]):
        return arguments[0], ("N",)
    return None, ()
