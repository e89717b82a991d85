"""The one place where everything passes that a node uploads about updates: it waits for tokens.

Counted are the payload bytes of every PUBLISH packet with an update, an offer or a chunk of an update, the first time and every
time again, whether or not it arrives; not those of a message that met no connection. Presence and answers about the status are
not counted, nor are acknowledgements and the headers of MQTT, TCP and TLS.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from edgemw.transport.connection import BrokerUnreachable, NotConnected
from edgemw.transport.publishing import Publish
from edgemw.wire.bucket import Bucket


class Gate:
    """Lets publications through in the order in which they came, each once its bytes are in the bucket."""

    def __init__(self, bucket: Bucket, clock: Callable[[], float]) -> None:
        self._bucket, self._clock = bucket, clock
        self._turn = asyncio.Lock()
        self._closed = asyncio.Event()

    async def publish(self, publish: Publish, topic: str, payload: bytes) -> None:
        """Publish once the bytes of the payload may leave.

        Raises:
            LinkError: it was not taken, or the gate was closed first.
        """
        size_bytes = len(payload)
        await self._take(size_bytes)
        stayed = 0
        try:
            await publish(topic, payload)
        except NotConnected:
            stayed = size_bytes
            raise
        finally:
            self._bucket.left(size_bytes, self._clock(), stayed=stayed)

    def close(self) -> None:
        """Let nothing through any more: whoever waits is told so."""
        self._closed.set()

    async def _take(self, size_bytes: int) -> None:
        self._bucket.asked += size_bytes
        try:
            async with self._turn:
                while (wait_s := self._bucket.take(size_bytes, self._clock())) > 0:
                    await self._pause(wait_s)
        finally:
            self._bucket.asked -= size_bytes

    async def _pause(self, wait_s: float) -> None:
        try:
            async with asyncio.timeout(wait_s):
                await self._closed.wait()
        except TimeoutError:
            return
        raise BrokerUnreachable(
            "the node is stopping", where="uplink", hint="what waited for tokens is on disk and is sent later"
        )
