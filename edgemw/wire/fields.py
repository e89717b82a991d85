"""Reading single values that came from a peer: the type and the range, or WireError."""

from __future__ import annotations

import math
from typing import Any

from edgemw.core.errors import WireError

_MAX_INTEGER = (1 << 63) - 1


def integer(value: Any, low: int = 0, high: int = _MAX_INTEGER) -> int:
    """An integer from `low` to `high`."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise WireError("value", f"expected an integer from {low} to {high}")
    return value


def real(value: Any) -> float:
    """A finite number."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise WireError("value", "expected a finite number")
    return float(value)


def flag(value: Any) -> bool:
    """A truth value."""
    if not isinstance(value, bool):
        raise WireError("value", "expected true or false")
    return value


def word(value: Any, limit: int = 80) -> str:
    """A short text of printable characters."""
    if not isinstance(value, str) or len(value) > limit or not value.isprintable():
        raise WireError("value", f"expected at most {limit} printable characters")
    return value


def words(value: Any) -> tuple[str, ...]:
    """A list of short texts."""
    if not isinstance(value, tuple):
        raise WireError("value", "expected a list of words")
    return tuple(word(item) for item in value)


def digest(value: Any) -> bytes:
    """A sha256."""
    if not isinstance(value, bytes) or len(value) != 32:
        raise WireError("value", "expected a sha256")
    return value


def number(value: Any) -> int | float | str:
    """A fact: a finite number or a short text."""
    if isinstance(value, str):
        return word(value, 200)
    if isinstance(value, float):
        return real(value)
    return integer(value, -_MAX_INTEGER)
