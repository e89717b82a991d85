"""A release as a lattice difference to the one before it.

    wanted = master - base                   what devices lack: the server's move and what was not said before
    step   = max(kappa rms(move), rms(wanted))
    theta  = base + decode(encode(wanted)) ; master - theta is said later

`master` is the theta that the server step makes; what devices get follows it with error feedback, so that everybody who
starts from the same base ends with the same bits: one float32 product and one float32 sum for every coordinate.

The step follows the move alone: what is not said yet is up to step / 2 in every coordinate, so a step of kappa rms(wanted)
would grow with its own leftovers from kappa = sqrt(12) on, and a steady drift would never be said. The second term keeps a
small move after large ones from saying all leftovers at once; it shrinks with them.

Running statistics do not fit on a step of weights, nor do they come from a gradient: they follow the master as side values,
rounded towards zero, so that a variance never passes below 0 on its way.

Source: the re-quantised downlink with error feedback is DoubleSqueeze, Tang et al., arXiv:1905.05957, algorithm 1.
"""

from __future__ import annotations

import numpy as np

from edgemw.compression import side
from edgemw.compression.lattice import Lattice
from edgemw.compression.step_rule import as_step
from edgemw.compression.steps import root_mean_square
from edgemw.core.bundle import Vector
from edgemw.core.errors import WireError
from edgemw.core.ranges import Slots, blank, count, cut, put

_CODEC = Lattice(rounding="nearest")
_SIXTEENTHS = 256  # of an octave: 2^15 root mean squares are more than any of 2^30 coordinates can be off


def difference(base: Vector, master: Vector, move: Vector, kappa: float, apart: Slots = ()) -> bytes:
    """The payload that leads from `base` towards `master`.

    Args:
        base: float32[P], what devices have.
        master: float32[P], where they should be.
        move: float32[P], what the server step added to the master before.
        kappa: multiplier of the step; larger is fewer bytes.
        apart: tensors that the lattice says nothing of.

    Raises:
        CodecError: the difference is not finite.
    """
    wanted = _wanted(base, master, apart)
    if apart:
        move = move.copy()
        blank(move, apart)
    size = base.size - count(apart)
    return _CODEC.encode(wanted, as_step(max(kappa * root_mean_square(move, size), root_mean_square(wanted, size))))


def difference_within(base: Vector, master: Vector, limit_bytes: float, apart: Slots = ()) -> bytes:
    """The finest payload that leads from `base` towards `master` in at most so many bytes; one that says nothing where none is.

    Steps go by sixteenths of an octave, from half the root mean square of what is wanted. That says
    nearly everything; a larger limit is not used up.

    Args:
        base: as in `difference`.
        master: as in `difference`.
        limit_bytes: may be negative.
        apart: as in `difference`.

    Raises:
        CodecError: the difference is not finite.
    """
    wanted, codec = _wanted(base, master, apart), _CODEC
    scale = root_mean_square(wanted, base.size - count(apart))
    finest, coarsest, found = 0, _SIXTEENTHS, b""
    while finest < coarsest:
        middle = (finest + coarsest) // 2
        payload = codec.encode(wanted, as_step(0.5 * scale * 2 ** (middle / 16)))
        if len(payload) <= limit_bytes:
            coarsest, found = middle, payload
        else:
            finest = middle + 1
    return found or codec.encode(wanted, 0.0)


def statistics_difference(base: Vector, master: Vector, statistics: Slots) -> bytes:
    """The side values that lead from the statistics of `base` towards those of `master`; arguments as of `difference`."""
    wanted = cut(master, statistics).astype(np.float64) - cut(base, statistics)
    return side.encode(wanted)


def advance(theta: bytes | memoryview, payload: bytes, beside: bytes = b"", statistics: Slots = ()) -> bytes:
    """The theta that a difference leads to.

    Args:
        theta: float32[P], little endian.
        payload: of `difference`.
        beside: of `statistics_difference`.
        statistics: the tensors that it is about.

    Raises:
        WireError: a payload is malformed, or leads out of float32.
    """
    base = np.frombuffer(theta, "<f4")
    with np.errstate(over="ignore"):
        moved = base + _CODEC.decode(payload, base.size)
        added = side.decode(beside, count(statistics))
        put(moved, statistics, (cut(base, statistics) + added).astype(np.float32))
    if not np.isfinite(moved).all():
        raise WireError("not-finite", "a difference that leads out of float32")
    return moved.astype("<f4", copy=False).tobytes()


def _wanted(base: Vector, master: Vector, apart: Slots) -> Vector:
    with np.errstate(over="ignore", invalid="ignore"):  # the codec refuses what comes of it
        wanted: Vector = master - base
    blank(wanted, apart)
    return wanted
