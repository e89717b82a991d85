"""Label values that stay few: every value of a label is a series of its own, on every scrape, for ever."""

from __future__ import annotations

import re
from threading import Lock

OTHER = "other"
_WORD = re.compile(r"[a-z0-9][a-z0-9_.-]{0,39}\Z")
_REASONS = (
    # the first that is found in a reason names it
    ("internal error", "internal"),
    ("certificate", "certificate"),
    ("signed", "signature"),
    ("signature", "signature"),
    ("which was here", "older"),
    ("another training run", "run"),
    ("larger than limits", "size"),
    ("the run is finished", "finished"),
    ("not finite", "not-finite"),
    ("not-finite", "not-finite"),
    ("NaN or infinite", "not-finite"),
    ("malformed", "malformed"),
    ("came before its sum", "overtaken"),
    ("masks", "masks"),
    ("its group", "masks"),
    ("shares", "masks"),
    ("stale", "stale"),
    ("was asked for", "codec"),
    ("announced", "step"),
    ("does not match its sha256", "damaged"),
    ("damaged", "damaged"),
    ("is for task", "task"),
    ("bundle format", "format"),
    ("manifest.json", "manifest"),
    ("bundle", "bundle"),
    ("no samples", "data"),
    ("the task takes", "data"),
    ("labels run from", "data"),
    ("shape", "data"),
    ("timed out", "timeout"),
    ("memory", "memory"),
)
"""Reasons are sentences for people; a label needs a word."""


def reason_label(reason: str) -> str:
    """One word for a reason, out of a fixed table; "other" where none fits."""
    return next((label for text, label in _REASONS if text in reason), OTHER)


class Bounded:
    """Lets the first `limit` words through as they are; whatever comes later, or is no word, is "other"."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: set[str] = set()
        self._lock = Lock()

    def __call__(self, text: str) -> str:
        """The label value for a text."""
        if text in self._known:
            return text
        with self._lock:
            if _WORD.match(text) is None or len(self._known) >= self._limit:
                return OTHER
            self._known.add(text)
        return text
