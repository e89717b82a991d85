"""A thread that looks at a meter again and again, and keeps its totals on disk for the next life."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from threading import Event, Thread

from edgemw.core.files import replace_file
from edgemw.telemetry.energy.meter import COMPONENTS, NONE, Energy, Meter, Usage
from edgemw.telemetry.energy.totals import MOST_PERIODS

FILE = "energy.json"
SAVE_S = 60.0
STOP_S, LATE_S = 5.0, 10.0
_MOST_BYTES = 4096

log = logging.getLogger(__name__)


class Sampler:
    """Runs from `start` to `stop`; `energy` and `life` may be read by any thread."""

    def __init__(self, meter: Meter, usage: Callable[[], Usage], period_s: float, folder: Path) -> None:
        """Name what is to be looked at.

        Args:
            usage: what was used so far; called in the thread.
            period_s: between two looks.
            folder: of the node's state.
        """
        self._meter, self._usage, self._period_s, self._file = meter, usage, period_s, folder / FILE
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="energy", daemon=True)
        self._unsaved_s, self._failed, self._looked_s = 0.0, False, time.monotonic()

    @property
    def energy(self) -> Energy:
        """The totals of all lives, at the last look."""
        return self._fresh(self._meter.energy)

    @property
    def life(self) -> Energy:
        """Those of this life: what Prometheus is told begins at 0, for what was not saved is lost with a life."""
        return self._fresh(self._meter.life)

    def _fresh(self, energy: Energy) -> Energy:
        """Nothing is known of now where a sensor has hung."""
        late = time.monotonic() - self._looked_s > LATE_S + MOST_PERIODS * self._period_s
        return replace(energy, watts=0.0, source=NONE, uncertainty_ratio=0.0) if late else energy

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look once more, save, and end; a sensor that hangs is not waited for."""
        self._stopping.set()
        self._thread.join(STOP_S)

    def _run(self) -> None:
        while not self._stopping.wait(self._period_s):
            self._look()
            self._unsaved_s += self._period_s
            if self._unsaved_s >= SAVE_S:
                self._save()
        self._look()
        self._save()

    def _look(self) -> None:
        try:
            self._meter.look(self._usage())
            self._looked_s = time.monotonic()
        except Exception:  # a reader that fails in a way that nobody thought of must not end the node, or go unheard
            if not self._failed:
                log.exception("energy cannot be looked at; this is said once")
            self._failed = True

    def _save(self) -> None:
        self._unsaved_s = 0.0
        try:
            replace_file(self._file, json.dumps(asdict(self._meter.energy)).encode())
        except OSError as error:
            log.warning("energy cannot be saved: %s", error, extra={"facts": {"file": str(self._file)}})


def energy_before(folder: Path) -> Energy:
    """The totals that an earlier life has left; none where there is no such file, or it is damaged."""
    file = folder / FILE
    try:
        with file.open("rb") as opened:
            found = json.loads(opened.read(_MOST_BYTES))
        energy = Energy(**found)
        numbers = [*energy.joules.values(), energy.idle_j, *energy.components.values(), energy.carried_bytes]
        sound = all(isinstance(n, int | float) and 0 <= n < math.inf for n in [*numbers, energy.predictions, energy.gaps])
        if not sound or set(energy.components) != set(COMPONENTS):
            raise ValueError("numbers")
    except FileNotFoundError:
        return Energy()
    except (OSError, ValueError, TypeError, AttributeError):
        log.warning("energy begins at 0: %s is damaged", file)
        return Energy()
    return replace(energy, watts=0.0, source=NONE, uncertainty_ratio=0.0)
