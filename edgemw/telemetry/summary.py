"""What a device's log says when nothing is wrong: a line now and then, and only for a task that has moved on."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from edgemw.telemetry.pulled import MachineState

_FACTS = (("release", "release"), ("updates_sent", "trained"), ("updates_pending", "pending"))

log = logging.getLogger(__name__)


class Summary:
    """Remembers what it has told."""

    def __init__(self) -> None:
        self._told: dict[str, dict[str, int | float | str]] = {}

    def tell(self, machines: Iterable[MachineState]) -> None:
        """Log release, updates trained and updates without outcome of each task that differs from the last time."""
        for task, state, reason, facts in machines:
            line = {"task": task, "state": state} | {name: facts[fact] for fact, name in _FACTS if facts.get(fact, -1) != -1}
            line |= {"reason": reason} if reason else {}
            if self._told.get(task) != line:
                self._told[task] = line
                log.info("summary", extra={"facts": line})
