"""What a fog node's page draws over time, kept in a small file so that a restart does not lose it.

One JSON object a line: {"task": ..., "round": ...} or {"at": ..., "joules": ...}. A series that has become long loses
every second point of its older half, so that its beginning stays in sight and the file stays small.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from edgemw.app.rounds import Round, round_of
from edgemw.core.files import replace_file

MOST = 600
"""Points of a series; a picture has not many more columns."""
MOST_TASKS = 32
MOST_BYTES = 8 << 20
LONGEST_LINE = 65536

log = logging.getLogger(__name__)


class History:
    """Rounds by task, and joules of everybody.

    Attributes:
        rounds: with their time in seconds since 1970.
        joules: seconds since 1970, and joules of all nodes in all their lives.
    """

    def __init__(self, path: Path) -> None:
        """Go on with what an earlier life has kept there; lines that cannot be read are left out."""
        self.rounds: dict[str, list[Round]] = {}
        self.joules: list[tuple[float, float]] = []
        self._path, self._writes = path, True
        self._lines = 0
        for row in _rows(path):
            self._take(row)
        self._rewrite()

    def round(self, task: str, done: Round) -> None:
        """Take what is told of a round; what was told already is left out."""
        known = self.rounds.get(task)
        if known and known[-1].release == done.release and known[-1].metrics.keys() >= done.metrics.keys():
            return
        self._add({"task": task, "round": done.row()})

    def spent(self, at_s: float, joules: float) -> None:
        """Take what everybody together has taken until now."""
        self._add({"at": round(at_s, 3), "joules": joules})

    def _add(self, row: dict[str, Any]) -> None:
        if self._take(row) and self._writes:
            self._append(json.dumps(row))

    def _take(self, row: dict[str, Any]) -> bool:
        if "joules" in row:
            self.joules.append((row["at"], row["joules"]))
            _thin(self.joules)
            return True
        task = row["task"]
        if task not in self.rounds and len(self.rounds) >= MOST_TASKS:
            return False
        self.rounds.setdefault(task, []).append(round_of(row["round"]))
        _thin(self.rounds[task])
        return True

    def _append(self, line: str) -> None:
        self._lines += 1
        if self._lines > 4 * MOST * (1 + len(self.rounds)):
            self._rewrite()
            return
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            self._fail(error)

    def _rewrite(self) -> None:
        rounds = ({"task": task, "round": done.row()} for task, series in self.rounds.items() for done in series)
        joules = ({"at": at_s, "joules": amount} for at_s, amount in self.joules)
        lines = [json.dumps(row) for row in chain(rounds, joules)]
        self._lines = len(lines)
        try:
            if lines:
                replace_file(self._path, "".join(f"{line}\n" for line in lines).encode())
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        self._writes = False
        log.warning("%s cannot be written (%s): what the page draws is lost at the next start", self._path, error.strerror)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """The lines that can be read: the last one may have been cut off by a crash."""
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES)
    except FileNotFoundError:
        return
    except OSError as error:
        log.warning("%s cannot be read: %s", path, error.strerror)
        return
    lost = 0
    for line in data.splitlines():
        try:
            yield _checked(json.loads(line[:LONGEST_LINE]))
        except (ValueError, KeyError, TypeError):
            lost += 1
    if lost:
        log.warning("%s: %d lines of the history cannot be read", path, lost)


def _checked(row: Any) -> dict[str, Any]:
    """The row, if it is one. Raises ValueError, KeyError or TypeError where it is not."""
    if not isinstance(row, dict):
        raise TypeError("not an object")
    if "joules" in row:
        return {"at": float(row["at"]), "joules": float(row["joules"])}
    return {"task": str(row["task"]), "round": round_of(dict(row["round"])).row()}


def _thin(series: list[Any]) -> None:
    if len(series) > MOST:
        del series[1 : MOST // 2 : 2]
