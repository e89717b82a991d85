"""What updates must share to be added: the step that the release they were trained from announced, and the codec's ring.

Where a release announced no step (0), or its parameters ask for dyadic steps, a codec whose payloads shift takes powers of two
that differ. They must not be so far apart that their sum would wrap: the integers of all others move up to the finest step,
and 4096 devices of 127 steps each have 12 places left for that. So no step is finer than the announced one by more than 2^12,
and where none was announced all that are taken are within 2^12 of each other. A fog node with a budget sends on a coarser step,
but no more for it: there it may be 2^24.
"""

from __future__ import annotations

from edgemw.compression.codec import Codec, Ringed, Shifting
from edgemw.compression.steps import LEAST_STEP, MOST_PLACES, is_power
from edgemw.core.encoded import Section

_COARSER, _FINER = 2.0**MOST_PLACES, 2.0**12


class Steps:
    """The steps of the releases of one run that are still trained from."""

    def __init__(self) -> None:
        self._run = -1
        self._announced: dict[int, float] = {}
        self._taken: dict[int, tuple[float, float]] = {}  # the finest and the coarsest power of two, by release

    def begin(self, run: int, number: int, step: float, max_staleness: int) -> None:
        """A release announces a step; releases that are too old are forgotten."""
        self._enter(run)
        self._announced[number] = step
        for known in (self._announced, self._taken):
            for old in [base for base in known if number - base > max_staleness]:
                del known[old]

    def remember(self, codec: Codec, run: int, section: Section, size: int) -> None:
        """What was taken in an earlier life tells what its release announced; raises WireError where it is malformed."""
        self._enter(max(run, self._run))
        step = codec.check(section.payload, size)
        if codec.stepped:
            self._know(codec, section.base, step)
            self._note(section.base, step)

    def refusal(self, codec: Codec, section: Section, size: int) -> str:
        """Why a section cannot be added to others of its release; empty where it can, and it counts as taken then.

        Raises:
            WireError: the payload is malformed.
        """
        base, step = section.base, codec.check(section.payload, size)
        reason = self._step_refusal(codec, base, step) if codec.stepped else ""
        if reason:
            return reason
        if isinstance(codec, Ringed) and codec.ring(section.payload) != codec.at(base).own_ring():
            return f"other parameters of {codec.name} than was asked for in release {base}"
        self._note(base, step)
        return ""

    def _step_refusal(self, codec: Codec, base: int, step: float) -> str:
        if isinstance(codec, Shifting) and codec.dyadic and step and not is_power(step):
            return f"step {step} where powers of two were asked for"
        announced = self._know(codec, base, step)
        if step != announced and not _fits(codec, step, announced):
            return f"step {step} where release {base} announced {announced}"
        finest, coarsest = self._taken.get(base, (step, step))
        apart = _COARSER if announced else _FINER
        if is_power(step) and max(step, coarsest) > apart * min(step, finest):
            return f"step {step} where others of release {base} took {finest} to {coarsest}"
        return ""

    def _enter(self, run: int) -> None:
        if run != self._run:
            self._run = run
            self._announced.clear()
            self._taken.clear()

    def _know(self, codec: Codec, base: int, step: float) -> float:
        """What the release announced, as far as one of its updates tells: a power of two may be the device's own."""
        own = isinstance(codec, Shifting) and is_power(step)
        return self._announced.setdefault(base, 0.0 if own else step)

    def _note(self, base: int, step: float) -> None:
        if is_power(step):
            finest, coarsest = self._taken.get(base, (step, step))
            self._taken[base] = min(finest, step), max(coarsest, step)


def _fits(codec: Codec, step: float, announced: float) -> bool:
    """Whether a step that is not the announced one adds to those that are."""
    if not isinstance(codec, Shifting) or not (codec.dyadic or announced == 0):
        return False
    if step == 0 or announced == 0:
        return step == 0 or (is_power(step) and step * _FINER >= LEAST_STEP)
    return is_power(step) and announced <= _FINER * step and step <= _COARSER * announced
