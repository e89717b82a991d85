"""What updates must share to be added: the step that the release they were trained from announced, and the codec's ring.

Where a release announced no step (0), or its parameters ask for dyadic steps, a codec whose payloads shift takes powers of two
that differ: the integers of all others move up to the finest step. So no step is finer than the announced one by more than 2^12,
and where none was announced all that are taken are within 2^12 of each other, and of the median of what children took last,
taken or not: who comes first with an absurd step has one window, and is refused from then on. A fog node with a budget sends on a
coarser step, but no more for it: there it may be 2^24.

Sums are modulo 2^32 and nobody would notice one that wraps, so what is taken is kept account of:

    a device writes |q| <= 127; on a step that is announced and free, n updates are at most 127 n
    sum(max |q| step) / finest step < 2^31, over what was taken for a release; where steps are dyadic, for all
        releases that are still trained from, since their sums become one

What would be beyond is refused, and goes back to whom it came from.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median_low

from edgemw.compression.codec import Codec, Shifting, is_ringed, is_shifting
from edgemw.compression.merge import halvings
from edgemw.compression.steps import LEAST_STEP, MOST_PLACES, is_power
from edgemw.core.encoded import Section
from edgemw.robust.options import FEWEST

_COARSER, _FINER = 2.0**MOST_PLACES, 2.0**12
_RANGE = 2.0**31


@dataclass(frozen=True, slots=True)
class _Taken:
    """What was taken for one release: steps from the finest to the coarsest, and the most that its integers can add up to."""

    finest: float
    coarsest: float
    reach: float


class Steps:
    """The steps of the releases of one run that are still trained from."""

    def __init__(self) -> None:
        self._run = -1
        self._announced: dict[int, float] = {}
        self._taken: dict[int, _Taken] = {}  # by release
        self._own: dict[str, float] = {}  # of each child the last step that no release announced
        self._halvings = 0  # of the oldest that is taken, where sums over releases become one

    def begin(self, run: int, number: int, step: float, max_staleness: int) -> None:
        """A release announces a step; releases that are too old are forgotten."""
        self._enter(run)
        self._announced[number] = step
        self._halvings = halvings(max_staleness)
        for known in (self._announced, self._taken):
            for old in [base for base in known if number - base > max_staleness]:
                del known[old]

    def remember(self, codec: Codec, run: int, section: Section, size: int) -> None:
        """What was taken in an earlier life tells what its release announced; raises WireError where it is malformed."""
        self._enter(max(run, self._run))
        step, largest = _measured(codec, section.payload, size)
        if codec.stepped:
            self._know(codec, section.base, step)
            self._note(section.base, step, largest * step)

    def refusal(self, codec: Codec, section: Section, size: int, child: str = "") -> str:
        """Why a section cannot be added to others of its release; empty where it can, and it counts as taken then.

        Args:
            codec: of the release.
            section: see above.
            size: P.
            child: who sent it, and says with it which steps are usual where none is announced; "" says nothing.

        Raises:
            WireError: the payload is malformed.
        """
        base = section.base
        step, largest = _measured(codec, section.payload, size)
        reason = self._step_refusal(codec, base, step) if codec.stepped else ""
        if child and is_power(step) and not self._announced.get(base, 0.0):
            unusual = self._unusual(step, child)  # it has its vote, whatever else is said of it
            reason = reason or unusual
        if is_shifting(codec) and not reason:
            reason = self._range_refusal(codec, section, step, largest)
        if reason:
            return reason
        if is_ringed(codec) and codec.ring(section.payload) != codec.at(base).own_ring():
            return f"other parameters of {codec.name} than was asked for in release {base}"
        self._note(base, step, largest * step)
        return ""

    def _step_refusal(self, codec: Codec, base: int, step: float) -> str:
        if is_shifting(codec) and codec.dyadic and step and not is_power(step):
            return f"step {step} where powers of two were asked for"
        announced = self._know(codec, base, step)
        if step != announced and not _fits(codec, step, announced):
            return f"step {step} where release {base} announced {announced}"
        taken = self._taken.get(base, _Taken(step, step, 0.0))
        apart = _COARSER if announced else _FINER
        if is_power(step) and max(step, taken.coarsest) > apart * min(step, taken.finest):
            return f"step {step} where others of release {base} took {taken.finest} to {taken.coarsest}"
        return ""

    def _unusual(self, step: float, child: str) -> str:
        """Whether a step of a child's own is far from those of most others; each has one vote, its last."""
        self._own[child] = step
        usual = median_low(self._own.values())
        if len(self._own) >= FEWEST and max(step, usual) > _FINER * min(step, usual):
            return f"step {step} where most children take about {usual}"
        return ""

    def _range_refusal(self, codec: Shifting, section: Section, step: float, largest: int) -> str:
        """Whether symbols are larger than they can be, or could leave 32 bits with those that were taken."""
        base, most = section.base, codec.most * section.count
        if largest > most and not codec.dyadic and (section.count == 1 or self._announced.get(base, 0.0) > 0):
            return f"a symbol of {largest} where {section.count} updates write at most {most}"
        others = [taken for number, taken in self._taken.items() if codec.dyadic or number == base]
        finest = min([step, *(taken.finest for taken in others)])
        reach = largest * step + sum(taken.reach for taken in others)
        weighed = 2**self._halvings if codec.dyadic else 1  # the oldest may have a step that is finer by that
        if largest and weighed * reach >= _RANGE * finest:
            return f"symbols of {largest} on step {step} could leave 32 bits with those of others"
        return ""

    def _enter(self, run: int) -> None:
        if run != self._run:
            self._run = run
            self._announced.clear()
            self._own.clear()
            self._taken.clear()

    def _know(self, codec: Codec, base: int, step: float) -> float:
        """What the release announced, as far as one of its updates tells: a power of two may be the device's own."""
        own = is_shifting(codec) and is_power(step)
        return self._announced.setdefault(base, 0.0 if own else step)

    def _note(self, base: int, step: float, reach: float) -> None:
        if step > 0:
            taken = self._taken.get(base, _Taken(step, step, 0.0))
            self._taken[base] = _Taken(min(taken.finest, step), max(taken.coarsest, step), taken.reach + reach)


def _measured(codec: Codec, payload: bytes, size: int) -> tuple[float, int]:
    """The step of a payload and its largest symbol, 0 where steps do not differ."""
    return codec.measure(payload, size) if is_shifting(codec) else (codec.check(payload, size), 0)


def _fits(codec: Codec, step: float, announced: float) -> bool:
    """Whether a step that is not the announced one adds to those that are."""
    if not is_shifting(codec) or not (codec.dyadic or announced == 0):
        return False
    if step == 0 or announced == 0:
        return step == 0 or (is_power(step) and step * _FINER >= LEAST_STEP)
    return is_power(step) and announced <= _FINER * step and step <= _COARSER * announced
