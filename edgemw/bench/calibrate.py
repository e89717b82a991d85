"""How fast this machine trains, predicts and writes updates, with the code that devices run: for a profile of its own.

The measures take turns, so that whatever else the machine does falls on all of them; a value is the median of the turns, and its
spread what lies between the quartiles. The samples are random and fit the task: how fast it goes does not depend on them.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgemw.app.sections import Codec as CodecSettings
from edgemw.app.wiring import open_oracle
from edgemw.bench.cost import PASSES
from edgemw.compression.steps import own_step
from edgemw.compression.table import codec_named
from edgemw.core.bundle import Bundle, Manifest
from edgemw.core.plan import Plan, plan_of
from edgemw.learning.dataset import Samples
from edgemw.learning.oracle import Array, Oracle
from edgemw.learning.trainer import train
from edgemw.telemetry.machine import busy_seconds, own_memory_bytes

TURNS, MERGED = 7, 8
WIDE, BUSY = 0.15, 0.1
"""The spread, and the cores that others use, above which a calibration is better repeated."""
FASTER = 1.2
"""How much faster more threads must be to be worth the cores."""
MACS = "compute.training_macs_per_s"
_CALM = 1e-6  # learning rate, so that random samples never diverge

Measure = Callable[[float], float]
"""Measures for about so many seconds."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A value that was measured several times.

    Attributes:
        median: of the turns.
        low, high: the quartiles.
    """

    median: float
    low: float
    high: float

    @property
    def ratio(self) -> float:
        """How far the quartiles are apart, as a part of the median."""
        return (self.high - self.low) / self.median if self.median else 0.0

    def times(self, factor: float) -> Spread:
        """The same in another unit."""
        return Spread(factor * self.median, factor * self.low, factor * self.high)


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was measured.

    Attributes:
        measured: by the key of the profile.
        threads: of a training step.
        steps_by_threads: steps in a second, median, for every number of threads that was tried.
        batch: samples of a training step.
        parameters, task: of the bundle.
        cores, ram_bytes: that this process may use.
        others: cores that other programs used meanwhile, on average.
    """

    measured: Mapping[str, Spread]
    threads: int
    steps_by_threads: Mapping[int, float]
    batch: int
    parameters: int
    task: str
    cores: int
    ram_bytes: int
    others: float

    @property
    def warnings(self) -> tuple[str, ...]:
        """Why it is better repeated."""
        busy = f"other programs used {self.others:.2g} cores meanwhile: repeat it when they rest"
        wide = [
            f"{key} differed by {each.ratio:.0%} between quartiles: repeat it, with more --seconds"
            for key, each in self.measured.items()
            if each.ratio > WIDE and key != MACS  # which is the steps, in another unit
        ]
        return (*([busy] if self.others > BUSY else []), *wide)


def own_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def calibrate(bundle: Bundle, seconds: float, tell: Callable[[str], None], threads: Sequence[int] = ()) -> Calibration:
    """Measure for about so many seconds, and tell what is done.

    Args:
        threads: of a training step, to try: the fewest first. None are one, and one less than there are cores.

    Raises:
        BundleError: the bundle cannot be trained here.
    """
    manifest, plan = bundle.manifest, replace(plan_of(bundle.manifest.training), lr=_CALM)
    threads = threads or sorted({1, max(1, own_cores() - 1)})
    oracles = {count: open_oracle(bundle, count) for count in threads}
    measures = _measures(bundle, oracles, plan)
    window_s, taken = seconds / (TURNS * len(measures)), {name: list[float]() for name in measures}
    started, busy_s, own_s = time.monotonic(), busy_seconds(), time.process_time()
    for turn in range(TURNS):
        for name, measure in measures.items():
            taken[name].append(measure(window_s))
        told = ", ".join(f"{name.removeprefix('compute.')} {values[-1]:.3g}" for name, values in taken.items())
        tell(f"turn {turn + 1} of {TURNS}: {told}")
    wall_s, used_s = time.monotonic() - started, busy_seconds() - busy_s
    found = {name: _spread(values) for name, values in taken.items()}
    steps = {count: found.pop(_by_threads(count)) for count in threads}
    most = max(threads, key=lambda count: steps[count].median)
    best = most if steps[most].median > FASTER * steps[threads[0]].median else threads[0]
    macs = PASSES * manifest.size * plan.batch_size
    of_training = {"compute.training_steps_per_s": steps[best], MACS: steps[best].times(macs)}
    return Calibration(
        measured=of_training | found,
        threads=best,
        steps_by_threads={count: each.median for count, each in steps.items()},
        batch=plan.batch_size,
        parameters=manifest.size,
        task=manifest.name,
        cores=own_cores(),
        ram_bytes=own_memory_bytes(),
        others=max(0.0, used_s - (time.process_time() - own_s)) / wall_s,
    )


def _measures(bundle: Bundle, oracles: Mapping[int, Oracle], plan: Plan) -> dict[str, Measure]:
    """What is measured, by the key of the profile, or by what it is chosen from."""
    manifest, theta = bundle.manifest, bundle.theta0
    samples = _samples(manifest, plan.batch_size)
    predict, one = next(iter(oracles.values())).predictor(theta), samples.x[:1]
    codec, dense_bytes = codec_named(CodecSettings().use), 4 * manifest.size
    vector = np.random.default_rng(1).standard_normal(manifest.size).astype(np.float32)
    step = own_step(vector, CodecSettings().kappa)
    payload = codec.encode(vector, step)

    def steps_per_s(oracle: Oracle) -> Measure:
        def measure(window_s: float) -> float:
            few = _seconds_of(lambda: train(oracle, theta, samples, replace(plan, steps=2), 1, _never))
            steps = min(100_000, max(2, round(2 * window_s / few)))
            return steps / _seconds_of(lambda: train(oracle, theta, samples, replace(plan, steps=steps), 1, _never))

        return measure

    def rate(call: Callable[[], object], amount: float) -> Measure:
        return lambda window_s: amount / _median_s(call, window_s)

    return {
        **{_by_threads(count): steps_per_s(oracle) for count, oracle in oracles.items()},
        "compute.inference_s": lambda window_s: _median_s(lambda: predict(one), window_s),
        "compute.encode_bytes_per_s": rate(lambda: codec.encode(vector, step), dense_bytes),
        "compute.merge_bytes_per_s": rate(lambda: codec.merge([payload] * MERGED, manifest.size), MERGED * dense_bytes),
        "compute.decode_bytes_per_s": rate(lambda: codec.decode(payload, manifest.size), dense_bytes),
    }


def _by_threads(count: int) -> str:
    return f"steps per s with {count} thread{'s' if count > 1 else ''}"


def _never() -> bool:
    return False


def _seconds_of(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _median_s(call: Callable[[], object], window_s: float) -> float:
    """Seconds of a call, median of those that fit into the time, at least three; the first does not count."""
    call()
    taken: list[float] = []
    until = time.perf_counter() + window_s
    while len(taken) < 3 or time.perf_counter() < until:
        taken.append(_seconds_of(call))
    return statistics.median(taken)


def _spread(values: list[float]) -> Spread:
    low, median, high = statistics.quantiles(values, n=4)
    return Spread(median, low, high)


def _samples(manifest: Manifest, count: int) -> Samples:
    """Random inputs and targets that fit the task; whole numbers are classes, or else 0, which is in every table."""
    rng = np.random.default_rng(0)

    def made(shape: tuple[int, ...], dtype: str, classes: int) -> Array:
        if dtype == "int64":
            return rng.integers(0, classes, (count, *shape))
        return rng.standard_normal((count, *shape)).astype(dtype)

    x = made(manifest.input.shape, manifest.input.dtype, 1)
    return Samples(x, made(manifest.target.shape, manifest.target.dtype, manifest.classes or 1))
