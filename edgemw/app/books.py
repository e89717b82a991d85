"""The books of nodes that are not running, read from their databases for `edgemw.fog.audit`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from edgemw.core.errors import ConfigError, StorageError
from edgemw.fog.accounts import Accounts, Amount, accounts_of, amount_of
from edgemw.fog.agent import forwarded_of
from edgemw.fog.audit import Books, Held
from edgemw.fog.events import Forwarded
from edgemw.storage import journal, outbox
from edgemw.storage.database import Database
from edgemw.storage.outbox import KeptUpdate
from edgemw.wire.messages import ReleaseManifest


def read_books(folders: Sequence[Path]) -> list[Books]:
    """The books in all databases below these folders.

    Raises:
        ConfigError: there are none, or two of one node; a node is running, or its file is damaged or of another version; a folder
            cannot be read.
    """
    found: dict[tuple[str, str], Books] = {}
    where: dict[str, Path] = {}
    for folder in states_in(folders):
        path = folder / "state.db"
        for books in _books_in(folder):
            if where.setdefault(books.node, path) != path:
                raise ConfigError(f"{where[books.node]} is of {books.node!r} as well: leave one out", file=str(path))
            found[books.node, books.task] = books
    if not found:
        names = ", ".join(map(str, folders))
        raise ConfigError(
            f"no node has kept anything about a task below {names}: give the folders of [node] state, or of up --out"
        )
    return list(found.values())


def states_in(folders: Sequence[Path]) -> list[Path]:
    """The folders of state in these and below.

    Raises:
        ConfigError: a folder cannot be looked into; nobody would miss the books in it.
    """

    def refuse(error: OSError) -> None:
        raise ConfigError(error.strerror or str(error), file=str(error.filename)) from error

    walks = (os.walk(folder, onerror=refuse) for folder in folders)
    return sorted({Path(where) for walk in walks for where, _, names in walk if "state.db" in names})


def _books_in(folder: Path) -> Iterator[Books]:
    try:
        db = Database(folder)
    except StorageError as error:
        raise ConfigError(f"{error}: audit reads nodes that do not run") from error
    try:
        place = db.place()
        if place is None:
            return
        _, node, parent, role = place
        for task in outbox.known_tasks(db):
            yield _device_books(db, node, parent, task) if role == "device" else _fog_books(db, node, parent, task)
    finally:
        db.close()


def _device_books(db: Database, node: str, parent: str, task: str) -> Books:
    row = outbox.device_row(db, task)
    if row is None:
        return Books(node=node, parent=parent, role="device", task=task)
    sent, returned = Amount(row.updates_sent, row.weight_sent), Amount(row.updates_returned, row.weight_returned)
    held = _held(outbox.kept_updates(db, task), row.run)
    return Books(node=node, parent=parent, role="device", task=task, run=row.run, sent=sent, returned=returned, held=held)


def _fog_books(db: Database, node: str, parent: str, task: str) -> Books:
    accounts = accounts_of(journal.accounts(db, task))
    released, run = None, accounts.run
    if not parent:
        row = journal.release(db, task)
        if row is not None and isinstance(row.manifest.message, ReleaseManifest):
            released, run = Amount(row.updates, row.weight), row.manifest.message.run
    kept = outbox.kept_updates(db, task)
    return Books(
        node=node,
        parent=parent,
        role="fog",
        task=task,
        run=run,
        accounts=accounts if accounts.run == run else Accounts(run),
        released=released,
        held=tuple(_window(forwarded_of(row), run) for row in kept),
        waiting={frame.id: amount_of(frame, run) for frame in journal.open_window(db, task)},
        inside={row.frame.id: forwarded_of(row).members for row in kept},
        settled={row.update: row.counted for row in journal.outcomes(db, task)},
    )


def _window(forwarded: Forwarded, run: int) -> Held:
    claimed, cut = forwarded.claimed(run), forwarded.unbelieved(run)
    return Held(forwarded.frame.id, forwarded.receiver, forwarded.acknowledged, claimed, cut)


def _held(kept: Sequence[KeptUpdate], run: int) -> tuple[Held, ...]:
    return tuple(Held(row.frame.id, row.receiver, row.acknowledged, amount_of(row.frame, run)) for row in kept)
