"""From a node's settings to a running node: the one place where roles, adapters and mathematics meet."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from edgemw.app import sections
from edgemw.app.masking import check_library, check_masked_task
from edgemw.app.private import check_account, check_bundle, privacy_of
from edgemw.app.room import check_device, check_task, class_here, largest_batch
from edgemw.app.running import Server, listening, node_of, summarize_later
from edgemw.app.samples import load_samples
from edgemw.app.service import ServingProcess
from edgemw.app.settings import Codec, DeviceFile, FogFile, Plan, Release, Task
from edgemw.core.bundle import Bundle, Manifest, Vector, read_bundle
from edgemw.core.errors import BundleError, ConfigError
from edgemw.core.plan import plan_of
from edgemw.core.ranges import ranges_of
from edgemw.device.agent import DeviceRole, Parts
from edgemw.device.events import Served
from edgemw.device.uplink import Uplink
from edgemw.fog.agent import FogRole
from edgemw.fog.privacy import SAMPLE
from edgemw.fog.rate import Budget
from edgemw.fog.release import TopOptions
from edgemw.fog.server import ServerOptions
from edgemw.fog.window import WindowOptions
from edgemw.learning.oracle import Oracle, Predict
from edgemw.robust.options import RobustOptions
from edgemw.transport.shell import Shell
from edgemw.wire.bucket import Bucket
from edgemw.wire.messages import ReleaseManifest

if TYPE_CHECKING:
    from edgemw.serving.keeper import Keeper  # a fog node has no part of it


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

    check_library(masks=settings.privacy.require_masks)
    profile = class_here(settings)
    check_device(profile, settings)
    with node_of(settings) as node:
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

        uplink, thetas = uplink_of(settings.uplink, time.monotonic()), dict[str, Served]()
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
            least_noise=settings.privacy.least_noise,
            by_sample=settings.privacy.unit == SAMPLE,
            uplink=uplink,
            require_masks=settings.privacy.require_masks,
            stored=lambda task: thetas.pop(task, None),
            trust=node.trust,
        )
        role = DeviceRole(node.place, node.db, parts)
        for task in store.tasks():
            stored = store.latest(task)
            if stored is not None:
                thetas[task] = Served(stored.run, stored.number, stored.theta)

        def attach(shell: Shell) -> None:
            role.attach(shell)
            summarize_later(shell)

        door = _door(settings, keeper, env, origin)
        node.used.service = door if isinstance(door, ServingProcess) else None
        with listening(door, settings.node.state / "serving.address", "serving.http"):
            try:
                node.run(role, attach, uplink.bucket)
            finally:
                role.close()
                saver.close()


def run_fog(settings: FogFile, env: Mapping[str, str]) -> None:
    """Run a fog node until it is told to stop.

    Raises:
        ConfigError: an address cannot be used, or privacy or masks are asked for and what they need is not installed.
    """
    check_account(settings.privacy)
    check_library(masks=settings.privacy.masks)
    with node_of(settings) as node:
        observe, kept = node.observer.observe, settings.security.evidence
        role = FogRole(node.place, node.db, fog_options(settings), observe, node.trust, kept)

        def attach(shell: Shell) -> None:
            role.attach(shell)
            if settings.is_top and settings.task.bundle is not None:
                data, bundle = load_bundle(settings.task.bundle)
                check_plan_fits(bundle, settings.plan)
                check_bundle(settings.privacy, bundle, settings.plan)
                check_masked_task(settings.privacy, bundle.manifest, settings.plan.changes())
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
        robust=RobustOptions(w.robust, w.robust_bound, w.robust_share),
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
        privacy=privacy_of(settings.privacy),
        chunk_bytes=settings.limits.max_message_bytes,
        threshold=settings.privacy.threshold if settings.privacy.masks else 0,
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


def _door(settings: DeviceFile, keeper: Keeper, env: Mapping[str, str], origin: Sequence[str]) -> Server | None:
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
