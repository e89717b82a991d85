"""What a fog node's page shows: the tree below the node, how everybody is, and what was learned for how many bytes and joules.

Nobody is asked unless somebody looks: then the node asks its own domain, and those of fog nodes below it, as `edgemw status`
does, but over the connection that it has. Rounds are noted all the time, because the top tells them anyway.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from edgemw.app.census import Census, NodeStatus, question
from edgemw.app.history import History
from edgemw.app.joules import FleetEnergy, fleet_document, fleet_energy
from edgemw.app.rounds import Round, round_told
from edgemw.core.errors import LinkError, WireError
from edgemw.core.ids import Place
from edgemw.transport.link import Link
from edgemw.wire import publication, topics
from edgemw.wire.messages import Frame, Presence, RoundReport, Status

EVERY_S = 2.0
"""Between two questions to everybody, where they are few."""
NODES_PER_S = 200
LOOKING_S = 15.0
"""After the last look nobody is asked any more."""
TICK_S, FIRST_TICKS = 0.05, 30
"""The first look waits so often for answers, and each time so long."""
JOULES_S = 10.0
"""Between two points of the joules."""
MOST_DOMAINS = 10_000
_CHANNELS = frozenset({"presence", "answer", "event"})
_FACTS = (
    *("release", "last_update_s", "updates_sent", "updates_pending", "updates_counted", "updates_returned", "updates_refused"),
    *("children", "window", "awaited", "energy_j", "energy_w", "predictions", "epsilon"),
)

log = logging.getLogger(__name__)

Own = Callable[[], Iterable[tuple[str, Status]]]


@dataclass(frozen=True, slots=True)
class View:
    """What was known at a moment, for threads other than the loop's.

    Attributes:
        place: of the node whose page it is.
        own: its own status, by task.
        census: of the nodes below.
        since_s: earlier answers do not count.
        patient_s: who has come after that need not have answered.
        refused: why nodes cannot be asked; "" where they can.
        rounds, joules: as `History` has them.
        every_s: seconds until there will be news.
    """

    place: Place
    own: tuple[tuple[str, Status], ...]
    census: Census
    since_s: float
    patient_s: float
    refused: str
    rounds: Mapping[str, list[Round]]
    joules: list[tuple[float, float]]
    every_s: float


class Overview:
    """Lives in the event loop of a fog node; `look` is told of everything that arrives there."""

    def __init__(self, place: Place, link: Link, history: History) -> None:
        self._place, self._link, self._history = place, link, history
        self._own: Own = list
        self._census = Census()
        here = Frame("", place.node, place.boot, 0, Presence("online", "fog", place.parent))
        self._census.take(place.parent or place.node, here, time.monotonic())  # said in the parent's domain, out of hearing
        self._heard_in = {place.node}  # the domains whose presence is listened to
        self._began_s = self._looked_s = self._joules_s = float("-inf")
        self._asked: list[float] = []  # when everybody was asked, the last two times since somebody looks
        self._wanted, self._more = asyncio.Event(), asyncio.Event()
        self._top = ""
        self._refused: dict[str, str] = {}  # what the broker does not let this node do, and what it says

    def hear(self, text: str, payload: bytes) -> None:
        """Take what has arrived; what is about something else is left alone."""
        if "/st/" not in text and "/rs/" not in text and "/ev/" not in text:
            return  # most of what a busy node hears
        try:
            topic = topics.parse(text)
            if topic.channel not in _CHANNELS:
                return
            if payload:
                self._take(topic.domain, publication.read(topic, payload))
            elif topic.channel == "presence" and self._census.presence_of(topic["node"]) != "online":
                self._census.forget(topic["node"])
        except WireError:
            return  # counted where it is for us

    def _take(self, domain: str, frame: Frame) -> None:
        match frame.message:
            case RoundReport() as report if self._believes(domain):
                self._history.round(frame.task, round_told(report, time.time()))
            case Presence(role="fog") if frame.node not in self._heard_in:
                self._more.set()
        self._census.take(domain, frame, time.monotonic())

    def _believes(self, domain: str) -> bool:
        """Whether rounds are those of the top: this node where it has no parent, else who was heard first and is no device."""
        if not self._place.parent:
            return domain == self._place.node
        if self._census.role(domain) == "device":
            return False
        self._top = self._top or domain
        return domain == self._top

    async def run(self, own: Own) -> None:
        """Listen to rounds, and ask while somebody looks; until cancelled.

        Args:
            own: the status of the node itself, by task.
        """
        self._own = own
        try:
            await self._watch()
        except Exception:
            log.exception("the page of this node shows no news any more; the node goes on")

    async def _watch(self) -> None:
        place = self._place
        of_rounds = topics.build(place.net, "+" if place.parent else place.node, "event", node="+", task="+")
        of_answers = topics.build(place.net, "+", "answer", asker=place.node, node="+")
        await self._listen(of_rounds)
        while True:
            await self._wanted.wait()
            if not self._asked:  # somebody looks again: the broker is there, and says whether it lets us
                await self._listen(of_rounds)
                await self._listen(of_answers)
            self._asked = [*self._asked[-1:], time.monotonic()]
            await self._ask(self._domains())
            await self._wait(self._every_s)
            await self._note_joules()
            if time.monotonic() - self._looked_s > LOOKING_S:
                self._wanted.clear()

    async def _wait(self, seconds: float) -> None:
        """Wait; fog nodes that appear meanwhile are asked at once, so that a deep tree is there in a moment."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    self._more.clear()
                    await self._more.wait()
                    await self._ask([domain for domain in self._domains() if domain not in self._heard_in])

    @property
    def _every_s(self) -> float:
        return max(EVERY_S, len(self._census) / NODES_PER_S)

    def _domains(self) -> list[str]:
        """This node's domain, and those of fog nodes below it that are there."""
        fogs = [node for node, state in self._census.presence.items() if state == "online" and self._census.role(node) == "fog"]
        return [self._place.node, *(node for node in sorted(fogs)[:MOST_DOMAINS] if node != self._place.node)]

    async def _ask(self, domains: Iterable[str]) -> None:
        place = self._place
        for domain in domains:
            if domain not in self._heard_in and await self._listen(topics.build(place.net, domain, "presence", node="+")):
                self._heard_in.add(domain)
            try:
                await self._link.publish(*question(place.net, domain, place.node, place.boot))
                self._refused.pop("ask", None)
            except LinkError as error:
                self._refused["ask"] = f"{error.what}: {error.hint}" if error.hint else error.what
                return

    async def _listen(self, topic_filter: str) -> bool:
        """Whether the broker lets this node listen to something; also where it is not there to say."""
        try:
            await self._link.subscribe(topic_filter)
        except LinkError as error:
            self._refused[topic_filter] = f"{topic_filter}: {error.what}" + (f": {error.hint}" if error.hint else "")
            return False
        self._refused.pop(topic_filter, None)
        return True

    async def _note_joules(self) -> None:
        now = time.monotonic()
        if now - self._joules_s < JOULES_S:
            return
        energy = await asyncio.to_thread(_energy, self._view())  # of thousands of nodes that takes a while
        if energy is not None:
            self._joules_s = now
            self._history.spent(time.time(), energy.joules)

    async def look(self) -> View:
        """What is known now; whoever looks first waits a moment for answers."""
        first = not self._wanted.is_set()
        self._looked_s = time.monotonic()
        self._wanted.set()
        if first:
            self._asked, self._began_s = [], time.monotonic()
            for _ in range(FIRST_TICKS):
                await asyncio.sleep(TICK_S)
                if self._all_answered():
                    break
        return self._view()

    def _all_answered(self) -> bool:
        online = {node for node, state in self._census.presence.items() if state == "online"} - {self._place.node}
        return bool(online) and online <= self._census.answered(self._began_s)

    def _view(self) -> View:
        own, history = tuple(self._own()), self._history
        rounds = {task: list(series) for task, series in history.rounds.items()}
        since_s, patient_s = (self._asked[0],) * 2 if len(self._asked) > 1 else (self._began_s, float("-inf"))
        return View(
            self._place,
            own,
            self._census.copy(),
            since_s,
            patient_s,
            "; ".join(self._refused.values()),
            rounds,
            list(history.joules),
            self._every_s,
        )


def document(view: View) -> dict[str, Any]:
    """A view as the page reads it, without secrets: what `edgemw status` would say, and what was over time."""
    statuses = _statuses(view)
    return {
        "net": view.place.net,
        "node": view.place.node,
        "parent": view.place.parent,
        "at": time.time(),
        "every_s": view.every_s,
        "refused": view.refused,
        "nodes": _nodes(statuses),
        "tasks": {name: [done.row() for done in series] for name, series in view.rounds.items()},
        "task": max(view.rounds, key=lambda task: len(view.rounds[task]), default=""),
        "energy": fleet_document(_energy(view), [s.status.facts for s in statuses]),
        "joules": view.joules,
    }


def _energy(view: View) -> FleetEnergy | None:
    """Joules of everybody, those of nodes that have gone as they were last known: what was spent stays spent."""
    own = [(view.place.node, status.facts) for _, status in view.own]
    return fleet_energy([*view.census.last_facts().items(), *own])


def _statuses(view: View) -> list[NodeStatus]:
    own = [NodeStatus(view.place.node, task, status) for task, status in view.own]
    return [*own, *(s for s in view.census.statuses(view.since_s, view.patient_s) if s.node != view.place.node)]


def _nodes(statuses: Iterable[NodeStatus]) -> list[dict[str, Any]]:
    """One object for each node, with one for each of its tasks."""
    nodes: dict[str, dict[str, Any]] = {}
    for s in statuses:
        said, facts = s.status, s.status.facts
        node = nodes.setdefault(
            s.node,
            {"node": s.node, "role": said.role, "parent": said.parent, "state": said.state, "reason": said.reason, "tasks": []},
        )
        if s.status.reason and s.status.reason not in node["reason"]:
            node["reason"] = "; ".join(filter(None, (node["reason"], s.status.reason)))
        if s.task or facts:
            known = {name: value for name in _FACTS if isinstance(value := facts.get(name), int | float) and isfinite(value)}
            node["tasks"].append({"task": s.task, "state": s.status.state, **known})
    return list(nodes.values())
