"""What `edgemw check` says about budgets of bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from edgemw.app.sections import Codec, Release, Task
from edgemw.app.settings import Deployment, FogFile
from edgemw.compression.table import codec_named
from edgemw.core.bundle import Manifest
from edgemw.core.config.units import size_text
from edgemw.fog.spending import empty_release_bytes, empty_update_bytes


def budget_text(spending: Codec | Release) -> str:
    """The budget in words; empty where there is none."""
    if spending.budget_round is not None:
        return f"{size_text(spending.budget_round)} a round"
    return "" if spending.budget_run is None else f"{size_text(spending.budget_run)} in the run"


def budget_warnings(settings: Deployment | FogFile, manifest: Manifest) -> Iterator[str]:
    """A budget that messages in which nothing is said exceed already."""
    spending, codec = settings.codec, codec_named(settings.codec.use, **settings.codec.parameters)

    def update_bytes() -> float:
        return empty_update_bytes(manifest.name, manifest.metrics, codec, manifest.size)

    def release_bytes() -> float:
        return empty_release_bytes(codec, spending.parameters, manifest.size)

    yield from _too_little("codec", spending, settings.task, update_bytes, "an update without symbols")
    yield from _too_little("release", settings.release, settings.task, release_bytes, "a release in which nothing moves")


def _too_little(
    section: str, spending: Codec | Release, task: Task, least_bytes: Callable[[], float], what: str
) -> Iterator[str]:
    round_bytes = spending.budget_run / task.rounds if spending.budget_run is not None else spending.budget_round or 0.0
    if round_bytes and round_bytes < (least := least_bytes()):
        name = "budget_round" if spending.budget_round is not None else "budget_run"
        yield f"{section}.{name}: {round_bytes:.0f} B a round, and {what} is about {least:.0f} B: nothing would be learned"
