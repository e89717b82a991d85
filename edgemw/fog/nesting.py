"""A forwarding node with a budget: what goes up is on a coarser lattice, what that leaves out waits for the next window.

The remainder is kept on disk in the transaction that closes the window. When a forwarded window is returned, its members get
theirs back, so this node takes back only what was sent beyond that: all is as if the window had never been made. Without a
budget the next window takes along all that an earlier life kept.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgemw.compression.lattice import Lattice
from edgemw.compression.nested import Nested, nest, taken_back
from edgemw.compression.table import codec_named
from edgemw.core.errors import WireError
from edgemw.fog.balance import Balance
from edgemw.fog.events import Remainder
from edgemw.wire.messages import ReleaseManifest, Update

_NEEDS = "window.budget needs codec lattice with steps = 'dyadic', which this run does not use"


@dataclass(frozen=True, slots=True)
class Sent:
    """An update within the budget; `brought` is what its window's section held before, empty where that is what it holds."""

    update: Update
    brought: bytes = b""


class Nesting:
    """The remainder of one task on one node.

    Attributes:
        reason: why the budget is not kept; empty where it is, or there is none.
    """

    def __init__(self, budget_bytes: int, remainder: Remainder | None, balance: Balance) -> None:
        self._budget_bytes, self._remainder, self._balance = budget_bytes, remainder, balance
        self.reason = ""

    @property
    def remainder(self) -> Remainder | None:
        """What waits for the next window."""
        return self._remainder

    @property
    def kept_bytes(self) -> int:
        """The size of that, as it stands on disk."""
        return len(self._remainder.payload) if self._remainder is not None else 0

    def send(self, update: Update, release: ReleaseManifest) -> Sent:
        """Keep the budget, if there is one and the window brought anything."""
        if self._remainder is not None and self._remainder.run != update.run:
            self._remainder = None
        kept = self._remainder.payload if self._remainder is not None else b""
        if not update.sections or not (self._budget_bytes or kept):
            return Sent(update)
        codec = codec_named(release.codec, **release.parameters)
        if not isinstance(codec, Lattice) or not codec.dyadic:
            self.reason = _NEEDS if self._budget_bytes else f"what earlier windows left waits: {_NEEDS}"
            return Sent(update)
        (section,) = update.sections  # dyadic windows are folded
        try:
            nested = self._nested(codec, section.payload, kept, update.size)
        except WireError as error:
            self.reason = f"a window went up as it was, beside its remainder: {error}"
            return Sent(update)
        self.reason = ""
        self._remainder = Remainder(update.run, nested.kept)
        self._balance.nested(codec, update.size, [section.payload, kept], [nested.sent, nested.kept])
        return Sent(replace(update, sections=(replace(section, payload=nested.sent),)), section.payload)

    def _nested(self, lattice: Lattice, payload: bytes, kept: bytes, size: int) -> Nested:
        if self._budget_bytes:
            return nest(lattice, payload, kept, size, self._budget_bytes)
        return Nested(lattice.merge([payload, kept], size), b"")  # what a budget of an earlier life left

    def returned(self, update: Update, brought: bytes) -> None:
        """A window that was sent is not counted; what its members brought has been given back to them."""
        remainder = self._remainder
        if not brought or remainder is None or remainder.run != update.run:
            return
        (section,) = update.sections
        try:
            payload = taken_back(Lattice(), remainder.payload, section.payload, brought, update.size)
            self._balance.nested(Lattice(), update.size, [remainder.payload, section.payload], [brought, payload])
        except WireError as error:
            self.reason = f"the remainder of a window that was returned could not be taken back: {error}"
            return
        self._remainder = Remainder(update.run, payload)
