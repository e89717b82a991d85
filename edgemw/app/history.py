"""What a fog node's page draws over time, kept in a small file so that a restart does not lose it.

One JSON object a line: {"task": ..., "round": ...} or {"at": ..., "joules": ...}. A series that has become long loses
every second point of its older half, so that its beginning stays in sight and the file stays small.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from edgemw.app.rounds import Round, round_of
from edgemw.core.files import replace_file

MOST = 600
"""Points of a series; a picture has not many more columns."""
MOST_TASKS, MOST_METRICS = 16, 16
MOST_BYTES = 32 << 20
"""More than the longest file that is written."""
LEAST_BYTES = 1 << 20
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
        self._bytes, self._full_bytes = 0, LEAST_BYTES
        for row in _rows(path):
            self._take(row)
        self._rewrite()

    def round(self, task: str, done: Round) -> None:
        """Take what is told of a round; what was told already is left out."""
        metrics = dict(list(done.metrics.items())[:MOST_METRICS])
        done, known = replace(done, metrics=metrics, late=()), self.rounds.get(task)
        if known and known[-1].release == done.release and known[-1].metrics.keys() >= done.metrics.keys():
            return
        self._add({"task": task, "round": done.row()})

    def spent(self, at_s: float, joules: float) -> None:
        """Take what everybody together has taken until now."""
        self._add({"at": round(at_s, 3), "joules": joules})

    def _add(self, row: dict[str, Any]) -> None:
        self._take(row)
        if self._writes:
            self._append(json.dumps(row) + "\n")

    def _take(self, row: dict[str, Any]) -> None:
        if "joules" in row:
            self.joules.append((row["at"], row["joules"]))
            _thin(self.joules)
            return
        task, done = row["task"], round_of(row["round"])
        series = self.rounds.pop(task, [])
        if done.release == 0 and series and series[-1].release:
            series = []  # another run
        series.append(done)
        _thin(series)
        self.rounds[task] = series  # the one that was heard of last stands last
        if len(self.rounds) > MOST_TASKS:
            del self.rounds[next(iter(self.rounds))]

    def _append(self, line: str) -> None:
        self._bytes += len(line)
        if self._bytes > self._full_bytes:
            self._rewrite()
            return
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line)
        except OSError as error:
            self._fail(error)

    def _rewrite(self) -> None:
        rounds = ({"task": task, "round": done.row()} for task, series in self.rounds.items() for done in series)
        joules = ({"at": at_s, "joules": amount} for at_s, amount in self.joules)
        data = "".join([f"{json.dumps(row)}\n" for row in chain(rounds, joules)]).encode()
        self._bytes, self._full_bytes = len(data), max(LEAST_BYTES, 2 * len(data))
        try:
            if data:
                replace_file(self._path, data)
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        self._writes = False
        log.warning("%s cannot be written (%s): what the page draws is lost at the next start", self._path, error.strerror)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """The lines that can be read: the last one may have been cut off by a crash."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - MOST_BYTES))
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
        at_s, joules = float(row["at"]), float(row["joules"])
        if not (math.isfinite(at_s) and math.isfinite(joules)):
            raise ValueError("not a finite number")
        return {"at": at_s, "joules": joules}
    return {"task": str(row["task"]), "round": round_of(dict(row["round"])).row()}


def _thin(series: list[Any]) -> None:
    if len(series) > MOST:
        del series[1 : MOST // 2 : 2]
