"""What the operating system says about this process and those that it has started."""

from __future__ import annotations

from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True)
class Usage:
    """Processor time so far, in seconds, and resident memory now, in bytes."""

    cpu_s: float
    resident_bytes: int


class ProcessUsage:
    """Reads `Usage` of this process and its children: training is a process of its own, and its cost is the node's."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._cpu_s = 0.0

    def __call__(self) -> Usage:
        """The usage now. Processor time never goes down; memory that processes share is counted for each."""
        cpu_s, resident_bytes = 0.0, 0
        try:
            children = self._process.children(recursive=True)
        except psutil.Error:
            children = []  # where processes of others are hidden, so may ours be
        for process in (self._process, *children):
            try:
                times = process.cpu_times()
                resident_bytes += process.memory_info().rss
            except psutil.Error:
                continue  # it has ended since: its time is among that of its parent's children
            cpu_s += times.user + times.system + getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
        self._cpu_s = max(self._cpu_s, cpu_s)
        return Usage(self._cpu_s, resident_bytes)
