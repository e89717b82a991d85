"""The settings of a device, of a fog node and of a whole deployment: what each file holds, and how it is loaded.

The sections that the files are made of are in `sections.py`, the tree of a deployment in `tiers.py`; whoever reads settings
finds all of them here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Literal, TypeVar

from edgemw.app.checks import EMBEDDED, check_id, check_tier_names
from edgemw.app.defaults import under_all
from edgemw.app.masking import check_groups, check_masks
from edgemw.app.places import refuse_places
from edgemw.app.private import check_privacy, check_uplink, check_window
from edgemw.app.sections import (
    Broker,
    Codec,
    Data,
    Dataset,
    Energy,
    Insisted,
    Limits,
    Node,
    Plan,
    Privacy,
    Release,
    Security,
    Server,
    Serving,
    Task,
    Telemetry,
    Tls,
    Training,
    Uplink,
    Window,
    check_members,
    check_robust,
    check_staleness,
)
from edgemw.app.tiers import Tier, check_reachable, check_tree
from edgemw.core.config.loader import Loaded, load
from edgemw.core.config.reading import read_text
from edgemw.core.config.schema import option, required, section
from edgemw.core.config.tree import Table, parse_toml
from edgemw.core.config.units import duration
from edgemw.core.errors import ConfigError

__all__ = [
    "EMBEDDED",
    "SCHEMAS",
    "TOP_ONLY",
    "Broker",
    "Codec",
    "Data",
    "Dataset",
    "Deployment",
    "DeviceFile",
    "Energy",
    "FogFile",
    "Kind",
    "Limits",
    "Node",
    "Plan",
    "Privacy",
    "Release",
    "Security",
    "Server",
    "Serving",
    "Task",
    "Telemetry",
    "Tier",
    "Tls",
    "Training",
    "Uplink",
    "Window",
    "kind_of",
    "load_file",
    "read_text",
]

TOP_ONLY: Mapping[str, type[Task | Plan | Codec | Release | Server | Privacy]] = MappingProxyType(
    {"task": Task, "plan": Plan, "codec": Codec, "release": Release, "server": Server, "privacy": Privacy}
)
"""Sections of a fog node that only the top may have."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFile:
    """The file of a device: `edgemw device --config device.toml`."""

    schema: Literal[1] = option(1, help="version of this file's format")
    net: str = required(help="name of the federation", example='"line-3"', check=check_id)
    node: Node = required(help="who this is")
    broker: Broker = section(Broker, help="how to reach the broker")
    data: tuple[Data, ...] = option((), help="samples for training")
    training: Training = section(Training, help="what training may take from the device")
    uplink: Uplink = section(Uplink, help="what may be sent about updates")
    serving: Serving = section(Serving, help="predictions")
    telemetry: Telemetry = section(Telemetry, help="metrics and logs")
    energy: Energy = section(Energy, help="joules")
    limits: Limits = section(Limits, help="what this node refuses")
    security: Security = section(Security, help="signatures")
    privacy: Insisted = section(Insisted, help="what it insists on")

    def __post_init__(self) -> None:
        _refuse_embedded(self.broker)
        refuse_places(self.broker)
        if not self.node.parent:
            raise ConfigError("is missing: a device needs a fog node above it", key="node.parent")
        if self.telemetry.targets is not None:
            raise ConfigError("a device has nobody below it", key="telemetry.targets")
        if self.serving.ask == self.node.id:
            raise ConfigError("a node does not ask itself", key="serving.ask")
        tasks = [data.task for data in self.data]
        twice = next((i for i, task in enumerate(tasks) if task in tasks[:i]), None)
        if twice is not None:
            raise ConfigError(f"there are samples for task {tasks[twice]!r} already", key=f"data.{twice}.task")


@dataclass(frozen=True, slots=True, kw_only=True)
class FogFile:
    """The file of a fog node: `edgemw fog --config fog.toml`. Without a parent it is the top."""

    schema: Literal[1] = option(1, help="version of this file's format")
    net: str = required(help="name of the federation", example='"line-3"', check=check_id)
    node: Node = required(help="who this is")
    broker: Broker = section(Broker, help="how to reach the broker")
    window: Window = section(Window, help="when it stops collecting and forwards")
    telemetry: Telemetry = section(Telemetry, help="metrics and logs")
    energy: Energy = section(Energy, help="joules")
    limits: Limits = section(Limits, help="what this node refuses")
    security: Security = section(Security, help="signatures")
    task: Task = section(Task, help="what runs; top fog only")
    plan: Plan = section(Plan, help="how devices train; top fog only")
    codec: Codec = section(Codec, help="how updates are compressed; top fog only")
    release: Release = section(Release, help="how releases travel; top fog only")
    server: Server = section(Server, help="how a merged update becomes a release; top fog only")
    privacy: Privacy = section(Privacy, help="what is promised to devices; top fog only")

    def __post_init__(self) -> None:
        _refuse_embedded(self.broker)
        refuse_places(self.broker)
        _refuse_endless_budget(self.task, self.codec, self.release)
        if self.is_top:
            check_staleness(self.codec, self.server)
            check_masks(self.privacy, self.codec)
            check_privacy(self.privacy, self.codec, self.plan)
            check_robust(self.codec, self.window, "window")
            check_window(self.privacy, self.window, "window.robust")
            return
        for name, default in TOP_ONLY.items():
            if getattr(self, name) != default():
                raise ConfigError(f"is decided by the top fog, and {self.node.id!r} has a parent", key=name)

    @property
    def is_top(self) -> bool:
        """Whether this fog has no parent, and so makes the releases."""
        return not self.node.parent


def _refuse_endless_budget(task: Task, codec: Codec, release: Release) -> None:
    """A budget of a whole run needs its end."""
    for name, spending in (("codec", codec), ("release", release)):
        if spending.budget_run is not None and not task.rounds:
            raise ConfigError("needs task.rounds: a run without end has no total", key=f"{name}.budget_run")


def _refuse_embedded(broker: Broker) -> None:
    if broker.url == EMBEDDED:
        raise ConfigError(f"{EMBEDDED!r} is for deployment files: a node connects to a broker that runs", key="broker.url")


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A deployment file: `edgemw up edgemw.toml`."""

    schema: Literal[1] = option(1, help="version of this file's format")
    name: str = required(help="name of the federation", example='"line-3"', check=check_id)
    data: Dataset | None = option(None, help="samples, dealt out to the devices")
    broker: Broker = section(Broker, help="how to reach the broker", url=EMBEDDED)
    window: Window = section(Window, help="when a fog node stops collecting and forwards")
    training: Training = section(Training, help="what training may take from a device")
    uplink: Uplink = section(Uplink, help="what a device may send about updates")
    serving: Serving = section(Serving, help="predictions")
    telemetry: Telemetry = section(Telemetry, help="metrics and logs", http="127.0.0.1:0", publish=duration("0s"))
    energy: Energy = section(Energy, help="joules", scope="process")
    limits: Limits = section(Limits, help="what nodes refuse")
    security: Security = section(Security, help="signatures")
    task: Task = section(Task, help="what runs")
    plan: Plan = section(Plan, help="how devices train")
    codec: Codec = section(Codec, help="how updates are compressed")
    release: Release = section(Release, help="how releases travel to the devices")
    server: Server = section(Server, help="how a merged update becomes a release")
    privacy: Privacy = section(Privacy, help="what is promised to devices")
    tiers: dict[str, Tier] = required(help="the tree of nodes", check=check_tier_names)

    def __post_init__(self) -> None:
        check_staleness(self.codec, self.server)
        _refuse_endless_budget(self.task, self.codec, self.release)
        check_tree(self.tiers)
        check_masks(self.privacy, self.codec)
        check_groups(self.privacy, self.tiers)
        check_privacy(self.privacy, self.codec, self.plan)
        check_members(self.codec, sum(tier.count for tier in self.tiers.values() if tier.role == "device"))
        for name, tier in self.tiers.items():
            self._check_sections(name, tier)
            if tier.role == "device":
                check_uplink(self.privacy, float(tier.uplink.max_upload), f"tiers.{name}.uplink.max_upload")
            if tier.role == "fog":
                check_reachable(self.tiers, name)
                check_robust(self.codec, tier.window, f"tiers.{name}.window")
                check_window(self.privacy, tier.window, f"tiers.{name}.window.robust")

    def _check_sections(self, name: str, tier: Tier) -> None:
        foreign = ("window",) if tier.role == "device" else ("training", "uplink", "serving")
        for key in foreign:
            if getattr(tier, key) != getattr(self, key):
                raise ConfigError(f"a {tier.role} tier has no {key}", key=f"tiers.{name}.{key}")
        if tier.role == "fog" and tier.data:
            raise ConfigError("a fog tier has no data", key=f"tiers.{name}.data")
        if tier.role == "fog" and tier.parent and tier.window.budget and not self._adds_across_releases:
            reason = "needs updates that add across releases: codec.use = 'lattice' with parameters = { steps = 'dyadic' }"
            raise ConfigError(reason, key=f"tiers.{name}.window.budget")
        if tier.role == "device" and not tier.data and self.data is None:
            raise ConfigError("its devices have no samples: add [data]", key=f"tiers.{name}")

    @property
    def _adds_across_releases(self) -> bool:
        return self.codec.use == "lattice" and self.codec.parameters.get("steps") == "dyadic"

    @property
    def top(self) -> str:
        """Name of the tier that makes the releases."""
        return next(name for name, tier in self.tiers.items() if tier.parent is None)

    @property
    def top_down(self) -> tuple[str, ...]:
        """Names of the tiers, each after its parent."""
        order = [self.top]
        for name in order:
            order += [child for child, tier in self.tiers.items() if tier.parent == name]
        return tuple(order)


Kind = Literal["deployment", "fog", "device"]
SCHEMAS: Mapping[Kind, type[Deployment | FogFile | DeviceFile]] = MappingProxyType(
    {"deployment": Deployment, "fog": FogFile, "device": DeviceFile}
)


def load_file(cls: type[T], path: Path, *, env: Mapping[str, str], overrides: Sequence[str] = ()) -> Loaded[T]:
    """Load a file of a known kind. What nobody says in it is as the profile of its class says, or else the default.

    Environment names that mean something in another kind of file are left alone.

    Raises:
        ConfigError: the file cannot be read, or what it says is refused.
    """
    text = read_text(path)

    def read(under: Sequence[Table] = ()) -> Loaded[T]:
        also = tuple(SCHEMAS.values())
        return load(cls, text, str(path), cwd=Path.cwd(), env=env, overrides=overrides, under=under, also=also)

    loaded = read()
    defaults = under_all(loaded.value, loaded.origins)
    return loaded if defaults is None else read([defaults])


def kind_of(text: str, file: str) -> Kind:
    """What a file is for: `tiers` make a deployment, else the sections that only a device or only a fog has decide.

    Raises:
        ConfigError: the text is not TOML.
    """
    document = parse_toml(text, file)
    if "tiers" in document or ("name" in document and "node" not in document):
        return "deployment"
    device, fog = ({spec.name for spec in fields(cls)} for cls in (DeviceFile, FogFile))
    node = document.get("node")
    if not document.keys() & (device ^ fog):
        return "device" if isinstance(node, dict) and "parent" in node else "fog"
    return "device" if len(document.keys() & (device - fog)) > len(document.keys() & (fog - device)) else "fog"
