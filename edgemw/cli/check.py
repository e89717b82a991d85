"""`edgemw check`: whether a file is right, and what would run."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from edgemw.app.afford import check_afforded
from edgemw.app.checks import AUTO
from edgemw.app.identities import certificate_problem, missing, own_files
from edgemw.app.masking import check_masked_task
from edgemw.app.places import NODE
from edgemw.app.private import check_account, check_bundle
from edgemw.app.room import check_device, check_room, load_of, memory_bytes, memory_of
from edgemw.app.secrets import private_file_problem, secret_warnings
from edgemw.app.settings import (
    EMBEDDED,
    SCHEMAS,
    Broker,
    Deployment,
    DeviceFile,
    FogFile,
    Kind,
    Security,
    Tier,
    Uplink,
    Window,
    kind_of,
    load_file,
    read_text,
)
from edgemw.app.signing import check_signing
from edgemw.app.tiers import fan_in
from edgemw.app.trust import check_trust, role_of
from edgemw.app.wiring import check_plan_fits, load_bundle
from edgemw.cli.budgets import budget_text, budget_warnings
from edgemw.cli.oddities import (
    drowned,
    patience_with_masks,
    plan_oddities,
    quorum_of_masks,
    robust_oddities,
    unused,
    unused_burst,
    unused_in_tiers,
    unused_unit,
)
from edgemw.compression.codec import Codec, is_guided
from edgemw.compression.table import codec_named
from edgemw.core.bundle import Manifest
from edgemw.core.config.loader import Loaded, leaves
from edgemw.core.config.tree import Origin, parse_toml
from edgemw.core.config.units import duration_text, size_text
from edgemw.core.errors import BundleError, ConfigError
from edgemw.profiles.catalogue import load_profile
from edgemw.transport.addresses import broker_addresses

Settings = Deployment | FogFile | DeviceFile

_EXAMPLES = """exit code: 0 the file is right, 3 it is not (or it has warnings and --deny-warnings is given)

examples:
  edgemw check edgemw.toml
  edgemw check /etc/edgemw/device.toml --json --deny-warnings
"""
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Report:
    """What a file says: `facts` as label and text, `warnings` as sentences."""

    kind: str
    name: str
    facts: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]


KERNEL_FOLDERS, WRITTEN = (".sysfs", ".procfs"), "telemetry.targets"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the main program."""
    parser = subparsers.add_parser(
        "check",
        help="check a deployment or node file",
        description="Check a file, of a deployment, a node or streams, and say what would run. Nothing is started or asked.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "file", metavar="FILE", help="edgemw.toml, fog.toml, device.toml, streams.toml: what it is for is seen from it"
    )
    parser.add_argument("--kind", choices=sorted(SCHEMAS), help="what the file is for, where its content does not decide")
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], help="set a key, above the environment and the file"
    )
    parser.add_argument("--deny-warnings", action="store_true", help="a warning is an error")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check one file. Returns 0, or 3 when it is refused."""
    try:
        report = check(Path(args.file), args.kind, args.set, os.environ)
    except ConfigError as error:
        _print_error(error, as_json=args.json)
        return error.exit_code
    failed = bool(report.warnings) and args.deny_warnings
    if args.json:
        document = {
            "ok": not failed,
            "kind": report.kind,
            "name": report.name,
            "facts": dict(report.facts),
            "warnings": report.warnings,
        }
        print(json.dumps(document, indent=2))
    else:
        print(f"{args.file}: {report.kind} {report.name!r}")
        width = max(len(label) for label, _ in report.facts)
        for label, text in report.facts:
            print(f"  {label:<{width}}  {text}")
        for warning in report.warnings:
            print(f"warning: {warning}", file=sys.stderr)
    return ConfigError.exit_code if failed else 0


def check(path: Path, kind: Kind | None, overrides: list[str], env: Mapping[str, str]) -> Report:
    """What a file says, and what looks wrong about it although it is allowed. Raises ConfigError when it is refused."""
    text = read_text(path)
    if kind is None and "stream" in parse_toml(text, str(path)):
        return _streams(path, overrides)
    kind = kind or kind_of(text, str(path))
    loaded = load_file(SCHEMAS[kind], path, env=env, overrides=overrides)
    settings = loaded.value
    secrets = (each for each in secret_warnings(_without_security(settings), env) if NODE not in each)
    warnings = (*_warnings(settings), *secrets, *_check_keys(loaded, env))
    if isinstance(settings, DeviceFile):
        _check_class(settings, loaded.origins)
        return Report(kind, settings.node.id, tuple(_device_facts(settings)), warnings)
    _check_account(settings, loaded.origins)
    manifest = _check_bundle(settings, loaded.origins)
    if manifest is not None:
        warnings = (*warnings, *budget_warnings(settings, manifest), *plan_oddities(settings, manifest))
        warnings = (*warnings, *drowned(settings, manifest))
    if isinstance(settings, Deployment):
        return Report(kind, settings.name, (*_deployment_facts(settings), *_room(settings, manifest)), warnings)
    return Report(kind, settings.node.id, tuple(_fog_facts(settings)), warnings)


def _streams(path: Path, overrides: list[str]) -> Report:
    from edgemw.app.streams import load_streams  # with numpy

    if overrides:
        raise ConfigError("changes nothing in a file of streams", key="--set")
    tables = load_streams(path)
    facts = [
        (each.name, f"{each.source}: {', '.join(each.fields)} x {each.window} -> {each.task} -> {each.target}") for each in tables
    ]
    return Report("streams", path.stem, tuple(facts), ())


def _check_bundle(settings: Deployment | FogFile, origins: Mapping[str, Origin]) -> Manifest | None:
    """Refuse a bundle that is there and cannot be used, or whose updates a tier does not take; gives its manifest.

    One that is not there yet is for a warning.
    """
    path = settings.task.bundle
    if path is None or not path.is_file():
        return None
    try:
        data, bundle = load_bundle(path)
    except BundleError as error:
        raise origins["task.bundle"].refusal(str(error), key="task.bundle") from error
    try:
        check_plan_fits(bundle, settings.plan)
        check_bundle(settings.privacy, bundle, settings.plan)
        check_masked_task(settings.privacy, bundle.manifest, settings.plan.changes())
        if isinstance(settings, Deployment) or settings.is_top:
            check_afforded(settings, bundle.manifest)
        if isinstance(settings, Deployment):
            check_room(settings, bundle.manifest, len(data))
    except ConfigError as error:
        if error.file is not None:  # of a profile, or of a radio that it names
            raise
        origin = origins.get(error.key or "") or origins["task.bundle"]
        raise origin.refusal(error.reason, key=error.key or "plan", suggestion=error.suggestion) from error
    return bundle.manifest


def _without_security(settings: Settings) -> Settings:
    """The settings but for what `check_trust` looks at."""
    without: Settings = replace(settings, security=Security())
    if isinstance(without, Deployment):
        return replace(without, tiers={name: replace(tier, security=Security()) for name, tier in without.tiers.items()})
    return without


def _check_keys(loaded: Loaded[Settings], env: Mapping[str, str]) -> tuple[str, ...]:
    """Refuse keys and certificates that do not go together; gives sentences about files that are not here."""
    settings = loaded.value
    try:
        if isinstance(settings, Deployment):
            return check_signing(settings, env)
        return check_trust(settings.security, settings.node.id, role_of(settings), env)
    except ConfigError as error:
        if error.file is not None or error.key is None:
            raise
        origin = loaded.origins.get(error.key) or loaded.origins[""]
        raise origin.refusal(error.reason, key=error.key) from error


def _check_account(settings: Deployment | FogFile, origins: Mapping[str, Origin]) -> None:
    """Refuse privacy that nobody here can keep account of."""
    try:
        check_account(settings.privacy)
    except ConfigError as error:
        key = error.key or "privacy.mode"
        raise origins[key].refusal(error.reason, key=key) from error


def _check_class(settings: DeviceFile, origins: Mapping[str, Origin]) -> None:
    """Refuse a device that cannot be of the class that it names."""
    profile = settings.node.profile
    try:
        check_device(load_profile(profile) if profile not in ("", AUTO) else None, settings)
    except ConfigError as error:
        if error.file is not None:
            raise
        origin = origins.get(error.key or "") or origins["node"]
        raise origin.refusal(error.reason, key=error.key or "node.profile") from error


def _print_error(error: ConfigError, *, as_json: bool) -> None:
    if not as_json:
        print(f"edgemw: {error}", file=sys.stderr)
        return
    names = ("reason", "file", "line", "key", "suggestion")
    print(json.dumps({"ok": False, "error": {name: getattr(error, name) for name in names}}, indent=2))


# ---------------------------------------------------------------------------------------------------------------- facts


def _deployment_facts(settings: Deployment) -> Iterator[tuple[str, str]]:
    for name in settings.top_down:
        yield f"tier {name}", _tier(settings, name, settings.tiers[name])
    yield "nodes", str(sum(tier.count for tier in settings.tiers.values()))
    data = settings.data
    if data is not None:
        samples = data.source or _file(data.path)
        yield "data", f"{samples}, {data.partition}" + (f" alpha {data.alpha:g}" if data.partition == "dirichlet" else "")
    yield "broker", settings.broker.url
    yield from _signatures(settings.security)
    yield from _learning_facts(settings)


def _room(settings: Deployment, manifest: Manifest | None) -> Iterator[tuple[str, str]]:
    """What devices of classes that are named need, and have."""
    for name, tier in settings.tiers.items():
        if manifest is None or tier.role != "device" or tier.profile in ("", AUTO):
            continue
        profile = load_profile(tier.profile)
        if profile.runs == "none":
            continue
        there = memory_of(profile)
        needed = memory_bytes(load_of(settings, tier.training, manifest, 0), tier.serving)
        of = f" of {there.value >> 20} MiB" if there is not None else ""
        yield f"room {name}", f"a device takes about {needed >> 20} MiB{of}"


def _tier(settings: Deployment, name: str, tier: Tier) -> str:
    text = f"{tier.count} {tier.role}{'s' if tier.count > 1 else ''}"
    of = "" if tier.profile == AUTO else f" of class {tier.profile or 'unknown'}"
    text += of
    if tier.role == "device":
        uplink = f", uplink {_uplink(tier.uplink)}" if tier.uplink.rate or tier.uplink.max_upload else ""
        return text + (", own samples" if tier.data else "") + uplink
    fewest, most = fan_in(settings.tiers, name)
    children = f"{most} child{'ren' if most > 1 else ''}" if fewest == most else f"{fewest} to {most} children"
    return f"{text}, {children}{' each' if tier.count > 1 else ''}, {_window(tier.window)}"


def _window(window: Window) -> str:
    budget = f", sends at most {size_text(window.budget)} up" if window.budget else ""
    robust = f", merged by {window.robust}" if window.robust else ""
    return f"closes at {window.k} or after {duration_text(window.deadline)} with {window.quorum}{budget}{robust}"


def _uplink(uplink: Uplink) -> str:
    rate = f"{size_text(uplink.rate)} per second, at most {size_text(uplink.burst)} at once" if uplink.rate else "no limit"
    return f"{rate}; an upload takes at most {duration_text(uplink.max_upload)}" if uplink.max_upload else rate


def _learning_facts(settings: Deployment | FogFile) -> Iterator[tuple[str, str]]:
    task, plan, codec, release = settings.task, settings.plan, settings.codec, settings.release
    rounds = f"{task.rounds} rounds" if task.rounds else "without end"
    yield "task", f"{_file(task.bundle) if task.bundle else 'published later'}, {rounds}"
    changed = [f"{key} {value}" for key, value in plan.changes().items()]
    yield "plan", ", ".join(changed) or "as the bundle says"
    budget = budget_text(codec)
    words: dict[str, float | str] = (
        {"budget": budget} if budget else {"kappa": f"{codec.kappa:g}"} if codec.use == "lattice" else {}
    )
    yield "codec", ", ".join([codec.use, *(f"{name} {value}" for name, value in {**words, **codec.parameters}.items())])
    spending = budget_text(release)
    step = f"budget {spending}" if spending else f"kappa {release.kappa:g}"
    privacy = settings.privacy
    if privacy.mode:
        kept = f", training ends before epsilon {privacy.epsilon:g}" if privacy.epsilon else ""
        whose = "norms" if privacy.unit == "device" else "norms of what a sample adds"
        yield "privacy", f"{privacy.mode}, {whose} at most {privacy.clip:g}, noise {privacy.noise:g} times that{kept}"
    yield "release", f"lattice, {step}" if release.use == "lattice" else "dense, float32"
    if settings.privacy.masks:
        yield "masks", f"{settings.privacy.threshold} % of a group of devices take them off its sum"


def _energy(settings: FogFile | DeviceFile) -> str:
    """Whose joules are counted, and how often they are looked at."""
    energy, profile = settings.energy, settings.node.profile
    if not float(energy.interval):
        return "not looked at"
    whose = "of this machine" if energy.scope == "machine" else "of this node alone"
    of = "its class is detected" if profile == AUTO else f"class {profile}" if profile else "no class, so no model"
    sources = f", from {', '.join(energy.sources)}" if energy.sources else ""
    allowed = f", at most {energy.budget:g} W" if energy.budget else ""
    return f"{whose}, {of}{sources}, looked at every {duration_text(energy.interval)}{allowed}"


def _signatures(security: Security) -> Iterator[tuple[str, str]]:
    """What is signed, and of what a signature is asked; nothing where nobody is asked."""
    parts = [
        "signs" if security.key is not None else "",
        "takes only signed updates" if security.ca is not None else "",
        "takes only signed releases" if security.release_key else "",
        f"keeps {size_text(security.evidence)} of evidence" if security.evidence else "",
    ]
    if any(parts):
        yield "signatures", ", ".join(filter(None, parts))


def _telemetry(settings: FogFile | DeviceFile) -> str:
    """Who gets to know."""
    telemetry = settings.telemetry
    doors = f"/metrics at {telemetry.http}" if telemetry.http else "no /metrics"
    reached = f", reached at {telemetry.advertise}" if telemetry.advertise else ""
    told = float(telemetry.publish) and settings.node.parent
    return f"{doors}{reached}" + (f", told to the parent every {duration_text(telemetry.publish)}" if told else "")


def _fog_facts(settings: FogFile) -> Iterator[tuple[str, str]]:
    yield "net", settings.net
    yield "parent", settings.node.parent or "none: this is the top"
    yield "broker", settings.broker.url
    yield "state", str(settings.node.state)
    yield "window", _window(settings.window)
    yield "energy", _energy(settings)
    yield "telemetry", _telemetry(settings)
    yield from _signatures(settings.security)
    if settings.is_top:
        yield from _learning_facts(settings)


def _device_facts(settings: DeviceFile) -> Iterator[tuple[str, str]]:
    yield "net", settings.net
    yield "parent", str(settings.node.parent)
    yield "broker", settings.broker.url
    yield "state", str(settings.node.state)
    for data in settings.data:
        yield f"data {data.task or 'of any task'}", data.use or _file(data.path)
    if not settings.data:
        yield "data", "none: it serves predictions and does not train"
    yield "uplink", _uplink(settings.uplink)
    yield "serving", settings.serving.http or "off"
    yield "energy", _energy(settings)
    yield "telemetry", _telemetry(settings)
    yield from _signatures(settings.security)


def _file(path: Path | None) -> str:
    return f"{path} ({'found' if path and path.is_file() else 'not found'})"


# ------------------------------------------------------------------------------------------------------------- warnings


def _warnings(settings: Settings) -> Iterator[str]:
    for key, value in leaves(settings):
        elsewhere = NODE in str(value) or "security." in key  # `_identity_warnings` and `check_trust` look at those
        if isinstance(value, Path) and not (elsewhere or key.endswith("node.state") or _inherited(settings, key)):
            yield from _file_warnings(key, value)
    yield from _broker_warnings(settings.broker)
    if isinstance(settings, Deployment):
        yield from _identity_warnings(settings)
        for name, tier in settings.tiers.items():
            yield from _profile_warnings(f"tiers.{name}.profile", tier.profile)
            if tier.role == "fog":
                fewest, most = fan_in(settings.tiers, name)
                yield from _window_warnings(f"tiers.{name}", tier.window, most)
                yield from robust_oddities(f"tiers.{name}", tier.window, fewest)
                yield from quorum_of_masks(settings, name)
                yield from patience_with_masks(settings, name)
            if tier.broker != settings.broker:
                yield from _broker_warnings(tier.broker, f"tiers.{name}.")
        yield from unused_in_tiers(settings)
    else:
        yield from _profile_warnings("node.profile", settings.node.profile)
        cert = settings.broker.tls.cert
        problem = cert and certificate_problem(cert, settings.node.id, datetime.now(UTC))
        if problem:
            yield f"broker.tls.cert: {cert} {problem}"
        if settings.energy.budget and not float(settings.energy.interval):
            yield "energy.budget: not used, since energy.interval is 0s"
    if isinstance(settings, DeviceFile):
        yield from unused_burst(settings)
        yield from unused_unit(settings)
    else:
        yield from unused(settings)
        yield from _learning_warnings(settings)


def _learning_warnings(settings: Deployment | FogFile) -> Iterator[str]:
    tree = isinstance(settings, FogFile) or any(tier.role == "fog" and tier.parent for tier in settings.tiers.values())
    codec = _codec_of(settings)
    if tree and codec.merging == "decodes":
        when = " where devices have missed a release or just begun" if is_guided(codec) else ""
        yield (
            f"codec.use: {codec.name} adds by decoding{when}: a fog node below the top then works on all P floats of every "
            "update, and what it sends up is a float32 for each"
        )


def _codec_of(settings: Deployment | FogFile) -> Codec:
    return codec_named(settings.codec.use, **settings.codec.parameters)


def _inherited(settings: Settings, key: str) -> bool:
    """Whether a tier only repeats what the top of the file says."""
    return (
        isinstance(settings, Deployment)
        and ".broker." in key
        and any(tier.broker == settings.broker for name, tier in settings.tiers.items() if key.startswith(f"tiers.{name}."))
    )


def _profile_warnings(key: str, name: str) -> Iterator[str]:
    if name not in ("", AUTO) and load_profile(name).runs == "none":
        yield f"{key}: edgemw does not run on {name}; its joules are those of a device that takes part through this machine"


def _file_warnings(key: str, path: Path) -> Iterator[str]:
    if not key.endswith(WRITTEN) and not path.is_file() and not (key.endswith(KERNEL_FOLDERS) and path.is_dir()):
        hint = ": make it with `edgemw compile`" if path.suffix == ".edge" else ""
        yield f"{key}: there is no file {path}{hint}"
    elif key.endswith("tls.key") and (problem := private_file_problem(path)):
        yield f"{key}: {problem}"


def _identity_warnings(settings: Deployment) -> Iterator[str]:
    """Of files that each node has for itself: which are not there, and which keys others can read."""
    for key, reason in missing(settings):
        yield f"{key}: {reason}: `edgemw pki issue DIR --for FILE` makes them"
    for key, paths in own_files(settings).items():
        problems = [private_file_problem(path) for path in paths if key.endswith("tls.key") and path.is_file()]
        yield from (f"{key}: {problem}" for problem in list(filter(None, problems))[:1])


def _broker_warnings(broker: Broker, prefix: str = "") -> Iterator[str]:
    addresses = () if broker.url == EMBEDDED else broker_addresses(broker.url)
    if len(set(addresses)) < len(addresses):
        yield f"{prefix}broker.url: an address stands there twice"
    hosts = ", ".join(dict.fromkeys(address.host for address in addresses if address.host not in _LOOPBACK))
    if not hosts:
        return
    if not addresses[0].tls:
        yield f"{prefix}broker.url: what is sent to {hosts} can be read on the way: use mqtts://"
    if not broker.username and broker.tls.cert is None:
        yield f"{prefix}broker: no name and no certificate, so whoever reaches {hosts} can take part"


def _window_warnings(key: str, window: Window, children: int) -> Iterator[str]:
    if window.quorum == 1 and children > 2:
        after = duration_text(window.deadline)
        yield f"{key}.window.quorum: after {after} a single update of {children} closes the window"
    if window.k == "all" and window.children > children:
        yield f"{key}.window.children: a node of this tier has {children}, so every window waits for its deadline"
    if window.quorum == children > 1:
        yield f"{key}.window.quorum: one lost child of {children} stops this tier: the deadline never has a quorum"
