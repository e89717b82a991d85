"""Many seeds, one after the other or side by side, and what has to happen in some of them."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

from edgemw.simulation.fuzz.invariants import Broken
from edgemw.simulation.fuzz.options import Options
from edgemw.simulation.fuzz.storm import Storm

SOMETIMES = (
    "a crash between two actions",
    "a device took an update back",
    "a duplicate was dropped",
    "a forged update was refused",
    "a group was given up",
    "a group was unmasked",
    "a malformed message was dropped",
    "a message was lost",
    "a message with NaN was dropped",
    "a node took another's place",
    "a save failed",
    "a save was torn off",
    "a stale update was returned",
    "a window closed without everybody",
    "an old message came again",
    "masks of dropped devices came off",
)
"""What a batch of SOMETIMES_AFTER seeds or more has to have seen: were it not, the faults would test nothing."""
SOMETIMES_AFTER = 200


@dataclass(frozen=True, slots=True)
class Result:
    """One run.

    Attributes:
        options: of the run.
        failure: what did not hold, with where; empty where all did.
        seen: what happened, how often.
    """

    options: Options
    failure: str
    seen: dict[str, int] = field(default_factory=dict)


def run_one(options: Options) -> Result:
    """Run one seed; whatever goes wrong in it is its result."""
    storm = None
    try:
        storm = Storm(options)
        storm.run_through()
    except Exception as error:  # a machine may fail in any way: that is what is looked for
        where = traceback.extract_tb(error.__traceback__)[-1]
        at = f"{type(error).__name__} in {where.filename.rpartition('edgemw/')[2]}:{where.lineno}: "
        name = "" if isinstance(error, Broken) else at
        moment = "" if storm is None else f", {storm.now:.1f} s after the start"
        return Result(options, f"{name}{error}{moment}", dict(storm.seen) if storm is not None else {})
    return Result(options, "", dict(storm.seen))


def run_many(asked: Sequence[Options], workers: int) -> Iterator[Result]:
    """Run many, on so many processes; results come in their order."""
    if workers <= 1:
        yield from map(run_one, asked)
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(run_one, asked, chunksize=4)


def never_seen(results: Iterable[Result]) -> list[str]:
    """What should have happened in one of them and did not."""
    seen = Counter[str]()
    for result in results:
        seen.update(result.seen)
    return [what for what in SOMETIMES if not seen[what]]
