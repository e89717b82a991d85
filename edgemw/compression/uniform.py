"""Random numbers for a codec without state: a function of the vector alone.

The same vector gives the same numbers everywhere and in every release of numpy; vectors that differ give unrelated ones, so
that error feedback, which never encodes the same vector twice, meets fresh numbers every time.

Source: Philox, Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011; its key is the BLAKE2b hash of the vector.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from edgemw.core.bundle import Vector


def uniform(vector: Vector, count: int) -> npt.NDArray[np.float64]:
    """Numbers in [0, 1) that depend on float32[P] alone, float64[count]."""
    key = hashlib.blake2b(vector.astype("<f4", copy=False).tobytes(), digest_size=16).digest()
    raw = np.random.Philox(key=int.from_bytes(key, "little")).random_raw(count)  # raw: numpy may change how it makes floats of it
    numbers: npt.NDArray[np.float64] = (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return numbers
