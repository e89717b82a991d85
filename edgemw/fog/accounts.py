"""The books of a fog node: what became of every device update, and of every training example behind them, that it has taken.

    taken = counted + returned + waiting + bounded

`taken` is kept on disk and acknowledged; `counted` is in a release; `returned` went back to its sender; what is left is in the
open window or in a merged one on its way up. `refused` was never taken. `bounded` is what was claimed and not believed: where
`window.robust` is on, a child's weight counts as far as the others' do. Amounts are those that updates say of themselves, so the
books of a node and those of its children are about the same: what all children hold to be counted is what this node holds to be
counted, apart from outcomes that have not reached them. `edgemw audit` compares the books of a whole net.

Books are of one training run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace

from edgemw.wire.messages import Frame, Update


@dataclass(frozen=True, slots=True)
class Amount:
    """Device updates, and the training examples behind them."""

    updates: int = 0
    weight: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.updates + other.updates, self.weight + other.weight)

    def __sub__(self, other: Amount) -> Amount:
        return Amount(self.updates - other.updates, self.weight - other.weight)

    def __bool__(self) -> bool:
        return bool(self.updates or self.weight)

    def __str__(self) -> str:
        return f"{self.updates} updates of weight {self.weight}"


@dataclass(frozen=True, slots=True)
class Accounts:
    """See the module."""

    run: int = -1
    taken: Amount = Amount()
    counted: Amount = Amount()
    returned: Amount = Amount()
    refused: Amount = Amount()
    bounded: Amount = Amount()

    def take(self, frame: Frame) -> Accounts:
        """An update of the run has been taken."""
        return replace(self, taken=self.taken + amount_of(frame, self.run))

    def refuse(self, frame: Frame) -> Accounts:
        """An update of the run has been refused."""
        return replace(self, refused=self.refused + amount_of(frame, self.run))

    def settle(self, amount: Amount, *, counted: bool, cut: Amount) -> Accounts:
        """What was taken is counted, but for what of it is not believed, or returned as a whole."""
        if not counted:
            return replace(self, returned=self.returned + amount)
        return replace(self, counted=self.counted + amount - cut, bounded=self.bounded + cut)

    def unaccounted(self, waiting: Amount) -> Amount:
        """What was taken and is in none of the books, given what waits; nothing, always."""
        return self.taken - self.counted - self.returned - self.bounded - waiting


def amount_of(frame: Frame, run: int) -> Amount:
    """What an update stands for; nothing where it is of another run, which is in no book any more."""
    update = frame.message
    if not isinstance(update, Update) or update.run != run:
        return Amount()
    return Amount(sum(section.count for section in update.sections), sum(section.weight for section in update.sections))


def total(frames: Iterable[Frame], run: int) -> Amount:
    """What several updates stand for."""
    return sum((amount_of(frame, run) for frame in frames), Amount())


def accounts_of(text: str | None) -> Accounts:
    """The books that stand in a JSON text; empty ones where there is none."""
    if text is None:
        return Accounts()
    values = json.loads(text)
    return Accounts(values.pop("run"), **{name: Amount(**amount) for name, amount in values.items()})
