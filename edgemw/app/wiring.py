"""From a node's settings to a running node: the one place where roles, adapters and mathematics meet."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from edgemw.app import sections
from edgemw.app.energy import Used, energy_facts, measuring
from edgemw.app.history import History
from edgemw.app.overview import Overview
from edgemw.app.page.doors import Page
from edgemw.app.room import check_device, check_task, class_here, largest_batch
from edgemw.app.samples import load_samples
from edgemw.app.secrets import reveal
from edgemw.app.service import ServingProcess
from edgemw.app.settings import Broker, Codec, DeviceFile, FogFile, Limits, Plan, Release, Task
from edgemw.core.bundle import Bundle, Manifest, Vector, read_bundle
from edgemw.core.errors import BundleError, ConfigError
from edgemw.core.files import replace_file
from edgemw.core.ids import Place
from edgemw.core.plan import plan_of
from edgemw.core.ranges import ranges_of
from edgemw.device.agent import DeviceRole, Parts
from edgemw.device.uplink import Uplink
from edgemw.fog.agent import FogRole
from edgemw.fog.rate import Budget
from edgemw.fog.release import TopOptions
from edgemw.fog.server import ServerOptions
from edgemw.fog.window import WindowOptions
from edgemw.learning.oracle import Oracle, Predict
from edgemw.storage.database import Database
from edgemw.storage.parts import DiskParts
from edgemw.telemetry.exporter import Exporter
from edgemw.telemetry.fleet import Fleet
from edgemw.telemetry.machine import machine_now
from edgemw.telemetry.observer import Observer
from edgemw.telemetry.process import ProcessUsage
from edgemw.telemetry.readings import Teller
from edgemw.telemetry.summary import Summary
from edgemw.transport.channel import ChannelLimits
from edgemw.transport.http import HttpServer
from edgemw.transport.link import Will
from edgemw.transport.mqtt import MqttLink, MqttSettings, TlsSettings
from edgemw.transport.shell import Doors, Role, Shell, last_will
from edgemw.wire.bucket import Bucket
from edgemw.wire.messages import Frame, ReleaseManifest, Status, Telemetry

if TYPE_CHECKING:
    from edgemw.serving.keeper import Keeper  # a fog node has no part of it

STATUS_TIMEOUT_S = 2.0
SUMMARY_S = 60.0
TARGETS_S = 5.0
CHUNK_FRAME_BYTES = 512
HISTORY = "history.jsonl"

log = logging.getLogger(__name__)


def mqtt_settings(
    broker: Broker, client_id: str, env: Mapping[str, str], *, will: Will | None = None, wait: bool = True
) -> MqttSettings:
    """The link's settings from a file's [broker]."""
    tls = broker.tls
    return MqttSettings(
        url=broker.url,
        client_id=client_id,
        username=broker.username or None,
        password=reveal(broker.password, env) if broker.password else None,
        tls=TlsSettings(tls.ca, tls.cert, tls.key) if broker.url.startswith("mqtts") else None,
        keepalive_s=int(broker.keepalive),
        protocol={"auto": "auto", "5": 5, "3.1.1": 4}[broker.protocol],  # type: ignore[arg-type]  # a table of literals
        will=will,
        wait_for_broker=wait,
    )


def uplink_of(settings: sections.Uplink, now: float) -> Uplink:
    """The uplink of a life that begins now, whose bucket is empty at first."""
    bucket = Bucket(settings.rate, settings.burst, now) if settings.rate else None
    return Uplink(bucket, float(settings.max_upload))


def run_device(settings: DeviceFile, env: Mapping[str, str], origin: Sequence[str] = ()) -> None:
    """Run a device until it is told to stop.

    Args:
        settings: of its file.
        env: of the process.
        origin: flags that name the file and what was changed, for a prediction service of its own.

    Raises:
        ConfigError: ONNX Runtime is not installed, an address cannot be used, or the class of this device cannot do it.
    """
    try:
        from edgemw.app.serve import canary_of
        from edgemw.serving.admission import Admission
        from edgemw.serving.guard import Guard
        from edgemw.serving.keeper import Keeper
        from edgemw.serving.quantise import Int8
        from edgemw.serving.saver import Saver
        from edgemw.serving.store import RELEASES, ReleaseStore
    except ModuleNotFoundError as error:
        raise ConfigError(f"a device needs {error.name}: pip install 'edgemw[device]'") from error

    profile = class_here(settings)
    check_device(profile, settings)
    with _node(settings) as node:
        observer = node.observer
        store = ReleaseStore(settings.node.state / RELEASES, settings.serving.keep)
        saver = Saver(store)
        threads, serving = settings.training.threads, settings.serving
        canary, batch_s = canary_of(serving.canary, serving.canary_for), serving.batch_latency

        def served(seconds: float) -> None:
            observer.served(seconds)
            node.used.served(seconds)

        keeper = Keeper(store, threads=threads, observe=served, batch_s=batch_s, canary=canary)
        guard = Guard(store, serving.guard, serving.guard_tolerance, threads=threads) if serving.guard else None
        int8 = Int8(serving.guard, serving.int8_tolerance, threads=threads) if serving.int8 else None

        def open_task(bundle: Bundle) -> Oracle:
            check_task(profile, settings, bundle)
            return open_oracle(bundle, threads)

        def install(bundle: Bundle, release: ReleaseManifest, theta: Vector, quantised: bytes) -> None:
            saver.save(bundle.manifest.name, bundle, release.run, release.number, theta, quantised)

        uplink, thetas = uplink_of(settings.uplink, time.monotonic()), dict[str, Vector]()
        parts = Parts(
            open_oracle=open_task,
            load_data=lambda manifest: load_samples(settings.data, manifest),
            check=Admission(guard, int8).check,
            install=install,
            traffic=lambda: (node.link.traffic.sent_bytes, node.link.traffic.received_bytes),
            observe=observer.observe,
            training=node.used.training,
            trained=observer.trained_seconds,
            max_batch=largest_batch(profile, settings.training),
            nice=settings.training.nice,
            uplink=uplink,
            stored=lambda task: thetas.pop(task, None),
        )
        role = DeviceRole(node.place, node.db, parts)
        for task in store.tasks():
            stored = store.latest(task)
            if stored is not None:
                thetas[task] = stored.theta

        def attach(shell: Shell) -> None:
            role.attach(shell)
            _summarize_later(shell, Summary())

        door = _door(settings, keeper, env, origin)
        node.used.service = door if isinstance(door, ServingProcess) else None
        with _listening(door, settings.node.state / "serving.address", "serving.http"):
            try:
                node.run(role, attach, uplink.bucket)
            finally:
                role.close()
                saver.close()


def run_fog(settings: FogFile, env: Mapping[str, str]) -> None:
    """Run a fog node until it is told to stop."""
    with _node(settings) as node:
        role = FogRole(node.place, node.db, fog_options(settings), node.observer.observe)

        def attach(shell: Shell) -> None:
            role.attach(shell)
            if settings.is_top and settings.task.bundle is not None:
                data, bundle = load_bundle(settings.task.bundle)
                check_plan_fits(bundle, settings.plan)
                role.give_bundle(bundle.manifest.name, data)

        node.run(role, attach)


def fog_options(settings: FogFile) -> WindowOptions | TopOptions:
    """The options of a fog node's machines."""
    w = settings.window
    window = WindowOptions(
        k=0 if w.k == "all" else w.k,
        deadline_s=float(w.deadline),
        quorum=w.quorum,
        max_staleness=w.max_staleness,
        children=w.children,
        max_children=settings.limits.max_children,
        budget_bytes=w.budget,
    )
    if not settings.is_top:
        return window
    s = settings.server
    return TopOptions(
        window=window,
        server=ServerOptions(s.optimizer, s.lr, s.momentum, s.beta1, s.beta2, s.tau, s.staleness),
        plan=settings.plan.changes(),
        rounds=settings.task.rounds,
        target=settings.task.target,
        codec=settings.codec.use,
        parameters=settings.codec.parameters,
        kappa=settings.codec.kappa,
        release_codec=settings.release.use,
        release_kappa=settings.release.kappa,
        budget=_budget(settings.codec, settings.task),
        release_budget=_budget(settings.release, settings.task),
        chunk_bytes=settings.limits.max_message_bytes,
    )


def _budget(spending: Codec | Release, task: Task) -> Budget:
    return Budget(spending.budget_round or 0, spending.budget_run or 0, task.rounds)


def open_oracle(bundle: Bundle, threads: int) -> Oracle:
    """The oracle of a bundle: ONNX Runtime, or torch where the bundle asks for it."""
    from edgemw.learning.onnx_oracle import OnnxOracle
    from edgemw.serving.session import TrainingSession, open_inference

    manifest = bundle.manifest
    if bundle.train is None:
        return _torch_oracle(manifest)
    session = TrainingSession(bundle.train, threads=threads)

    def open_infer(theta: Vector) -> Predict:
        return open_inference(bundle.infer, theta, size=manifest.size, threads=threads)

    return OnnxOracle(manifest, session, open_infer)


def _torch_oracle(manifest: Manifest) -> Oracle:
    try:
        from edgemw.compile.load import load_task
        from edgemw.learning.torch_oracle import TorchOracle
    except ImportError as error:
        raise BundleError(f"task {manifest.name!r} is trained by torch on the device: pip install 'edgemw[torch]'") from error
    assert manifest.python is not None
    return TorchOracle(manifest, load_task(manifest.python))


def load_bundle(path: Path) -> tuple[bytes, Bundle]:
    """A bundle file: its bytes, and what is in it. Raises BundleError, with the path, when it cannot be read or used."""
    try:
        data = path.read_bytes()
        return data, read_bundle(data)
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror}") from error
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from error


def check_plan_fits(bundle: Bundle, plan: Plan) -> None:
    """Refuse patterns of a plan that do not fit the task. Raises ConfigError with their key."""
    ranges_of(bundle.manifest.layout, plan_of(bundle.manifest.training | plan.changes()))


@dataclass(slots=True)
class _Running:
    """What device and fog node have in common."""

    settings: DeviceFile | FogFile
    place: Place
    db: Database
    link: MqttLink
    observer: Observer
    used: Used
    fleet: Fleet | None = None

    def run(self, role: Role, attach: Callable[[Shell], None], bucket: Bucket | None = None) -> None:
        """Serve until stopped: the first signal lets work in hand be finished, the second does not."""
        limits = _channel_limits(self.settings.limits, bucket)
        parts = DiskParts(self.db, limits.held_bytes + limits.blob_bytes)
        with measuring(self.settings.node, self.settings.energy, self.used) as measured:
            machine = partial(machine_now, self.settings.energy.sysfs)
            telemetry = self.settings.telemetry
            publish_s, budget_w = float(telemetry.publish), self.settings.energy.budget
            teller = Teller(self.settings.node.site, telemetry.advertise, publish_s, budget_w, ProcessUsage())

            def tell() -> Telemetry:
                return teller.message(machine(), measured.life(), self.link.traffic, self.used.predictions)

            overview = self._overview()
            doors = Doors(
                self.place,
                self.link,
                limits,
                time.monotonic,
                bucket,
                parts,
                facts=lambda: energy_facts(measured.energy()),
                telemetry=tell if publish_s else None,
                telemetry_s=publish_s,
                heard=self._hear,
                hears=(lambda topic, payload: None) if overview is None else overview.hear,
            )
            shell = Shell(doors, role)
            self.observer.watch_link(lambda: self.link.traffic)
            self.observer.watch_channel(shell.channel.sent, shell.channel.received, shell.channel.refused)
            self.observer.watch_machine(machine, measured.profile, platform.machine())
            self.observer.watch_energy(measured.life, measured.states, budget_w)
            asyncio.run(self._serve(shell, attach, overview))

    def _overview(self) -> Overview | None:
        """What the page of a fog node shows; None where there is no page."""
        if self.fleet is None or not self.settings.telemetry.http:
            return None
        return Overview(self.place, self.link, History(self.settings.node.state / HISTORY))

    def _hear(self, frame: Frame) -> None:
        """Take what a node below says of itself."""
        if self.fleet is not None and frame.node != self.place.node:  # the top speaks in its own domain
            self.fleet.take(frame, time.monotonic(), time.time())

    async def _list_targets(self, path: Path, fleet: Fleet) -> None:
        """Keep the file of nodes with an address as it is; at first the one of an earlier life stays, until they were heard."""
        told = 0
        while True:
            await asyncio.sleep(TARGETS_S)
            if fleet.moves != told:
                moves = fleet.moves
                try:
                    await asyncio.to_thread(replace_file, path, fleet.targets())
                    told = moves
                except OSError as error:
                    log.warning("telemetry.targets cannot be written: %s", error)

    async def _serve(self, shell: Shell, attach: Callable[[Shell], None], overview: Overview | None) -> None:
        loop = asyncio.get_running_loop()

        def ask() -> list[tuple[str, Status]]:
            """The status, asked from a thread of the HTTP door: a loop that hangs is seen here too."""
            return asyncio.run_coroutine_threadsafe(shell.snapshot(), loop).result(STATUS_TIMEOUT_S)

        def health() -> tuple[bool, str]:
            try:
                return shell.connected, "; ".join(status.reason for _, status in ask() if status.reason)
            except TimeoutError:
                return False, f"the event loop has not answered for {STATUS_TIMEOUT_S:g} s"

        self.observer.watch_machines(lambda: [(task, s.state, s.reason, s.facts) for task, s in ask()])
        doors = Page(overview, loop).doors if overview is not None else {}
        exporter = Exporter(self.observer, health, self.fleet, doors)
        address = self.settings.node.state / "telemetry.address"
        http, key = self.settings.telemetry.http, "telemetry.http"
        with _listening(HttpServer(http, exporter.handle, setting=key) if http else None, address, key):
            path = self.settings.telemetry.targets
            listing = [self._list_targets(path, self.fleet)] if path is not None and self.fleet is not None else []
            watching = [overview.run(shell.status)] if overview is not None else []
            async with _beside(*listing, *watching):
                await _until_stopped(shell, attach)


@asynccontextmanager
async def _beside(*works: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Do something for as long as something else goes on."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work) for work in works]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


def _summarize_later(shell: Shell, summary: Summary) -> None:
    def tell() -> None:
        summary.tell((task, s.state, s.reason, s.facts) for task, s in shell.status())
        _summarize_later(shell, summary)

    asyncio.get_running_loop().call_later(SUMMARY_S, tell)


async def _until_stopped(shell: Shell, attach: Callable[[Shell], None]) -> None:
    attach(shell)
    main = asyncio.current_task()
    assert main is not None
    signals = 0

    def on_signal() -> None:
        nonlocal signals
        signals += 1
        if signals == 1:
            log.info("stopping: finishing what is in hand; once more stops at once")
            shell.stop()
        else:
            main.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    try:
        await shell.run()
    except asyncio.CancelledError:
        log.warning("stopped at once; what was finished is on disk")


def _door(settings: DeviceFile, keeper: Keeper, env: Mapping[str, str], origin: Sequence[str]) -> _Server | None:
    """Where predictions of a device are to be had: in a thread of this process, or in another."""
    from edgemw.app.serve import Answering, fingerprint, mqtt_door, serve_flags
    from edgemw.serving.beside import BesideDoor
    from edgemw.serving.store import RELEASES

    serving, state = settings.serving, settings.node.state
    releases = state / RELEASES
    flags, wanted = serve_flags(settings, origin), fingerprint(settings)
    service = ServingProcess(releases, serving.http, state / "serving.process", flags=flags, fingerprint=wanted)
    if serving.http and serving.process:
        return service
    service.leave()
    mqtt = mqtt_door(settings, env)
    if not serving.http and mqtt is None:
        return None
    releases.mkdir(parents=True, exist_ok=True)
    keeper.look()  # predictions go on from the last good release, whatever the network does
    answering = Answering(keeper, settings.node.id, queue=serving.queue, mqtt=mqtt)
    beside = partial(answering.beside, releases, without_broker=True)
    return BesideDoor(answering.take, serving.http, beside=beside)


class _Server(Protocol):
    @property
    def url(self) -> str: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...


@contextmanager
def _node(settings: DeviceFile | FogFile) -> Iterator[_Running]:
    db = Database(settings.node.state)
    try:
        place = Place(settings.net, settings.node.id, settings.node.parent or "", db.next_boot(time.time()))
        role = "device" if isinstance(settings, DeviceFile) else "fog"
        db.note_place(place, role)
        client_id = f"em1-{place.net}-{place.node}"
        link = MqttLink(mqtt_settings(settings.broker, client_id, os.environ, will=last_will(role, place)))
        log.info(
            "starting",
            extra={"facts": {"role": role, "parent": place.parent or "-", "boot": place.boot, "broker": settings.broker.url}},
        )
        threads = settings.training.threads if isinstance(settings, DeviceFile) else 1
        used = Used(lambda: (link.traffic.sent_bytes, link.traffic.received_bytes), threads)
        fleet = Fleet(settings.limits.max_children) if isinstance(settings, FogFile) else None
        yield _Running(settings, place, db, link, Observer(role, place.node, settings.node.site), used, fleet)
    finally:
        db.close()


@contextmanager
def _listening(server: _Server | None, note: Path, key: str) -> Iterator[None]:
    """Serve, and leave the address in a file for tools and people."""
    note.unlink(missing_ok=True)
    if server is None:
        yield
        return
    server.start()
    try:
        note.write_text(server.url + "\n")
        log.info("listening", extra={"facts": {key: server.url}})
        yield
    finally:
        server.stop()
        note.unlink(missing_ok=True)


def _channel_limits(limits: Limits, bucket: Bucket | None) -> ChannelLimits:
    """A chunk, with what stands around it, is never more than the bucket can hold: an update of an earlier life may be."""
    chunk_bytes = limits.max_message_bytes if bucket is None else min(limits.max_message_bytes, bucket.burst - CHUNK_FRAME_BYTES)
    return ChannelLimits(limits.max_update_bytes, limits.max_release_bytes, chunk_bytes)
