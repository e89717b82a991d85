"""What a check of this machine or its broker has found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Check:
    """One finding; `hint` says what follows from it, or what to do."""

    name: str
    level: Level
    found: str
    hint: str = ""
