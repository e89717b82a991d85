"""Updates on their way up: in one message, or offered first and then sent in the chunks that were granted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from edgemw.core.errors import WireError
from edgemw.core.ids import Place, UpdateId
from edgemw.transport.publishing import Publication, Publish, publish_all
from edgemw.wire import publication, topics
from edgemw.wire.chunks import blob_of, cut, indexes
from edgemw.wire.messages import MAX_INLINE_BYTES, Blob, Frame, Grant, Message, Offer, pack
from edgemw.wire.topics import Topic

MAX_OFFERS = 64


@dataclass(slots=True, eq=False)
class Offered:
    """An update that waits for its grant; the frame is packed again when its chunks are cut, so it is not held twice."""

    frame: Frame
    blob: Blob
    domain: str
    sending: bool = False


class Uploading:
    """The updates that were offered, the newest MAX_OFFERS of them."""

    def __init__(self, place: Place, chunk_bytes: int, publish: Publish) -> None:
        """Start with nothing.

        Args:
            chunk_bytes: the payload of a chunk; an update above it is offered.
            publish: publishes; returns once the broker has it.
        """
        self._place, self._chunk_bytes, self._publish = place, chunk_bytes, publish
        self._offered: dict[bytes, Offered] = {}
        self._leaving: set[tuple[str, UpdateId, type[Message]]] = set()  # with their task: numbers are counted for each

    async def upload(self, topic: str, frame: Frame) -> None:
        """Send an update, or offer it; one that is leaving already, or whose chunks are, is left alone.

        Raises:
            LinkError: it was not taken.
        """
        update = frame.task, frame.id, type(frame.message)
        if update in self._leaving:  # a slow link, or tokens, hold it up: a second copy would only stand behind it
            return
        self._leaving.add(update)
        try:
            await self._upload(topic, frame)
        finally:
            self._leaving.discard(update)

    async def _upload(self, topic: str, frame: Frame) -> None:
        data = pack(frame)
        if len(data) <= min(MAX_INLINE_BYTES, self._chunk_bytes):
            await self._publish(topic, publication.write(topic, frame))
            return
        blob = blob_of(data, self._chunk_bytes)
        known = self._offered.pop(blob.digest, None)
        while len(self._offered) >= MAX_OFFERS:
            del self._offered[next(iter(self._offered))]
        offered = known or Offered(frame, blob, topics.parse(topic).domain)
        self._offered[blob.digest] = offered
        if not offered.sending:
            await self._publish(topic, publication.write(topic, replace(frame, message=Offer(blob), signature=b"")))

    def granted(self, topic: Topic, grant: Grant) -> Offered | None:
        """What has to be sent now; None where it is being sent: the next offer asks what is missing still.

        Raises:
            WireError: the update is not offered any more, or was not offered there.
        """
        offered = self._offered.get(grant.digest)
        if offered is None or offered.domain != topic.domain:
            raise WireError("unasked", "a grant for an update that is not offered any more")
        if offered.sending:
            return None
        offered.sending = True
        return offered

    async def send(self, offered: Offered, grant: Grant) -> None:
        """Send the chunks that were granted. Raises LinkError where one was not taken."""
        try:
            await publish_all(self._publish, self._chunks(offered, grant))
        finally:
            self._offered.pop(offered.blob.digest, None)

    def _chunks(self, offered: Offered, grant: Grant) -> Iterator[Publication]:
        blob, place, task = offered.blob, self._place, offered.frame.task
        data = pack(offered.frame)
        topic = topics.build(place.net, offered.domain, "chunk", fog=offered.domain, node=place.node, transfer=blob.name)
        for index in indexes(grant.missing, blob.chunks):
            yield topic, publication.write(topic, Frame(task, place.node, place.boot, 0, cut(data, blob, index)))
