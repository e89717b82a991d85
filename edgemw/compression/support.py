"""A random support that everybody shares without sending it: the coordinates, cut into blocks by chance.

    key_i = 33 random bits above i
    block n of N = the coordinates whose keys have rank floor(n P / N) to floor((n + 1) P / N) - 1

Every coordinate is in one block, every block is as likely as any other of its size, and blocks differ by at most one in size.
Inside a block coordinates stand in their order. Keys are distinct, so that the blocks are the same however they are sorted,
everywhere and in every release of numpy.
"""

from __future__ import annotations

import functools
import struct

import numpy as np
import numpy.typing as npt

from edgemw.compression.uniform import words

Places = npt.NDArray[np.int64] | slice
_PLACE_BITS = 31
_KEY = struct.Struct("<16sI")


@functools.lru_cache(maxsize=2)  # an update is encoded and decoded on the same support
def support(size: int, blocks: int, block: int, seed: int) -> Places:
    """The coordinates of one block, in increasing order; a slice of all where there is one block. It is read only.

    Args:
        size: P, below 2^31.
        blocks: N.
        block: n, from 0 to N - 1.
        seed: from 0 to 2^32 - 1.
    """
    if blocks == 1:
        return slice(None)
    first, last = _edges(size, blocks, block)
    if first == last:
        return np.zeros(0, np.int64)
    keys = words(_KEY.pack(b"edgemw support", seed), size)
    keys >>= np.uint64(_PLACE_BITS)
    keys <<= np.uint64(_PLACE_BITS)
    keys |= np.arange(size, dtype=np.uint64)
    keys.partition([first, last - 1])
    places = (keys[first:last] & np.uint64((1 << _PLACE_BITS) - 1)).astype(np.int64)
    places.sort()
    places.flags.writeable = False
    return places


def support_size(size: int, blocks: int, block: int) -> int:
    """How many coordinates a block holds."""
    first, last = _edges(size, blocks, block)
    return last - first


def _edges(size: int, blocks: int, block: int) -> tuple[int, int]:
    return block * size // blocks, (block + 1) * size // blocks
