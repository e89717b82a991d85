"""A device's books: everything it ever trained is in its updates or in its residual.

    sum of w delta  =  sent - returned + residual

Where a codec rounds by chance and forgets what it rounded off, an update stands for what it says: that is booked as trained.

Kept as one number each, the sum over all coordinates in float64. Rounding of float32 leaves about 1e-7 of what was trained; a
residual that was lost, an update that was given back twice or a payload that says something else shows at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from edgemw.core.bundle import Vector


@dataclass(frozen=True, slots=True)
class Balance:
    """The books of one training run.

    Attributes:
        trained: sum over the coordinates of every weighted delta, or of what an update said of it.
        moved: sum of their sizes, at least |trained|: what an imbalance is measured against.
        sent: sum over the coordinates of what updates say, less what came back.
        worst: the largest imbalance that was ever seen, as a part of `moved`.
    """

    trained: float = 0.0
    moved: float = 0.0
    sent: float = 0.0
    worst: float = 0.0

    def after_training(self, weight: int, delta: Vector, said: Vector, residual: Vector) -> Balance:
        """The books after an update.

        Args:
            weight: of the training.
            delta: float32[P] that it gave, or, with weight 1, what was said of it.
            said: float32[P] that the payload stands for.
            residual: float32[P] after it.
        """
        moved = weight * float(np.abs(delta).sum(dtype=np.float64))
        trained, sent = self.trained + weight * _sum(delta), self.sent + _sum(said)
        return _checked(replace(self, trained=trained, moved=self.moved + moved, sent=sent), residual)

    def after_return(self, said: Vector, residual: Vector) -> Balance:
        """The books after an update was given back; `said` is what its payload stands for, `residual` has it again."""
        return _checked(replace(self, sent=self.sent - _sum(said)), residual)


def _checked(books: Balance, residual: Vector) -> Balance:
    if not books.moved:
        return books
    imbalance = abs(books.trained - books.sent - _sum(residual)) / books.moved
    return replace(books, worst=max(books.worst, imbalance))


def _sum(vector: Vector) -> float:
    return float(vector.sum(dtype=np.float64))
