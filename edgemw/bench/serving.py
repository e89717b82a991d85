"""What int8 does to the predictions of a task on this machine: size, speed and metrics beside float32.

Both are sessions in this process with one thread. They take turns, so that whatever else the machine does falls on both: in a
turn each answers one sample at a time for WINDOW_S, then batches of BATCH for as long. Times are medians over turns.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from edgemw.app.dealing import as_its_arrays_say, deal_out
from edgemw.app.sections import Dataset as DatasetSettings
from edgemw.bench.experiment import DIGITS, bundle_at
from edgemw.bench.report import clean
from edgemw.core.bundle import Bundle, Manifest, Vector
from edgemw.core.errors import BundleError, ConfigError, EdgeError
from edgemw.learning.dataset import Dataset, fit_dataset
from edgemw.learning.oracle import Array
from edgemw.learning.trainer import evaluate
from edgemw.serving.check import check_outputs
from edgemw.serving.guard import is_as_good
from edgemw.serving.quantise import MAX_SAMPLES, check_quantiser, quantised
from edgemw.serving.session import InferenceSession, open_graph, open_inference
from edgemw.serving.store import FLOAT32, INT8, ReleaseStore

TURNS, WINDOW_S, FEWEST, BATCH = 9, 0.05, 20, 32
FASTER = 0.95
"""The share of float32's time that int8 may take to be called faster: what is between is noise."""

T = TypeVar("T")
_Turn = tuple[float, float]
"""Seconds of a call, p50 and p99."""
_Turns = dict[str, list[_Turn]]


@dataclass(frozen=True, slots=True)
class Subject:
    """What is measured.

    Attributes:
        bundle: of the task.
        theta: float32[P].
        weights: where they are from, in words.
        trained: whether they are a release, and no first weights.
        data: training samples to calibrate on, test samples to measure on.
    """

    bundle: Bundle
    theta: Vector
    weights: str
    trained: bool
    data: Dataset


@dataclass(frozen=True, slots=True)
class Row:
    """One way to serve.

    Attributes:
        precision: FLOAT32 or INT8.
        size_bytes: of what is opened: graph and weights.
        make_ms: to make the int8 graph; 0 for float32.
        open_ms: to open the session.
        p50_us, p99_us: of a prediction of one sample.
        samples_per_s: in batches of BATCH.
        metrics: of the task, on test samples.
    """

    precision: str
    size_bytes: int
    make_ms: float
    open_ms: float
    p50_us: float
    p99_us: float
    samples_per_s: float
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True)
class Serving:
    """float32 beside int8.

    Attributes:
        task, parameters: of the bundle.
        weights, trained: see `Subject`.
        test_samples, calibrated_on: how many samples.
        tolerance: how much worse int8 may be by the task's first metric.
        rows: float32, and int8 where it could be made.
        times: time of one prediction with int8 over that with float32, median over turns; None where it could not be made.
        fault: why it could not be made.
    """

    task: str
    parameters: int
    weights: str
    trained: bool
    test_samples: int
    calibrated_on: int
    tolerance: float
    rows: tuple[Row, ...]
    times: float | None
    fault: str

    @property
    def choice(self) -> tuple[str, str]:
        """The precision to take, and why: int8 only where it is faster and the metric holds."""
        if self.times is None:
            return FLOAT32, self.fault
        was, now = (row.metrics for row in self.rows)
        if not was:
            return FLOAT32, "nothing says whether int8 is as good: there are no test samples, or no metrics"
        metric = next(iter(was))
        values = f"{metric} {now[metric]:.4f} beside {was[metric]:.4f}"
        if not is_as_good(metric, now[metric], was[metric], self.tolerance):
            return FLOAT32, f"int8 is worse: {values}"
        if self.times > FASTER:
            return FLOAT32, f"int8 is not faster: {self.times:.2f} times the time of one prediction"
        return INT8, f"{self.times:.2f} times the time of one prediction, {values}: serving.int8 = true in a device's file"

    def document(self) -> dict[str, Any]:
        """Everything, for scripts; what is not a number is null."""
        precision, why = self.choice
        cleaned: dict[str, Any] = clean(asdict(self) | {"recommendation": {"precision": precision, "why": why}})
        return cleaned

    def screen(self) -> str:
        """A table and the recommendation, for people."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"{self.task}: {self.parameters} parameters, {self.weights}; {self.test_samples} test samples"
        yield ""
        names = list(self.rows[0].metrics)
        head = f"{'':<10}{'bytes':>10}{'one, p50':>12}{'p99':>11}{f'batches of {BATCH}':>16}"
        yield head + "".join(f"{name:>15}" for name in names) + f"{'made in':>12}{'opened in':>12}"
        for row in self.rows:
            line = (
                f"{row.precision:<10}{row.size_bytes:>10}{row.p50_us:>9.1f} us{row.p99_us:>8.1f} us{row.samples_per_s:>14.0f}/s"
            )
            line += "".join(f"{row.metrics[name]:>15.4f}" for name in names)
            made = f"{row.make_ms:>9.1f} ms" if row.make_ms else f"{'-':>12}"
            yield f"{line}{made}{row.open_ms:>9.1f} ms"
        yield ""
        precision, why = self.choice
        yield f"take {precision}: {why}"
        if not self.trained:
            yield "these are first weights, which know nothing yet: give --store before you rely on this"


def prepare(task: Path, data: str, store: Path | None) -> Subject:
    """Read and check what is to be measured.

    Raises:
        ConfigError: the store has no release of this task, or the package onnx is missing.
        BundleError: the bundle cannot be used.
        DataError: the data cannot be used with it.
    """
    check_quantiser()
    bundle = bundle_at(task)[1]
    manifest = bundle.manifest
    if store is None:
        return Subject(bundle, bundle.theta0, "first weights", trained=False, data=_samples(data, manifest))
    if not store.is_dir():
        raise ConfigError(f"there is no folder {store}", key="--store")
    release = ReleaseStore(store, keep=1).wanted(manifest.name)
    if release is None:
        raise ConfigError(f"{store} holds no whole release of {manifest.name}", key="--store")
    if release.manifest.layout != manifest.layout:
        raise ConfigError(f"{store}: release {release.number} of {manifest.name} is of another model than {task}", key="--store")
    weights = f"release {release.number} of run {release.run}"
    return Subject(release.bundle, release.theta, weights, trained=True, data=_samples(data, manifest))


def measure(subject: Subject, tolerance: float, tell: Callable[[str], None]) -> Serving:
    """Make, open and measure both; `tell` hears what is being done.

    Raises:
        EdgeError: the weights give no outputs that could be served.
    """
    manifest, data, ways, fault = subject.bundle.manifest, subject.data, [_as_float(subject)], ""
    try:
        tell("quantising")
        ways.append(_as_int8(subject))
    except EdgeError as error:
        fault = str(error)
    single, batch = _timed({way.precision: way.session for way in ways}, data, tell)
    tell("measuring on test samples")
    ratios = [now / was for (was, _), (now, _) in zip(single[FLOAT32], single.get(INT8, []), strict=False)]
    return Serving(
        task=manifest.name,
        parameters=manifest.size,
        weights=subject.weights,
        trained=subject.trained,
        test_samples=len(data.test),
        calibrated_on=min(MAX_SAMPLES, len(data.train)),
        tolerance=tolerance,
        rows=tuple(_row(way, single[way.precision], batch[way.precision], subject) for way in ways),
        times=statistics.median(ratios) if ratios else None,
        fault=fault,
    )


@dataclass(frozen=True, slots=True)
class _Way:
    precision: str
    session: InferenceSession
    size_bytes: int
    make_ms: float
    open_ms: float


def _as_float(subject: Subject) -> _Way:
    graph, theta, manifest = subject.bundle.infer, subject.theta, subject.bundle.manifest
    session, open_ms = _clocked(lambda: open_inference(graph, theta, size=manifest.size))
    reason = check_outputs(session, manifest)
    if reason:
        raise EdgeError(f"{subject.weights} cannot be served: {reason}")
    return _Way(FLOAT32, session, len(graph) + 4 * manifest.size, 0.0, open_ms)


def _as_int8(subject: Subject) -> _Way:
    x = subject.data.train.x
    graph, make_ms = _clocked(lambda: quantised(subject.bundle, subject.theta, x))
    session, open_ms = _clocked(lambda: open_graph(graph))
    reason = check_outputs(session, subject.bundle.manifest)
    if reason:
        raise BundleError(f"with int8 {reason}")
    return _Way(INT8, session, len(graph), make_ms, open_ms)


def _clocked(work: Callable[[], T]) -> tuple[T, float]:
    """What it gives, and its milliseconds, once what is loaded at first use is loaded."""
    work()
    started = time.perf_counter()
    made = work()
    return made, 1e3 * (time.perf_counter() - started)


def _row(way: _Way, single: list[_Turn], batch: list[_Turn], subject: Subject) -> Row:
    measured = evaluate(way.session, subject.bundle.manifest, subject.data.test)
    return Row(
        precision=way.precision,
        size_bytes=way.size_bytes,
        make_ms=way.make_ms,
        open_ms=way.open_ms,
        p50_us=1e6 * statistics.median(p50 for p50, _ in single),
        p99_us=1e6 * statistics.median(p99 for _, p99 in single),
        samples_per_s=BATCH / statistics.median(p50 for p50, _ in batch),
        metrics={metric: total / weight for metric, (total, weight) in measured.items()},
    )


def _timed(sessions: dict[str, InferenceSession], data: Dataset, tell: Callable[[str], None]) -> tuple[_Turns, _Turns]:
    """Every turn of each way to serve, of one sample and of a batch."""
    x = data.train.x
    one, many = x[:1], np.ascontiguousarray(x[np.arange(BATCH) % len(x)])
    single: _Turns = {name: [] for name in sessions}
    batch: _Turns = {name: [] for name in sessions}
    for turn in range(TURNS):
        tell(f"turn {turn + 1} of {TURNS}")
        for name, session in sessions.items():
            single[name].append(_window(session, one))
            batch[name].append(_window(session, many))
    return single, batch


def _window(session: InferenceSession, x: Array) -> _Turn:
    """Seconds of a call, p50 and p99."""
    session(x)
    found: list[float] = []
    before = time.perf_counter()
    end = before + WINDOW_S
    while len(found) < FEWEST or before < end:
        session(x)
        now = time.perf_counter()
        found.append(now - before)
        before = now
    p50, p99 = np.percentile(found, (50, 99))
    return float(p50), float(p99)


def _samples(data: str, manifest: Manifest) -> Dataset:
    """All samples in one place; those to train on calibrate."""
    if data == DIGITS:
        settings = DatasetSettings(source="digits", min_size=1)
    else:
        settings = as_its_arrays_say(DatasetSettings(path=Path(data), min_size=1), ("partition",))
    here = "here"
    dealt = deal_out(settings, [here], manifest)
    train, test = dealt.rows[here]
    return fit_dataset(Dataset(dealt.samples.take(train), dealt.samples.take(test)), manifest)
