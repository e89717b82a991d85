"""Where the chunks of what is still on its way are kept, so that another life goes on with the missing ones.

Whatever is kept is a help and no promise: a blob that was put together is checked by its digest as a whole, and what is not
found here is asked for again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from edgemw.wire.messages import Blob


class Parts(Protocol):
    """Chunks by who sends them, "" for blobs that this node fetches, and by the digest of the whole."""

    def keep(self, owner: str, blob: Blob, index: int, data: bytes) -> None:
        """Keep a chunk."""
        ...

    def kept(self, owner: str, blob: Blob) -> Mapping[int, bytes]:
        """The chunks of a blob of just this size that are here, by index."""
        ...

    def forget(self, owner: str, digest: bytes) -> None:
        """The blob is complete, or nobody waits for it."""
        ...


class Forgetful:
    """Keeps nothing."""

    def keep(self, owner: str, blob: Blob, index: int, data: bytes) -> None:
        """See Parts."""

    def kept(self, owner: str, blob: Blob) -> Mapping[int, bytes]:
        """See Parts."""
        return {}

    def forget(self, owner: str, digest: bytes) -> None:
        """See Parts."""
