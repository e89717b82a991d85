"""From a deployment file to the file of each of its nodes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal

from edgemw.app.settings import (
    EMBEDDED,
    Broker,
    Data,
    Deployment,
    DeviceFile,
    FogFile,
    Node,
    Telemetry,
    Tier,
    Window,
    child_counts,
    node_id,
    parent_of,
)
from edgemw.core.config import Duration, Secret, Size, duration_text, field_types, size_text
from edgemw.core.errors import ConfigError

TOP_ONLY = frozenset({"task", "plan", "codec", "server"})
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+\Z")


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


def device_ids(settings: Deployment) -> tuple[str, ...]:
    """The devices that share `[data]`, in order: part i of the samples belongs to the i-th of them."""
    return tuple(
        node_id(name, number, top=False)
        for name in settings.top_down
        if settings.tiers[name].role == "device" and not settings.tiers[name].data
        for number in range(settings.tiers[name].count)
    )


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
    index = devices = 0
    for name in settings.top_down:
        tier = settings.tiers[name]
        children = child_counts(settings.tiers, name)
        for number in range(tier.count):
            this = node_id(name, number, top=name == settings.top)
            node = Node(id=this, parent=_parent_id(settings, tier, number), state=out_dir / this, site=tier.site)
            broker = replace(tier.broker, url=broker_url) if tier.broker.url == EMBEDDED else tier.broker
            telemetry = replace(tier.telemetry, http=_nth_address(tier.telemetry.http, index, f"tiers.{name}.telemetry.http"))
            file: FogFile | DeviceFile
            if tier.role == "fog":
                window = tier.window if tier.window.children else replace(tier.window, children=children[number])
                file = _fog_file(settings, tier, node, broker, telemetry, window)
            else:
                http = _nth_address(tier.serving.http, devices, f"tiers.{name}.serving.http")
                file = DeviceFile(
                    net=settings.name,
                    node=node,
                    broker=broker,
                    data=tier.data or (_part(this, data_paths),),
                    training=tier.training,
                    serving=replace(tier.serving, http=http),
                    telemetry=telemetry,
                    limits=tier.limits,
                )
                devices += 1
            index += 1
            yield NodeSpec(this, tier.role, name, node.parent, out_dir / f"{this}.toml", file, to_toml(file))


def _fog_file(settings: Deployment, tier: Tier, node: Node, broker: Broker, telemetry: Telemetry, window: Window) -> FogFile:
    file = FogFile(net=settings.name, node=node, broker=broker, window=window, telemetry=telemetry, limits=tier.limits)
    if not file.is_top:
        return file
    return replace(file, task=settings.task, plan=settings.plan, codec=settings.codec, server=settings.server)


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


# ----------------------------------------------------------------------------------------------------------------- TOML


def to_toml(settings: FogFile | DeviceFile) -> str:
    """The text that loads as exactly these settings; what is unset (None, or an empty list) is left out."""
    skipped = frozenset() if isinstance(settings, DeviceFile) or settings.is_top else TOP_ONLY
    return "\n".join(_table(settings, (), skipped)).lstrip("\n") + "\n"


def _table(value: Any, path: tuple[str, ...], skipped: frozenset[str] = frozenset()) -> Iterator[str]:
    """The lines of a table: its own keys first, since whatever follows a header belongs to that header."""
    hints = field_types(type(value))
    items = [(spec.name, getattr(value, spec.name)) for spec in fields(value) if spec.name not in skipped]
    for name, item in items:
        if not _is_tables(item) and item not in (None, (), {}):
            yield f"{name} = {toml_value(item, hints[name])}"
    for name, item in items:
        if is_dataclass(item) and _is_tables(item):
            lines = list(_table(item, (*path, name)))
            yield from ["", f"[{'.'.join((*path, name))}]", *lines] if lines else []
        elif _is_tables(item):
            for element in item:
                yield from ["", f"[[{'.'.join((*path, name))}]]", *_table(element, (*path, name))]


def _is_tables(item: object) -> bool:
    if isinstance(item, tuple):
        return any(is_dataclass(element) for element in item)
    return is_dataclass(item) and not isinstance(item, Secret)


def toml_value(value: object, hint: Any = None) -> str:
    """One value as TOML; `hint` is its type where that decides how it is written (durations and sizes)."""
    if hint is Duration or hint is Size:
        assert isinstance(value, int | float)
        return _string(duration_text(value) if hint is Duration else size_text(int(value)))
    if isinstance(value, Secret):
        pairs = (("file", value.file), ("env", value.env), ("beside", value.beside))
        return _inline({key: text for key, text in pairs if text is not None})
    if isinstance(value, Mapping):
        return _inline(value)
    if isinstance(value, tuple):
        return f"[{', '.join(toml_value(item) for item in value)}]"
    if isinstance(value, str | Path):
        return _string(str(value))
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _inline(items: Mapping[str, object]) -> str:
    pairs = (f"{key if _BARE_KEY.match(key) else _string(key)} = {toml_value(item)}" for key, item in items.items())
    return f"{{ {', '.join(pairs)} }}"


def _string(text: str) -> str:
    """A basic string; the escapes of JSON are a part of TOML's, except that TOML escapes DEL too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
