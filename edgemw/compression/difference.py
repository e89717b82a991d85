"""A release as a lattice difference to the one before it.

    step = kappa rms(master - base) ;  theta = base + decode(encode(master - base)) ;  master - theta is said later

`master` is the theta that the server step makes; what devices get follows it with error feedback, so that everybody who
starts from the same base ends with the same bits: one float32 product and one float32 sum per coordinate.

Source: the re-quantised downlink with error feedback is Double Squeeze, Tang et al., arXiv:1905.05957, algorithm 1.
"""

from __future__ import annotations

import numpy as np

from edgemw.compression.lattice import Lattice, next_step
from edgemw.core.bundle import Vector
from edgemw.core.errors import WireError


def difference(base: Vector, master: Vector, kappa: float) -> bytes:
    """The payload that leads from `base` towards `master`.

    Args:
        base: float32[P], what devices have.
        master: float32[P], where they should be.
        kappa: multiplier of the step; larger is fewer bytes.

    Raises:
        CodecError: the difference is not finite.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # the codec refuses what comes of it
        wanted = master - base
    wide = wanted.astype(np.float64)
    return Lattice().encode(wanted, next_step(kappa, float(np.dot(wide, wide)), 1, wanted.size))


def advance(theta: bytes | memoryview, payload: bytes) -> bytes:
    """The theta that a difference leads to.

    Args:
        theta: float32[P], little endian.
        payload: of `difference`.

    Raises:
        WireError: the payload is malformed, or leads out of float32.
    """
    base = np.frombuffer(theta, "<f4")
    with np.errstate(over="ignore"):
        moved = base + Lattice().decode(payload, base.size)
    if not np.isfinite(moved).all():
        raise WireError("not-finite", "a difference that leads out of float32")
    return moved.astype("<f4", copy=False).tobytes()
