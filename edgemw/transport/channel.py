"""Messages and blobs over a link: frames in and out, large updates in granted chunks, blobs by content.

    small update     Update ------------------------------->
    large update     Offer  -------------------------------> ; <- Grant(missing) ; Chunk ... Chunk ->
    blob             retained chunks under their digest ; a reader subscribes, puts them together, unsubscribes

Whatever is malformed is counted by reason and dropped. What a peer can make this side hold is bounded: the bytes that have
arrived for at most MAX_ASSEMBLIES blobs, each of at most the size that was configured. The newest wins over the oldest.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from edgemw.core.errors import LinkError, WireError
from edgemw.core.ids import Place
from edgemw.transport.link import Link
from edgemw.wire import topics
from edgemw.wire.chunks import Assembler, bitmap, blob_of, cut, indexes
from edgemw.wire.messages import MAX_INLINE_BYTES, Blob, Chunk, Frame, Grant, Offer, pack, unpack
from edgemw.wire.topics import Topic
from edgemw.wire.traffic import Arrived, Fetch, Fetched, PublishBlob, Published, Retire, Send, Upload

MAX_ASSEMBLIES = 256
MAX_FETCHES = 8
MAX_OFFERS = 8
CHUNKS_AT_ONCE = 8

K = TypeVar("K")
V = TypeVar("V")
Transfer = Send | Upload | Fetch | PublishBlob | Retire


@dataclass(frozen=True, slots=True)
class ChannelLimits:
    """The largest things that this node takes from others, in bytes."""

    update_bytes: int = 64 << 20
    blob_bytes: int = 1 << 30
    chunk_bytes: int = 120_000


class Channel:
    """See the module. `receive` takes what the link delivers, `carry` does what a role asks for."""

    def __init__(
        self,
        link: Link,
        place: Place,
        limits: ChannelLimits,
        emit: Callable[[Arrived | Fetched | Published], None],
    ) -> None:
        self._link, self._place, self._limits, self._emit = link, place, limits, emit
        self._incoming: dict[tuple[str, bytes], tuple[Topic, Assembler]] = {}
        self._fetching: dict[bytes, tuple[str, Assembler]] = {}
        self._offered: dict[bytes, bytes] = {}
        self.refused: Counter[str] = Counter()  # malformed or unexpected arrivals by reason
        self.received: Counter[str] = Counter()  # payload bytes by channel
        self.sent: Counter[str] = Counter()

    # -- what arrives

    async def receive(self, text: str, payload: bytes) -> None:
        """Take one publication."""
        if not payload:
            return  # a retained publication was removed
        try:
            topic = topics.parse(text)
            self.received[topic.channel] += len(payload)
            frame = unpack(payload, self._limits.update_bytes)
            await self._dispatch(topic, frame)
        except WireError as error:
            self.refused[error.reason] += 1

    async def _dispatch(self, topic: Topic, frame: Frame) -> None:
        _check_kind(topic, frame)
        match frame.message:
            case Chunk() as chunk if topic.channel == "blob":
                await self._on_blob_chunk(chunk)
            case Chunk() as chunk:
                _check_sender(topic, frame)
                await self._on_update_chunk(frame.node, chunk)
            case Offer(blob=blob):
                _check_sender(topic, frame)
                await self._on_offer(topic, frame, blob)
            case Grant() as grant:
                _check_sender(topic, frame)
                await self._on_grant(topic, frame.task, grant)
            case _:
                _check_sender(topic, frame)
                self._emit(Arrived(topic, frame))

    async def _on_offer(self, topic: Topic, frame: Frame, blob: Blob) -> None:
        if blob.size > self._limits.update_bytes:
            raise WireError("size", f"an update of {blob.size} bytes")
        key = frame.node, blob.digest
        if key not in self._incoming:
            _make_room(self._incoming, MAX_ASSEMBLIES)
            self._incoming[key] = topic, Assembler(blob)
        missing = self._incoming[key][1].missing
        place = self._place
        answer = topics.build(place.net, place.node, "reply", node=frame.node, task=frame.task)
        grant = Grant(blob.digest, bitmap(missing, blob.chunks))
        await self.carry(Send(answer, Frame(frame.task, place.node, place.boot, 0, grant)))

    async def _on_update_chunk(self, node: str, chunk: Chunk) -> None:
        key = node, chunk.digest
        if key not in self._incoming:
            raise WireError("unasked", "a chunk of an update that was not offered")
        topic, assembler = self._incoming[key]
        data = assembler.add(chunk)
        if data is not None:
            del self._incoming[key]
            frame = unpack(data, self._limits.update_bytes)
            _check_kind(topic, frame)
            _check_sender(topic, frame)
            self._emit(Arrived(topic, frame))

    async def _on_blob_chunk(self, chunk: Chunk) -> None:
        if chunk.digest not in self._fetching:
            return  # complete already, the rest of the retained chunks are still coming in
        domain, assembler = self._fetching[chunk.digest]
        data = assembler.add(chunk)
        if data is not None:
            del self._fetching[chunk.digest]
            await self._link.unsubscribe(self._blob_filter(domain, assembler.blob))
            self._emit(Fetched(assembler.blob, data))

    async def _on_grant(self, topic: Topic, task: str, grant: Grant) -> None:
        data = self._offered.get(grant.digest)
        if data is None:
            raise WireError("unasked", "a grant for an update that is not offered any more")
        blob = blob_of(data, self._limits.chunk_bytes)
        place = self._place
        target = topics.build(place.net, topic.domain, "chunk", fog=topic.domain, node=place.node, transfer=blob.name)
        frames = [Frame(task, place.node, place.boot, 0, cut(data, blob, index)) for index in indexes(grant.missing, blob.chunks)]
        await self._publish_chunks([(target, frame) for frame in frames], retain=False)

    # -- what a role asks for

    async def carry(self, transfer: Transfer) -> None:
        """Carry out one transfer. A link that is down is no error here: roles ask again."""
        try:
            match transfer:
                case Send(topic=topic, frame=frame, retain=retain):
                    await self._publish(topic, pack(frame), retain=retain)
                case Upload(topic=topic, frame=frame):
                    await self._upload(topic, frame)
                case Fetch(domain=domain, blob=blob):
                    await self._fetch(domain, blob)
                case PublishBlob():
                    await self._publish_blob(transfer)
                case Retire(domain=domain, blob=blob):
                    for index in range(blob.chunks):
                        await self._publish(self._blob_topic(domain, blob, index), b"", retain=True)
        except LinkError:
            self.refused["link-down"] += 1

    async def refresh(self) -> None:
        """Ask again for blobs that are on their way: retained chunks come once per subscription."""
        for domain, assembler in list(self._fetching.values()):
            name = self._blob_filter(domain, assembler.blob)
            await self._link.unsubscribe(name)
            await self._link.subscribe(name)

    @property
    def fetching(self) -> int:
        """Blobs on their way here."""
        return len(self._fetching)

    async def _upload(self, topic: str, frame: Frame) -> None:
        data = pack(frame)
        if len(data) <= min(MAX_INLINE_BYTES, self._limits.chunk_bytes):
            await self._publish(topic, data, retain=False)
            return
        blob = blob_of(data, self._limits.chunk_bytes)
        self._offered.pop(blob.digest, None)
        _make_room(self._offered, MAX_OFFERS)
        self._offered[blob.digest] = data
        await self._publish(topic, pack(replace(frame, message=Offer(blob))), retain=False)

    async def _fetch(self, domain: str, blob: Blob) -> None:
        if blob.size > self._limits.blob_bytes:
            self.refused["size"] += 1
            return
        if blob.digest in self._fetching:
            return
        if len(self._fetching) >= MAX_FETCHES:
            oldest, (where, assembler) = next(iter(self._fetching.items()))
            del self._fetching[oldest]
            await self._link.unsubscribe(self._blob_filter(where, assembler.blob))
        self._fetching[blob.digest] = domain, Assembler(blob)
        await self._link.subscribe(self._blob_filter(domain, blob))

    async def _publish_blob(self, transfer: PublishBlob) -> None:
        blob, place = transfer.blob, self._place
        frames = [Frame("", place.node, place.boot, 0, cut(transfer.data, blob, index)) for index in range(blob.chunks)]
        targets = [self._blob_topic(transfer.domain, blob, index) for index in range(blob.chunks)]
        await self._publish_chunks(list(zip(targets, frames, strict=True)), retain=True)
        self._emit(Published(transfer.domain, blob))

    async def _publish_chunks(self, chunks: list[tuple[str, Frame]], *, retain: bool) -> None:
        for start in range(0, len(chunks), CHUNKS_AT_ONCE):
            part = chunks[start : start + CHUNKS_AT_ONCE]
            await asyncio.gather(*(self._publish(topic, pack(frame), retain=retain) for topic, frame in part))

    async def _publish(self, topic: str, payload: bytes, *, retain: bool) -> None:
        await self._link.publish(topic, payload, retain=retain)
        self.sent[topics.parse(topic).channel] += len(payload)

    def _blob_topic(self, domain: str, blob: Blob, index: int) -> str:
        return topics.build(self._place.net, domain, "blob", digest=blob.name, index=str(index))

    def _blob_filter(self, domain: str, blob: Blob) -> str:
        return topics.build(self._place.net, domain, "blob", digest=blob.name, index="+")


def _check_kind(topic: Topic, frame: Frame) -> None:
    if type(frame.message).__name__ not in topics.carried(topic.channel):
        raise WireError("kind", f"{type(frame.message).__name__} on {topic.channel}")
    if "task" in topic.values and topic["task"] != frame.task:
        raise WireError("task", "the frame is about another task than its topic")


def _check_sender(topic: Topic, frame: Frame) -> None:
    writer = topics.writer(topic)
    if writer is not None and writer != frame.node:
        raise WireError("sender", f"{frame.node} on a topic of {writer}")


def _make_room(entries: dict[K, V], most: int) -> None:
    while len(entries) >= most:
        del entries[next(iter(entries))]
