"""The books of a stopped net, compared: is every update that a device has sent counted once, or returned, or still on its way?

    of every device      sent = counted, as it has heard + returned + without an outcome
    of every fog node    taken = counted + returned + waiting + bounded
    of the whole net     counted by the top + bounded by fog nodes = counted, as devices have heard + counted, but not heard yet

The first is how the middle term is found, so it proves nothing by itself; the last compares what two ends have written down
independently of each other. One update lost, or counted twice, makes it fail by that update's weight. Beside the sums every
identity that is on its way is looked up at both ends: what a fog node has must be known to its sender, and what a sender was told
that a fog node has must be there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from edgemw.core.ids import UpdateId
from edgemw.fog.accounts import Accounts, Amount
from edgemw.fog.ledger import KEPT


@dataclass(frozen=True, slots=True)
class Held:
    """An update that its sender has on disk, because it knows of no outcome.

    Attributes:
        receiver: who was to have it.
        acknowledged: whether that node has said that it does.
        amount: what the update stands for; of a merged window what its members claim.
        cut: what of that was not believed.
    """

    update: UpdateId
    receiver: str
    acknowledged: bool
    amount: Amount
    cut: Amount = field(default_factory=Amount)


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """What one node has on disk about one task.

    Attributes:
        run: the training run; -1 where the node has heard of none.
        sent, returned: of a device.
        accounts: of a fog node.
        released: what the top's last release says has been counted; None below the top.
        held: what the node has sent and knows no outcome of.
        waiting: updates of children in the open window, and what they stand for.
        inside: of each merged window without an outcome, the updates in it.
        settled: updates of children with an outcome: whether they are counted. The newest of each child.
    """

    node: str
    parent: str
    role: str
    task: str
    run: int = -1
    sent: Amount = field(default_factory=Amount)
    returned: Amount = field(default_factory=Amount)
    accounts: Accounts = field(default_factory=Accounts)
    released: Amount | None = None
    held: tuple[Held, ...] = ()
    waiting: Mapping[UpdateId, Amount] = field(default_factory=dict)
    inside: Mapping[UpdateId, tuple[UpdateId, ...]] = field(default_factory=dict)
    settled: Mapping[UpdateId, bool] = field(default_factory=dict)

    def held_by(self, receiver: str) -> set[UpdateId]:
        """What it has sent to one node and knows no outcome of."""
        return {held.update for held in self.held if held.receiver == receiver}

    @property
    def on_its_way(self) -> Amount:
        """What it has sent and knows no outcome of."""
        return sum((held.amount for held in self.held), Amount())

    @property
    def here(self) -> Amount:
        """What a fog node has taken and knows no outcome of."""
        return sum(self.waiting.values(), self.on_its_way)

    @property
    def counted(self) -> Amount:
        """What the node believes to be counted."""
        return self.sent - self.returned - self.on_its_way if self.role == "device" else self.accounts.counted


@dataclass(frozen=True, slots=True)
class Row:
    """A node in the table: `sent` is what a fog node has taken, `waiting` is in its window or without an outcome.

    `bounded` is what of the claims of a fog node's children was not believed.
    """

    node: str
    role: str
    sent: Amount
    counted: Amount
    waiting: Amount
    returned: Amount
    refused: Amount
    bounded: Amount = field(default_factory=Amount)


@dataclass(frozen=True, slots=True)
class Audit:
    """What came out for one task.

    Attributes:
        rows: of every node, the top first.
        difference: what the top has counted less what devices say; above zero is counted twice, or of a device without books.
        faults: everything that does not agree, in words; empty where all does.
        notes: what could not be compared.
    """

    task: str
    run: int
    rows: tuple[Row, ...]
    difference: Amount
    faults: tuple[str, ...]
    notes: tuple[str, ...]


def audit(books: Iterable[Books]) -> list[Audit]:
    """Compare the books of every task."""
    by_task: dict[str, list[Books]] = {}
    for found in books:
        by_task.setdefault(found.task, []).append(found)
    return [_Comparison(task, found).audit() for task, found in sorted(by_task.items())]


class _Comparison:
    """The books of one task, by node."""

    def __init__(self, task: str, books: list[Books]) -> None:
        self._task = task
        self._tops = [found for found in books if found.role == "fog" and not found.parent]
        self._run = max((top.run for top in self._tops), default=-1)
        self._books = {found.node: found for found in books}
        self._notes = [
            f"{found.node} is in run {found.run}: its updates are of another run" for found in books if found.run != self._run
        ]

    def audit(self) -> Audit:
        here = [found for found in self._books.values() if found.run == self._run]
        faults = [*self._without_books(), *(fault for found in here for fault in self._faults_of(found))]
        difference = Amount()
        if len(self._tops) == 1:
            difference = self._difference(self._tops[0], here)
            faults += _in_words(difference)
        else:
            names = ", ".join(top.node for top in self._tops) or "none"
            faults.insert(0, f"there has to be one top among the folders: found {names}")
        rows = tuple(map(_row, sorted(here, key=self._depth)))
        return Audit(self._task, self._run, rows, difference, tuple(dict.fromkeys(faults)), tuple(self._notes))

    def _depth(self, books: Books) -> tuple[int, str]:
        depth, at = 0, books
        while at.parent in self._books and depth < len(self._books):
            depth, at = depth + 1, self._books[at.parent]
        return depth, books.node

    def _without_books(self) -> Iterator[str]:
        """Children whose updates are here, and whose own folder is not."""
        for found in self._books.values():
            children = {update.node for update in [*found.waiting, *found.settled]}
            children |= {update.node for members in found.inside.values() for update in members}
            for child in sorted(children - self._books.keys()):
                yield f"{child} has sent updates to {found.node}, and its books are not among the folders"

    def _faults_of(self, books: Books) -> Iterator[str]:
        if books.role == "fog":
            missing = books.accounts.unaccounted(books.here)
            if missing:
                yield f"{books.node} has taken {missing} more than it has counted, returned or still has"
            if books.released is not None and books.released != books.accounts.counted:
                yield f"{books.node} has released {books.released} and its books say {books.accounts.counted}"
            yield from self._unknown_to_senders(books)
        for held in books.held:
            receiver = self._books.get(held.receiver)
            if receiver is None:
                yield f"{held.update} is on its way to {held.receiver}, whose books are not among the folders"
            elif held.acknowledged and held.amount and self._fate(held) == "unknown":
                yield f"{held.receiver} has acknowledged {held.update} ({held.amount}) and does not have it: lost"

    def _unknown_to_senders(self, books: Books) -> Iterator[str]:
        """What a node still has, although its sender takes it for settled: it would be counted after it was returned.

        A power cut may take back that a window is counted; then it is asked for again, and the answer is the same.
        """
        of_this_run = {held.update for held in books.held if held.amount and self._fate(held) != "counted"}
        open_ = [update for update, amount in books.waiting.items() if amount]
        open_ += [update for window, members in books.inside.items() if window in of_this_run for update in members]
        for update in open_:
            sender = self._books.get(update.node)
            if sender is not None and sender.run == books.run and update not in sender.held_by(books.node):
                yield f"{books.node} still has {update}, and {update.node} takes it for settled, or has sent it elsewhere"

    def _fate(self, held: Held) -> str:
        """What has become of an update, as far up as anybody knows: counted, returned, waiting, unknown."""
        receiver = self._books.get(held.receiver)
        if receiver is None:
            return "unknown"
        if held.update in receiver.settled:
            return "counted" if receiver.settled[held.update] else "returned"
        recent = [update for update in receiver.settled if update.node == held.update.node]
        if len(recent) >= KEPT and held.update < min(recent):
            return "counted"  # as the ledger takes it
        if held.update in receiver.waiting:
            return "waiting"
        for window, members in receiver.inside.items():
            if held.update in members:
                merged = next(sent for sent in receiver.held if sent.update == window)
                fate = self._fate(merged)
                return "waiting" if fate == "unknown" else fate
        return "unknown"

    def _difference(self, top: Books, books: list[Books]) -> Amount:
        devices = [found for found in books if found.role == "device"]
        heard = sum((device.counted for device in devices), Amount())
        unheard = (held.amount for device in devices for held in device.held if self._fate(held) == "counted")
        fogs = [found for found in books if found.role == "fog"]
        bounded = sum((fog.accounts.bounded for fog in fogs), Amount())
        cut = (held.cut for fog in fogs for held in fog.held if held.cut and self._fate(held) == "counted")
        return top.counted + sum(cut, bounded) - sum(unheard, heard)


def _in_words(difference: Amount) -> list[str]:
    if not difference:
        return []
    if difference.updates >= 0 and difference.weight >= 0:
        return [f"the top has counted {difference} more than devices have sent: counted twice, or their books are lost"]
    return [f"devices take {Amount() - difference} for counted that the top has not counted: lost"]


def _row(books: Books) -> Row:
    if books.role == "device":
        return Row(books.node, books.role, books.sent, books.counted, books.on_its_way, books.returned, Amount())
    accounts = books.accounts
    refused, bounded = accounts.refused, accounts.bounded
    return Row(books.node, books.role, accounts.taken, accounts.counted, books.here, accounts.returned, refused, bounded)
