"""Random numbers for a codec without state: a function of a key that everybody who needs them has.

The same key gives the same numbers everywhere and in every release of numpy. Where the key is the vector itself, vectors that
differ give unrelated numbers, so that error feedback, which never encodes the same vector twice, meets fresh ones every time.

Source: Philox, Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011; its key is the BLAKE2b hash of the key here.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from edgemw.core.bundle import Vector


def words(key: bytes, count: int) -> npt.NDArray[np.uint64]:
    """Random words that depend on the key alone, uint64[count]."""
    hashed = hashlib.blake2b(key, digest_size=16).digest()
    raw: npt.NDArray[np.uint64] = np.random.Philox(key=int.from_bytes(hashed, "little")).random_raw(count)
    return raw  # and no floats: numpy may change how it makes them


def uniform(vector: Vector, count: int) -> Vector:
    """Numbers in [0, 1) that depend on float32[P] alone, float32[count]: multiples of 2^-24, two from each word."""
    raw = words(vector.astype("<f4", copy=False).tobytes(), (count + 1) // 2)
    halves = raw.astype("<u8", copy=False).view("<u4")[:count]
    halves >>= np.uint32(8)
    numbers: Vector = halves.astype(np.float32)
    numbers *= np.float32(2.0**-24)
    return numbers
