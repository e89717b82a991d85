"""Reference outputs of a task: what its author's machine computed from the first values, for others to compare theirs with.

The input is the same everywhere, bit for bit, because it is made with whole numbers: rows of zeros, of ones, and two of values
in [0, 1) that look like noise (a Weyl sequence, the multiplier is that of Knuth, The Art of Computer Programming 3, 6.4).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

ROWS, WHOLE_ROWS = 4, 2
"""Of float32 inputs, and of int64 inputs, which have no noise: it may be out of the range of a table."""
MOST_VALUES = 4096
"""Of all rows together; a task with more of them has no reference."""
RELATIVE, ABSOLUTE = 1e-3, 1e-5
"""How far an output may be off, the first as part of the largest one: two machines add in another order."""
_MULTIPLIER = 2654435761

Outputs = npt.NDArray[np.float32]


def reference_input(shape: tuple[int, ...], dtype: str) -> npt.NDArray[Any]:
    """The input [rows, *shape] of dtype float32 or int64."""
    size = math.prod(shape)
    plain = [np.zeros(size, dtype), np.ones(size, dtype)]
    if dtype == "float32":
        places = np.arange((ROWS - len(plain)) * size, dtype=np.uint64) * np.uint64(_MULTIPLIER)
        noise = ((places & np.uint64(0xFFFFFFFF)) >> np.uint64(16)).astype(np.float32) / np.float32(1 << 16)
        plain += list(noise.reshape(-1, size))
    return np.stack(plain).reshape(-1, *shape)


def difference(found: Outputs, reference: Outputs) -> str:
    """Why outputs are not what they should be; "" where they are."""
    if found.shape != reference.shape:
        return f"outputs have shape {list(found.shape)}, the reference has {list(reference.shape)}"
    largest = float(np.abs(reference).max(initial=0.0, where=np.isfinite(reference)))
    off = ~np.isclose(found, reference, rtol=0.0, atol=RELATIVE * largest + ABSOLUTE, equal_nan=True)
    if not off.any():
        return ""
    return f"{int(off.sum())} of {off.size} outputs are not those that the task's author has computed from the same weights"
