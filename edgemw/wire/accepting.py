"""What a node takes from above where it was given keys: what one of them has signed, and nothing older than what it has.

A node that has never heard of a release cannot know that there are newer ones than the one that it is shown.
"""

from __future__ import annotations

from edgemw.core.ids import Place
from edgemw.wire.messages import ReleaseManifest, TaskManifest
from edgemw.wire.signed import ReleaseKeys, bundle_text, release_text

UNSIGNED = "it is not signed, and security.release_key asks for it"
FORGED = "it is not signed by a key of security.release_key, that key is revoked, or it was altered"


class Accepting:
    """The releases and bundles of one task; without keys everything is taken."""

    def __init__(self, place: Place, task: str, keys: ReleaseKeys | None, newest: tuple[int, int] = (-1, -1)) -> None:
        """Begin with the run and the number of the newest release that an earlier life has taken."""
        self._place, self._task, self._keys, self._newest = place, task, keys, newest

    def release(self, manifest: ReleaseManifest) -> str:
        """Why a release is refused; "" where it is taken, and from then on nothing older is."""
        if self._keys is None:
            return ""
        reason = self._refusal(self._keys, release_text(self._place.net, self._task, manifest), manifest.signature)
        if reason:
            return reason
        run, number = self._newest
        if (manifest.run, manifest.number) < self._newest:
            return f"it is older than release {number} of run {run}, which was here"
        self._newest = manifest.run, manifest.number
        return ""

    @property
    def asks(self) -> bool:
        """Whether keys were given: they have signed what a release is, not how it is had, nor in which life it is said."""
        return self._keys is not None

    def another_life(self, boot: int, heard: int) -> bool:
        """Whether a release is of another life of its sender than the one `heard`.

        Lives come in order, but where releases are signed anybody may have said a high one, and it would hide the next.
        """
        return boot > heard or (self.asks and boot != heard)

    def bundle(self, manifest: TaskManifest) -> str:
        """Why a bundle is refused; "" where it is taken. One that is said to be of no run is a proposal, and not taken."""
        if self._keys is None:
            return ""
        if not manifest.signature or manifest.run < 0:
            return UNSIGNED
        text = bundle_text(self._place.net, self._task, manifest.blob, manifest.run)
        reason = self._refusal(self._keys, text, manifest.signature)
        run, _ = self._newest
        return reason or (f"it is of run {manifest.run}, older than run {run}, which was here" if manifest.run < run else "")

    @staticmethod
    def _refusal(keys: ReleaseKeys, text: bytes, signature: bytes) -> str:
        if not signature:
            return UNSIGNED
        return "" if keys.signed(text, signature) else FORGED
