"""Puts manifests and what they refer to into a fog node's own domain: blobs first, the manifest once they are there.

A late joiner finds all of it, retained. What a manifest does not refer to any more is kept until the next such change, for
those who are fetching it.
"""

from __future__ import annotations

from edgemw.core.ids import Place
from edgemw.fog.events import Action
from edgemw.wire import topics
from edgemw.wire.messages import Blob, Frame, ReleaseManifest, TaskManifest
from edgemw.wire.traffic import PublishBlob, Retire, Send

Shelf = dict[bytes, tuple[Blob, bytes]]
"""Blobs with their data, by digest."""


class Announcer:
    """The retained state of one task in one domain."""

    def __init__(self, place: Place, task: str) -> None:
        self._place, self._task = place, task
        self._messages: dict[str, tuple[TaskManifest | ReleaseManifest, frozenset[bytes]]] = {}  # with what it refers to
        self._shelves: dict[str, Shelf] = {}
        self._there: set[bytes] = set()
        self._waiting: set[str] = set()  # channels whose message waits for its blobs
        self._before: dict[str, list[Blob]] = {}
        self._inherited: dict[str, tuple[Blob, ...]] = {}

    def task(self, manifest: TaskManifest, data: bytes) -> list[Action]:
        """Announce a bundle."""
        return self._announce("task", manifest, {manifest.blob.digest: (manifest.blob, data)}, {})

    def release(self, manifest: ReleaseManifest, needed: Shelf, ahead: Shelf) -> list[Action]:
        """Announce a release.

        Args:
            needed: what its readers may fetch.
            ahead: what the next release will refer to.
        """
        return self._announce("release", manifest, needed, ahead)

    def blobs(self, channel: str) -> tuple[Blob, ...]:
        """What this node has put on the broker for a channel and not removed."""
        return (*(blob for blob, _ in self._shelves.get(channel, {}).values()), *self._before.get(channel, []))

    def inherit(self, channel: str, blobs: tuple[Blob, ...]) -> None:
        """An earlier life put these on the broker: what the first announcement does not refer to is removed with it."""
        self._inherited[channel] = blobs

    def again(self) -> list[Action]:
        """Announce everything once more: the broker may have forgotten it."""
        self._there.clear()
        self._waiting = set(self._messages)
        publish = [PublishBlob(self._place.node, blob, data) for shelf in self._shelves.values() for blob, data in shelf.values()]
        return [*publish, *self._say()]

    def repeat(self) -> list[Action]:
        """Say what is there once more, without what it refers to."""
        self._waiting = set(self._messages)
        return self._say()

    def on_published(self, blob: Blob) -> list[Action]:
        """A blob is on the broker: a manifest that waited for it may follow."""
        self._there.add(blob.digest)
        return self._say()

    def _announce(self, channel: str, message: TaskManifest | ReleaseManifest, needed: Shelf, ahead: Shelf) -> list[Action]:
        old, new = self._shelves.get(channel, {}), needed | ahead
        self._messages[channel] = message, frozenset(needed)
        self._shelves[channel] = new
        self._waiting.add(channel)
        gone = [blob for digest, (blob, _) in old.items() if digest not in new]
        left = self._inherited.pop(channel, ())
        actions: list[Action] = [Retire(self._place.node, blob) for blob in left if blob.digest not in new]
        if gone:
            actions += [Retire(self._place.node, blob) for blob in self._before.pop(channel, []) if blob.digest not in new]
            self._before[channel] = gone
            self._there -= {blob.digest for blob in gone}
        publish = [PublishBlob(self._place.node, blob, data) for digest, (blob, data) in new.items() if digest not in old]
        return [*actions, *self._say(), *publish]

    def _say(self) -> list[Action]:
        """The messages whose blobs are all there."""
        place = self._place
        ready = [channel for channel in self._messages if channel in self._waiting and self._messages[channel][1] <= self._there]
        self._waiting -= set(ready)
        return [
            Send(
                topics.build(place.net, place.node, channel, task=self._task),
                Frame(self._task, place.node, place.boot, 0, self._messages[channel][0]),
                retain=True,
            )
            for channel in ready
        ]
