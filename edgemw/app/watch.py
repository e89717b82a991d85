"""Watching a deployment's processes from the first one to the last answer."""

from __future__ import annotations

import asyncio
import signal
import statistics
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from edgemw.app.census import NodeStatus
from edgemw.app.console import Console, open_console
from edgemw.app.deployment import NodeSpec
from edgemw.app.processes import Processes
from edgemw.app.report import Report
from edgemw.app.rounds import Round, round_told
from edgemw.app.settings import Broker, Deployment
from edgemw.core.errors import EdgeError, LinkError, single
from edgemw.transport.broker import Broker as EmbeddedBroker
from edgemw.wire.messages import RoundReport, Status

TICK_S = 0.25
QUIET_S = 2.0
SETTLE_S = 20.0
ASK_S = 1.0
_RECENT = 10  # rounds that say how long one usually takes
_UNHEARD = ("silent", "lost", "stopped")


@dataclass(frozen=True, slots=True)
class Listener:
    """What a run tells while it goes on.

    Attributes:
        line: something happened that people want to read.
        round: a release was made.
        waiting: nothing has happened for a while, and why.
    """

    line: Callable[[str], None]
    round: Callable[[Round], None]
    waiting: Callable[[str], None]


def patience(times: Sequence[float]) -> float:
    """How many seconds pass before anybody wonders what is going on, given when releases were made."""
    rounds = [after - before for before, after in pairwise(times[-_RECENT:])]
    return max(QUIET_S, 2 * statistics.median(rounds)) if rounds else QUIET_S


class Watch:
    """One run; what it finds out is in the report that it was given."""

    def __init__(
        self,
        settings: Deployment,
        specs: tuple[NodeSpec, ...],
        out: Path,
        env: Mapping[str, str],
        listener: Listener,
        report: Report,
        broker: EmbeddedBroker | None,
    ) -> None:
        self._settings, self._specs, self._out, self._listener, self._report = settings, specs, out, listener, report
        self._env, self._broker = dict(env), broker
        # The node files say everything already; a variable for the deployment must not change them again.
        node_env = {k: v for k, v in env.items() if not k.startswith("EDGEMW_") or k.startswith("EDGEMW_SECRET_")}
        self._processes = Processes(node_env)
        self._top = specs[0].id
        self._signals = 0
        self._new = self._over = False  # whether there is anything new to report, whether the last release was measured
        self._waiting_for = ""
        self._told_page, self._asked_last = "", False
        self._started = time.monotonic() - report.wall_s

    async def run(self, broker: Broker, name: str = "") -> None:
        """Start everything, watch, and stop everything.

        Args:
            broker: as whoever watches connects.
            name: of whoever watches, where the broker knows people by name.

        Raises:
            EdgeError: the run ended before it made a release; later it is in the report.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_signal)
        try:
            async with open_console(broker, self._settings.name, self._env, name) as console:
                await self._to_the_end(console)
        except (EdgeError, BaseExceptionGroup) as raised:
            error = single(raised)
            if not isinstance(error, EdgeError) or not self._new:
                raise
            self._report.error = error
        finally:
            if not self._report.rounds:
                self._report.wall_s = time.monotonic() - self._started
            self._report.interrupted = bool(self._signals) and not self._report.finished
            self._report.restarts, self._report.failed = self._processes.restarts, self._processes.failures
            alone = self._broker is not None and not self._broker.running
            await asyncio.to_thread(self._processes.stop, at_once=self._signals > 1 or alone)

    async def _to_the_end(self, console: Console) -> None:
        if self._signals:
            return
        self._start()
        await self._watch(console)
        if self._signals < 2:
            await self._settle(console)
        if self._report.finished and not self._report.accounts.updates_counted:
            raise EdgeError("no update was ever counted, so nothing was learned")

    def _start(self) -> None:
        logs = self._out / "logs"
        logs.mkdir(exist_ok=True)
        self._address.unlink(missing_ok=True)  # of a life that was killed
        for spec in self._specs:
            self._processes.start(spec.id, [spec.role, "--config", str(spec.path)], logs / f"{spec.id}.log")
        fogs = sum(spec.role == "fog" for spec in self._specs)
        self._listener.line(f"started {fogs} fog nodes and {len(self._specs) - fogs} devices; logs in {logs}")

    async def _watch(self, console: Console) -> None:
        heard = time.monotonic()
        while not self._over and self._signals < 2:
            for line in (*self._processes.tend(), *self._page()):
                self._listener.line(line)
            if self._signals and not self._asked_last:
                self._asked_last = True
                await console.ask(ASK_S)  # the top before it stops: what it has taken is in no later answer
            lost = self._lost()  # before a report is waited for: the last one may be on its way
            if await self._hear(console):
                heard = time.monotonic()
            elif lost and self._signals:
                return
            elif lost:
                raise EdgeError(lost)
            elif self._broker is not None and not self._broker.running:
                raise LinkError("the broker ended", where=self._broker.url, hint=f"see {self._broker.log_path}")
            elif time.monotonic() - heard > patience([r.wall_s for r in self._report.rounds]):
                await self._explain(console)
                heard = time.monotonic()

    def _page(self) -> Iterator[str]:
        """Where the page of the top is to be seen, whenever that is elsewhere."""
        try:
            url = self._address.read_text()
        except OSError:
            return  # it is not there yet
        if url.endswith("\n") and url != self._told_page:
            self._told_page = url
            yield f"a page of it: {url.strip()}/"

    @property
    def _address(self) -> Path:
        """Where the top notes the address of its page."""
        return self._out / "nodes" / str(self._top) / "telemetry.address"

    async def _hear(self, console: Console) -> bool:
        """Take the next report, if one comes soon."""
        try:
            async with asyncio.timeout(TICK_S):
                _, message = await console.reports.get()
        except TimeoutError:
            return False
        self._take(message)
        return True

    def _lost(self) -> str:
        """Why the run cannot go on: no top, or no device with a way to it; "" where it can."""
        gone: dict[str, str] = {}  # node that is away for good, or is cut off: whose fault that is
        for spec in self._specs:
            if self._processes.ended(spec.id):
                gone[spec.id] = spec.id
            elif spec.parent in gone:
                gone[spec.id] = gone[spec.parent]
        devices = [spec.id for spec in self._specs if spec.role == "device"]
        if not all(device in gone for device in devices):
            return ""
        node = gone[devices[-1]]
        why = self._processes.failures.get(node, "it ended")
        what = "the run cannot go on without its top" if node == self._top else "no device is left"
        return f"{what}: {node}: {why} (see {self._out / 'logs' / node}.log)"

    def _take(self, message: RoundReport) -> None:
        done = round_told(message, time.monotonic() - self._started)
        self._report.add(done)
        self._new, self._over, self._waiting_for = True, message.finished, ""
        if message.finished:
            self._report.finished = not self._signals or 0 < self._settings.task.rounds <= message.release
        self._listener.round(done)

    async def _explain(self, console: Console) -> None:
        """Say what everybody is waiting for."""
        if not console.connected:
            self._wait("the broker cannot be reached")
            return
        expected = {spec.id for spec in self._specs}
        absent = expected - {node for node, state in console.census.presence.items() if state == "online"}
        if absent:
            self._wait(f"waiting for {self._some(absent)} to appear")
            return
        statuses = await console.ask()
        working = {s.node for s in statuses if s.status.state in ("working", "fetching")}
        wrong = [f"{s.node}: {s.status.reason}" for s in statuses if s.status.reason]
        if not console.reports.empty():
            return  # the wait was over while everybody was asked
        self._wait("; ".join(wrong[:3]) if wrong else f"waiting for {self._some(working)}" if working else "waiting")

    def _wait(self, why: str) -> None:
        if why != self._waiting_for:
            self._waiting_for = why
            self._listener.waiting(why)

    def _some(self, names: Collection[str]) -> str:
        """The first few of some nodes, from the top down."""
        found = [spec.id for spec in self._specs if spec.id in names]
        return ", ".join(found[:4]) + (f" and {len(found) - 4} more" if len(found) > 4 else "")

    async def _settle(self, console: Console) -> None:
        """Let devices hear what became of their last updates, then ask everybody for the last word."""
        deadline, signals = time.monotonic() + SETTLE_S, self._signals
        while True:
            statuses = await console.ask()
            self._account(statuses)
            pending = sum(int(s.status.facts.get("updates_pending", 0)) for s in statuses)
            if not pending or self._report.accounts.settled or time.monotonic() > deadline or self._signals > signals:
                break
            await asyncio.sleep(TICK_S)
        last = console.census.last_facts()
        self._report.nodes = [
            {
                "node": s.node,
                "task": s.task,
                **asdict(s.status),
                "facts": s.status.facts or last.get(s.node, {}),
                "reason": self._reason(s),
            }
            for s in statuses
        ]
        self._report.nodes += self._absent({s.node for s in statuses}) if not self._signals else []

    def _absent(self, there: Collection[str]) -> list[dict[str, Any]]:
        """The nodes that nobody has seen: perhaps the broker does not let them in, or does not take what they say."""
        absent = [spec for spec in self._specs if spec.id not in there and spec.id not in self._processes.failures]
        reason = f"was never seen, and its log says why: {self._out / 'logs'}/"
        return [
            {"node": spec.id, "task": "", **asdict(Status(spec.role, spec.parent or "", "absent", f"{reason}{spec.id}.log", {}))}
            for spec in absent
        ]

    def _reason(self, status: NodeStatus) -> str:
        """What is not right with a node; that the top has stopped is no news where it was told to."""
        if not self._signals:
            return status.status.reason
        told = f"its parent {self._top!r} is stopped"
        return "" if status.node == self._top else status.status.reason.removeprefix(told).removeprefix("; ")

    def _account(self, statuses: list[NodeStatus]) -> None:
        top = next((s.status.facts for s in statuses if s.node == self._top and "updates_counted" in s.status.facts), None)
        accounts = self._report.accounts
        if top is not None:
            counted = int(top["updates_counted"]), int(top["weight_counted"])
            accounts = replace(accounts, updates_counted=counted[0], weight_counted=counted[1])
        names = ("updates_bounded", "weight_bounded")
        bounded = {name: sum(int(s.status.facts.get(name, 0)) for s in statuses) for name in names}
        accounts = replace(accounts, **bounded)
        devices = [s.status for s in statuses if s.status.role == "device"]
        if not any(status.state in _UNHEARD for status in devices):
            sums = ("updates_sent", "weight_sent", "updates_returned", "weight_returned")
            accounts = replace(accounts, **{name: sum(int(status.facts.get(name, 0)) for status in devices) for name in sums})
        self._report.accounts = accounts

    def _on_signal(self) -> None:
        self._signals += 1
        if self._signals == 1 and not self._over:
            self._listener.line("finishing the round, then measuring; once more stops at once")
            self._processes.interrupt(self._top)
