"""Messages and blobs over a link: frames in and out, large updates in granted chunks, blobs by content.

    small update     Update ------------------------------->
    large update     Offer  -------------------------------> ; <- Grant(missing) ; Chunk ... Chunk ->
    answered before  Offer  -------------------------------> ; <- the same Ack or Outcome again
    blob             retained chunks under their digest ; a reader subscribes, puts them together, unsubscribes

Whatever is malformed is counted by reason and dropped. What a peer can make this side hold is bounded in number and in
bytes: see `incoming.py` and `fetching.py`. Reading never waits for a large transfer of its own: that runs beside it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from edgemw.core.errors import LinkError, WireError
from edgemw.core.ids import Place
from edgemw.transport.link import Link
from edgemw.wire import topics
from edgemw.wire.answers import Answers
from edgemw.wire.chunks import bitmap, blob_of, cut, indexes
from edgemw.wire.fetching import Fetching
from edgemw.wire.incoming import Incoming
from edgemw.wire.messages import (
    MAX_INLINE_BYTES,
    MAX_MESSAGE_BYTES,
    Blob,
    Chunk,
    Frame,
    Grant,
    Offer,
    Update,
    pack,
    unpack,
)
from edgemw.wire.topics import Topic
from edgemw.wire.traffic import Arrived, Fetch, Fetched, FetchFailed, PublishBlob, Published, Retire, Send, Upload

MAX_OFFERS = 64
MAX_ANSWERING = 64
MAX_RETIRING = 64
CHUNKS_AT_ONCE = 8

K = TypeVar("K")
V = TypeVar("V")
Transfer = Send | Upload | Fetch | PublishBlob | Retire
Work = Coroutine[Any, Any, None]


@dataclass(frozen=True, slots=True)
class ChannelLimits:
    """What this node takes from others, in bytes.

    Attributes:
        update_bytes: the largest update.
        blob_bytes: the largest blob.
        chunk_bytes: the payload of a chunk that this node cuts.
        held_bytes: parts of updates that are coming in, together; at least one update fits always.
    """

    update_bytes: int = 64 << 20
    blob_bytes: int = 1 << 30
    chunk_bytes: int = 120_000
    held_bytes: int = 256 << 20


@dataclass(slots=True)
class _Offered:
    """An update that waits for its grant; the frame is packed again when its chunks are cut, so it is not held twice."""

    frame: Frame
    blob: Blob
    domain: str
    sending: bool = False


class Channel:
    """See the module. `receive` takes what the link delivers, `carry` does what a role asks for.

    Attributes:
        refused: malformed or unexpected arrivals by reason, and transfers that a link in trouble cut short.
        received, sent: payload bytes by channel of the topic table.
    """

    def __init__(
        self,
        link: Link,
        place: Place,
        limits: ChannelLimits,
        emit: Callable[[Arrived | Fetched | FetchFailed | Published], None],
        spawn: Callable[[Work], None],
    ) -> None:
        """Make a channel.

        Args:
            emit: takes what arrives.
            spawn: runs work beside the reader.
        """
        self._link, self._place, self._limits, self._emit, self._spawn = link, place, limits, emit, spawn
        self._incoming = Incoming(max(limits.held_bytes, limits.update_bytes))
        self._fetching = Fetching(2 * limits.blob_bytes)
        self._asked: set[str] = set()  # filters of blobs that are subscribed to
        self._offered: dict[bytes, _Offered] = {}
        self._answers = Answers()
        self._answering = 0  # offers whose answer is on its way
        self._retiring: dict[bytes, Retire] = {}
        self.refused: Counter[str] = Counter()
        self.received: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()

    @property
    def fetching(self) -> int:
        """Blobs on their way here."""
        return len(self._fetching)

    @property
    def held_bytes(self) -> int:
        """Bytes of updates and blobs that are not complete yet."""
        return self._incoming.held_bytes + self._fetching.held_bytes

    # -- what arrives

    async def receive(self, text: str, payload: bytes) -> None:
        """Take one publication; never raises for what a peer or the link does."""
        if not payload:
            return  # a retained publication was removed
        try:
            topic = topics.parse(text)
            self.received[topic.channel] += len(payload)
            frame = unpack(payload, MAX_MESSAGE_BYTES)
            _check_kind(topic, frame)
            _check_sender(topic, frame)
            self._dispatch(topic, frame, len(payload))
        except WireError as error:
            self.refused[error.reason] += 1

    def _dispatch(self, topic: Topic, frame: Frame, size_bytes: int) -> None:
        match frame.message:
            case Chunk() as chunk if topic.channel == "blob":
                self._on_blob_chunk(chunk)
            case Chunk() as chunk:
                self._on_update_chunk(frame.node, chunk)
            case Offer(blob=blob):
                self._on_offer(topic, frame, blob)
            case Grant() as grant:
                self._on_grant(topic, grant)
            case Update() if size_bytes > self._limits.update_bytes:
                raise WireError("size", f"an update of {size_bytes} bytes")
            case _:
                self._emit(Arrived(topic, frame))

    def _on_offer(self, topic: Topic, frame: Frame, blob: Blob) -> None:
        if blob.size > self._limits.update_bytes:
            raise WireError("size", f"an update of {blob.size} bytes")
        place = self._place
        if topic.domain != place.node:
            raise WireError("domain", f"an offer to {topic.domain}")
        if self._answering >= MAX_ANSWERING:
            raise WireError("busy", "too many offers wait for their answer")
        answer = self._answers.about(frame)
        if answer is None:
            missing = self._incoming.offer(frame.node, topic, blob)
            target = topics.build(place.net, place.node, "reply", node=frame.node, task=frame.task)
            grant = Grant(blob.digest, bitmap(missing, blob.chunks))
            answer = Send(target, Frame(frame.task, place.node, place.boot, 0, grant))
        self._answering += 1
        self._spawn(self._answer(answer))

    async def _answer(self, answer: Send) -> None:
        try:
            await self.carry(answer)
        finally:
            self._answering -= 1

    def _on_update_chunk(self, node: str, chunk: Chunk) -> None:
        complete = self._incoming.add(node, chunk)
        if complete is not None:
            topic, data = complete
            frame = unpack(data, self._limits.update_bytes)
            _check_kind(topic, frame)
            _check_sender(topic, frame)
            if not isinstance(frame.message, Update):
                raise WireError("kind", "an offer inside an update")
            self._emit(Arrived(topic, frame))

    def _on_blob_chunk(self, chunk: Chunk) -> None:
        complete = self._fetching.add(chunk)
        if complete is not None:
            self._emit(Fetched(*complete))
            self._spawn(self._guard(self._ask))

    def _on_grant(self, topic: Topic, grant: Grant) -> None:
        offered = self._offered.get(grant.digest)
        if offered is None or offered.domain != topic.domain:
            raise WireError("unasked", "a grant for an update that is not offered any more")
        if not offered.sending:  # one grant is enough: the next offer asks what is missing still
            offered.sending = True
            self._spawn(self._guard(partial(self._send_update, offered, grant)))

    # -- what a role asks for

    async def carry(self, transfer: Transfer) -> None:
        """Carry out one transfer. A link that is down is no error here: roles ask again."""
        await self._guard(partial(self._carry, transfer))

    async def refresh(self) -> None:
        """Ask again for blobs that stand still, because retained chunks come once per subscription; finish removals."""
        await self._guard(self._refresh)

    async def _refresh(self) -> None:
        for domain, blob in self._fetching.look():
            again = self._blob_filter(domain, blob)
            if again in self._asked:
                self._asked.discard(again)
                await self._link.unsubscribe(again)
        await self._ask()
        for retire in list(self._retiring.values()):
            await self._retire(retire)

    async def _guard(self, work: Callable[[], Work]) -> None:
        try:
            await work()
        except LinkError:
            self.refused["link-down"] += 1

    async def _carry(self, transfer: Transfer) -> None:
        match transfer:
            case Send(topic=topic, frame=frame, retain=retain):
                self._answers.remember(transfer)
                await self._publish(topic, frame, retain=retain)
            case Upload(topic=topic, frame=frame):
                await self._upload(topic, frame)
            case Fetch(domain=domain, blob=blob):
                await self._fetch(domain, blob)
            case PublishBlob():
                await self._publish_blob(transfer)
            case Retire(blob=blob):
                _make_room(self._retiring, MAX_RETIRING)
                self._retiring[blob.digest] = transfer
                await self._retire(transfer)

    async def _upload(self, topic: str, frame: Frame) -> None:
        data = pack(frame)
        if len(data) <= min(MAX_INLINE_BYTES, self._limits.chunk_bytes):
            await self._publish_bytes(topic, data, retain=False)
            return
        blob = blob_of(data, self._limits.chunk_bytes)
        known = self._offered.pop(blob.digest, None)
        _make_room(self._offered, MAX_OFFERS)
        offered = known or _Offered(frame, blob, topics.parse(topic).domain)
        self._offered[blob.digest] = offered
        if not offered.sending:
            await self._publish(topic, replace(frame, message=Offer(blob)), retain=False)

    async def _send_update(self, offered: _Offered, grant: Grant) -> None:
        frame, blob, place = offered.frame, offered.blob, self._place
        data = pack(frame)
        target = topics.build(place.net, offered.domain, "chunk", fog=offered.domain, node=place.node, transfer=blob.name)
        chunks = (
            (target, Frame(frame.task, place.node, place.boot, 0, cut(data, blob, index)))
            for index in indexes(grant.missing, blob.chunks)
        )
        try:
            await self._publish_chunks(chunks, retain=False)
        finally:
            self._offered.pop(blob.digest, None)

    async def _fetch(self, domain: str, blob: Blob) -> None:
        if blob.size > self._limits.blob_bytes:
            self.refused["size"] += 1
            reason = f"it has {blob.size} bytes, limits.max_release_bytes is {self._limits.blob_bytes}"
            self._emit(FetchFailed(blob, reason))
            return
        self._fetching.want(domain, blob)
        await self._ask()

    async def _ask(self) -> None:
        """Make the subscriptions those of the blobs that are asked for now."""
        wanted = [self._blob_filter(*source) for source in self._fetching.active]
        given_back, new = self._asked.difference(wanted), [name for name in wanted if name not in self._asked]
        self._asked = set(wanted)
        for name in given_back:
            await self._link.unsubscribe(name)
        for name in new:
            await self._link.subscribe(name)

    async def _publish_blob(self, transfer: PublishBlob) -> None:
        blob, data, place = transfer.blob, transfer.data, self._place
        self._retiring.pop(blob.digest, None)
        chunks = (
            (self._blob_topic(transfer.domain, blob, index), Frame("", place.node, place.boot, 0, cut(data, blob, index)))
            for index in range(blob.chunks)
        )
        await self._publish_chunks(chunks, retain=True)
        self._emit(Published(transfer.domain, blob))

    async def _retire(self, retire: Retire) -> None:
        digest = retire.blob.digest
        for index in range(retire.blob.chunks):
            if self._retiring.get(digest) is not retire:
                return  # published anew meanwhile
            await self._publish_bytes(self._blob_topic(retire.domain, retire.blob, index), b"", retain=True)
        self._retiring.pop(digest, None)

    async def _publish_chunks(self, chunks: Iterator[tuple[str, Frame]], *, retain: bool) -> None:
        """Publish with a few chunks in flight; the first failure ends the others too."""

        async def publish_next() -> None:
            for topic, frame in chunks:  # every task takes the next one that nobody has taken
                await self._publish(topic, frame, retain=retain)

        failures: tuple[BaseException, ...] = ()
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(CHUNKS_AT_ONCE):
                    group.create_task(publish_next(), name="chunks")
        except* LinkError as errors:
            failures = errors.exceptions
        if failures:
            raise failures[0]

    async def _publish(self, topic: str, frame: Frame, *, retain: bool) -> None:
        await self._publish_bytes(topic, pack(frame), retain=retain)

    async def _publish_bytes(self, topic: str, payload: bytes, *, retain: bool) -> None:
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
