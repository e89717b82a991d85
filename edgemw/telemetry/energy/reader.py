"""What all readers of energy have in common.

A reader opens what it needs below the roots of sysfs and procfs, or says why it cannot, and then tells joules since it was last
asked. It keeps nothing of what it told: totals are the meter's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edgemw.telemetry.energy.tree import Tree, Unreadable


@dataclass(frozen=True, slots=True)
class Moment:
    """A stretch of time that has just ended.

    Attributes:
        now_s: its end, by a clock that never goes back.
        seconds: how long it was.
        utilisation: of all cores together, 0 to 1.
        sent_bytes, received_bytes: over the network.
        sessions: how often the network was used again after a pause.
    """

    now_s: float
    seconds: float
    utilisation: float
    sent_bytes: float = 0.0
    received_bytes: float = 0.0
    sessions: int = 0


@dataclass(frozen=True, slots=True)
class Roots:
    """Where the kernel's files are, and how often they are read.

    Attributes:
        sysfs, procfs: other folders than /sys and /proc are for tests, and for containers that see the host's there.
        period_s: between two looks.
    """

    sysfs: Path = Path("/sys")
    procfs: Path = Path("/proc")
    period_s: float = 1.0

    @property
    def sys(self) -> Tree:
        """Files below sysfs."""
        return Tree(self.sysfs)

    @property
    def proc(self) -> Tree:
        """Files below procfs."""
        return Tree(self.procfs)


class Unavailable(Exception):
    """This machine has no such meter, or does not let us read it.

    Attributes:
        reason: a word, such as missing or permission.
        hint: what to do about it; empty where there is nothing.
    """

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.reason, self.hint = reason, hint


class Reader(Protocol):
    """A source of energy.

    Attributes:
        source: its name in metrics and settings.
        uncertainty_ratio: how far its joules may be from the true ones, as a part of them.
        sees_radio, sees_cards: whether what the radio, and graphics cards, take is in its joules.
    """

    source: str
    uncertainty_ratio: float
    sees_radio: bool
    sees_cards: bool

    def joules(self, moment: Moment) -> float | None:
        """Joules since the last call, 0 or more; None where it cannot say, as at the first.

        Raises:
            Unreadable: a sensor fails now; it may be back later.
        """
        ...


__all__ = ["Moment", "Reader", "Roots", "Tree", "Unavailable", "Unreadable"]
