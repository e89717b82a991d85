"""Runs every setting with every seed, one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from edgemw.bench.experiment import VALIDATION, Experiment
from edgemw.bench.results import Outcome, Trial, trial_of
from edgemw.bench.sampling import Sampler
from edgemw.fog.release import TopOptions
from edgemw.simulation.learner import SITS_OUT, Learner, Participation
from edgemw.simulation.rounds import Round, Watch, run_rounds

_MOST_REASONS = 2  # told of a run; devices of one task mostly say the same


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a comparison stands.

    Attributes:
        setting, seed: what is running.
        run, runs: which of how many it is, from 1.
        release, rounds: the round that is over, of how many.
        value: the metric on validation samples.
        done: the run, when it is over.
    """

    setting: str
    seed: int
    run: int
    runs: int
    release: int
    rounds: int
    value: float
    done: Trial | None = None


def compare(
    experiment: Experiment, seeds: int, listen: Callable[[Progress], None], note: Callable[[str], None]
) -> tuple[Outcome, ...]:
    """Run all settings, each with the same seeds and samples; the reference comes first.

    An interrupt (Ctrl-C) ends it with the seeds that every setting has run with; where there is none yet it passes on.

    Args:
        experiment: what to run.
        seeds: runs of each setting, with seeds from 0.
        listen: told of every round, and of every run that is over.
        note: told what people should know of the samples.

    Raises:
        DataError: the samples cannot be dealt out.
        EdgeError: a run stands still.
    """
    trials: dict[str, list[Trial]] = {setting: [] for setting in experiment.options}
    try:
        for seed in range(seeds):  # seed by seed, so that a comparison that is cut short has seen every setting
            _run_seed(experiment, seed, seeds, trials, listen, note)
    except KeyboardInterrupt:
        whole = min(map(len, trials.values()))
        if whole == 0:
            raise
        note(f"interrupted: {whole} of {seeds} seeds are whole")
        trials = {setting: made[:whole] for setting, made in trials.items()}
    return tuple(Outcome(setting, tuple(made)) for setting, made in trials.items())


def _run_seed(
    experiment: Experiment,
    seed: int,
    seeds: int,
    trials: dict[str, list[Trial]],
    listen: Callable[[Progress], None],
    note: Callable[[str], None],
) -> None:
    """Add a run of every setting to `trials`."""
    shares, refused, how = experiment.shares(seed)
    if seed == 0:
        note(how)
        for device, reason in refused.items():
            note(f"{device} will not train: {reason}")
    for number, (setting, options) in enumerate(experiment.options.items(), 1 + seed * len(trials)):
        at = Progress(setting, seed, number, seeds * len(trials), 0, experiment.rounds, 0.0)
        learner = Learner(experiment.oracle, shares, refused, Participation(experiment.participation, seed))
        trial, reasons = _trial(experiment, options, learner, at, listen)
        trials[setting].append(trial)
        for node, reason in [*reasons.items()][: _MOST_REASONS if seed == 0 else 0]:
            note(f"{setting}: {node}: {reason}")


def _trial(
    experiment: Experiment, options: TopOptions, learner: Learner, at: Progress, listen: Callable[[Progress], None]
) -> tuple[Trial, Mapping[str, str]]:
    """The run, and what devices say was not right at its end, beside what was known before."""
    tree, metric = experiment.tree, experiment.metric
    sampler = Sampler(tree, experiment.rounds)

    def on_round(done: Round) -> None:
        value = done.metrics.get(VALIDATION + metric)
        listen(replace(at, release=done.release, value=float(value) if isinstance(value, int | float) else float("nan")))

    started = time.perf_counter()
    run = run_rounds(tree, experiment.data, options, learner, seed=at.seed, watch=Watch(on_round, sampler.look))
    wall_s = time.perf_counter() - started
    trial = trial_of(run, tree, metric, experiment.bundle.manifest.size, at.seed)
    trial = replace(trial, sample=sampler.sample(), wall_s=wall_s, training_s=learner.seconds)
    listen(replace(at, release=experiment.rounds, value=trial.path[-1].validation, done=trial))
    return trial, {node: reason for node, reason in run.reasons.items() if node not in learner.refused and reason != SITS_OUT}
