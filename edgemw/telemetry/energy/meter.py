"""The energy of a node: joules that never fall, by where they are known from, and what they went into.

Every reader is asked at every look, and the first that has an answer counts; so a battery speaks while it discharges, and the
model while it charges. Graphics cards are added to a source that does not see them. Idle energy is what the device would have
taken with nothing to do; of the rest, the node's processes have taken the part that their processor time is of all. What the
radio took is modelled, from bytes and sessions, and taken out first; what is left goes by processor time to training, serving and
the agent.

Source: idle and active energy, and attribution by processor time: Kepler (github.com/sustainable-computing-io/kepler), which
takes the utilisation for the active part; here idle power is measured, or known.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from edgemw.telemetry.energy.reader import Moment, Reader
from edgemw.telemetry.energy.tree import Unreadable

TRAIN, SERVE, COMMUNICATE, AGENT = "train", "serve", "communicate", "agent"
COMPONENTS = (TRAIN, SERVE, COMMUNICATE, AGENT)
MODEL, NONE = "model", "none"
QUIET_UTILISATION = 0.05
_LOOKS = 600
_FEWEST = 30
_PERCENTILE = 0.05
PAUSE_S = 10.0
"""Of silence, after which the network is used anew: a radio has gone to sleep by then."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What was used since the node began.

    Attributes:
        now_s: by a clock that never goes back.
        busy_s: processor time of all of the machine, all cores.
        own_s: that of this node.
        train_s, serve_s: parts of it.
        sent_bytes, received_bytes: of this node.
        predictions: requests that it has answered.
    """

    now_s: float
    busy_s: float
    own_s: float
    train_s: float = 0.0
    serve_s: float = 0.0
    sent_bytes: float = 0.0
    received_bytes: float = 0.0
    predictions: int = 0


@dataclass(frozen=True, slots=True)
class Energy:
    """Totals of a node: of one life, or of all.

    Attributes:
        joules: by source.
        idle_j: of those, what the device would have taken idle.
        components: what this node took beyond that, by what for.
        carried_bytes: sent and received meanwhile.
        predictions: made meanwhile.
        watts: in the last stretch; 0 where it was not known.
        source: that counts now; "none" where there is none.
        uncertainty_ratio: of that.
        gaps: stretches of which no source knew anything.
    """

    joules: Mapping[str, float] = field(default_factory=dict)
    idle_j: float = 0.0
    components: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(COMPONENTS, 0.0))
    carried_bytes: float = 0.0
    predictions: int = 0
    watts: float = 0.0
    source: str = NONE
    uncertainty_ratio: float = 0.0
    gaps: int = 0

    def plus(self, life: Energy) -> Energy:
        """These totals with those of a later life, which goes on now."""
        sources = {*self.joules, *life.joules}
        return replace(
            life,
            joules={source: self.joules.get(source, 0.0) + life.joules.get(source, 0.0) for source in sorted(sources)},
            idle_j=self.idle_j + life.idle_j,
            components={name: self.components[name] + life.components[name] for name in COMPONENTS},
            carried_bytes=self.carried_bytes + life.carried_bytes,
            predictions=self.predictions + life.predictions,
            gaps=self.gaps + life.gaps,
        )

    @property
    def total_j(self) -> float:
        """Of all sources: at any time one of them counted."""
        return sum(self.joules.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Whose energy is counted.

    Attributes:
        cores: of the device.
        machine_cores: of the machine, which is the same unless the node stands for a device of another class.
        alone: whether the device is the node's own. Else the machine carries several nodes: of a meter's joules only those count
            that this node took beyond idle, and the model is of a device that does nothing but this node's work.
        idle_w: what the whole device takes idle, as far as that is known beforehand; None where it is not.
        radio: modelled joules of the bytes and sessions of a moment.
    """

    cores: int
    machine_cores: int
    alone: bool = True
    idle_w: float | None = None
    radio: Callable[[Moment], float] = lambda moment: 0.0


class Meter:
    """Looks at readers when told to; used by one thread at a time. `life` and `energy` may be read by others."""

    def __init__(
        self, readers: Sequence[Reader], cards: Sequence[Reader], scope: Scope, usage: Usage, before: Energy | None = None
    ) -> None:
        """Begin at a usage.

        Args:
            readers: the first that has an answer counts.
            cards: what may be on top of that; counted alone where there is no reader.
            usage: now.
            before: totals of earlier lives.
        """
        self._readers, self._cards = (readers, cards) if readers else (cards, ())
        self._scope, self._last = scope, usage
        self._idle = {reader.source: _Idle(_known_idle_w(reader, scope)) for reader in self._readers}
        self._before = before or Energy()
        self._silent_s = PAUSE_S  # for how long nothing was sent or received
        self.life = Energy()

    @property
    def energy(self) -> Energy:
        """The totals of all lives."""
        return self._before.plus(self.life)

    def look(self, usage: Usage) -> Energy:
        """The totals of this life with what was used since the last look."""
        seconds = usage.now_s - self._last.now_s
        if seconds <= 0:
            return self.life
        last, self._last, known = self._last, usage, self.life
        moment = self._moment(last, usage, seconds)
        carried = known.carried_bytes + moment.sent_bytes + moment.received_bytes
        predictions = known.predictions + max(0, usage.predictions - last.predictions)
        known = replace(known, carried_bytes=carried, predictions=predictions)
        found = self._first(moment)
        if found is None:
            self.life = replace(known, watts=0.0, source=NONE, uncertainty_ratio=0.0, gaps=known.gaps + 1)
            return self.life
        reader, joules = found
        idle, parts = self._split(reader, joules, last, usage, moment)
        if not self._scope.alone and reader.source != MODEL:
            joules, idle = sum(parts.values()), 0.0
        self.life = replace(
            known,
            joules={**known.joules, reader.source: known.joules.get(reader.source, 0.0) + joules},
            idle_j=known.idle_j + idle,
            components={name: known.components[name] + parts[name] for name in COMPONENTS},
            watts=joules / seconds,
            source=reader.source,
            uncertainty_ratio=reader.uncertainty_ratio,
        )
        return self.life

    def _moment(self, last: Usage, usage: Usage, seconds: float) -> Moment:
        sent = max(0.0, usage.sent_bytes - last.sent_bytes)
        received = max(0.0, usage.received_bytes - last.received_bytes)
        woke = bool(sent or received) and self._silent_s >= PAUSE_S
        self._silent_s = 0.0 if sent or received else self._silent_s + seconds
        busy_s = usage.busy_s - last.busy_s if self._scope.alone else usage.own_s - last.own_s
        utilisation = min(max(busy_s / (seconds * self._scope.cores), 0.0), 1.0)
        return Moment(usage.now_s, seconds, utilisation, sent, received, int(woke))

    def _first(self, moment: Moment) -> tuple[Reader, float] | None:
        """The first reader with an answer, and its joules with those of cards that it does not see. All are asked."""
        answers = [(reader, _joules(reader, moment)) for reader in self._readers]
        cards = sum(_joules(card, moment) or 0.0 for card in self._cards)
        for reader, joules in answers:
            if joules is not None:
                return reader, joules + (0.0 if reader.sees_cards else cards)
        return None

    def _split(self, reader: Reader, joules: float, last: Usage, usage: Usage, moment: Moment) -> tuple[float, dict[str, float]]:
        """Idle joules, and what the node took of the others."""
        busy = (usage.busy_s - last.busy_s) / (moment.seconds * self._scope.machine_cores)
        busy = moment.utilisation if reader.source == MODEL else min(max(busy, 0.0), 1.0)
        idle = min(joules, self._idle[reader.source].joules(joules, moment.seconds, busy, learn=reader.source != MODEL))
        communicate = min(self._scope.radio(moment), joules - idle) if reader.sees_radio else 0.0
        active = joules - idle - communicate
        own_s, busy_s = max(0.0, usage.own_s - last.own_s), max(0.0, usage.busy_s - last.busy_s)
        share = min(1.0, own_s / busy_s) if busy_s > 0 else 0.0
        if not self._scope.alone and reader.source == MODEL:
            share = 1.0
        train_s, serve_s = max(0.0, usage.train_s - last.train_s), max(0.0, usage.serve_s - last.serve_s)
        return idle, {COMMUNICATE: communicate} | _by_time(active * share, own_s, train_s, serve_s)


def _known_idle_w(reader: Reader, scope: Scope) -> float | None:
    """What is known beforehand of the idle power that a source sees: that of the device, if it sees all of that and no more."""
    sees_it = reader.source == MODEL or (scope.alone and reader.sees_radio)
    return scope.idle_w if sees_it else None


class _Idle:
    """What a device takes with nothing to do: as its profile says, and as its meter shows when it is quiet."""

    def __init__(self, watts: float | None) -> None:
        self._watts = watts
        self._quiet: deque[float] = deque(maxlen=_LOOKS)
        self._sorted: list[float] = []

    def joules(self, joules: float, seconds: float, utilisation: float, *, learn: bool) -> float:
        """Idle joules of a stretch in which so many were taken.

        The 5th percentile of the power at less than 5 % utilisation, from thirty such stretches on; before, what is known
        beforehand; else the part of the energy that the processor was not busy.

        Args:
            utilisation: of all that the joules are of.
            learn: whether the joules were measured, and so say anything about idle power.
        """
        if learn and utilisation < QUIET_UTILISATION:
            self._note(joules / seconds)
        if learn and len(self._sorted) >= _FEWEST:
            return self._sorted[int(_PERCENTILE * len(self._sorted))] * seconds
        if self._watts is not None:
            return self._watts * seconds
        return (1.0 - utilisation) * joules

    def _note(self, watts: float) -> None:
        if len(self._quiet) == self._quiet.maxlen:
            self._sorted.remove(self._quiet[0])
        self._quiet.append(watts)
        insort(self._sorted, watts)


def _by_time(joules: float, own_s: float, train_s: float, serve_s: float) -> dict[str, float]:
    """Joules by processor time; no more than all of it was spent on training and serving."""
    all_s = max(own_s, train_s + serve_s)
    train, serve = (joules * part / all_s if all_s > 0 else 0.0 for part in (train_s, serve_s))
    return {TRAIN: train, SERVE: serve, AGENT: max(0.0, joules - train - serve)}


def _joules(reader: Reader, moment: Moment) -> float | None:
    try:
        joules = reader.joules(moment)
    except Unreadable:
        return None
    return None if joules is None else max(0.0, joules)
