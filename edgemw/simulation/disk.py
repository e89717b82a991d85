"""What a simulated node has saved: the values that roles ask their shell to keep, applied as the database applies them."""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from edgemw.core.ids import UpdateId
from edgemw.device import events as device
from edgemw.device.events import Joined, Memory
from edgemw.fog import events as fog
from edgemw.fog.accounts import Accounts
from edgemw.fog.events import FogMemory, Forwarded, Released, Remainder, Settled
from edgemw.fog.ledger import KEPT
from edgemw.wire.messages import Blob, Frame
from edgemw.wire.sender import Kept

_NO_ACCOUNTS, _NO_MEMORY = Accounts(), Memory()
_NONE: dict[Any, Any] = MappingProxyType({})  # type: ignore[assignment]  # nobody can put anything in
"""The tables of a fog node before it has saved anything, which most nodes of a large fleet never do."""

DeviceSave = device.SaveRound | device.SaveMemory | device.SaveAck | device.SaveJoined
Save = DeviceSave | fog.Save


@dataclass(slots=True)
class Disk:
    """See the module.

    Attributes:
        boots: lives so far.
        memory, outbox: of a device: frame, who is to have it, whether it has.
        masked, joined: of a device that masks: updates as they are sent, groups by run and release.
        window, forwarded, settled, bundle, known, released, shelf, remainder, accounts: of a fog node.
    """

    boots: int = 0
    memory: Memory = _NO_MEMORY
    masked: dict[UpdateId, Frame] = field(default_factory=lambda: _NONE)
    joined: dict[tuple[int, int], Joined] = field(default_factory=lambda: _NONE)
    outbox: dict[UpdateId, tuple[Frame, str, bool]] = field(default_factory=dict)
    window: dict[UpdateId, Frame] = field(default_factory=lambda: _NONE)
    forwarded: dict[UpdateId, Forwarded] = field(default_factory=lambda: _NONE)
    settled: dict[UpdateId, Settled] = field(default_factory=lambda: _NONE)
    bundle: bytes | None = None
    known: frozenset[bytes] = frozenset()
    released: Released | None = None
    shelf: tuple[Blob, ...] = ()
    remainder: Remainder | None = None
    accounts: Accounts = _NO_ACCOUNTS
    _settled_of: dict[str, list[UpdateId]] = field(default_factory=lambda: _NONE)

    def copy(self) -> Disk:
        """The same contents, apart from what is saved to either later."""
        return replace(
            self,
            outbox=dict(self.outbox),
            masked=dict(self.masked),
            joined=dict(self.joined),
            window=dict(self.window),
            forwarded=dict(self.forwarded),
            settled=dict(self.settled),
            _settled_of={node: [*updates] for node, updates in self._settled_of.items()},
        )

    @property
    def kept(self) -> tuple[Kept, ...]:
        """What a device finds in its outbox."""
        return tuple(Kept(*kept, self.masked.get(update)) for update, kept in self.outbox.items())

    @property
    def fog_memory(self) -> FogMemory:
        """What a fog node finds."""
        return FogMemory(
            open=tuple(self.window.values()),
            forwarded=tuple(self.forwarded.values()),
            settled=tuple(self.settled.items()),
            bundle=self.bundle,
            bundles_known=self.known,
            released=self.released,
            shelf=self.shelf,
            remainder=self.remainder,
            accounts=self.accounts,
        )

    def save(self, action: Save, parent: str) -> None:
        """Carry out a save, whole; `parent` is the node's present one."""
        match action:
            case device.SaveRound(memory=memory, frame=frame, masked=masked):
                self.memory = memory
                self.outbox[frame.id] = frame, parent, False
                if masked is not None:
                    self.masked = {**self.masked, frame.id: masked}
            case device.SaveJoined(joined=joined, forget=keys):
                kept = {key: one for key, one in self.joined.items() if key not in keys}
                self.joined = kept if joined is None else kept | {joined.key: joined}
            case device.SaveMemory(memory=memory, forget=forget):
                self.memory = memory
                for update in forget:
                    self.outbox.pop(update, None)
                    if update in self.masked:
                        del self.masked[update]
            case device.SaveAck(update=update):
                self.outbox[update] = (*self.outbox[update][:2], True)
            case _:
                if self.window is _NONE:
                    self.window, self.forwarded, self.settled, self._settled_of = {}, {}, {}, {}
                self._save_of_fog(action)

    def _save_of_fog(self, action: fog.Save) -> None:
        match action:
            case fog.SaveUpdate(frame=frame, accounts=accounts):
                self.window[frame.id], self.accounts = frame, accounts
            case fog.SaveForward(forwarded=forwarded, remainder=remainder):
                self.remainder = remainder if remainder is not None else self.remainder
                self.forwarded[forwarded.frame.id] = forwarded
                for member in forwarded.members:
                    self.window.pop(member, None)
            case fog.SaveAck(update=update):
                self.forwarded[update] = replace(self.forwarded[update], acknowledged=True)
            case fog.SaveOutcomes(outcomes=outcomes, accounts=accounts, forwarded=forwarded_id, remainder=remainder):
                self._settle(outcomes)
                self.accounts = accounts
                self.remainder = remainder if remainder is not None else self.remainder
                if forwarded_id is not None:
                    self.forwarded.pop(forwarded_id, None)
            case fog.SaveRelease(released=released, outcomes=outcomes, accounts=accounts):
                self._settle(outcomes)
                self.released, self.accounts = released, accounts
            case fog.SaveShelf(blobs=blobs):
                self.shelf = blobs
            case fog.SaveBundle(digest=digest, data=data, released=released):
                self.bundle, self.released = data, released
                self.known |= {digest}

    def _settle(self, outcomes: tuple[tuple[UpdateId, Settled], ...]) -> None:
        for update, outcome in outcomes:
            self.window.pop(update, None)
            self.settled[update] = outcome
            known = self._settled_of.setdefault(update.node, [])
            if update not in known:
                insort(known, update)
            for old in known[:-KEPT]:
                del self.settled[old]
            del known[:-KEPT]
