"""The fog node's half of the shell: makes the machines and saves what they ask to keep."""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import msgpack
import numpy as np

from edgemw.core.bundle import Vector
from edgemw.core.events import Fact
from edgemw.core.ids import Place, UpdateId
from edgemw.fog.accounts import Accounts, Amount, accounts_of
from edgemw.fog.events import (
    BundleGiven,
    FogMemory,
    Forwarded,
    Gain,
    Released,
    Remainder,
    SaveAck,
    SaveBundle,
    SaveForward,
    SaveOutcomes,
    SaveRelease,
    SaveShelf,
    SaveUpdate,
    Settled,
    Totals,
)
from edgemw.fog.evidence import BOUNDED, MASKED, REMAINDER
from edgemw.fog.forwarder import Forwarder
from edgemw.fog.privacy import spent_of, spent_text
from edgemw.fog.rate import Rate
from edgemw.fog.release import TopOptions
from edgemw.fog.top import Top
from edgemw.fog.window import WindowOptions
from edgemw.storage import evidence, journal, outbox
from edgemw.storage.database import Database
from edgemw.storage.journal import OutcomeRow, ReleaseRow
from edgemw.storage.outbox import KeptUpdate
from edgemw.transport.shell import Shell, Wanted
from edgemw.wire import topics
from edgemw.wire.messages import Blob, Frame, ReleaseManifest
from edgemw.wire.signed import ANYBODY, Trust

MAX_TASKS = 32

log = logging.getLogger(__name__)


class FogRole:
    """See the module; the shell calls it from the event loop."""

    role = "fog"

    def __init__(
        self,
        place: Place,
        db: Database,
        options: WindowOptions | TopOptions,
        observe: Callable[[str, Fact], None],
        trust: Trust = ANYBODY,
        evidence_bytes: int = 0,
    ) -> None:
        """Make the role; of the signed updates of its last windows it keeps so many bytes."""
        self._place, self._db, self._options, self._observe = place, db, options, observe
        self._trust, self._evidence_bytes = trust, evidence_bytes
        if evidence_bytes:
            evidence.prepare(db)
        self._receivers = outbox.receivers(db)  # of an earlier life, perhaps under another parent
        self._shell: Shell | None = None

    def attach(self, shell: Shell) -> None:
        """Say where events go; tasks known from the disk are opened."""
        self._shell = shell
        shell.open_tasks(outbox.known_tasks(self._db))

    def give_bundle(self, task: str, data: bytes) -> None:
        """Give the top a bundle to serve.

        Raises:
            ConfigError: the bundle cannot begin another run, which the settings need.
        """
        assert self._shell is not None
        self._shell.open_tasks([task])
        top = self._shell.machines.get(task)
        if isinstance(top, Top):
            top.check_given(data)
        self._shell.post(task, BundleGiven(data))

    # -- what the shell asks

    def subscriptions(self, place: Place) -> list[str]:
        """See Role."""
        own = [
            topics.build(place.net, place.node, "presence", node="+"),
            topics.build(place.net, place.node, "telemetry", node="+"),
            topics.build(place.net, place.node, "update", node="+", task="+"),
            topics.build(place.net, place.node, "chunk", fog=place.node, node="+", transfer="+"),
        ]
        if not place.parent:
            ask = topics.build(place.net, place.node, "ask", node="+")
            return [*own, ask, topics.build(place.net, place.node, "task", task="+")]
        return [
            *own,
            *(
                topics.build(place.net, fog, "reply", node=place.node, task="+")
                for fog in sorted({place.parent, *self._receivers})
            ),
            topics.build(place.net, place.parent, "task", task="+"),
            topics.build(place.net, place.parent, "release", task="+"),
            topics.build(place.net, place.parent, "ask", node="+"),
        ]

    def machine(self, task: str, now: float) -> Top | Forwarder | None:
        """See Role."""
        if self._shell is not None and len(self._shell.machines) >= MAX_TASKS:
            return None
        memory = self._memory(task)
        if isinstance(self._options, TopOptions):
            return Top(self._place, task, self._options, memory, now, self._trust)
        return Forwarder(self._place, task, self._options, memory, now, self._trust)

    def observe(self, task: str, fact: Fact) -> None:
        """See Role."""
        level = logging.INFO if fact.name in ("release", "round") else logging.DEBUG
        log.log(level, "%s", fact.name, extra={"facts": {"task": task, **fact.values}})
        self._observe(task, fact)

    def act(self, wanted: Sequence[Wanted]) -> None:
        """See Role; a fog node's own actions are all to keep something."""
        books: dict[str, Accounts] = {}
        with self._db.transaction(durable=not all(_said_again(action) for _, action in wanted)):
            for task, action in wanted:
                self._save(task, action)
                if isinstance(action, SaveUpdate | SaveOutcomes | SaveRelease):
                    books[task] = action.accounts
            for task, accounts in books.items():
                journal.put_accounts(self._db, task, json.dumps(asdict(accounts)))

    def _save(self, task: str, action: Any) -> None:
        db = self._db
        match action:
            case SaveUpdate(frame=frame):
                journal.put_window(db, frame)
                self._keep_credential(frame.node)  # by which it was believed: the node may have another one at the end
            case SaveForward(forwarded=forwarded, release=release, remainder=remainder):
                self._keep_evidence(task, forwarded.members, release, forwarded)
                outbox.put_update(db, forwarded.frame, self._place.parent, _pack_note(forwarded))
                self._put_remainder(task, remainder)
                for member in forwarded.members:
                    journal.take_from_window(db, task, member)
            case SaveAck(update=update):
                outbox.acknowledge(db, task, update)
            case SaveOutcomes(outcomes=outcomes, forwarded=forwarded, remainder=remainder):
                self._put_outcomes(task, outcomes)
                self._put_remainder(task, remainder)
                if forwarded is not None:
                    outbox.forget(db, task, forwarded)
            case SaveRelease(released=released, outcomes=outcomes):
                counted = tuple(update for update, outcome in outcomes if outcome.counted)
                self._keep_evidence(task, counted, released.manifest)
                self._put_outcomes(task, outcomes)
                journal.put_release(db, task, self._release_row(task, released))
            case SaveShelf(blobs=blobs):
                journal.put_shelf(db, task, _pack_blobs(blobs))
            case SaveBundle(digest=digest, data=data, released=released):
                journal.put_bundle(db, task, digest, data)
                journal.put_release(db, task, self._release_row(task, released))

    def _keep_evidence(
        self, task: str, members: tuple[UpdateId, ...], release: ReleaseManifest, forwarded: Forwarded | None = None
    ) -> None:
        """Keep what was signed of a window that is closed; at the top nothing goes up."""
        if not self._evidence_bytes:
            return
        sent, why = (None, "") if forwarded is None else (forwarded.frame, _unadded(forwarded, release))
        note = json.dumps({"release": release.number, "parameters": release.parameters, "whole": not why, "why": why})
        for node in evidence.put_window(self._db, task, sent, note, members, self._evidence_bytes):
            self._keep_credential(node)

    def _keep_credential(self, node: str) -> None:
        senders = self._trust.senders
        if self._evidence_bytes and senders is not None and (der := senders.credential(node)):
            evidence.put_credential(self._db, node, der)

    def _put_outcomes(self, task: str, outcomes: tuple[tuple[UpdateId, Settled], ...]) -> None:
        rows = [OutcomeRow(update, outcome.counted, outcome.release, outcome.reason) for update, outcome in outcomes]
        journal.put_outcomes(self._db, task, rows)

    def _put_remainder(self, task: str, remainder: Remainder | None) -> None:
        if remainder is not None:
            journal.put_remainder(self._db, task, remainder.run, remainder.payload)

    # -- the disk's form of values

    def _release_row(self, task: str, released: Released) -> ReleaseRow:
        manifest = Frame(task, self._place.node, self._place.boot, 0, released.manifest)
        totals = released.totals
        return ReleaseRow(
            manifest, _bytes(released.theta) or b"", _bytes(released.first), _bytes(released.second), _bytes(released.residual),
            totals.updates, totals.weight, totals.uplink_bytes, totals.downlink_bytes,
            json.dumps(released.report) if released.report is not None else None, released.reached,
            json.dumps(asdict(released.rate)), json.dumps(asdict(released.gain)), spent_text(released.spent),
        )  # fmt: skip

    def _memory(self, task: str) -> FogMemory:
        db = self._db
        bundles = journal.bundles(db, task)
        kept = outbox.kept_updates(db, task)
        rows, remainder = journal.outcomes(db, task), journal.remainder(db, task)
        return FogMemory(
            open=tuple(journal.open_window(db, task)),
            forwarded=tuple(map(forwarded_of, kept)),
            settled=tuple((row.update, Settled(row.counted, row.release, row.reason)) for row in rows),
            bundle=next((data for data in bundles.values() if data is not None), None),
            bundles_known=frozenset(bundles),
            released=_released(journal.release(db, task)),
            shelf=_unpack_blobs(journal.shelf(db, task)),
            remainder=Remainder(*remainder) if remainder is not None else None,
            accounts=accounts_of(journal.accounts(db, task)),
            secret=secrets.token_bytes(32),
        )


def _unadded(forwarded: Forwarded, release: ReleaseManifest) -> str:
    """Why a window is not the sum of its members; "" where it is."""
    if not forwarded.whole:
        return MASKED if release.threshold else BOUNDED
    return REMAINDER if forwarded.brought else ""


def _said_again(action: Any) -> bool:
    """Whether a power cut may take this back: acknowledgements and counted updates are asked for again, a shelf is a courtesy."""
    match action:
        case SaveOutcomes(outcomes=outcomes):
            return all(outcome.counted for _, outcome in outcomes)
        case _:
            return isinstance(action, SaveAck | SaveShelf)


def _released(row: ReleaseRow | None) -> Released | None:
    if row is None:
        return None
    manifest = row.manifest.message
    assert isinstance(manifest, ReleaseManifest)
    theta = _vector(row.theta)
    assert theta is not None
    totals = Totals(row.updates, row.weight, row.uplink_bytes, row.downlink_bytes)
    report = None if row.report is None else json.loads(row.report)
    moments = _vector(row.first), _vector(row.second)
    rate, gain, spent = _rate(row.rate), Gain(**json.loads(row.gain)), spent_of(row.spent)
    return Released(manifest, theta, *moments, totals, report, _vector(row.residual), row.reached, rate, gain, spent)


def _rate(text: str) -> Rate:
    values = json.loads(text)
    return Rate(**{**values, "moves": tuple(values["moves"])})


def _bytes(vector: Vector | None) -> bytes | None:
    return None if vector is None else vector.astype("<f4").tobytes()


def _vector(data: bytes | None) -> Vector | None:
    return None if data is None else np.frombuffer(data, "<f4").astype(np.float32)


def _pack_blobs(blobs: tuple[Blob, ...]) -> bytes:
    return bytes(msgpack.packb([[blob.digest, blob.size, blob.chunk_size] for blob in blobs]))


def _unpack_blobs(data: bytes | None) -> tuple[Blob, ...]:
    return tuple(Blob(*places) for places in msgpack.unpackb(data)) if data else ()


def _pack_note(forwarded: Forwarded) -> bytes:
    cut = [forwarded.cut.updates, forwarded.cut.weight] if forwarded.cut else []
    return bytes(msgpack.packb([[[m.node, m.boot, m.seq] for m in forwarded.members], forwarded.brought, *cut]))


def forwarded_of(row: KeptUpdate) -> Forwarded:
    """A merged window as it stands on disk, with whose updates are in it."""
    members, brought, *cut = msgpack.unpackb(row.note) if row.note else ((), b"")
    inside = tuple(UpdateId(*member) for member in members)
    return Forwarded(row.frame, row.receiver, inside, row.acknowledged, brought, Amount(*cut))
