"""Masks in the ring of the lanes: what one member adds to its integers, and what takes it off a sum.

    y_i = q_i + PRG(b_i) + sum_{j > i} PRG(s_ij) - sum_{j < i} PRG(s_ij)        modulo 2^bits, i and j in the group
    sum over survivors of y_i, less the masks that are left over = sum of q_i

What is left over in a sum: the own masks b_i of the survivors, and the pair masks between a survivor and a member that has
dropped out. The pair masks between two survivors are gone already.

PRG is the keystream of ChaCha20 (RFC 8439), which needs no instructions that small processors lack. Beside the lanes it masks one
integer modulo 2^192 (`WIDE_BITS`), for a number of the update that a ring of a few bits cannot carry.

Source: Bonawitz et al., CCS 2017, figure 4, rounds 2 and 3.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from edgemw.masking.keys import agreed

Lanes = npt.NDArray[np.unsignedinteger[Any]]
WIDE_BYTES = 24
WIDE_BITS = 8 * WIDE_BYTES
_NONCE = bytes(16)  # every key makes one stream


@dataclass(slots=True)
class Mask:
    """What is added to lanes and to the wide integer.

    Attributes:
        lanes: uint8[n] for up to 8 bits, else uint16[n]; modulo 2^8 or 2^16, so modulo 2^bits too.
        wide: modulo 2^192.
    """

    lanes: Lanes = field(repr=False)
    wide: int = 0

    @classmethod
    def of(cls, lanes: Lanes) -> Mask:
        """A mask for such lanes that changes nothing."""
        return cls(np.zeros_like(lanes))

    def add(self, key: bytes, *, negative: bool = False) -> None:
        """Add the stream of a key, or take it off."""
        itemsize = self.lanes.dtype.itemsize
        stream = Cipher(ChaCha20(key, _NONCE), None).encryptor().update(bytes(WIDE_BYTES + self.lanes.size * itemsize))
        lanes = np.frombuffer(stream, self.lanes.dtype, self.lanes.size, WIDE_BYTES)
        wide = int.from_bytes(stream[:WIDE_BYTES], "little")
        if negative:
            self.lanes -= lanes
        else:
            self.lanes += lanes
        self.wide = (self.wide + (-wide if negative else wide)) % (1 << WIDE_BITS)


def pair_key(private: bytes, other: bytes, transcript: bytes) -> bytes:
    """The key of the mask that two members have in common. Raises Tampered as `agreed`."""
    return agreed(private, other, transcript, b"pair")


def add_pairs(mask: Mask, member: int, pairs: Iterable[tuple[int, bytes]]) -> None:
    """Add to a mask what a member shares with others.

    Args:
        mask: changed in place.
        member: whose mask it is, by its place in the group.
        pairs: places of others, and the keys that it has in common with them (`pair_key`).
    """
    for other, key in pairs:
        mask.add(key, negative=other < member)


def take_off_pairs(mask: Mask, dropped: int, private: bytes, survivors: Iterable[tuple[int, bytes]], transcript: bytes) -> None:
    """Add to a mask, with the key of a member that has dropped out, what survivors have added to theirs because of it."""
    for survivor, key in survivors:
        mask.add(pair_key(private, key, transcript), negative=dropped < survivor)
