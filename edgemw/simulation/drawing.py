"""What simulated devices draw for their secrets: the same in every run, and of no use to anybody outside."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from itertools import count

from edgemw.core.ids import Place


def drawn_by(place: Place) -> Callable[[], bytes]:
    """A source of 32 bytes at a time, another one for each life of a node."""
    numbers = count()

    def draw() -> bytes:
        return hashlib.sha256(f"{place.net}/{place.node}/{place.boot}/{next(numbers)}".encode()).digest()

    return draw
