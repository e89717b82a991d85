"""The line of every key in a TOML text, so that an error can name it: tomllib gives values without places.

The text is known to be valid TOML, so the scanner only has to tell strings, comments and brackets apart.
"""

from __future__ import annotations

import bisect
import re
import tomllib

KeyPath = tuple[str | int, ...]

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
        while path and path not in self.found:  # whatever is known has known parents
            self.found[path] = line
            path = path[:-1]

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
