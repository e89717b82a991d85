"""Puts manifests and their blobs into a fog node's own domain: blob first, manifest once the blob is there.

A late joiner finds both, retained. The blob of the release before the last is kept for those who are fetching it.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgemw.core.ids import Place
from edgemw.fog.events import Action
from edgemw.wire import topics
from edgemw.wire.messages import Blob, Frame, ReleaseManifest, TaskManifest
from edgemw.wire.traffic import PublishBlob, Retire, Send


@dataclass(frozen=True, slots=True)
class _Entry:
    message: TaskManifest | ReleaseManifest
    blob: Blob
    data: bytes


class Announcer:
    """The retained state of one task in one domain."""

    def __init__(self, place: Place, task: str) -> None:
        self._place, self._task = place, task
        self._current: dict[str, _Entry] = {}
        self._before: dict[str, Blob] = {}

    def task(self, blob: Blob, data: bytes) -> list[Action]:
        """Announce a bundle."""
        return self._announce("task", _Entry(TaskManifest(blob), blob, data))

    def release(self, manifest: ReleaseManifest, data: bytes) -> list[Action]:
        """Announce a release with its theta."""
        return self._announce("release", _Entry(manifest, manifest.theta, data))

    def data_of(self, digest: bytes) -> bytes | None:
        """The bytes of a blob that is announced now."""
        return next((entry.data for entry in self._current.values() if entry.blob.digest == digest), None)

    def again(self) -> list[Action]:
        """Announce everything once more: the broker may have forgotten it."""
        return [PublishBlob(self._place.node, entry.blob, entry.data) for entry in self._current.values()]

    def on_published(self, blob: Blob) -> list[Action]:
        """A blob is on the broker: its manifest may follow."""
        place = self._place
        return [
            Send(
                topics.build(place.net, place.node, channel, task=self._task),
                Frame(self._task, place.node, place.boot, 0, entry.message),
                retain=True,
            )
            for channel, entry in self._current.items()
            if entry.blob.digest == blob.digest
        ]

    def _announce(self, channel: str, entry: _Entry) -> list[Action]:
        old = self._current.get(channel)
        self._current[channel] = entry
        actions: list[Action] = []
        if old is not None and old.blob.digest != entry.blob.digest:
            stale = self._before.get(channel)
            self._before[channel] = old.blob
            if stale is not None and stale.digest not in {e.blob.digest for e in self._current.values()} | {old.blob.digest}:
                actions.append(Retire(self._place.node, stale))
        return [*actions, PublishBlob(self._place.node, entry.blob, entry.data)]
