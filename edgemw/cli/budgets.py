"""What `edgemw check` says about budgets of bytes."""

from __future__ import annotations

from collections.abc import Iterator

from edgemw.app.sections import Codec, Release, Task
from edgemw.app.settings import Deployment, FogFile
from edgemw.compression.table import codec_named
from edgemw.core.bundle import Manifest
from edgemw.core.config.units import size_text
from edgemw.fog.spending import empty_update_bytes


def budget_text(spending: Codec | Release) -> str:
    """The budget in words; empty where there is none."""
    if spending.budget_round is not None:
        return f"{size_text(spending.budget_round)} a round"
    return "" if spending.budget_run is None else f"{size_text(spending.budget_run)} in the run"


def budget_warnings(settings: Deployment | FogFile, manifest: Manifest) -> Iterator[str]:
    """A budget that updates without symbols exceed already."""
    codec, task = settings.codec, settings.task
    round_bytes = _round_bytes(codec, task)
    if not round_bytes:
        return
    least = empty_update_bytes(manifest.name, manifest.metrics, codec_named(codec.use, **codec.parameters), manifest.size)
    if round_bytes < least:
        name = "budget_round" if codec.budget_round is not None else "budget_run"
        symbols = f"an update without symbols is about {least:.0f} B"
        yield f"codec.{name}: {round_bytes:.0f} B a round, and {symbols}: nothing would be learnt"


def _round_bytes(codec: Codec, task: Task) -> float:
    if codec.budget_run is not None:
        return codec.budget_run / task.rounds
    return codec.budget_round or 0.0
