"""Numbers as people type them, for several commands."""

from __future__ import annotations

import argparse


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
