"""The picture of a comparison: accuracy against bytes, with what the updates would cost at least."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgemw.bench.report import Comparison
from edgemw.bench.results import Outcome

PICTURE = "codecs.png"
_COLORS = 20


def draw(comparison: Comparison, folder: Path) -> Path | None:
    """Draw a comparison and give the file's path; None where matplotlib is not installed.

    Left, the metric against what a device moves in a run, both ways, and dotted how far it would fall if updates were cut at the
    entropy of their values (|), or named their places and nothing else (<). Right, the same bounds beside the bits of an update.
    """
    try:
        import matplotlib
    except ImportError:
        return None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(13, 5), width_ratios=(3, 2))
    colors = pyplot.get_cmap("tab20")
    for number, outcome in enumerate(comparison.outcomes):
        _draw_outcome(left, comparison, outcome, colors(number % _COLORS))
        _draw_bits(right, number, outcome, colors(number % _COLORS))
    left.set_xscale("log")
    left.set_xlabel("bytes up and down per device, whole run\n| updates at their entropy   < index sets alone, H2(k / P)")
    left.set_ylabel(f"{comparison.metric} on validation samples")
    left.legend(fontsize=7)
    right.set_yticks(range(len(comparison.outcomes)), [outcome.setting for outcome in comparison.outcomes], fontsize=7)
    right.invert_yaxis()
    right.set_xscale("log")
    right.set_xlabel("bits for a parameter, up from a device")
    for axis in (left, right):
        axis.grid(alpha=0.3)
    devices, rounds = comparison.nodes[-1], comparison.rounds
    some = f", participation {comparison.participation:g}" if comparison.participation < 1 else ""
    figure.suptitle(f"{comparison.task}: {comparison.parameters} parameters, {devices} devices, {rounds} rounds{some}")
    figure.tight_layout()
    path = folder / PICTURE
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return path


def least_bytes(comparison: Comparison, outcome: Outcome) -> tuple[float | None, float | None]:
    """What a device would move with its updates at the entropy of their values, and with their index sets alone.

    None where there is no such bound: too few values repeat, or most places are named.
    """
    sample = outcome.sample
    if sample is None:
        return None, None
    updates_bytes = outcome.levels[-1].up_bits * comparison.parameters * comparison.rounds / 8
    rest, per_bit = outcome.device_bytes - updates_bytes, updates_bytes / sample.sent_bits
    entropy, index = sample.entropy_bits, sample.index_set_bits
    return None if entropy is None else rest + entropy * per_bit, None if index is None else rest + index * per_bit


def _draw_outcome(axis: Any, comparison: Comparison, outcome: Outcome, color: Any) -> None:
    score, path = outcome.validation(), outcome.path()
    axis.errorbar(outcome.device_bytes, score.mean, score.spread, fmt="o", color=color, label=outcome.setting, capsize=3)
    axis.plot([s.device_bytes for s in path], [s.validation for s in path], color=color, alpha=0.25, linewidth=0.8)
    for least, marker in zip(least_bytes(comparison, outcome), ("|", "<"), strict=True):
        if least is not None:
            axis.plot([least, outcome.device_bytes], [score.mean] * 2, color=color, linewidth=0.8, linestyle=":")
            axis.plot(least, score.mean, marker=marker, color=color, markersize=8)


def _draw_bits(axis: Any, number: int, outcome: Outcome, color: Any) -> None:
    sample = outcome.sample
    if sample is None:
        return
    axis.barh(number, sample.sent_bits, color=color, alpha=0.6)
    if sample.entropy_bits:
        axis.plot(sample.entropy_bits, number, "k|", markersize=12)
    if sample.index_set_bits:
        axis.plot(sample.index_set_bits, number, "k<", markersize=5)
