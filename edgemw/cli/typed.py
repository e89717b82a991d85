"""Numbers as people type them, for several commands."""

from __future__ import annotations

import argparse

from edgemw.core.config import units


def count(text: str) -> int:
    """A number of 1 or more."""
    return _at_least(1, text)


def count_or_none(text: str) -> int:
    """A number of 0 or more."""
    return _at_least(0, text)


def _at_least(least: int, text: str) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of {least} or more")
    return int(text)


def duration(text: str) -> float:
    """Seconds, from a text such as 20ms or 10m."""
    try:
        return units.duration(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration, such as 20ms or 10m") from None


def share(text: str) -> float:
    """A number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return value
