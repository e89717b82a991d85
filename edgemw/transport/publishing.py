"""Blobs that this node puts on the broker, and takes away again whatever is still on its way.

    PublishBlob  ends an earlier publishing of the same blob, and its removal
    Retire       ends the publishing of its blob, then clears it chunk by chunk

A chunk that is cleared stays cleared: the link sends in the order in which it was asked, and for a publishing that was
ended it is not asked any more. A removal that the link cut short is kept until it is done.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from edgemw.core.errors import LinkError
from edgemw.core.ids import Place
from edgemw.wire import publication, topics
from edgemw.wire.chunks import cut
from edgemw.wire.messages import Blob, Frame
from edgemw.wire.traffic import PublishBlob, Retire

CHUNKS_AT_ONCE = 8
MAX_RETIRING = 1024

Publication = tuple[str, bytes]
"""A topic and a payload."""
Publish = Callable[[str, bytes], Coroutine[Any, Any, None]]


class Publishing:
    """The blobs that are being published, and those that are being removed."""

    def __init__(self, place: Place, publish: Publish) -> None:
        """Start with nothing.

        Args:
            publish: publishes retained; returns once the broker has it.
        """
        self._place, self._publish = place, publish
        self._under_way: dict[bytes, asyncio.Timeout] = {}
        self._retiring: dict[bytes, Retire] = {}

    async def publish(self, transfer: PublishBlob) -> bool:
        """Put a blob on the broker; False where it was retired, or asked for anew, before all of it was there.

        Raises:
            LinkError: a chunk was not taken.
        """
        digest = transfer.blob.digest
        self._retiring.pop(digest, None)
        self._end(digest)
        scope = self._under_way[digest] = asyncio.timeout(None)  # it has no time limit: `_end` lets it expire
        try:
            with contextlib.suppress(TimeoutError):
                async with scope:
                    await publish_all(self._publish, self._chunks(transfer, scope))
            return self._under_way.get(digest) is scope
        finally:
            if self._under_way.get(digest) is scope:
                del self._under_way[digest]

    async def retire(self, retire: Retire) -> None:
        """Remove a blob from the broker.

        Raises:
            LinkError: the link is down; `finish` goes on.
        """
        self._end(retire.blob.digest)
        while len(self._retiring) >= MAX_RETIRING:
            del self._retiring[next(iter(self._retiring))]
        self._retiring[retire.blob.digest] = retire
        await self._clear(retire)

    async def finish(self) -> None:
        """Go on with removals that were cut short. Raises LinkError."""
        for retire in list(self._retiring.values()):
            await self._clear(retire)

    def _end(self, digest: bytes) -> None:
        scope = self._under_way.pop(digest, None)
        if scope is not None:
            scope.reschedule(0.0)

    def _chunks(self, transfer: PublishBlob, scope: asyncio.Timeout) -> Iterator[Publication]:
        blob, place = transfer.blob, self._place
        for index in range(blob.chunks):
            if self._under_way.get(blob.digest) is not scope:
                return
            frame = Frame("", place.node, place.boot, 0, cut(transfer.data, blob, index))
            topic = self._topic(transfer.domain, blob, index)
            yield topic, publication.write(topic, frame)

    async def _clear(self, retire: Retire) -> None:
        digest = retire.blob.digest
        for index in range(retire.blob.chunks):
            if self._retiring.get(digest) is not retire:
                return  # published anew meanwhile
            await self._publish(self._topic(retire.domain, retire.blob, index), b"")
        self._retiring.pop(digest, None)

    def _topic(self, domain: str, blob: Blob, index: int) -> str:
        return topics.build(self._place.net, domain, "blob", digest=blob.name, index=str(index))


async def publish_all(publish: Publish, publications: Iterator[Publication]) -> None:
    """Publish with a few in flight; the first failure ends the others too.

    Raises:
        LinkError: one was not taken.
    """

    async def publish_next() -> None:
        for topic, payload in publications:  # every task takes the next one that nobody has taken
            await publish(topic, payload)

    failures: tuple[BaseException, ...] = ()
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(CHUNKS_AT_ONCE):
                group.create_task(publish_next(), name="chunks")
    except* LinkError as errors:
        failures = errors.exceptions
    if failures:
        raise failures[0]
