"""A whole deployment on this machine: data, folder, broker and node files, then processes until the run has ended."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from edgemw.app import folder
from edgemw.app.afford import check_afforded
from edgemw.app.dealing import Dealt, deal_out
from edgemw.app.deployment import device_ids, expand
from edgemw.app.folder import Purpose
from edgemw.app.identities import check_identities
from edgemw.app.masking import check_library, check_masked_task
from edgemw.app.places import MONITOR, for_node, names_nodes
from edgemw.app.private import check_account, check_bundle
from edgemw.app.report import Report
from edgemw.app.room import check_room
from edgemw.app.samples import load_samples
from edgemw.app.settings import EMBEDDED, Broker, Deployment, Task
from edgemw.app.signing import check_signing
from edgemw.app.watch import Listener, Watch
from edgemw.app.wiring import check_plan_fits, load_bundle
from edgemw.core.bundle import Manifest
from edgemw.core.errors import BundleError, ConfigError, DataError
from edgemw.learning.dataset import fit_dataset
from edgemw.transport.broker import Broker as EmbeddedBroker
from edgemw.transport.broker import start_broker

_MAX_NAMES = 4


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run that can be started: what it needs was read and fits together, and nothing was written.

    Attributes:
        settings: the deployment.
        out: the folder of the run.
        purpose: what the folder is for.
        dealt: the samples of the devices that bring none of their own.
        report: to be written on; that of an earlier run in the folder, if there was one.
        release: the one that an earlier run ended with; None for a new run.
        longer: the setting that lets a run go on that has finished already, as KEY=VALUE; "" where it has not.
        notes: what people should know before it starts.
    """

    settings: Deployment
    out: Path
    purpose: Purpose
    dealt: Dealt | None
    report: Report
    release: int | None
    longer: str
    notes: tuple[str, ...]


def prepare(settings: Deployment, out: Path) -> Prepared:
    """Read and check everything that a run needs.

    Raises:
        ConfigError: there is no bundle, its updates are larger than a limit, a node lacks its certificate, or the folder is
            for something else.
        BundleError: the bundle cannot be used.
        DataError: the data cannot be used with it.
        EdgeError: the folder cannot be used.
    """
    check_identities(settings)
    bundle = settings.task.bundle
    if bundle is None:
        raise ConfigError("a deployment that is run to its end needs a bundle", key="task.bundle")
    if not bundle.exists():
        raise BundleError(f"{bundle}: there is no such file: make it with `edgemw compile`")
    data, opened = load_bundle(bundle)
    check_plan_fits(opened, settings.plan)
    unsafe = check_signing(settings, os.environ)
    check_bundle(settings.privacy, opened, settings.plan)
    check_account(settings.privacy)
    check_masked_task(settings.privacy, opened.manifest, settings.plan.changes())
    check_library(masks=settings.privacy.masks)
    manifest = opened.manifest
    check_afforded(settings, manifest)
    check_room(settings, manifest, len(data))
    shared = device_ids(settings)
    dealt = deal_out(settings.data, shared, manifest) if settings.data is not None and shared else None
    notes = () if dealt is None else (dealt.how, *_refusals(dealt.refused))
    notes += unsafe
    notes += _refusals(_refused_tiers(settings, manifest))
    out = out.absolute()
    digest = dealt.digest() if dealt is not None else ""
    purpose = Purpose(settings.name, manifest.name, hashlib.sha256(data).hexdigest(), digest)
    metric = manifest.metrics[0] if manifest.metrics else "loss"
    devices = sum(tier.count for tier in settings.tiers.values() if tier.role == "device")
    report = Report(settings.name, metric, devices, settings.task.rounds, settings.task.target)
    if not folder.used(out, purpose):
        return Prepared(settings, out, purpose, dealt, report, None, "", notes)
    release = folder.last_release(out, settings.top, manifest.name)
    earlier, longer = Report.read(out, metric), ""
    if earlier is not None:
        longer = _longer(settings.task, earlier)
        report = earlier if longer else replace(report, rounds=earlier.rounds, wall_s=earlier.wall_s)
    return Prepared(settings, out, purpose, dealt, report, release, longer, notes)


def run_deployment(run: Prepared, env: Mapping[str, str], listener: Listener) -> Report:
    """Run a deployment to its end and report.

    The first SIGINT finishes the round, measures the last release and ends; the second stops at once.

    Raises:
        EdgeError: something could not be started, or the run ended before there was anything to report.
    """
    settings, out = run.settings, run.out
    folder.make(out, run.purpose)
    listener.line(f"preparing {settings.name} in {out}")
    for note in run.notes:
        listener.line(note)
    if run.release is not None:
        listener.line(f"going on from release {run.release} in {out}")
    paths = run.dealt.write(out / "data") if run.dealt is not None else {}
    with _broker(settings.broker, out, listener) as (broker, embedded):
        specs = expand(_on(broker, settings), broker.url, out / "nodes", paths)
        for spec in specs:
            spec.path.parent.mkdir(parents=True, exist_ok=True)
            spec.path.write_text(spec.text)
        watch = Watch(settings, specs, out, env, listener, run.report, embedded)
        asyncio.run(watch.run(broker, MONITOR if names_nodes(settings.broker) else ""))
    return run.report


# ------------------------------------------------------------------------------------------------------------- preparing


def _refused_tiers(settings: Deployment, manifest: Manifest) -> dict[str, str]:
    """The tiers whose own samples do not fit the task, and why; functions are called by the devices alone.

    Raises:
        DataError: no device of the deployment could train.
    """
    tiers = {name: tier for name, tier in settings.tiers.items() if tier.role == "device"}
    refused = {}
    for name, tier in tiers.items():
        if tier.data and all(table.path is not None for table in tier.data):
            try:
                fit_dataset(load_samples(tier.data, manifest), manifest)
            except DataError as error:
                refused[f"tier {name}"] = f"{', '.join(str(table.path) for table in tier.data)}: {error}"
    if refused and len(refused) == len(tiers):
        raise DataError(_refusals(refused)[0])
    return refused


def _refusals(refused: Mapping[str, str]) -> tuple[str, ...]:
    lines = [f"{name} will not train: {reason}" for name, reason in refused.items()]
    more = len(lines) - _MAX_NAMES
    return (*lines[:_MAX_NAMES], *([f"and {more} more will not"] if more > 0 else []))


def _longer(task: Task, earlier: Report) -> str:
    """What to set so that a run that has finished goes on; "" where it goes on by itself."""
    if not earlier.finished:
        return ""
    if 0 < task.rounds <= earlier.summary()["rounds"]:
        return "task.rounds=N"
    return "task.target=VALUE" if task.target and task.target == earlier.target else ""


# ---------------------------------------------------------------------------------------------------------------- broker


@contextmanager
def _broker(broker: Broker, out: Path, listener: Listener) -> Iterator[tuple[Broker, EmbeddedBroker | None]]:
    if broker.url != EMBEDDED:
        yield for_node(broker, MONITOR), None
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
