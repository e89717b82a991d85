"""A fog node's own budget: a merged payload on a coarser lattice, and an integer residual for the next one.

    F = the window's sum ;  P = F + r ;  G = round_half_to_zero(P / 2^a) on step 2^a ;  r <- P - 2^a G

Everything is integers, so G + r is F + r to the last bit, and nothing is lost however often it is done. `a` is the least for
which G takes no more bytes than the budget. A node that sums n children then sends about as much as one of them, where the plain
sum grows with n. The residual is a payload itself: it is kept on disk as bytes, and added like any other.

Steps are to be powers of two (`steps = "dyadic"`), for a residual must add to windows of later releases, on other steps.

Source: nested lattices, Zamir, Lattice coding for signals and networks, chapter 8; error feedback, arXiv:1901.09847, algorithm 2.

>>> import numpy as np
>>> lattice, rng = Lattice(), np.random.default_rng(7)
>>> window = lattice.merge([lattice.encode(rng.laplace(0, 1, 1000).astype(np.float32), 2.0) for _ in range(5)], 1000)
>>> nested = nest(lattice, window, b"", 1000, limit_bytes=100)
>>> len(window), len(nested.sent), lattice.merge([nested.sent, nested.kept], 1000) == window
(379, 31, True)
"""

from __future__ import annotations

from dataclasses import dataclass

from edgemw.compression.lattice import Lattice
from edgemw.compression.steps import MOST_PLACES


@dataclass(frozen=True, slots=True)
class Nested:
    """What is sent of a payload, and the residual."""

    sent: bytes
    kept: bytes


def nest(lattice: Lattice, payload: bytes, kept: bytes, size: int, limit_bytes: int) -> Nested:
    """Send as much of a payload and of the residual as a budget allows.

    Args:
        lattice: the codec of the payload.
        payload: what a window brought, on a step that is a power of two.
        kept: the residual of before; empty is none.
        size: P.
        limit_bytes: of what is sent; 8 at least are needed for nothing at all.

    Raises:
        WireError: a payload is malformed, or their steps do not add.
    """
    total = lattice.merge([payload, *filter(None, [kept])], size)
    for places in range(MOST_PLACES):
        sent, rest = lattice.split(total, places, size)
        if len(sent) <= limit_bytes:
            return Nested(sent, rest)
    return Nested(*lattice.split(total, MOST_PLACES, size))


def taken_back(lattice: Lattice, kept: bytes, sent: bytes, payload: bytes, size: int) -> bytes:
    """The residual after what was sent has come back, and whose sum `payload` was have been given back theirs.

    Raises:
        WireError: a payload is malformed, or their steps do not add.
    """
    return lattice.merge([*filter(None, [kept]), sent, lattice.negative(payload, size)], size)
