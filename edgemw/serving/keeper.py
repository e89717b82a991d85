"""Keeps slots at the newest good release of a store, or at the one that was chosen.

    chosen or newest place in the store -> read and verify -> session -> a few samples [-> canary for a while] -> into the slot

All of it happens beside the release that answers; only the last step is seen by requests, and is one assignment. A release that
fails goes no further: the one before it goes on answering, and `refused` says why. With a canary share a newer release answers
that part of the requests first, and all of them once it has done so for a while without a failure.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from edgemw.core.errors import EdgeError, StorageError
from edgemw.serving.check import check_outputs, check_reference, one_sample
from edgemw.serving.pace import Pace, measured
from edgemw.serving.session import open_inference, open_release
from edgemw.serving.slot import Served, Slot
from edgemw.serving.store import Choice, ReleaseStore, StoredRelease

TRIES = 3
"""That a release is read before it is left alone: a machine may be short of files or memory for a moment."""

BATCH_S = 0.02
"""That a batch of several requests takes at most."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Canary:
    """How a newer release begins.

    Attributes:
        share: of the requests that it answers, above 0 and below 1.
        seconds: how long.
    """

    share: float
    seconds: float


@dataclass(frozen=True, slots=True)
class _Trial:
    served: Served
    before: StoredRelease
    until: float  # of the monotonic clock


class Keeper:
    """See the module. One thread calls `look`; slots may be asked by others meanwhile.

    Attributes:
        slots: by task; tasks that appear in the store get one.
        refused: why the newest release of a task does not answer, where it does not.
    """

    def __init__(
        self,
        store: ReleaseStore,
        tasks: tuple[str, ...] = (),
        *,
        threads: int = 1,
        observe: Callable[[float], None] | None = None,
        batch_s: float = BATCH_S,
        canary: Canary | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Name what is to be served; `look` fills the slots.

        Args:
            store: where releases are.
            tasks: the only ones to serve; empty is all in the store, also those that come.
            threads: of one prediction.
            observe: see `Slot`.
            batch_s: that computing several requests together may take.
            canary: None has a newer release answer all requests at once.
            clock: of canaries, in seconds.
        """
        self._batch_s, self._canary, self._clock = batch_s, canary, clock
        self._trials: dict[str, _Trial] = {}
        self._sound: dict[str, str] = {}  # by bundle: why none of its releases can be served here
        self._store, self._only, self._threads, self._observe = store, tasks, threads, observe
        self._seen: dict[str, tuple[tuple[int, Choice | None] | None, int]] = {}  # what was wanted, and how often it was tried
        self._failed: set[tuple[str, int]] = set()  # tasks and places of canaries that failed
        self._served: dict[str, StoredRelease] = {}
        self.slots = {task: Slot(observe) for task in tasks}
        self.refused: dict[str, str] = {}

    def look(self) -> bool:
        """Serve what is new; whether anything was. A look that finds nothing costs one `listdir` for each task.

        Raises:
            StorageError: the store cannot be read.
        """
        changed = False
        for task in self._only or self._store.tasks():
            wanted, choice = self._store.wanted_place(task)
            if (trial := self._trials.get(task)) is not None:
                changed |= self._judge(task, trial, chosen=choice is not None and choice.place == self._served[task].place)
            if task in self._trials and choice is None:
                continue  # what came later waits for its turn
            seen, tries = self._seen.get(task, (None, 0))
            tries = tries if (wanted, choice) == seen else 0
            if wanted < 0 or tries == TRIES:
                continue
            before = self._served.get(task)
            self.slots.setdefault(task, Slot(self._observe))
            if before is not None and before.place == wanted:  # it was left and came back to
                self.refused.pop(task, None)
            elif choice is None:
                self._take_newest(task, wanted)
            else:
                self._take_chosen(task, wanted)
            served = self._served.get(task)
            self._seen[task] = (wanted, choice), TRIES if served is not None and served.place == wanted else tries + 1
            changed |= served is not before
        return changed

    def _judge(self, task: str, trial: _Trial, *, chosen: bool) -> bool:
        """Have a canary answer all requests, or none any more; whether it was time for that."""
        slot = self.slots[task]
        if slot.failed is not None and slot.failed[0] is trial.served:
            self._failed.add((task, self._served[task].place))
            self._served[task] = trial.before
            self._note(task, f"release {trial.served.release} is not served: as a canary, {slot.failed[1]}")
        elif chosen or self._clock() >= trial.until:
            slot.install(trial.served)
            log.info("serving", extra={"facts": {"task": task, "release": trial.served.release}})
        else:
            return False
        del self._trials[task]
        return True

    def _take_chosen(self, task: str, place: int) -> None:
        """Serve this release; where it cannot be, what is served goes on, and if that is nothing, the newest that can be."""
        try:
            release = self._store.at(task, place, self._served.get(task))
        except StorageError as error:
            self._note(task, str(error))
        else:
            self._serve(task, release, place)
        if task not in self._served:
            self._take_whole(task, self._store.instead(task, place), place)

    def _take_newest(self, task: str, newest: int) -> None:
        """Serve the newest release of a task that can be; where one is served already, only another one."""
        known = self._served.get(task)
        release = self._store.latest(task, known)
        if release is None or release.place != newest:
            self._note(task, f"the release at place {newest} is damaged")
        if known is None:
            self._take_whole(task, release, newest)
        elif release is not None and release.place != known.place and (task, release.place) not in self._failed:
            self._serve(task, release, newest, tried=True)

    def _take_whole(self, task: str, release: StoredRelease | None, wanted: int) -> None:
        """Serve this release, or the newest before it that can be."""
        while release is not None and not self._serve(task, release, wanted):
            release = self._store.latest(task, below=release.place)

    def _serve(self, task: str, release: StoredRelease, wanted: int, *, tried: bool = False) -> bool:
        """Have a release answer, if it can; one that is to be tried out only where another one answers."""
        started, manifest = time.perf_counter(), release.manifest
        try:
            session = open_release(release, threads=self._threads)
            reason = self._check_bundle(release) or check_outputs(session, manifest)
            pace = measured(session, one_sample(manifest), self._batch_s) if not reason else Pace()
        except EdgeError as error:
            reason = str(error)
        if reason:
            self._note(task, f"release {release.number} is not served: {reason}")
            return False
        self._put(task, Served(session, task, release.number, manifest, session.precision, pace), release, tried=tried)
        if release.place == wanted:
            self.refused.pop(task, None)
        ms = round(1e3 * (time.perf_counter() - started), 1)
        facts = {"task": task, "release": release.number, "precision": session.precision, "ms": ms}
        log.info("serving" if task not in self._trials else "a canary is serving", extra={"facts": facts})
        return True

    def _check_bundle(self, release: StoredRelease) -> str:
        """Once for each task: whether this machine computes what its author's did."""
        if release.bundle.reference is None:
            return ""
        if release.key not in self._sound:
            first = open_inference(release.bundle.infer, release.bundle.theta0, size=release.manifest.size, threads=self._threads)
            self._sound[release.key] = check_reference(first, release.bundle)
        return self._sound[release.key]

    def _put(self, task: str, served: Served, release: StoredRelease, *, tried: bool) -> None:
        trial, slot = self._trials.pop(task, None), self.slots[task]
        before = trial.before if trial is not None else self._served.get(task)
        if tried and self._canary is not None and before is not None and _interchangeable(slot.current, served):
            slot.try_out(served, self._canary.share)
            self._trials[task] = _Trial(served, before, self._clock() + self._canary.seconds)
        else:
            slot.install(served)
        self._served[task] = release

    def _note(self, task: str, reason: str) -> None:
        if self.refused.get(task) != reason:
            self.refused[task] = reason
            log.error("%s", reason, extra={"facts": {"task": task}})


def _interchangeable(one: Served | None, other: Served) -> bool:
    """Whether the same requests can be answered by both."""
    return one is not None and (one.manifest.input, one.manifest.output) == (other.manifest.input, other.manifest.output)
