"""The device's half of the shell: opens tasks, trains, measures and serves in a thread of low priority, and saves."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgemw.core.bundle import Bundle, Manifest, Vector, read_bundle, theta_view
from edgemw.core.errors import DataError, EdgeError
from edgemw.core.events import Fact
from edgemw.core.ids import Place
from edgemw.core.plan import Plan, Tally, plan_of, within
from edgemw.device.balance import Balance
from edgemw.device.cycle import Cycle
from edgemw.device.events import (
    Install,
    Installed,
    Joined,
    Left,
    Memory,
    OpenTask,
    SaveAck,
    SaveJoined,
    SaveMemory,
    SaveRound,
    Served,
    TaskOpened,
    TaskRefused,
    Work,
    Worked,
)
from edgemw.device.update import MEASURED
from edgemw.device.uplink import Uplink
from edgemw.learning.dataset import Dataset, fit_dataset
from edgemw.learning.oracle import Oracle, Predict
from edgemw.learning.trainer import Trained, evaluate, train
from edgemw.serving.check import Verdict
from edgemw.storage import outbox
from edgemw.storage.database import Database
from edgemw.storage.outbox import DeviceRow, GroupRow
from edgemw.transport.shell import Shell, Wanted
from edgemw.wire import topics
from edgemw.wire.messages import ReleaseManifest, pack, pack_group, unpack, unpack_group
from edgemw.wire.sender import Kept
from edgemw.wire.signed import ANYBODY, Trust

MAX_TASKS = 8

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Parts:
    """What a device is made of; `app` puts it together.

    Attributes:
        open_oracle: the oracle of a bundle.
        load_data: the samples for a task. Raises DataError where there are none.
        check: whether a release may be served, and as what.
        install: keep a release, with its int8 graph where it has one, on disk, where it is served from.
        traffic: bytes sent and received by this node so far.
        observe: counts facts.
        training: entered while the thread of this device trains.
        trained: told the seconds of each training.
        max_batch: largest batch that fits this device; 0 is no limit.
        nice: niceness of the training thread.
        least_noise: that updates must get, as a multiple of their bound, or it does not train; 0 is none.
            With it no measure of held-out samples is sent.
        by_sample: whether that may be noise that protects single samples.
        uplink: what may be sent; None is no limit.
        stored: the last release of a task that was served; None where there is none.
        trust: what this device signs with, and whose releases it takes.
        require_masks: nothing is sent that a fog node could read.
    """

    open_oracle: Callable[[Bundle], Oracle]
    load_data: Callable[[Manifest], Dataset]
    check: Callable[[Bundle, Predict, Oracle, Vector, Dataset | None], Verdict]
    install: Callable[[Bundle, ReleaseManifest, Vector, bytes], None]
    traffic: Callable[[], tuple[int, int]]
    observe: Callable[[str, Fact], None]
    trained: Callable[[float], None]
    max_batch: int = 0
    nice: int = 10
    least_noise: float = 0.0
    by_sample: bool = False
    uplink: Uplink | None = None
    stored: Callable[[str], Served | None] = lambda task: None
    trust: Trust = ANYBODY
    require_masks: bool = False
    training: Callable[[], AbstractContextManager[None]] = nullcontext


@dataclass(frozen=True, slots=True)
class _Opened:
    label: bytes
    bundle: Bundle
    oracle: Oracle
    data: Dataset | None
    refusal: str  # why there are no data


class DeviceRole:
    """See the module; the shell calls it from the event loop."""

    role = "device"

    def __init__(self, place: Place, db: Database, parts: Parts) -> None:
        self._place, self._db, self._parts = place, db, parts
        self._tasks: dict[str, _Opened] = {}
        self._predictors: dict[str, tuple[_Opened, Vector, Predict]] = {}
        self._serving: set[str] = set()
        self._reported = (0, 0)
        self._receivers = outbox.receivers(db)  # of an earlier life, perhaps under another parent
        self._stop_now = threading.Event()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="work", initializer=_lower_priority, initargs=(parts.nice,))
        self._shell: Shell | None = None

    def attach(self, shell: Shell) -> None:
        """Say where events go; tasks known from the disk are opened."""
        self._shell = shell
        shell.open_tasks(outbox.known_tasks(self._db))

    def close(self) -> None:
        """Stop training after the step that is running."""
        self._stop_now.set()
        self._worker.shutdown(wait=True, cancel_futures=True)

    # -- what the shell asks

    def subscriptions(self, place: Place) -> list[str]:
        """See Role."""
        senders = sorted({place.parent, *self._receivers})
        return [
            *(topics.build(place.net, fog, "reply", node=place.node, task="+") for fog in senders),
            topics.build(place.net, place.parent, "task", task="+"),
            topics.build(place.net, place.parent, "release", task="+"),
            topics.build(place.net, place.parent, "ask", node="+"),
        ]

    def machine(self, task: str, now: float) -> Cycle | None:
        """See Role."""
        if self._shell is not None and len(self._shell.machines) >= MAX_TASKS:
            return None
        row = outbox.device_row(self._db, task)
        rows = outbox.kept_updates(self._db, task)
        kept = tuple(Kept(row.frame, row.receiver, row.acknowledged, unpack(row.note) if row.note else None) for row in rows)
        left = Left(_memory(row) if row else Memory(), kept, self._parts.stored(task), tuple(_joined(self._db, task)))
        parts = self._parts
        return Cycle(self._place, task, left, now, parts.uplink, trust=parts.trust, require_masks=parts.require_masks)

    def observe(self, task: str, fact: Fact) -> None:
        """See Role."""
        level = logging.WARNING if fact.name.endswith("_refused") else logging.DEBUG
        log.log(level, "%s", fact.name, extra={"facts": {"task": task, **fact.values}})
        self._parts.observe(task, fact)

    def act(self, wanted: Sequence[Wanted]) -> None:
        """See Role."""
        saves = [(task, action) for task, action in wanted if isinstance(action, SaveRound | SaveMemory | SaveAck | SaveJoined)]
        if saves:
            with self._db.transaction(durable=not all(_said_again(action) for _, action in saves)):
                for task, action in saves:
                    self._save(task, action)
        for task, action in wanted:
            self._begin(task, action)

    def _save(self, task: str, action: SaveRound | SaveMemory | SaveAck | SaveJoined) -> None:
        match action:
            case SaveRound(memory=memory, frame=frame, masked=masked):
                outbox.put_update(self._db, frame, self._place.parent, None if masked is None else pack(masked))
                outbox.put_device_row(self._db, task, _row(memory))
            case SaveMemory(memory=memory, forget=forget):
                outbox.put_device_row(self._db, task, _row(memory))
                for update in forget:
                    outbox.forget(self._db, task, update)
            case SaveJoined(joined=joined, forget=keys):
                outbox.forget_groups(self._db, task, keys)
                if joined is not None:
                    outbox.put_group(self._db, task, _group_row(joined))
            case SaveAck(update=update):
                outbox.acknowledge(self._db, task, update)

    def _begin(self, task: str, action: Any) -> None:
        match action:
            case OpenTask():
                self._in_background(task, lambda: self._open(task, action), lambda r: TaskRefused(action.blob.digest, r))
            case Install():
                self._in_background(task, lambda: self._install(task, action), lambda r: Installed(action.release.number, r))
            case Work():
                number = action.release.number
                self._in_background(task, lambda: self._do_work(task, action), lambda r: Worked(number, None, {}, r))

    def _in_background(self, task: str, work: Callable[[], Any], failed: Callable[[str], Any]) -> None:
        def run() -> Any:
            try:
                return work()
            except EdgeError as error:
                return failed(str(error))
            except Exception as error:
                log.exception("unexpected error in %s", task)
                return failed(f"internal error: {error!r}")

        assert self._shell is not None
        shell = self._shell
        future = asyncio.get_running_loop().run_in_executor(self._worker, run)
        future.add_done_callback(lambda done: None if done.cancelled() else shell.post(task, done.result()))

    # -- in the worker thread

    def _open(self, task: str, action: OpenTask) -> TaskOpened | TaskRefused:
        bundle = read_bundle(action.data)
        if bundle.manifest.name != task:
            return TaskRefused(action.blob.digest, f"the bundle is for task {bundle.manifest.name!r}, not {task!r}")
        oracle = self._parts.open_oracle(bundle)
        data, reason = None, ""
        try:
            data = fit_dataset(self._parts.load_data(bundle.manifest), bundle.manifest)
        except DataError as error:
            reason = f"data refused: {error}"
            log.error("%s", reason, extra={"facts": {"task": task}})
        self._tasks[task] = _Opened(action.blob.label, bundle, oracle, data, reason)
        samples = len(data.train) if data is not None else 0
        log.info("task opened", extra={"facts": {"task": task, "parameters": bundle.manifest.size, "samples": samples}})
        return TaskOpened(action.blob.digest, bundle.manifest, theta_view(bundle.theta0), reason)

    def _install(self, task: str, action: Install) -> Installed:
        opened, manifest = self._tasks[task], action.release
        if opened.label != manifest.bundle:
            return Installed(manifest.number)  # the task was replaced while this waited
        predict = self._predictor(task, action.theta)
        verdict = self._parts.check(opened.bundle, predict, opened.oracle, action.theta, opened.data)
        if verdict.reason:
            return Installed(manifest.number, f"release {manifest.number} is not served: {verdict.reason}")
        self._parts.install(opened.bundle, manifest, action.theta, verdict.quantised)
        if task not in self._serving:
            self._serving.add(task)
            log.info("first release served", extra={"facts": {"task": task, "release": manifest.number}})
        as_float = f"release {manifest.number} is served as float32: {verdict.note}" if verdict.note else ""
        return Installed(manifest.number, as_float)

    def _do_work(self, task: str, action: Work) -> Worked:
        opened, manifest = self._tasks[task], action.release
        if opened.label != manifest.bundle:
            return Worked(manifest.number, None, self._tally({}), "the task was replaced meanwhile")
        if opened.data is None:
            return Worked(manifest.number, None, self._tally({}), opened.refusal)
        measured: Tally = {}
        if not self._parts.least_noise:  # whoever insists on noise says nothing that has none
            measured = dict(evaluate(self._predictor(task, action.theta), opened.oracle.manifest, opened.data.test))
        broken = sorted(name for name, (value, _) in measured.items() if not math.isfinite(value))
        tally = {MEASURED + name: value for name, value in measured.items() if name not in broken}
        trained, reason = None, f"{', '.join(broken)} on held-out samples: not a finite number" if broken else ""
        if action.train:
            try:
                trained, seconds = self._train(opened, opened.data, action)
                self._parts.trained(seconds)
                tally |= {"train_loss": (trained.loss * trained.weight, trained.weight), "train_s": (seconds, 1.0)}
            except DataError as error:
                reason = str(error)
        return Worked(manifest.number, trained, self._tally(tally), reason)

    def _train(self, opened: _Opened, data: Dataset, action: Work) -> tuple[Trained, float]:
        plan = within(action.release.plan or plan_of(opened.bundle.manifest.training), self._parts.max_batch)
        if refusal := _too_little_noise(plan, self._parts):
            raise DataError(f"release {action.release.number} {refusal}")
        started = time.perf_counter()
        with self._parts.training():
            trained = train(opened.oracle, action.theta, data.train, plan, action.seed, self._stop_now.is_set)
        return trained, time.perf_counter() - started

    def _predictor(self, task: str, theta: Vector) -> Predict:
        """The predictor of these values; installing and measuring one release share it."""
        opened, known = self._tasks[task], self._predictors.get(task)
        if known is None or known[0] is not opened or not np.array_equal(known[1], theta):
            known = self._predictors[task] = opened, theta, opened.oracle.predictor(theta)
        return known[2]

    def _tally(self, tally: Tally) -> Tally:
        sent, received = self._parts.traffic()
        before, self._reported = self._reported, (sent, received)
        return tally | {"uplink": (float(sent - before[0]), 1.0), "downlink": (float(received - before[1]), 1.0)}


def _too_little_noise(plan: Plan, parts: Parts) -> str:
    """Why a device that insists on noise does not train by a plan; empty where it does."""
    least, unit = parts.least_noise, "" if parts.by_sample else " for all of its samples (privacy.unit)"
    if not least or (plan.update_clip > 0 and plan.update_noise >= least and (parts.by_sample or not plan.by_sample)):
        return ""
    asked = f"noise {plan.update_noise:g}" if plan.update_clip else "no noise"
    asked += " for single samples" if plan.by_sample else ""
    return f"asks for {asked}; this device insists on privacy.least_noise = {least:g}{unit}"


def _lower_priority(nice: int) -> None:
    """Linux gives every thread a niceness of its own; elsewhere the whole process would suffer, so it is left alone."""
    if nice and hasattr(os, "sched_setscheduler"):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice)


def _said_again(action: SaveRound | SaveMemory | SaveAck | SaveJoined) -> bool:
    """Whether a power cut may take this back: whoever said it says it again, and what was forgotten is forgotten later."""
    match action:
        case SaveMemory(durable=durable):
            return not durable
        case SaveJoined(joined=joined):
            return joined is None
        case _:
            return isinstance(action, SaveAck)


def _group_row(joined: Joined) -> GroupRow:
    group = b"" if joined.group is None else pack_group(joined.group)
    return GroupRow(joined.run, joined.release, joined.fog, joined.seed, group, joined.dealt, joined.survivors)


def _joined(db: Database, task: str) -> Iterator[Joined]:
    for row in outbox.groups(db, task):
        group = unpack_group(row.group) if row.group else None
        yield Joined(row.run, row.release, row.fog, row.seed, group, row.dealt, row.survivors)


def _row(memory: Memory) -> DeviceRow:
    residual = None if memory.residual is None else memory.residual.astype("<f4").tobytes()
    counts = memory.updates_sent, memory.weight_sent, memory.updates_returned, memory.weight_returned
    books = memory.balance.trained, memory.balance.moved, memory.balance.sent, memory.balance.worst
    personal = {name: values.astype("<f4").tobytes() for name, values in memory.personal.items()}
    return DeviceRow(memory.run, memory.trained_on, memory.measured_on, residual, *counts, *books, memory.weight_owed, personal)


def _memory(row: DeviceRow) -> Memory:
    residual = None if row.residual is None else np.frombuffer(row.residual, "<f4").astype(np.float32)
    counts = row.updates_sent, row.weight_sent, row.updates_returned, row.weight_returned, row.weight_owed
    books = Balance(row.mass_trained, row.mass_moved, row.mass_sent, row.mass_imbalance)
    personal = {name: np.frombuffer(data, "<f4").astype(np.float32) for name, data in row.personal.items()}
    return Memory(row.run, row.trained_on, row.measured_on, residual, *counts, books, personal)
