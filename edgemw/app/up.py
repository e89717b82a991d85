"""A whole deployment on this machine: broker, data, node files, processes, and watching them to the end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from edgemw.app.console import Console, open_console
from edgemw.app.deployment import NodeSpec, device_ids, expand
from edgemw.app.processes import Processes
from edgemw.app.report import Report, Round
from edgemw.app.samples import deal_out
from edgemw.app.settings import EMBEDDED, Broker, Deployment
from edgemw.app.wiring import load_bundle
from edgemw.core.errors import ConfigError, EdgeError, LinkError
from edgemw.transport.broker import Broker as EmbeddedBroker
from edgemw.transport.broker import start_broker
from edgemw.wire.messages import RoundReport

TICK_S = 0.25
QUIET_S = 3.0
SETTLE_S = 20.0
_FACTS = ("measured", "uplink_bytes", "downlink_bytes", "updates_counted", "weight_counted", "children", "uplink", "downlink")


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


def run_deployment(settings: Deployment, out: Path, env: Mapping[str, str], listener: Listener) -> Report:
    """Run a deployment to its end and report.

    The first SIGINT finishes the round, measures the last release and ends; the second stops at once.

    Raises:
        EdgeError: something could not be started, or the top ended before the run did.
    """
    if settings.task.bundle is None:
        raise ConfigError("a deployment that is run to its end needs a bundle", key="task.bundle")
    _, bundle = load_bundle(settings.task.bundle)
    manifest = bundle.manifest
    devices = device_ids(settings)
    listener.line(f"preparing {settings.name} in {out}")
    paths = deal_out(settings.data, devices, out / "data") if settings.data is not None else {}
    with _broker(settings.broker, out, listener) as (broker, embedded):
        specs = expand(_on(broker, settings), broker.url, out / "nodes", paths)
        for spec in specs:
            spec.path.parent.mkdir(parents=True, exist_ok=True)
            spec.path.write_text(spec.text)
        count = sum(spec.role == "device" for spec in specs)
        report = Report(settings.name, manifest.metrics[0] if manifest.metrics else "loss", count)
        asyncio.run(_Run(settings, specs, out, env, listener, report, embedded).run(broker))
    return report


@contextmanager
def _broker(broker: Broker, out: Path, listener: Listener) -> Iterator[tuple[Broker, EmbeddedBroker | None]]:
    if broker.url != EMBEDDED:
        yield broker, None
        return
    with start_broker("auto", out / "broker") as started:
        hint = "" if started.kind == "mosquitto" else " (mosquitto is not installed; amqtt is for trying things out)"
        listener.line(f"broker: {started.kind} at {started.url}{hint}")
        # amqtt never answers to MQTT 5, and asking costs every node seconds
        yield Broker(url=started.url, protocol="3.1.1" if started.kind == "amqtt" else "auto"), started


def _on(broker: Broker, settings: Deployment) -> Deployment:
    """The deployment with the protocol of the broker that was started for it."""
    tiers = {
        name: replace(tier, broker=replace(tier.broker, protocol=broker.protocol)) if tier.broker.url == EMBEDDED else tier
        for name, tier in settings.tiers.items()
    }
    return replace(settings, tiers=tiers)


class _Run:
    """One run, from the first process to the last answer."""

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
        self._signals = 0
        self._started = time.monotonic()

    async def run(self, broker: Broker) -> None:
        """Start everything, watch, and stop everything."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_signal)
        try:
            async with open_console(broker, self._settings.name, self._env) as console:
                self._start()
                await self._watch(console)
                if self._signals < 2:
                    await self._settle(console)
        finally:
            self._report.wall_s = time.monotonic() - self._started
            self._report.restarts = self._processes.restarts
            await asyncio.to_thread(self._processes.stop, at_once=self._signals > 1)

    def _start(self) -> None:
        logs = self._out / "logs"
        logs.mkdir(exist_ok=True)
        for spec in self._specs:
            self._processes.start(spec.id, [spec.role, "--config", str(spec.path)], logs / f"{spec.id}.log")
        fogs = sum(spec.role == "fog" for spec in self._specs)
        self._listener.line(f"started {fogs} fog nodes and {len(self._specs) - fogs} devices; logs in {logs}")

    async def _watch(self, console: Console) -> None:
        heard = time.monotonic()
        top = self._specs[0].id
        while not self._report.finished and self._signals < 2:
            for line in self._processes.tend():
                self._listener.line(line)
            if self._broker is not None and not self._broker.running:
                raise LinkError("the broker ended", where=self._broker.url, hint=f"see {self._broker.log_path}")
            if self._processes.ended(top) and self._processes.pid(top) is None and console.reports.empty():
                if self._signals:
                    return
                raise EdgeError(f"the top fog node {top} ended before the run was finished: see {self._out / 'logs' / top}.log")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    _, message = await console.reports.get()
                    self._take(message)
                    heard = time.monotonic()
            if time.monotonic() - heard > QUIET_S:
                heard = time.monotonic()
                await self._explain(console)

    def _take(self, message: RoundReport) -> None:
        facts = message.facts
        measured = {k: float(v) for k, v in facts.items() if k not in _FACTS and not isinstance(v, str)}
        done = Round(
            release=message.release,
            wall_s=time.monotonic() - self._started,
            metrics=measured,
            uplink_bytes=int(facts.get("uplink_bytes", 0)),
            downlink_bytes=int(facts.get("downlink_bytes", 0)),
            updates_counted=int(facts.get("updates_counted", 0)),
            weight_counted=int(facts.get("weight_counted", 0)),
            late=message.late,
        )
        self._report.rounds.append(done)
        self._report.finished = message.finished
        self._listener.round(done)

    async def _explain(self, console: Console) -> None:
        """Say what everybody is waiting for."""
        if not console.connected:
            self._listener.waiting("the broker cannot be reached")
            return
        expected = {spec.id for spec in self._specs}
        absent = expected - {node for node, state in console.presence.items() if state == "online"}
        if absent:
            self._listener.waiting(f"waiting for {_some(absent)} to appear")
            return
        statuses = await console.ask()
        working = {s.node for s in statuses if s.status.state in ("working", "fetching")}
        wrong = [f"{s.node}: {s.status.reason}" for s in statuses if s.status.reason]
        self._listener.waiting("; ".join(wrong[:3]) if wrong else f"waiting for {_some(working)}" if working else "waiting")

    async def _settle(self, console: Console) -> None:
        """Let devices hear what became of their last updates, then ask everybody for the last word."""
        deadline = time.monotonic() + SETTLE_S
        while True:
            statuses = await console.ask()
            pending = sum(int(s.status.facts.get("updates_pending", 0)) for s in statuses)
            if not pending or time.monotonic() > deadline or self._signals > 1:
                break
            await asyncio.sleep(TICK_S)
        devices = [s.status.facts for s in statuses if s.status.role == "device"]
        self._report.updates_sent = sum(int(facts.get("updates_sent", 0)) for facts in devices)
        self._report.weight_sent = sum(int(facts.get("weight_sent", 0)) for facts in devices)
        self._report.updates_returned = sum(int(facts.get("updates_returned", 0)) for facts in devices)
        self._report.weight_returned = sum(int(facts.get("weight_returned", 0)) for facts in devices)
        self._report.nodes = [{"node": s.node, "task": s.task, **asdict(s.status)} for s in statuses]

    def _on_signal(self) -> None:
        self._signals += 1
        if self._signals == 1:
            self._listener.line("finishing the round, then measuring; once more stops at once")
            self._processes.interrupt(self._specs[0].id)


def _some(names: set[str]) -> str:
    return ", ".join(sorted(names)[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
