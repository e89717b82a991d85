"""From a deployment file to the file of each of its nodes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from edgemw.app.dealing import as_its_arrays_say
from edgemw.app.places import for_node
from edgemw.app.settings import (
    EMBEDDED,
    TOP_ONLY,
    Broker,
    Data,
    Deployment,
    DeviceFile,
    FogFile,
    Node,
    Serving,
    Telemetry,
    Tier,
    kind_of,
    load_file,
    read_text,
)
from edgemw.app.tiers import child_counts, node_id, parent_of
from edgemw.core.config.loader import Loaded
from edgemw.core.config.tree import parse_toml
from edgemw.core.config.writer import toml_text
from edgemw.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """One node of a deployment: who it is, its settings, and the file that says the same.

    `path` is where the file belongs; nothing is written here.
    """

    id: str
    role: Literal["fog", "device"]
    tier: str
    parent: str | None
    path: Path
    settings: FogFile | DeviceFile
    text: str


def load_deployment(path: Path, data: Path | None, env: Mapping[str, str], overrides: Sequence[str] = ()) -> Deployment:
    """Load a deployment file, with other samples if `data` names some.

    What [data] says of a named source does not hold for other samples: there the arrays of their file decide, unless a flag
    or the environment does.

    Raises:
        ConfigError: the file cannot be read, is the file of a node, or what it says is refused.
    """
    given = [] if data is None else ["data.source=", f"data.path={data.absolute()}"]
    try:
        loaded = load_file(Deployment, path, env=env, overrides=[*given, *overrides])
    except ConfigError as error:
        kind = kind_of(read_text(path), str(path)) if error.key in ("net", "node") else "deployment"
        if kind == "deployment":
            raise
        hint = f"this is the file of a {'fog node' if kind == 'fog' else kind}: use `edgemw {kind} --config {path}`"
        raise ConfigError(hint, file=str(path)) from error
    settings = loaded.value
    if data is None or settings.data is None:
        return settings
    about_them = not parse_toml(read_text(path), str(path)).get("data", {}).get("source")
    return replace(settings, data=as_its_arrays_say(settings.data, _said(loaded, in_file=about_them)))


def _said(loaded: Loaded[Deployment], *, in_file: bool) -> frozenset[str]:
    """The keys of [data] that a flag or the environment gives, or the file."""
    origins = {key.removeprefix("data."): origin.kind for key, origin in loaded.origins.items() if key.startswith("data.")}
    return frozenset(key for key, kind in origins.items() if in_file or kind in ("flag", "environment"))


@dataclass(frozen=True, slots=True)
class Member:
    """A node of a deployment and its place in the tree; `number` is its own in its tier."""

    id: str
    role: Literal["fog", "device"]
    tier: str
    number: int
    parent: str | None


def members(settings: Deployment) -> Iterator[Member]:
    """The nodes of a deployment, each after its parent."""
    for name in settings.top_down:
        tier = settings.tiers[name]
        for number in range(tier.count):
            this = node_id(name, number, top=name == settings.top)
            yield Member(this, tier.role, name, number, _parent_id(settings, tier, number))


def device_ids(settings: Deployment) -> tuple[str, ...]:
    """The devices that share `[data]`, in order: part i of the samples belongs to the i-th of them."""
    return tuple(each.id for each in members(settings) if each.role == "device" and not settings.tiers[each.tier].data)


def expand(settings: Deployment, broker_url: str, out_dir: Path, data_paths: Mapping[str, Path]) -> tuple[NodeSpec, ...]:
    """The nodes of a deployment that runs on one machine, each after its parent.

    Args:
        broker_url: takes the place of "embedded".
        out_dir: the file of node ID is `out_dir/ID.toml`, its state folder `out_dir/ID`.
        data_paths: for each of `device_ids` an .npz file with arrays x, y and split (0: training, 1: test).

    Ports other than 0 are counted up from node to node, since one machine has each of them once.

    Raises:
        ConfigError: a device has no samples, or two nodes would listen on the same port.
    """
    out_dir = out_dir.absolute()
    specs = tuple(_specs(settings, broker_url, out_dir, data_paths))
    _check_ports(specs)
    return specs


def _specs(settings: Deployment, broker_url: str, out_dir: Path, data_paths: Mapping[str, Path]) -> Iterator[NodeSpec]:
    devices = 0
    children = {name: child_counts(settings.tiers, name) for name in settings.tiers}
    for index, member in enumerate(members(settings)):
        this, name, tier = member.id, member.tier, settings.tiers[member.tier]
        node = Node(id=this, parent=member.parent, state=out_dir / this, site=tier.site, profile=tier.profile)
        broker = for_node(replace(tier.broker, url=broker_url) if tier.broker.url == EMBEDDED else tier.broker, this)
        telemetry = replace(tier.telemetry, http=_nth_address(tier.telemetry.http, index, f"tiers.{name}.telemetry.http"))
        file: FogFile | DeviceFile
        if tier.role == "fog":
            file = _fog_file(settings, tier, node, broker, telemetry, children[name][member.number])
        else:
            http = _nth_address(tier.serving.http, devices, f"tiers.{name}.serving.http")
            data = tier.data or (_part(this, data_paths),)
            file = _device_file(settings, tier, node, broker, telemetry, replace(tier.serving, http=http), data)
            devices += 1
        yield NodeSpec(this, tier.role, name, node.parent, out_dir / f"{this}.toml", file, to_toml(file))


def _fog_file(settings: Deployment, tier: Tier, node: Node, broker: Broker, telemetry: Telemetry, children: int) -> FogFile:
    window = tier.window if tier.window.children else replace(tier.window, children=children)
    file = FogFile(
        net=settings.name,
        node=node,
        broker=broker,
        window=window,
        telemetry=telemetry,
        energy=tier.energy,
        limits=tier.limits,
        security=for_node(tier.security, node.id),
    )
    if not file.is_top:
        return file
    return replace(file, **{name: getattr(settings, name) for name in TOP_ONLY})


def _device_file(
    settings: Deployment,
    tier: Tier,
    node: Node,
    broker: Broker,
    telemetry: Telemetry,
    serving: Serving,
    data: tuple[Data, ...],
) -> DeviceFile:
    return DeviceFile(
        net=settings.name,
        node=node,
        broker=broker,
        data=data,
        training=tier.training,
        uplink=tier.uplink,
        serving=serving,
        telemetry=telemetry,
        energy=tier.energy,
        limits=tier.limits,
        security=for_node(tier.security, node.id),
    )


def _parent_id(settings: Deployment, tier: Tier, number: int) -> str | None:
    if tier.parent is None:
        return None
    parents = settings.tiers[tier.parent].count
    return node_id(tier.parent, parent_of(number, tier.count, parents), top=tier.parent == settings.top)


def _part(device: str, data_paths: Mapping[str, Path]) -> Data:
    if device not in data_paths:
        raise ConfigError(f"device {device!r} was given no samples", key="data")
    return Data(path=data_paths[device].absolute(), split="split")


def _nth_address(address: str, number: int, key: str) -> str:
    host, _, port = address.rpartition(":")
    if port in ("", "0"):
        return address
    if int(port) + number > 65535:
        raise ConfigError(f"there are not enough ports after {port} for every node: use port 0, any free one", key=key)
    return f"{host}:{int(port) + number}"


def _check_ports(specs: tuple[NodeSpec, ...]) -> None:
    taken: dict[str, str] = {}
    for spec in specs:
        addresses = [("telemetry.http", spec.settings.telemetry.http)]
        if isinstance(spec.settings, DeviceFile):
            addresses.append(("serving.http", spec.settings.serving.http))
        for key, address in addresses:
            port = address.rpartition(":")[2]
            if port in ("", "0"):
                continue
            if port in taken:
                raise ConfigError(f"{spec.id} and {taken[port]} would both listen on port {port}", key=f"tiers.{spec.tier}.{key}")
            taken[port] = spec.id


def to_toml(settings: FogFile | DeviceFile) -> str:
    """The text that loads as exactly these settings; a fog below the top says nothing about the task."""
    return toml_text(
        settings, without=frozenset() if isinstance(settings, DeviceFile) or settings.is_top else frozenset(TOP_ONLY)
    )
