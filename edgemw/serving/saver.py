"""Keeps releases on disk beside the work: nothing waits for the disk, and when releases come faster the newest is written."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock

from edgemw.core.bundle import Bundle, Vector
from edgemw.core.errors import EdgeError
from edgemw.serving.store import ReleaseStore

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Release:
    bundle: Bundle
    run: int
    number: int
    theta: Vector
    quantised: bytes


class Saver:
    """A store with a thread of its own. Close it to have the last release on disk."""

    def __init__(self, store: ReleaseStore) -> None:
        self._store = store
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._waiting: dict[str, _Release] = {}
        self._lock = Lock()

    def save(self, task: str, bundle: Bundle, run: int, number: int, theta: Vector, quantised: bytes = b"") -> None:
        """Have a release kept soon, with its int8 graph where it has one; theta must not be changed afterwards."""
        with self._lock:
            idle = task not in self._waiting
            self._waiting[task] = _Release(bundle, run, number, theta, quantised)
        if idle:
            self._thread.submit(self._write, task)

    def close(self) -> None:
        """Write what waits, and end the thread."""
        self._thread.shutdown(wait=True)

    def _write(self, task: str) -> None:
        with self._lock:
            release = self._waiting.pop(task)
        try:
            self._store.save(task, release.bundle, release.run, release.number, release.theta, release.quantised)
        except EdgeError as error:  # the release before goes on answering
            log.error(
                "a release was not kept, and so is not served: %s",
                error,
                extra={"facts": {"task": task, "release": release.number}},
            )
