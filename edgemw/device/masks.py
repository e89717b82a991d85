"""Whether a device masks what it sends, with whom, and what it needs for that: nothing, where no release asks for masks.

`member.py`, and with it the library for cryptography, is loaded for the first release that asks for masks.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from edgemw.core.events import SetTimer
from edgemw.core.ids import Place
from edgemw.core.ranges import Ranges
from edgemw.device.events import Action, Joined
from edgemw.wire.messages import Frame, Group, NoGroup, ReleaseManifest, Shares, Unmask, Update
from edgemw.wire.signed import Signer

if TYPE_CHECKING:
    from edgemw.device.member import GroupMember

ASKING = "asking"
PLAIN_ASKED = "privacy.require_masks: the release asks for updates that its fog node can read"
NO_LIBRARY = "masks need cryptography: pip install 'edgemw[security]'"


class Masks:
    """See the module."""

    __slots__ = ("_kept", "_member", "_most_bytes", "_place", "_required", "_signer", "_size", "_task", "_why_none")

    def __init__(
        self,
        place: Place,
        task: str,
        signer: Signer | None,
        kept: tuple[Joined, ...],
        *,
        required: bool = False,
        most_bytes: int | None = None,
    ) -> None:
        """Go on with the groups of an earlier life.

        Args:
            signer: of what is said to a fog node.
            required: nothing is sent without masks.
            most_bytes: that can leave in one message; None is no limit.
        """
        self._most_bytes = most_bytes
        self._place, self._task, self._signer, self._kept, self._required = place, task, signer, kept, required
        self._member: GroupMember | None = None
        self._why_none = ""
        self._size = 0
        if kept:
            self._load()

    def begin(self, manifest: ReleaseManifest, waiting: Collection[tuple[int, int]], now: float) -> list[Action]:
        """A release is trained from: ask for a part in its sum; `waiting` are releases whose masked updates have no outcome."""
        if not manifest.threshold:  # it may have asked for masks before
            return [] if self._member is None else self._member.forget((manifest.run, manifest.number))
        member = self._load()
        return [] if member is None else [*member.begin(manifest, waiting, now), *self._timer()]

    def verdict(self, release: ReleaseManifest, ranges: Ranges) -> str | None:
        """Why what was trained from a release may not be sent; empty where it may, None where that is not known yet."""
        if not release.threshold:
            return PLAIN_ASKED if self._required else ""
        if release.codec != "lanes":
            return f"codec {release.codec} has no lanes that could be masked"
        if ranges.statistics and set(ranges.statistics) - set(ranges.local):
            return "running statistics would be sent without masks: make them personal or frozen"
        if self._member is None:
            return self._why_none or "this device began without masks"
        key = release.run, release.number
        verdict = self._member.verdict(key)
        if verdict == "":
            self._size = self._member.size(key)
        return verdict

    def masked(self, frame: Frame) -> Frame | None:
        """An update as it is to be sent; None where it is sent as it is.

        Raises:
            RuntimeError: it may not be sent; never where its verdict was asked for, and is empty.
        """
        update = frame.message
        if not isinstance(update, Update) or not update.sections:
            return None
        if self._member is not None and (update.run, update.sections[0].base) in self._member:
            return self._member.masked(frame)
        if self._required:
            raise RuntimeError(f"{PLAIN_ASKED}: update {frame.id}")
        return None

    def on_message(self, fog: str, message: Group | Shares | Unmask | NoGroup, now: float) -> list[Action]:
        """Take what a fog node says of a group."""
        return [] if self._member is None else [*self._member.on_message(fog, message, now), *self._timer()]

    def resend(self, now: float, *, hurry: bool = False) -> list[Action]:
        """Say again what is due."""
        return [] if self._member is None else [*self._member.resend(now, hurry=hurry), *self._timer()]

    def settled(self, update: Update) -> list[Action]:
        """An update has an outcome: forget what masks it."""
        if self._member is None or not update.sections:
            return []
        return self._member.forget((update.run, update.sections[0].base))

    def clear(self) -> list[Action]:
        """Another run has begun."""
        return [] if self._member is None else self._member.clear()

    def facts(self) -> dict[str, int | float | str]:
        """Numbers for `status`: how many the last masked update was added with."""
        return {"group": self._size} if self._member is not None else {}

    def _timer(self) -> list[Action]:
        due = self._member.due if self._member is not None else None
        return [] if due is None else [SetTimer(ASKING, due)]

    def _load(self) -> GroupMember | None:
        if self._member is None and not self._place.secret:
            self._why_none = "this device has nothing to draw secrets from"
        elif self._member is None:
            try:
                from edgemw.device.member import GroupMember
            except ModuleNotFoundError:
                self._why_none = NO_LIBRARY
                return None
            self._member = GroupMember(self._place, self._task, self._signer, self._kept, self._most_bytes)
        return self._member
