"""A release as a lattice difference to the one before it.

    wanted = master - base                   what devices lack: the server's move and what was not said before
    step   = max(kappa rms(move), rms(wanted))
    theta  = base + decode(encode(wanted)) ; master - theta is said later

`master` is the theta that the server step makes; what devices get follows it with error feedback, so that everybody who
starts from the same base ends with the same bits: one float32 product and one float32 sum for every coordinate.

The step follows the move alone: what is not said yet is up to step / 2 in every coordinate, so a step of kappa rms(wanted)
would grow with its own leftovers from kappa = sqrt(12) on, and a steady drift would never be said. The second term keeps a
small move after large ones from saying all leftovers at once; it shrinks with them.

Source: the re-quantised downlink with error feedback is DoubleSqueeze, Tang et al., arXiv:1905.05957, algorithm 1.
"""

from __future__ import annotations

import numpy as np

from edgemw.compression.lattice import Lattice
from edgemw.compression.steps import root_mean_square
from edgemw.core.bundle import Vector
from edgemw.core.errors import WireError

_LARGEST = float(np.finfo(np.float32).max)


def difference(base: Vector, master: Vector, move: Vector, kappa: float) -> bytes:
    """The payload that leads from `base` towards `master`.

    Args:
        base: float32[P], what devices have.
        master: float32[P], where they should be.
        move: float32[P], what the server step added to the master before.
        kappa: multiplier of the step; larger is fewer bytes.

    Raises:
        CodecError: the difference is not finite.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # the codec refuses what comes of it
        wanted = master - base
    step = max(kappa * root_mean_square(move), root_mean_square(wanted))
    return Lattice().encode(wanted, float(np.float32(min(step, _LARGEST))))


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
