"""Windows of calls: what times one, what sums up several, and processes that time calls of their own.

The standard library only, because peers import it in a Python of their own.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[1]
PACE_S = 1 / 200
Report = dict[str, Any]
Window = tuple[float, float]
"""p50 and p99 of the calls of a window, in seconds."""


def window(run: Callable[[], object], count: int, pace_s: float = 0.0) -> Window:
    """Call so often, in a closed loop or one call every `pace_s`; time counts from the call. One call before is not timed."""
    run()
    spent, due = [], time.perf_counter()
    for _ in range(count):
        if pace_s:
            due += pace_s
            time.sleep(max(0.0, due - time.perf_counter()))
        start = time.perf_counter()
        run()
        spent.append(time.perf_counter() - start)
    return _window(spent)


def alternating(variants: Mapping[str, Callable[[], object]], count: int, pace_s: float) -> dict[str, Window]:
    """Call each so often, one after the other, and each every `pace_s`: what a core does meanwhile falls on all alike."""
    spent: dict[str, list[float]] = {name: [] for name in variants}
    due = time.perf_counter()
    for _ in range(count):
        for name, run in variants.items():
            due += pace_s / len(variants)
            time.sleep(max(0.0, due - time.perf_counter()))
            start = time.perf_counter()
            run()
            spent[name].append(time.perf_counter() - start)
    return {name: _window(own) for name, own in spent.items()}


def _window(spent: list[float]) -> Window:
    count, spent = len(spent), sorted(spent)
    return spent[count // 2], spent[min(count - 1, int(0.99 * count))]


def summary(windows: Sequence[Window]) -> Report:
    """Medians over the turns."""
    return {
        "p50_us": round(1e6 * statistics.median(p50 for p50, _ in windows), 1),
        "p99_us": round(1e6 * statistics.median(p99 for _, p99 in windows), 1),
    }


def times(windows: Sequence[Window], base: Sequence[Window]) -> float:
    """Median over the turns of the p50 over that of `base` in the same turn."""
    return round(statistics.median(p50 / own for (p50, _), (own, _) in zip(windows, base, strict=True)), 2)


def say(what: str) -> None:
    """Progress, on stderr."""
    print(what, file=sys.stderr, flush=True)


class Ended(Exception):
    """A worker ended before it answered."""


class Worker:
    """A process that is told what to do by lines of JSON on stdin, and answers each by one on stdout; see `obey`.

    Attributes:
        about: what it said first.

    Raises:
        Ended: whenever it does not answer; why stands on stderr.
    """

    def __init__(self, *command: str) -> None:
        self._command = command
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        self.about = self._answer()

    def ask(self, **question: Any) -> Report:
        assert self._process.stdin is not None
        print(json.dumps(question), file=self._process.stdin, flush=True)
        return self._answer()

    def window(self, count: int, pace_s: float = 0.0) -> Window:
        p50, p99 = self.ask(count=count, pace_s=pace_s)["window"]
        return p50, p99

    def _answer(self) -> Report:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise Ended(f"{' '.join(self._command)} ended with {self._process.wait()}")
        answer: Report = json.loads(line)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.communicate()


def obey(about: Report, handle: Callable[..., Report]) -> None:
    """The other half of `Worker`: say what this is, then answer questions until stdin ends."""
    print(json.dumps(about), flush=True)
    for line in sys.stdin:
        print(json.dumps(handle(**json.loads(line))), flush=True)


def obey_windows(about: Report, run: Callable[[], object]) -> None:
    """Time windows of these calls as they are asked for."""
    obey(about, lambda count, pace_s: {"window": window(run, count, pace_s)})
