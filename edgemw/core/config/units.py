"""Durations and sizes: how they are written, and what they are in seconds and bytes."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import NewType

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
