"""Carries publications and blobs between the nodes of a tree, at once and in order, and counts their bytes.

A link is the connection of a node to its parent's broker: what the node publishes there goes up, what it gets from there goes
down. Every publication is packed and read again, so nodes see what a real one would; payloads too large for one message are
offered and cut as the channel does it. Connecting, subscribing and keeping alive are not counted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from edgemw.simulation.packets import PUBACK_BYTES, added_bytes
from edgemw.simulation.traffic import Meter, Traffic
from edgemw.simulation.tree import Tree
from edgemw.wire import publication, topics
from edgemw.wire.chunks import bitmap, blob_of, cut
from edgemw.wire.messages import (
    MAX_INLINE_BYTES,
    Blob,
    Frame,
    Grant,
    Offer,
    ReleaseManifest,
    Update,
    pack,
    unpack,
    unpack_difference,
)
from edgemw.wire.topics import Topic
from edgemw.wire.traffic import Arrived, Fetch, Fetched, PublishBlob, Published, Retire, Send, Upload

NET = "net"


@dataclass(frozen=True, slots=True)
class _Shelved:
    """A blob on the broker, and what fetching it costs."""

    data: bytes
    frame_bytes: int
    mqtt_bytes: int
    messages: int


class Carrier:
    """See the module.

    Args:
        tree: who is below whom.
        chunk_bytes: larger payloads are cut into pieces of this size.
        give: takes an event for a node.
    """

    def __init__(self, tree: Tree, chunk_bytes: int, give: Callable[[str, object], None]) -> None:
        self._tree, self._chunk_bytes, self._give = tree, chunk_bytes, give
        self._up = {node: Meter() for node in tree.parents}
        self._down = {node: Meter() for node in tree.parents}
        self._shelf: dict[tuple[str, bytes], _Shelved] = {}
        self._parsed: dict[str, Topic] = {}  # a tree has few topics, and parsing one costs more than looking it up
        self._codec_bytes: dict[bytes, int] = {}  # of blobs that stand for a release, by label

    def traffic(self) -> dict[str, Traffic]:
        """What has crossed every link so far, by the node at its lower end."""
        return {node: Traffic(self._up[node].flow(), self._down[node].flow()) for node in self._tree.parents}

    def wire_bytes(self, node: str) -> tuple[int, int]:
        """What has gone up and down a node's link so far."""
        return self._up[node].wire_bytes, self._down[node].wire_bytes

    def send(self, node: str, send: Send) -> Frame:
        """Publish a message; gives it as its readers get it."""
        data = publication.write(send.topic, send.frame)
        frame = publication.read(self._topic(send.topic), data)
        if isinstance(frame.message, ReleaseManifest):
            self._know(frame.message)
        self._publish(node, send.topic, len(data), _codec_bytes(frame))
        self._deliver(node, send.topic, frame)
        return frame

    def upload(self, node: str, upload: Upload) -> None:
        """Send an update to its node's parent, in chunks where it is large."""
        frame, topic = upload.frame, upload.topic
        data = pack(frame)
        if len(data) <= min(MAX_INLINE_BYTES, self._chunk_bytes):
            self._publish(node, topic, len(publication.write(topic, frame)), _codec_bytes(frame))
        else:
            self._offer(node, topic, frame, data)
        self._deliver(node, topic, unpack(data))

    def publish_blob(self, node: str, publish: PublishBlob) -> None:
        """Put a blob on the broker."""
        blob, data, domain = publish.blob, publish.data, publish.domain
        frame_bytes = mqtt_bytes = 0
        for index in range(blob.chunks):
            topic = topics.build(NET, domain, "blob", digest=blob.name, index=str(index))
            size = len(publication.write(topic, Frame("", node, 1, 0, cut(data, blob, index))))
            frame_bytes, mqtt_bytes = frame_bytes + size, mqtt_bytes + added_bytes(topic, size)
        self._shelf[domain, blob.label] = _Shelved(data, frame_bytes, mqtt_bytes, blob.chunks)
        self._give(node, Published(domain, blob))

    def retire(self, retire: Retire) -> None:
        """Take a blob from the broker."""
        self._shelf.pop((retire.domain, retire.blob.label), None)

    def fetch(self, node: str, fetch: Fetch) -> None:
        """Bring a blob to a node; nothing comes of one that is not there."""
        found = self._shelf.get((fetch.domain, fetch.blob.label))
        if found is None:
            return
        self._down[node].publication(found.frame_bytes, found.mqtt_bytes, self._codec_bytes_of(fetch.blob, found.data))
        self._up[node].acknowledgement(PUBACK_BYTES * found.messages)
        self._give(node, Fetched(fetch.blob, found.data))

    # -- who gets what

    def _topic(self, text: str) -> Topic:
        if text not in self._parsed:
            self._parsed[text] = topics.parse(text)
        return self._parsed[text]

    def _readers(self, topic: Topic) -> tuple[str, ...]:
        match topic.channel:
            case "task" | "release":
                return self._tree.children.get(topic.domain, ())
            case "reply":
                return (topic["node"],)
            case "presence" | "update":
                return (topic.domain,) if topic.domain != topic["node"] else ()
            case _:
                return ()

    def _deliver(self, node: str, text: str, frame: Frame) -> None:
        topic = self._topic(text)
        for reader in self._readers(topic):
            if reader != node:
                self._give(reader, Arrived(topic, frame))

    def _publish(self, node: str, text: str, frame_bytes: int, codec_bytes: int = 0) -> None:
        """Count a publication on the links that it crosses: the writer's own upwards, or those of its readers downwards."""
        topic, mqtt_bytes = self._topic(text), added_bytes(text, frame_bytes)
        if topic.domain != node:
            self._up[node].publication(frame_bytes, mqtt_bytes, codec_bytes)
            self._down[node].acknowledgement(PUBACK_BYTES)
            return
        for reader in self._readers(topic):
            self._down[reader].publication(frame_bytes, mqtt_bytes, codec_bytes)
            self._up[reader].acknowledgement(PUBACK_BYTES)

    # -- large payloads

    def _offer(self, node: str, topic: str, frame: Frame, data: bytes) -> None:
        blob, parent = blob_of(data, self._chunk_bytes), self._tree.parents[node]
        self._publish(node, topic, len(publication.write(topic, replace(frame, message=Offer(blob)))))
        grant = Grant(blob.digest, bitmap([*range(blob.chunks)], blob.chunks))
        reply = topics.build(NET, parent, "reply", node=node, task=frame.task)
        self._publish(parent, reply, len(publication.write(reply, replace(frame, node=parent, message=grant))))
        chunks = topics.build(NET, parent, "chunk", fog=parent, node=node, transfer=blob.name)
        for index in range(blob.chunks):
            size = len(publication.write(chunks, replace(frame, seq=0, message=cut(data, blob, index))))
            self._publish(node, chunks, size, _codec_bytes(frame) if index == 0 else 0)

    def _know(self, manifest: ReleaseManifest) -> None:
        """Remember which blobs stand for a release; the bundle, which brings theta0, is none."""
        self._codec_bytes[manifest.theta.label] = manifest.theta.size
        for blob in manifest.packed:
            self._codec_bytes.setdefault(blob.label, -1)

    def _codec_bytes_of(self, blob: Blob, data: bytes) -> int:
        known = self._codec_bytes.get(blob.label, 0)
        return unpack_difference(data).size_bytes if known < 0 else known


def _codec_bytes(frame: Frame) -> int:
    """The bytes in a message that a codec made."""
    match frame.message:
        case Update(sections=sections):
            return sum(section.size_bytes for section in sections)
        case ReleaseManifest(difference=difference) if difference:
            return unpack_difference(difference).size_bytes
        case _:
            return 0
