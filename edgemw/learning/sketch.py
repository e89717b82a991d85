"""A small summary of samples that adds: for every class the sum of its features, and how many there are.

    phi <- phi min(1, C / |phi|) ;  B = sum over samples of [phi, C] (x) e_y        C: clip
    mean of class c = C B_c[:d] / B_c[d]

B is integers on a grid of C 2^-20: sums of devices are exact in any order, and noise is added to integers. A sample adds a vector
of norm at most sqrt(2) C to one row, so with noise of deviation z sqrt(2) C to every place, B is a Gaussian mechanism of
noise z for any one sample that is there or is not (`core/accountant.py`). It is said once, whoever learns from it, and has
K (d + 1) places where an update has one for each parameter: it is what a small fleet can afford.

Source: prototypes: Snell, Swersky and Zemel, NeurIPS 2017, section 2.3, with fixed features; noise: Balle and Wang, ICML 2018.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgemw.core.errors import DataError
from edgemw.core.noise import Integers, gaussian_integers

_PLACES = 20
_WITHIN = 1 - 1e-9  # what float64 may make of a norm

Wide = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sketch:
    """Sums by class.

    Attributes:
        sums: int64[classes, features + 1], in 2^-20 of `clip`; the last column counts.
        clip: largest norm of a sample's features.
    """

    sums: Integers
    clip: float

    def __add__(self, other: Sketch) -> Sketch:
        """That of the samples of both. Raises DataError where they are of different classes, features or clips."""
        if self.sums.shape != other.sums.shape or self.clip != other.clip:
            raise DataError(f"sketches of {self.sums.shape} and {other.sums.shape}, clips {self.clip:g} and {other.clip:g}")
        return Sketch(self.sums + other.sums, self.clip)

    def noised(self, secret: bytes, purpose: str, noise: float) -> Sketch:
        """With noise for any one sample of it.

        Args:
            secret: of whoever adds it, see `core/noise.py`.
            purpose: another one for every sketch.
            noise: deviation over sensitivity, as `noise_for` gives it; 0 is none.

        Raises:
            CodecError: the secret is none.
        """
        if noise == 0:
            return self
        drawn = gaussian_integers(secret, purpose, self.sums.size, noise * math.sqrt(2) * (1 << _PLACES))
        return Sketch(self.sums + drawn.reshape(self.sums.shape), self.clip)

    def means(self) -> Wide:
        """The mean features of every class, float64[classes, features]; a class without samples, as noise has it, is at 0."""
        wide = self.sums.astype(np.float64) * math.ldexp(self.clip, -_PLACES)
        counts = np.maximum(wide[:, -1:] / self.clip, 1.0)
        means: Wide = wide[:, :-1] / counts
        return means

    def scores(self, features: Wide) -> Wide:
        """How near samples float64[n, features] are to the mean of every class, float64[n, classes]; the largest is nearest."""
        means, inside = self.means(), clipped(features, self.clip)
        scores: Wide = inside @ means.T - 0.5 * (means**2).sum(axis=1)
        return scores


def sketch_of(features: Wide, labels: npt.NDArray[np.int64], classes: int, clip: float) -> Sketch:
    """The sketch of samples.

    Args:
        features: float64[n, features].
        labels: int64[n], from 0.
        classes: how many.
        clip: largest norm of a sample's features; longer ones are shortened.

    Raises:
        DataError: features or labels are not as said, or not finite.
    """
    if features.ndim != 2 or labels.shape != features.shape[:1] or clip <= 0:
        raise DataError(f"features of {features.shape}, labels of {labels.shape}, clip {clip:g}")
    if not np.isfinite(features).all() or (labels.size and not 0 <= labels.min() <= labels.max() < classes):
        raise DataError(f"features that are not finite, or labels beyond the {classes} classes")
    places = np.trunc(clipped(features, clip) * ((1 << _PLACES) / clip)).astype(np.int64)
    rows = np.concatenate([places, np.full((len(places), 1), 1 << _PLACES)], axis=1)
    sums = np.zeros((classes, rows.shape[1]), np.int64)
    np.add.at(sums, labels, rows)
    return Sketch(sums, clip)


def clipped(features: Wide, clip: float) -> Wide:
    """Samples with norms of at most `clip`, float64[n, features]."""
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    shortened: Wide = features * np.minimum(1.0, clip * _WITHIN / np.maximum(norms, 1e-300))
    return shortened
