"""First values that need not travel: every reader draws them from a seed, the same bits on every machine.

    uniform   k scale / 2^24      k = 2 u + 1 - 2^24, u the upper 24 bits of the next word: odd, so never 0, and symmetric
    normal    s scale / 2^32      s = the sum of twelve 32-bit numbers less 6 (2^32 - 1): of the next six words, upper half first
    constant  scale

Words are those of Philox 4x64, whose key is the seed in the lower 64 bits and the number of the tensor in the upper ones; its
counter begins at 1. All sums are of integers; what is left is the rounding of s to float32 and one product of float32, in which
scale / 2^24 (or 2^32) is exact. No libm, no order of threads and no release of a library comes into it.

Sources: Philox: Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011. The sum of twelve uniform numbers as a
normal one: Hastings et al., 1955; it ends at 6 standard deviations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from edgemw.core.errors import BundleError

Kind = Literal["uniform", "normal", "constant"]
Values = npt.NDArray[np.float32]
MAX_SEED = (1 << 64) - 1
_BLOCK = 1 << 16  # numbers drawn at once
_WORDS = {"uniform": 1, "normal": 6}
_LOWER = np.uint64(0xFFFFFFFF)
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class Draw:
    """How the values of one tensor are drawn.

    Attributes:
        kind: "uniform" between -scale and scale, "normal" with the standard deviation scale, or "constant".
        scale: a finite float32; not negative but for a constant.
    """

    kind: Kind
    scale: float


@dataclass(frozen=True, slots=True)
class Recipe:
    """How theta0 is made.

    Attributes:
        seed: 0 to 2^64 - 1.
        draws: one for each tensor of the layout; None where its values are stored.
    """

    seed: int
    draws: tuple[Draw | None, ...]

    def make(self, sizes: Sequence[int], stored: Values) -> Values:
        """Theta0, float32[sum of sizes]; `stored` are the values of the tensors without a draw, in order."""
        theta, start, taken = np.empty(sum(sizes), np.float32), 0, 0
        for index, (size, draw) in enumerate(zip(sizes, self.draws, strict=True)):
            if draw is None:
                theta[start : start + size] = stored[taken : taken + size]
                taken += size
            else:
                _fill(theta[start : start + size], draw, self.seed | index << 64)
            start += size
        return theta

    def stored(self, sizes: Sequence[int], theta: Values) -> Values:
        """The values of theta that no draw makes, in order."""
        ends = np.cumsum([0, *sizes])
        kept = [theta[ends[n] : ends[n + 1]] for n, draw in enumerate(self.draws) if draw is None]
        return np.concatenate([np.empty(0, np.float32), *kept])

    def document(self) -> dict[str, Any]:
        """The recipe as JSON."""
        return {"seed": self.seed, "draws": [None if draw is None else [draw.kind, draw.scale] for draw in self.draws]}


def read_recipe(document: Any, tensors: int) -> Recipe:
    """The inverse of `Recipe.document`, from a stranger.

    Raises:
        BundleError: it is not one for that number of tensors.
    """
    try:
        seed, draws = document["seed"], tuple(map(_read_draw, islice(document["draws"], tensors + 1)))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise BundleError(f"the recipe of theta0 is incomplete: {error!r}") from error
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed <= MAX_SEED:
        raise BundleError(f"the seed of theta0 is not a number from 0 to {MAX_SEED}")
    if len(draws) != tensors:
        raise BundleError("the recipe of theta0 does not fit the layout")
    return Recipe(seed, draws)


def _read_draw(value: Any) -> Draw | None:
    if value is None:
        return None
    kind, scale = value
    if kind not in get_args(Kind):
        raise BundleError(f"theta0 is drawn in an unknown way: {str(kind)[:40]!r}")
    if not isinstance(scale, int | float) or isinstance(scale, bool) or not _fits(float(scale), signed=kind == "constant"):
        raise BundleError("theta0 is drawn with a scale that is no float32")
    return Draw(kind, float(scale))


def _fits(scale: float, *, signed: bool) -> bool:
    if not math.isfinite(scale) or abs(scale) > _LARGEST:
        return False
    return float(np.float32(scale)) == scale and (signed or scale >= 0)


def _fill(out: Values, draw: Draw, key: int) -> None:
    if draw.kind == "constant":
        out[:] = draw.scale
        return
    philox, words = np.random.Philox(key=key), _WORDS[draw.kind]
    for start in range(0, out.size, _BLOCK):
        block = out[start : start + _BLOCK]
        raw = philox.random_raw(words * block.size)  # raw: numpy may change how it makes floats of it
        block[:] = _uniform(raw, draw.scale) if draw.kind == "uniform" else _normal(raw.reshape(-1, words), draw.scale)


def _uniform(raw: npt.NDArray[np.uint64], scale: float) -> Values:
    odd = 2 * (raw >> np.uint64(40)).astype(np.int64) + (1 - (1 << 24))
    return odd.astype(np.float32) * np.float32(scale * 2.0**-24)


def _normal(raw: npt.NDArray[np.uint64], scale: float) -> Values:
    total = ((raw >> np.uint64(32)) + (raw & _LOWER)).sum(axis=1).astype(np.int64) - 6 * 0xFFFFFFFF
    values: Values = total.astype(np.float32) * np.float32(scale * 2.0**-32)
    return values
