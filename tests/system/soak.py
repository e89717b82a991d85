"""A storm over a net of real processes: nodes and the broker are killed, links are cut, slowed and silenced, as a seed says.

Every node reaches the broker through a relay of its own. What happens to whom, in which order and for how long is drawn before
the storm begins; when, it follows the releases: so many kills in so many rounds, on a fast machine and on a slow one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from edgemw.app.books import read_books
from edgemw.app.census import NodeStatus
from edgemw.app.dealing import deal_out
from edgemw.app.settings import Dataset
from edgemw.core.bundle import read_bundle
from edgemw.core.errors import LinkError
from edgemw.fog.audit import audit
from edgemw.transport.broker import Broker, start_broker
from edgemw.transport.reconnecting import STABLE_AFTER_S
from tests.support.faultproxy import Direction, FaultProxy
from tests.system.fleet import BUNDLE, Fleet, edgemw, fact

BROKER = "broker"
DEVICES = tuple(f"device-{number}" for number in range(6))
PARENTS = (
    {"top": "", "mid-0": "top", "mid-1": "top"}
    | {f"leaf-{number}": f"mid-{number // 2}" for number in range(4)}
    | {device: f"leaf-{number % 4}" for number, device in enumerate(DEVICES)}
)
SHARES = {"device": 9, "leaf": 4, "mid": 3, "top": 1, BROKER: 3}
"""How often each kind of process is killed, of twenty times."""

CALM_ROUNDS = 40  # after the storm and with everybody there, so that the end of both runs can be compared
LAST = 10  # releases whose accuracies are averaged
MAX_DOWN = 4  # nodes that are down, or on their way back, at one moment
MAX_FAULTY = 3  # links that are slow or silent at one moment
BETWEEN_S = STABLE_AFTER_S + 2.0  # so long a link is left alone, or its node would soon wait a minute between two attempts
BROKER_BETWEEN_S = 5.0
STUCK_S = 120.0  # without a release, or until a node is back: two of the longest waits between attempts to connect
REST_S = 300.0  # who has not heard of an outcome asks for it after a minute, then two more
STOP_S = 30.0
TICK_S = 0.05

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Strike:
    """One kill of one process, or two.

    Attributes:
        victim: a node, or the broker.
        after_s: pause after the release that the strike waits for.
        down_s: until it is started again.
        again_s: how long the next life lasts until it is killed as well; None where it may live.
    """

    victim: str
    after_s: float
    down_s: float
    again_s: float | None

    @property
    def kills(self) -> int:
        """How many processes it costs."""
        return 1 if self.again_s is None else 2


@dataclass(frozen=True, slots=True)
class Weather:
    """One fault of one link.

    Attributes:
        after_s: pause after the fault before it.
        kind: cut, refused, slow, or silent: up, down, or both ways.
        for_s: how long it lasts.
        rate: bytes per second of a slow link.
        cut: whether the link breaks at its end, with whatever was held back.
    """

    after_s: float
    node: str
    kind: str
    for_s: float
    rate: float
    cut: bool


def strikes(seed: int, kills: int) -> list[Strike]:
    """What is killed in a storm, in order."""
    rng = random.Random(f"strikes {seed}")
    drawn: list[Strike] = []
    left = kills
    while left:
        kind = rng.choices(list(SHARES), weights=list(SHARES.values()))[0]
        victim = rng.choice([node for node in (*PARENTS, BROKER) if node.startswith(kind)])
        twice = left > 1 and victim != BROKER and rng.random() < 0.2
        drawn.append(Strike(victim, rng.uniform(0, 0.5), rng.uniform(0.05, 2), rng.uniform(0, 2) if twice else None))
        left -= drawn[-1].kills
    return drawn


def weather(seed: int) -> Iterator[Weather]:
    """What happens to links in a storm, without end."""
    rng = random.Random(f"weather {seed}")
    kinds = ("cut", "cut", "refused", "slow", "slow", "silent up", "silent down", "silent")
    while True:
        for_s = rng.choice([rng.uniform(0.2, 2), rng.uniform(0.2, 2), rng.uniform(2, 10)])
        node, kind = rng.choice(list(PARENTS)), rng.choice(kinds)
        yield Weather(rng.uniform(0.2, 2), node, kind, for_s, rng.uniform(1e3, 50e3), rng.random() < 0.5)


class Net:
    """A broker, a relay for every node and the tree as processes, learning the quickstart's digits."""

    def __init__(self, fleet: Fleet, broker: Broker, relays: dict[str, FaultProxy]) -> None:
        self.fleet, self.broker, self.relays = fleet, broker, relays
        self._records: list[dict[str, Any]] = []
        self._read_bytes = 0

    def write_files(self, rounds: int) -> None:
        """A run of so many rounds; 0 is without end."""
        data = Dataset(source="digits", partition="dirichlet", alpha=0.3, seed=1)
        samples = deal_out(data, DEVICES, read_bundle(BUNDLE.read_bytes()).manifest).write(self.fleet.folder / "data")
        for node, parent in PARENTS.items():
            broker = {"url": self.relays[node].url, "keepalive": "5s"}
            if node in samples:
                self.fleet.device(node, parent, samples[node], broker=broker)
                continue
            window = {"deadline": "1s", "children": sum(above == node for above in PARENTS.values())}
            top: dict[str, dict[str, Any]] = {
                "task": {"bundle": str(BUNDLE), "rounds": rounds},
                "plan": {"epochs": 4},  # so that both runs have arrived: what is compared is no lottery
                "telemetry": {"http": "127.0.0.1:0", "log_format": "json"},
            }
            self.fleet.fog(node, parent, broker=broker, window=window, **({} if parent else top))

    # -- how far it is

    def reports(self) -> list[dict[str, Any]]:
        """What the top has logged of its releases and rounds, over all its lives; a log outlives every connection."""
        path = self.fleet.folder / "top.log"
        if path.exists():
            with path.open("rb") as log:
                log.seek(self._read_bytes)
                lines = log.read().rpartition(b"\n")[0]
            self._read_bytes += len(lines) + bool(lines)
            records = (json.loads(line) for line in lines.splitlines() if line.startswith(b"{"))
            self._records += [record for record in records if record["msg"] in ("release", "round")]
        return self._records

    @property
    def release(self) -> int:
        """The newest release; -1 before the first."""
        return max((record["release"] for record in self.reports() if record["msg"] == "release"), default=-1)

    def accuracies(self) -> dict[int, float]:
        """The accuracy of every release that was measured."""
        rounds = [record for record in self.reports() if "accuracy" in record]
        return {record["measured"]: record["accuracy"] for record in rounds}

    @property
    def accuracy(self) -> float:
        """Mean of the last releases."""
        last = sorted(self.accuracies().items())[-LAST:]
        return sum(value for _, value in last) / len(last)

    def _log(self, node: str) -> str:
        path = self.fleet.folder / f"{node}.log"
        return path.read_text() if path.exists() else ""

    async def reached(self, release: int) -> None:
        """Return when a release is out; fails where no release comes for long."""
        newest, since = self.release, time.monotonic()
        while newest < release:
            await asyncio.sleep(TICK_S)
            if self.release > newest:
                newest, since = self.release, time.monotonic()
            assert time.monotonic() - since < STUCK_S, f"no release after {newest} for {STUCK_S:g} s"

    async def whole(self) -> None:
        """Return when everybody is there; fails where somebody stays away."""
        deadline = time.monotonic() + STUCK_S
        while missing := set(PARENTS) - set(await asyncio.to_thread(self.fleet.status)):
            assert time.monotonic() < deadline, f"{', '.join(sorted(missing))} cannot be reached {STUCK_S:g} s after the storm"

    # -- lives

    def start(self, *nodes: str) -> None:
        """Start nodes."""
        self.fleet.start(*nodes)

    async def started(self, node: str) -> None:
        """Start a node and return when it has reached the broker."""
        before = self._log(node).count("link up")
        self.start(node)
        deadline = time.monotonic() + STUCK_S
        while self._log(node).count("link up") == before:
            assert time.monotonic() < deadline, f"{node} has not reached the broker {STUCK_S:g} s after its start"
            await asyncio.sleep(TICK_S)

    def kill(self, node: str) -> None:
        """kill -9."""
        self.check_running(node)
        self.fleet.kill(node)

    def check_running(self, node: str) -> None:
        """Fail where a process has ended without being asked to."""
        code = self.fleet.processes[node].poll()
        assert code is None, f"{node} ended by itself with exit code {code}"

    async def watch(self) -> None:
        """Fail as soon as anything ends by itself; until cancelled."""
        while True:
            for node in list(self.fleet.processes):
                self.check_running(node)
            await asyncio.sleep(TICK_S)

    async def at_rest(self) -> None:
        """Return when the run has ended and nothing waits for an outcome anywhere; fails with the last answers."""
        deadline = time.monotonic() + REST_S
        while True:
            statuses = await asyncio.to_thread(self.fleet.status)
            if set(statuses) == set(PARENTS) and all(map(_rests, statuses.values())):
                return
            assert time.monotonic() < deadline, "\n".join(map(str, statuses.values())) or "nobody answered"

    def stop(self) -> None:
        """Ask everybody to stop; fails where somebody does not, or not well."""
        nodes = list(self.fleet.processes)
        for node in nodes:
            self.fleet.signal(node, signal.SIGTERM)
        assert {node: self.fleet.wait(node, STOP_S) for node in nodes} == dict.fromkeys(nodes, 0)

    def faults(self) -> list[str]:
        """What does not agree in the books of a net that does not run."""
        return [fault for found in audit(read_books([self.fleet.folder])) for fault in found.faults]

    def tracebacks(self) -> list[str]:
        """The nodes that have logged one."""
        return [node for node in PARENTS if "Traceback" in self._log(node)]


def _rests(status: NodeStatus) -> bool:
    """Whether a node holds nothing that somebody waits for, and the top has ended the run."""
    held = [fact(status, name) for name in ("updates_pending", "updates_waiting", "window")]
    ended = status.status.state == "finished" if status.node == "top" else bool(status.status.facts)
    return ended and max(held) <= 0


@asynccontextmanager
async def open_net(folder: Path, broker_lines: Sequence[str] = ()) -> AsyncIterator[Net]:
    """A net whose nodes are not started yet; nothing of it is left afterwards."""
    async with AsyncExitStack() as stack:
        start = partial(start_broker, "mosquitto", folder / "broker", _free_port(), extra=broker_lines)
        broker = stack.enter_context(await asyncio.to_thread(start))
        relays = {node: await stack.enter_async_context(FaultProxy(broker.port, _free_port())) for node in PARENTS}
        yield Net(stack.enter_context(Fleet(folder, broker.url)), broker, relays)


def _free_port() -> int:
    """A port that nobody takes while the relay or the broker behind it is down: connections come from higher ones."""
    while True:
        port = random.randrange(10_000, 30_000)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


class Storm:
    """What happens to a net from its start on, in so many rounds or more: those without most of their devices are fast."""

    def __init__(self, net: Net, seed: int, kills: int, rounds: int, say: Say) -> None:
        self.killed: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self._net, self._seed, self._say = net, seed, say
        self._strikes = strikes(seed, kills)
        self._kills, self._rounds = kills, rounds
        self._room = asyncio.Semaphore(MAX_DOWN)
        self._turns = {node: asyncio.Lock() for node in (*PARENTS, BROKER)}

    async def blow(self) -> None:
        """Do everything that was drawn; the net is whole again at the end."""
        async with asyncio.TaskGroup() as group:
            blowing = group.create_task(self._blow_on_links(group))
            planned = 0
            for strike in self._strikes:
                before, planned = planned, planned + strike.kills
                await self._net.reached(before * self._rounds // self._kills)
                await asyncio.sleep(strike.after_s)
                if before < self._kills // 2 <= planned:
                    await self._cut_power()
                await self._turns[strike.victim].acquire()
                await self._room.acquire()
                group.create_task(self._strike(strike))
                if planned // 10 > before // 10:
                    self._say(f"{planned} of {self._kills} kills, release {self._net.release}")
            blowing.cancel()

    async def _strike(self, strike: Strike) -> None:
        if strike.victim == BROKER:
            await self._kill_broker(strike.down_s)
        else:
            await self._kill_node(strike)
        self._room.release()
        await asyncio.sleep(BROKER_BETWEEN_S if strike.victim == BROKER else 0)
        self._turns[strike.victim].release()

    async def _kill_node(self, strike: Strike) -> None:
        node = strike.victim
        self._kill(node)
        await asyncio.sleep(strike.down_s)
        if strike.again_s is not None:
            self._net.start(node)
            await asyncio.sleep(strike.again_s)
            self._kill(node)
            await asyncio.sleep(strike.down_s)
        await self._net.started(node)

    def _kill(self, node: str) -> None:
        self._net.kill(node)
        self.killed[node.partition("-")[0]] += 1

    async def _kill_broker(self, down_s: float) -> None:
        assert self._net.broker.running, "the broker ended by itself"
        await asyncio.to_thread(self._net.broker.kill)
        self.killed[BROKER] += 1
        await asyncio.sleep(down_s)
        await asyncio.to_thread(self._net.broker.start)

    async def _cut_power(self) -> None:
        """Everything ends at one moment; the books agree in the middle of whatever it was doing."""
        for _ in range(MAX_DOWN):  # nobody is down or on its way back
            await self._room.acquire()
        for node in PARENTS:
            self._net.kill(node)
        await asyncio.to_thread(self._net.broker.kill)
        self._say(f"everything is killed at release {self._net.release}, and the books are compared")
        assert self._net.faults() == []
        await asyncio.to_thread(self._net.broker.start)
        self._net.start(*PARENTS)
        for _ in range(MAX_DOWN):
            self._room.release()

    # -- links

    async def _blow_on_links(self, group: asyncio.TaskGroup) -> None:
        room = asyncio.Semaphore(MAX_FAULTY)
        faulty: set[str] = set()

        async def pass_by(blow: Weather) -> None:
            async with room:
                await self._suffer(self._net.relays[blow.node], blow)
            await asyncio.sleep(BETWEEN_S)
            faulty.discard(blow.node)

        for blow in weather(self._seed):
            await asyncio.sleep(blow.after_s)
            if blow.node not in faulty and not room.locked():
                self.faults[blow.kind.partition(" ")[0]] += 1
                faulty.add(blow.node)
                group.create_task(pass_by(blow))

    async def _suffer(self, relay: FaultProxy, blow: Weather) -> None:
        match blow.kind.split():
            case ["cut"]:
                relay.cut()
            case ["refused"]:
                await relay.refuse()
                await asyncio.sleep(blow.for_s)
                await relay.accept()
            case ["slow"]:
                _set_rates(relay, blow.rate)
                await asyncio.sleep(blow.for_s)
                _set_rates(relay, 0.0)
            case ["silent", *ways]:
                silent = [getattr(relay, way) for way in ways or ("up", "down")]
                for way in silent:
                    way.swallow()
                await asyncio.sleep(blow.for_s)
                if blow.cut:
                    relay.cut()
                for way in silent:
                    way.release()


def _set_rates(relay: FaultProxy, rate: float) -> None:
    ways: tuple[Direction, ...] = (relay.up, relay.down)
    for way in ways:
        way.rate_bytes_per_s = rate


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run has ended.

    Attributes:
        accuracy: mean of the last releases.
        rounds: how many were asked for in the end.
        release: the last one.
        wall_s: from the first start to the last answer.
        audit: what `edgemw audit` printed.
        tasks: the same with `--json`.
        storm: None where there was none.
    """

    accuracy: float
    rounds: int
    release: int
    wall_s: float
    audit: str
    tasks: list[dict[str, Any]]
    storm: Storm | None


async def run_to_the_end(
    folder: Path, rounds: int, say: Say, *, seed: int = 0, kills: int = 0, broker_lines: Sequence[str] = ()
) -> Ended:
    """A whole run: its start, its storm where there are kills, its last rounds, its books."""
    async with open_net(folder, broker_lines) as net:
        begun = time.monotonic()
        storm = Storm(net, seed, kills, rounds - CALM_ROUNDS, say) if kills else None
        net.write_files(0 if storm else rounds)
        try:
            net.start(*PARENTS)
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(net.watch())
                if storm is not None:
                    await storm.blow()
                    await net.whole()
                    net.kill("top")
                    rounds = net.release + CALM_ROUNDS
                    net.write_files(rounds)
                    await net.started("top")
                    say(f"the storm is over and everybody there: {CALM_ROUNDS} more rounds")
                await net.reached(rounds)
                await net.at_rest()
                watching.cancel()
        except Exception:
            with contextlib.suppress(LinkError):
                say("\n".join(map(str, (await asyncio.to_thread(net.fleet.status)).values())))
            raise
        wall_s = time.monotonic() - begun
        await asyncio.to_thread(net.stop)
        assert net.tracebacks() == []
        table, found = edgemw("audit", folder), edgemw("audit", folder, "--json")
        assert (table.returncode, found.returncode) == (0, 0), table.stdout + table.stderr
        return Ended(net.accuracy, rounds, net.release, wall_s, table.stdout, json.loads(found.stdout)["tasks"], storm)
