"""A whole training run in one process: the state machines that production runs, driven one event at a time.

Everybody is there, nothing is lost and nobody is slow, so every round is synchronous. Time stands still; it moves to the
next timer only when nothing else can happen. Whatever is random comes from the seed: the same call carries the same bytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from edgemw.core.bundle import Vector, read_bundle, theta_view
from edgemw.core.errors import EdgeError
from edgemw.core.events import LinkUp, SetTimer, Timer
from edgemw.core.ids import Place
from edgemw.device.cycle import Cycle
from edgemw.device.events import Install, Installed, Left, OpenTask, SaveRound, TaskOpened, Work
from edgemw.fog.events import BundleGiven, FogMemory, Released, SaveRelease
from edgemw.fog.forwarder import Forwarder
from edgemw.fog.release import TopOptions
from edgemw.fog.top import Top
from edgemw.simulation.carrier import NET, Carrier
from edgemw.simulation.chance import secret_of
from edgemw.simulation.shared import Shared
from edgemw.simulation.traffic import Traffic
from edgemw.simulation.tree import Tree
from edgemw.simulation.world import Do, Machine
from edgemw.wire import topics
from edgemw.wire.messages import Frame, Presence, ReleaseManifest, RoundReport
from edgemw.wire.traffic import Fetch, PublishBlob, Retire, Send, Upload

_MOST_PAUSES = 1000  # timers in a row that bring no round


@dataclass(frozen=True, slots=True)
class Round:
    """What was known of a release when the next one was made.

    Attributes:
        release: its number.
        metrics: the facts of the top's report on it.
        links: what had crossed every link by then, since the run began, by the node at its lower end.
    """

    release: int
    metrics: Mapping[str, int | float | str]
    links: Mapping[str, Traffic]


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounts:
    """Updates, and the training samples behind them; `bounded` is what of claims was not believed."""

    updates_sent: int
    updates_returned: int
    updates_counted: int
    weight_sent: int
    weight_returned: int
    weight_counted: int
    updates_bounded: int = 0
    weight_bounded: int = 0

    @property
    def conserved(self) -> bool:
        """Whether all that devices have sent was counted or returned to them, or not believed."""
        updates = self.updates_counted + self.updates_returned + self.updates_bounded
        weight = self.weight_counted + self.weight_returned + self.weight_bounded
        return (self.updates_sent, self.weight_sent) == (updates, weight)


@dataclass(frozen=True, slots=True)
class Run:
    """A run that came to its end.

    Attributes:
        rounds: one for each release, from release 0.
        theta: float32[P] of the last release.
        accounts: who counted what.
        links: what has crossed every link when everything was delivered.
        reasons: what nodes say is not right with them, by node.
    """

    rounds: tuple[Round, ...]
    theta: Vector = field(repr=False)
    accounts: Accounts
    links: Mapping[str, Traffic]
    reasons: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Watch:
    """Who wants to look on.

    Attributes:
        on_round: told of every round when it is over.
        on_update: told of every update that a device makes, with the release that it belongs to.
    """

    on_round: Callable[[Round], None] = lambda done: None
    on_update: Callable[[str, SaveRound, ReleaseManifest], None] = lambda node, saved, release: None


def run_rounds(tree: Tree, bundle: bytes, options: TopOptions, do: Do, *, seed: int = 0, watch: Watch | None = None) -> Run:
    """Run `options.rounds` rounds of a task on a tree.

    Args:
        tree: who is below whom.
        bundle: the task, as its file holds it.
        options: of the top; every window waits for all children, whatever they say.
        do: the work of a device, called in the order in which production devices would start.
        seed: number of the training run, from 0: it decides the seeds that devices train with.
        watch: who wants to look on.

    Raises:
        ValueError: the run would not end by itself.
        BundleError: the bundle cannot be used.
        EdgeError: the run stands still.
    """
    if options.rounds == 0 and options.target == 0:
        raise ValueError("a run without rounds and target has no end")
    world = _World(tree, bundle, options, do, seed + 1, watch or Watch())
    return world.run()


class _World:
    """The machines, and the events that wait for them."""

    def __init__(self, tree: Tree, bundle: bytes, options: TopOptions, do: Do, boot: int, watch: Watch) -> None:
        self._tree, self._do, self._boot, self._watch = tree, do, boot, watch
        self._data, self._bundle = bundle, read_bundle(bundle)
        self._task, self._theta0, self._shared = self._bundle.manifest.name, theta_view(self._bundle.theta0), Shared()
        self._queue: deque[tuple[str, object]] = deque()
        self._timers: dict[tuple[str, str], float] = {}
        self._now = 0.0
        self._carrier = Carrier(tree, options.chunk_bytes, lambda node, event: self._queue.append((node, event)))
        self._working: dict[str, ReleaseManifest] = {}
        self._told = dict.fromkeys(tree.devices, (0, 0))  # traffic that was reported
        self._links: dict[str, Traffic] = {}
        self._released: Released | None = None
        self._rounds: list[Round] = []
        self._machines: dict[str, Machine] = {node: self._machine(node, options) for node in (tree.top, *tree.parents)}

    def run(self) -> Run:
        """From nothing to the end of the training run."""
        for node in self._machines:
            parent = self._tree.parents.get(node, "")
            role = "fog" if node in self._tree.children else "device"
            birth = Frame("", node, self._boot, 0, Presence("online", role, parent))
            self._carrier.send(node, Send(topics.build(NET, parent or node, "presence", node=node), birth, retain=True))
            self._queue.append((node, LinkUp()))
        self._queue.append((self._tree.top, BundleGiven(self._data)))
        self._settle()
        pauses, rounds = 0, 0
        while self._machines[self._tree.top].state != "finished":
            pauses = pauses + 1 if len(self._rounds) == rounds else 0
            rounds = len(self._rounds)
            self._pause(pauses)
        reasons = {node: machine.reason(self._now) for node, machine in self._machines.items()}
        assert self._released is not None
        return Run(
            tuple(self._rounds),
            self._released.theta,
            self._accounts(),
            self._carrier.traffic(),
            {node: reason for node, reason in reasons.items() if reason},
        )

    def _machine(self, node: str, options: TopOptions) -> Machine:
        place = Place(NET, node, self._tree.parents.get(node, ""), self._boot, secret_of(node, self._boot))
        children = len(self._tree.children.get(node, ()))
        window = replace(options.window, k=0, quorum=1, children=children, max_children=max(children, 1))
        if node == self._tree.top:
            return Top(place, self._task, replace(options, window=window), FogMemory(), self._now)
        if children:
            return Forwarder(place, self._task, window, FogMemory(), self._now)
        return Cycle(place, self._task, Left(), self._now, follow=self._shared.follow)

    def _settle(self) -> None:
        """Deliver everything that is on its way, and what comes of it."""
        queue, machines = self._queue, self._machines
        while queue:
            node, event = queue.popleft()
            for action in machines[node].handle(event, self._now):
                self._act(node, action)

    def _pause(self, pauses: int) -> None:
        """Nothing can happen before the next timer: let it go off."""
        if not self._timers or pauses > _MOST_PAUSES:
            reasons = "; ".join(filter(None, (machine.reason(self._now) for machine in self._machines.values())))
            raise EdgeError(f"the run stands still at release {len(self._rounds) - 1}: {reasons or 'nobody says why'}")
        (node, timer), at = min(self._timers.items(), key=lambda item: (item[1], item[0]))
        del self._timers[node, timer]
        self._now = max(self._now, at)
        self._queue.append((node, Timer(timer)))
        self._settle()

    # -- what the machines ask for

    def _act(self, node: str, action: object) -> None:
        match action:
            case Send():
                frame = self._carrier.send(node, action)
                if isinstance(frame.message, RoundReport):
                    self._report(frame.message)
            case Upload():
                self._carrier.upload(node, action)
            case Fetch():
                self._carrier.fetch(node, action)
            case PublishBlob():
                self._carrier.publish_blob(node, action)
            case Retire():
                self._carrier.retire(action)
            case SetTimer(name=timer, at=at):
                self._timers[node, timer] = at
            case SaveRelease(released=released):
                self._released, self._links = released, self._carrier.traffic()
            case _:
                self._act_on_device(node, action)

    def _act_on_device(self, node: str, action: object) -> None:
        """What only devices ask for; what would be saved is lost, since nobody dies here."""
        match action:
            case OpenTask(blob=blob):
                self._queue.append((node, TaskOpened(blob.digest, self._bundle.manifest, self._theta0)))
            case Install(release=release):
                self._queue.append((node, Installed(release.number)))
            case Work(release=release):
                self._working[node] = release
                worked = self._do(node, action)
                self._queue.append((node, replace(worked, tally=worked.tally | self._traffic_of(node))))
            case SaveRound():
                if node in self._working:
                    self._watch.on_update(node, action, self._working[node])

    def _traffic_of(self, node: str) -> dict[str, tuple[float, float]]:
        """The sums that a device reports of its own traffic."""
        before, now = self._told[node], self._carrier.wire_bytes(node)
        self._told[node] = now
        return {"uplink": (float(now[0] - before[0]), 1.0), "downlink": (float(now[1] - before[1]), 1.0)}

    def _report(self, report: RoundReport) -> None:
        done = Round(report.release, report.facts, self._links)
        self._rounds.append(done)
        self._watch.on_round(done)

    def _accounts(self) -> Accounts:
        top = self._machines[self._tree.top].facts(self._now)
        devices = [self._machines[node].facts(self._now) for node in self._tree.devices]
        sums = {name: sum(int(facts[name]) for facts in devices) for name in _SUMS}
        fogs = [machine.facts(self._now) for node, machine in self._machines.items() if node in self._tree.children]
        sums |= {name: sum(int(facts[name]) for facts in fogs) for name in ("updates_bounded", "weight_bounded")}
        return Accounts(**sums, updates_counted=int(top["updates_counted"]), weight_counted=int(top["weight_counted"]))


_SUMS = ("updates_sent", "updates_returned", "weight_sent", "weight_returned")
