"""Large payloads in pieces: cut on one side, put together on the other in any order, duplicates and all."""

from __future__ import annotations

import hashlib

from edgemw.core.errors import WireError
from edgemw.wire.fields import LABEL_BYTES
from edgemw.wire.messages import Blob, Chunk
from edgemw.wire.parts import Forgetful, Parts

CHUNK_BYTES = 120_000


def blob_of(data: bytes, chunk_size: int = CHUNK_BYTES) -> Blob:
    """The reference to some bytes. Raises ValueError when there are none: nothing can be cut from them."""
    if not data:
        raise ValueError("a blob has at least one byte")
    return Blob(hashlib.sha256(data).digest(), len(data), chunk_size)


def cut(data: bytes, blob: Blob, index: int) -> Chunk:
    """Chunk `index` of the data."""
    start = index * blob.chunk_size
    return Chunk(blob.digest, index, data[start : start + blob.chunk_size])


def bitmap(indexes: list[int], chunks: int) -> bytes:
    """A bitmap with these bits set: bit i of byte i // 8, lowest first."""
    bits = bytearray(-(-chunks // 8))
    for index in indexes:
        bits[index // 8] |= 1 << index % 8
    return bytes(bits)


def indexes(bits: bytes, chunks: int) -> list[int]:
    """The bits that are set among the first `chunks`; a bitmap that is too short ends in zeros."""
    return [index for index in range(min(chunks, 8 * len(bits))) if bits[index // 8] >> index % 8 & 1]


class Assembler:
    """Puts one blob together. Memory is what has arrived, never what was promised; `parts` has it for another life.

    Attributes:
        blob: what it is to be.
        duplicates: chunks that had come before.
        held_bytes: what has arrived and is kept.
    """

    def __init__(self, blob: Blob, owner: str = "", parts: Parts | None = None) -> None:
        """Begin, with chunks that came in another life; all of them at once are none, for a whole is never kept."""
        self.blob = blob
        self.duplicates = 0
        self._owner, self._kept = owner, Forgetful() if parts is None else parts
        found = {index: data for index, data in self._kept.kept(owner, blob).items() if self._fits(index, data)}
        self._parts: dict[int, bytes] = found if len(found) < blob.chunks else {}
        self.held_bytes = sum(map(len, self._parts.values()))

    @property
    def missing(self) -> list[int]:
        """Indexes of the chunks that have not come."""
        return [index for index in range(self.blob.chunks) if index not in self._parts]

    def add(self, chunk: Chunk) -> bytes | None:
        """Take a chunk; returns the whole once it is complete.

        Raises:
            WireError: the chunk is not of this blob, or the whole does not match its digest (everything is then
                forgotten, so that a new delivery can repair it).
        """
        blob = self.blob
        if chunk.digest[:LABEL_BYTES] != blob.label or not self._fits(chunk.index, chunk.data):
            raise WireError("chunk", f"not chunk {chunk.index} of {blob.name}")
        is_new = chunk.index not in self._parts
        self._parts[chunk.index] = chunk.data
        if is_new:
            self.held_bytes += len(chunk.data)
        else:
            self.duplicates += 1
        if len(self._parts) < blob.chunks:
            if is_new:
                self._kept.keep(self._owner, blob, chunk.index, chunk.data)
            return None
        data = b"".join(self._parts[index] for index in range(blob.chunks))
        if not hashlib.sha256(data).digest().startswith(blob.digest):
            self.forget()
            raise WireError("digest", f"{blob.name} arrived altered")
        self._kept.forget(self._owner, blob.digest)
        return data

    def _fits(self, index: int, data: bytes) -> bool:
        blob = self.blob
        return 0 <= index < blob.chunks and len(data) == min(blob.chunk_size, blob.size - index * blob.chunk_size)

    def forget(self) -> None:
        """Begin again."""
        self._parts.clear()
        self.held_bytes = 0
        self._kept.forget(self._owner, self.blob.digest)
