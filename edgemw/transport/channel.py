"""Messages and blobs over a link: frames in and out, large updates in granted chunks, blobs by content.

    small update     Update ------------------------------->
    large update     Offer  -------------------------------> ; <- Grant(missing) ; Chunk ... Chunk ->
    answered before  Offer  -------------------------------> ; <- the same Ack or Outcome again
    blob             retained chunks under their digest ; a reader subscribes to a few that it lacks at a time

Whatever is malformed is counted by reason and dropped. What a peer can make this side hold is bounded in number and in
bytes: see `incoming.py` and `fetching.py`. Reading never waits for a large transfer of its own: that runs beside it. An
update above this node's limit is returned to its sender, which would offer it for ever otherwise.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from edgemw.core.errors import LinkError, WireError
from edgemw.core.ids import Place
from edgemw.transport.connection import BrokerUnreachable
from edgemw.transport.gate import Gate
from edgemw.transport.link import Link
from edgemw.transport.publishing import Publishing
from edgemw.transport.uploading import Uploading
from edgemw.wire import publication, topics
from edgemw.wire.answers import Answers
from edgemw.wire.chunks import bitmap
from edgemw.wire.fetching import MAX_KNOWN, Fetching, Piece
from edgemw.wire.incoming import Incoming
from edgemw.wire.messages import (
    Blob,
    Chunk,
    Frame,
    Grant,
    Offer,
    Outcome,
    Update,
    unpack,
)
from edgemw.wire.parts import Parts
from edgemw.wire.topics import Topic
from edgemw.wire.traffic import (
    Arrived,
    Emitted,
    Fetch,
    Fetched,
    FetchFailed,
    FetchStalled,
    PublishBlob,
    Published,
    Retire,
    Send,
    Upload,
)

MAX_ANSWERING = 64

log = logging.getLogger(__name__)

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


class Channel:
    """See the module. `receive` takes what the link delivers, `carry` does what a role asks for.

    Attributes:
        refused: malformed or unexpected arrivals by reason, transfers that a link in trouble cut short ("link-down"), and
            those that the broker does not take ("refused-by-broker").
        received, sent: payload bytes by channel of the topic table.
    """

    def __init__(
        self,
        link: Link,
        place: Place,
        limits: ChannelLimits,
        emit: Callable[[Emitted], None],
        spawn: Callable[[Work], None],
        gate: Gate | None = None,
        parts: Parts | None = None,
    ) -> None:
        """Make a channel.

        Args:
            emit: takes what arrives.
            spawn: runs work beside the reader.
            gate: what updates, offers and chunks of updates pass on their way out.
            parts: where chunks of what is incomplete are kept for another life; None is nowhere.
        """
        self._link, self._place, self._limits, self._emit, self._spawn = link, place, limits, emit, spawn
        self._incoming = Incoming(max(limits.held_bytes, limits.update_bytes), parts)
        self._fetching = Fetching(2 * limits.blob_bytes, parts)
        self._asked: set[str] = set()  # topics of chunks that are subscribed to
        self._asking = self._ask_again = False
        self._answers = Answers()
        self._answering = 0  # updates whose answer is on its way
        publish = partial(self._publish, retain=False)
        self._uploading = Uploading(place, limits.chunk_bytes, publish if gate is None else partial(gate.publish, publish))
        self._publishing = Publishing(place, partial(self._publish, retain=True))
        self._told: set[tuple[str, str]] = set()  # channels and why the broker refused something there
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
            self._dispatch(topic, publication.read(topic, payload), len(payload))
        except WireError as error:
            self.refused[error.reason] += 1

    def _dispatch(self, topic: Topic, frame: Frame, size_bytes: int) -> None:
        match frame.message:
            case Chunk() as chunk if topic.channel == "blob":
                self._on_blob_chunk(chunk)
            case Chunk() as chunk:
                self._on_update_chunk(frame.node, chunk)
            case Offer(blob=blob) if blob.size > self._limits.update_bytes:
                self._answer(topic, frame, partial(self._return, frame))
            case Offer(blob=blob):
                self._answer(topic, frame, partial(self._grant, topic, frame, blob))
            case Grant() as grant:
                self._on_grant(topic, grant)
            case Update() if size_bytes > self._limits.update_bytes:
                self._answer(topic, frame, partial(self._return, frame))
            case _:
                self._emit(Arrived(topic, frame))

    def _answer(self, topic: Topic, frame: Frame, decide: Callable[[], Grant | Outcome]) -> None:
        """Say what was said to this update before, or what is decided now."""
        place = self._place
        if topic.domain != place.node:
            raise WireError("domain", f"an update to {topic.domain}")
        if self._answering >= MAX_ANSWERING:
            raise WireError("busy", "too many updates wait for their answer")
        answer = self._answers.about(frame)
        if answer is None:
            target = topics.build(place.net, place.node, "reply", node=frame.node, task=frame.task)
            answer = Send(target, Frame(frame.task, place.node, place.boot, 0, decide()))
        self._answering += 1
        self._spawn(self._send_answer(answer))

    def _grant(self, topic: Topic, frame: Frame, blob: Blob) -> Grant:
        return Grant(blob.digest, bitmap(self._incoming.offer(frame.node, topic, blob), blob.chunks))

    def _return(self, frame: Frame) -> Outcome:
        self.refused["size"] += 1
        reason = f"larger than limits.max_update_bytes ({self._limits.update_bytes} bytes)"
        return Outcome(frame.boot, frame.seq, counted=False, release=-1, reason=reason)

    async def _send_answer(self, answer: Send) -> None:
        try:
            await self.carry(answer)
        finally:
            self._answering -= 1

    def _on_update_chunk(self, node: str, chunk: Chunk) -> None:
        complete = self._incoming.add(node, chunk)
        if complete is not None:
            topic, data = complete
            frame = unpack(data, self._limits.update_bytes)
            publication.check(topic, frame)
            if not isinstance(frame.message, Update):
                raise WireError("kind", "an offer inside an update")
            self._emit(Arrived(topic, frame))

    def _on_blob_chunk(self, chunk: Chunk) -> None:
        complete = self._fetching.add(chunk)
        if complete is not None:
            self._emit(Fetched(*complete))
        self._ask()

    def _on_grant(self, topic: Topic, grant: Grant) -> None:
        offered = self._uploading.granted(topic, grant)
        if offered is not None:
            self._spawn(self._guard(partial(self._uploading.send, offered, grant)))

    # -- what a role asks for

    async def carry(self, transfer: Transfer) -> None:
        """Carry out one transfer. A link that is down is no error here: roles ask again."""
        await self._guard(partial(self._carry, transfer))

    async def refresh(self) -> None:
        """Ask again for blobs that stand still, because retained chunks come once per subscription; finish removals."""
        await self._guard(self._refresh)

    async def _refresh(self) -> None:
        for again in map(self._chunk_topic, self._fetching.look()):
            if again in self._asked:
                self._asked.discard(again)
                await self._link.unsubscribe(again)
        self._ask()
        for blob in self._fetching.stalled:
            self._emit(FetchStalled(blob))
        await self._publishing.finish()

    async def _guard(self, work: Callable[[], Work]) -> None:
        try:
            await work()
        except BrokerUnreachable:
            self.refused["link-down"] += 1
        except LinkError:
            self.refused["refused-by-broker"] += 1

    async def _carry(self, transfer: Transfer) -> None:
        match transfer:
            case Send(topic=topic, frame=frame, retain=retain):
                self._answers.remember(transfer)
                await self._publish(topic, publication.write(topic, frame), retain=retain)
            case Upload(topic=topic, frame=frame):
                await self._uploading.upload(topic, frame)
            case Fetch(domain=domain, blob=blob):
                await self._fetch(domain, blob)
            case PublishBlob(domain=domain, blob=blob):
                if await self._publishing.publish(transfer):
                    self._emit(Published(domain, blob))
            case Retire():
                await self._publishing.retire(transfer)

    async def _fetch(self, domain: str, blob: Blob) -> None:
        if blob.size > self._limits.blob_bytes:
            self.refused["size"] += 1
            reason = f"it has {blob.size} bytes, limits.max_release_bytes is {self._limits.blob_bytes}"
            self._emit(FetchFailed(blob, reason))
            return
        for given_up in self._fetching.want(domain, blob):
            self._emit(FetchFailed(given_up, f"given up, because {MAX_KNOWN} newer blobs have been asked for"))
        self._ask()

    def _ask(self) -> None:
        """Let the subscriptions become those of the chunks that are asked for, and again where that changes meanwhile."""
        self._ask_again = True
        if not self._asking:
            self._asking = True
            self._spawn(self._guard(self._subscribe))

    async def _subscribe(self) -> None:
        try:
            while self._ask_again:
                self._ask_again = False
                wanted = list(map(self._chunk_topic, self._fetching.asked))  # the newest blob first
                for name in self._asked.difference(wanted):
                    self._asked.discard(name)
                    await self._link.unsubscribe(name)
                for name in wanted:
                    if name in self._asked:
                        continue
                    with self._refusable("blob", name):
                        await self._link.subscribe(name)
                    self._asked.add(name)
        finally:
            self._asking = False

    async def _publish(self, topic: str, payload: bytes, *, retain: bool) -> None:
        channel = topics.parse(topic).channel
        with self._refusable(channel, topic):
            await self._link.publish(topic, payload, retain=retain)
        self.sent[channel] += len(payload)

    @contextmanager
    def _refusable(self, channel: str, topic: str) -> Iterator[None]:
        """Say once for each channel and cause what the broker does not take: trying again will not help."""
        try:
            yield
        except BrokerUnreachable:
            raise
        except LinkError as error:
            if (channel, error.what) not in self._told:
                self._told.add((channel, error.what))
                log.error("%s: %s", topic, error)
            raise

    def _chunk_topic(self, piece: Piece) -> str:
        domain, blob, index = piece
        return topics.build(self._place.net, domain, "blob", digest=blob.name, index=str(index))
