"""The step of the next release, from what devices say that training moved.

    r      = sqrt(sum of |w delta|^2 / coordinates of all devices)
    step' <- max(kappa r, min(step, SPREAD kappa r))

The residual is not in it: it fills [-step/2, step/2], so a step that follows the energy of what is sent grows with its own
leftovers. The step does not shrink while it is at most SPREAD times what the last moves ask for: where it shrinks by a part,
about that part of all coordinates says its leftovers at once, and that is most of what a converging run would send. The bound
makes up for a single wrong energy within one release.

Source: measured, docs/decisions/0010-step-rule.md.
"""

from __future__ import annotations

import math

import numpy as np

from edgemw.core.bundle import LARGEST

SPREAD = 4.0


def mean_move(energy: float, coordinates: int) -> float:
    """The root mean square of a coordinate of what a device moved.

    Args:
        energy: sum of the devices' squared norms in the last window.
        coordinates: that were for the codec, summed over these devices.
    """
    return math.sqrt(energy / max(1, coordinates))


def next_step(kappa: float, move: float, step: float) -> float:
    """The step for the next release; a finite float32 whatever peers claim.

    Args:
        kappa: multiplier; larger is fewer bytes.
        move: of `mean_move`.
        step: of the release before; 0 is none.
    """
    finest = kappa * move
    return as_step(max(finest, min(step, SPREAD * finest)))


def as_step(step: float) -> float:
    """The nearest step that a codec takes."""
    return float(np.float32(min(step, LARGEST)))
