"""What every role's state machine hears and asks for, apart from messages.

A role is `handle(event, now) -> actions`: no I/O, no clock, no randomness of its own. A shell carries the actions out.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class LinkUp:
    """The broker is reachable."""


@dataclass(frozen=True, slots=True)
class LinkDown:
    """The broker is not reachable, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Timer:
    """A timer that was asked for went off."""

    name: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Finish what is being done, then ask for Finished."""


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Send Timer(name) at the time `at`; a later SetTimer of the same name replaces it."""

    name: str
    at: float


@dataclass(frozen=True, slots=True)
class Fact:
    """Something happened that an observer may count: metrics and logs are made from these, nowhere else."""

    name: str
    values: dict[str, int | float | str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Finished:
    """The role has nothing more to do: the shell may end."""
