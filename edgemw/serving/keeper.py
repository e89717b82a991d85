"""Keeps slots at the newest good release of a store.

    newest place in the store -> read and verify -> session -> canary batch -> into the slot

All of it happens beside the release that answers; only the last step is seen by requests, and is one assignment. A release that
fails goes no further: the one before it goes on answering, and `refused` says why.
"""

from __future__ import annotations

import logging
import time

from edgemw.core.errors import EdgeError
from edgemw.serving.check import check_outputs
from edgemw.serving.session import open_inference
from edgemw.serving.slot import Served, Slot
from edgemw.serving.store import ReleaseStore, StoredRelease

TRIES = 3
"""That a release is read before it is left alone: a machine may be short of files or memory for a moment."""

log = logging.getLogger(__name__)


class Keeper:
    """See the module. One thread calls `look`; slots may be asked by others meanwhile.

    Attributes:
        slots: by task; tasks that appear in the store get one.
        refused: why the newest release of a task does not answer, where it does not.
    """

    def __init__(self, store: ReleaseStore, tasks: tuple[str, ...] = (), *, threads: int = 1) -> None:
        """Name what is to be served; `look` fills the slots.

        Args:
            store: where releases are.
            tasks: the only ones to serve; empty is all in the store, also those that come.
            threads: of one prediction.
        """
        self._store, self._only, self._threads = store, tasks, threads
        self._seen: dict[str, tuple[int, int]] = {}  # the newest place, and how often it was tried
        self._served: dict[str, StoredRelease] = {}
        self.slots = {task: Slot() for task in tasks}
        self.refused: dict[str, str] = {}

    def look(self) -> bool:
        """Serve what is new; whether anything was. A look that finds nothing costs a `listdir` for each task.

        Raises:
            StorageError: the store cannot be read.
        """
        changed = False
        for task in self._only or self._store.tasks():
            newest = self._store.newest_place(task)
            place, tries = self._seen.get(task, (-1, 0))
            tries = tries if newest == place else 0
            if newest < 0 or tries == TRIES:
                continue
            before = self._served.get(task)
            self._take(task, newest)
            served = self._served.get(task)
            self._seen[task] = newest, TRIES if served is not None and served.place == newest else tries + 1
            changed |= served is not before
        return changed

    def _take(self, task: str, newest: int) -> None:
        """Serve the newest release of a task that can be; where one is served already, only a newer one."""
        self.slots.setdefault(task, Slot())
        known = self._served.get(task)
        release = self._store.latest(task, known)
        if release is None or release.place != newest:
            self._note(task, f"the release at place {newest} is damaged")
        if known is not None and release is not None and release.place == known.place:
            return
        while release is not None and not self._serve(task, release, newest) and known is None:
            release = self._store.latest(task, below=release.place)

    def _serve(self, task: str, release: StoredRelease, newest: int) -> bool:
        started, manifest = time.perf_counter(), release.manifest
        try:
            session = open_inference(release.bundle.infer, release.theta, size=manifest.size, threads=self._threads)
            reason = check_outputs(session, manifest)
        except EdgeError as error:
            reason = str(error)
        if reason:
            self._note(task, f"release {release.number} is not served: {reason}")
            return False
        self.slots[task].install(Served(session, task, release.number, manifest))
        self._served[task] = release
        if release.place == newest:
            self.refused.pop(task, None)
        facts = {"task": task, "release": release.number, "ms": round(1e3 * (time.perf_counter() - started), 1)}
        log.info("serving", extra={"facts": facts})
        return True

    def _note(self, task: str, reason: str) -> None:
        if self.refused.get(task) != reason:
            self.refused[task] = reason
            log.error("%s", reason, extra={"facts": {"task": task}})
