"""The settings of a device, of a fog node and of a whole deployment: what each file may say, and what it means.

One dataclass is one table of the file. Types, bounds and help stand at the field and nowhere else; `docs/configuration.md`
is checked against them.
"""

# ruff: noqa: RUF009 - option, required and section return dataclasses.field(...): every call makes a field of its own
from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Literal, TypeVar
from urllib.parse import urlsplit

from edgemw.core.config import (
    MAX_TEXT_CHARS,
    Duration,
    Loaded,
    Secret,
    Size,
    duration,
    load,
    nearest,
    option,
    parse_toml,
    required,
    section,
    size,
)
from edgemw.core.errors import ConfigError
from edgemw.core.ids import valid_id

T = TypeVar("T")

EMBEDDED = "embedded"
DATA_SUFFIXES = (".npz", ".csv", ".parquet")
_ADDRESS = re.compile(r"(?:\[[0-9a-fA-F:]+\]|[A-Za-z0-9._-]*):(\d{1,5})\Z")
_ENTRY_POINT = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*\Z")


def _check_id(value: object) -> str:
    return "" if isinstance(value, str) and valid_id(value) else "must be 1 to 40 of a-z, 0-9 and '-'"


def _check_optional_id(value: object) -> str:
    return "" if value in ("", None) else _check_id(value)


def _check_url(value: object) -> str:
    if value == EMBEDDED:
        return ""
    try:
        url = urlsplit(str(value))
        port = url.port
    except ValueError:
        return "must be a broker address such as mqtt://host:1883"
    if url.scheme not in ("mqtt", "mqtts") or not url.hostname or port == 0 or url.path not in ("", "/"):
        return "must be a broker address such as mqtt://host:1883 or mqtts://host:8883"
    if url.username is not None or url.password is not None:
        return "must not hold a name or password: use broker.username and broker.password"
    return ""


def _check_address(value: object) -> str:
    match = _ADDRESS.match(str(value))
    return "" if value == "" or (match and int(match[1]) <= 65535) else 'must be "HOST:PORT", or "" for off'


def _check_data_path(value: object) -> str:
    return "" if value is None or str(value).endswith(DATA_SUFFIXES) else f"must end in {', '.join(DATA_SUFFIXES)}"


def _check_npz(value: object) -> str:
    return "" if value is None or str(value).endswith(".npz") else "must end in .npz"


def _check_entry_point(value: object) -> str:
    return "" if value == "" or _ENTRY_POINT.match(str(value)) else 'must be "package.module:function"'


def _check_tier_names(value: object) -> str:
    names = value if isinstance(value, Mapping) else {}
    bad = next((name for name in names if not valid_id(name)), None)
    return "" if bad is None else f"a tier's name is 1 to 40 of a-z, 0-9 and '-', not {bad!r}"


# ------------------------------------------------------------------------------------------------- sections of every node


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """[node]: who this is."""

    id: str = required(help="name of this node, unique in its net", example='"device-0"', check=_check_id)
    parent: str | None = option(None, help="id of the fog node above; absent for the top fog", check=_check_optional_id)
    state: Path = option(Path("state"), help="folder of what must survive a restart", example='"/var/lib/edgemw"')
    site: str = option("", help="where it stands: a label on its metrics", check=_check_optional_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """[broker.tls]: certificates, in PEM files; used with mqtts://."""

    ca: Path | None = option(None, help="authorities that may sign the broker's certificate; absent: the system's")
    cert: Path | None = option(None, help="this node's certificate")
    key: Path | None = option(None, help="this node's private key")

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            present, absent = ("key", "cert") if self.cert is None else ("cert", "key")
            raise ConfigError(f"is given without tls.{absent}: a certificate and its key go together", key=present)


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """[broker]: how to reach it."""

    url: str = option(
        "mqtt://127.0.0.1:1883",
        help='mqtt://HOST:PORT or mqtts://HOST:PORT; "embedded" (deployment files only) starts one',
        example='"mqtts://broker.example:8883"',
        check=_check_url,
        private=True,
    )
    username: str = option("", help="name to log in with; empty: none")
    password: Secret | None = option(None, help="password to log in with")
    keepalive: Duration = option(duration("30s"), help="a silent node is called gone after 1.5 times this", min=5, max=65535)
    protocol: Literal["auto", "3.1.1", "5"] = option("auto", help="MQTT version; auto: 5, and 3.1.1 where the broker is older")
    tls: Tls = section(Tls, help="certificates")

    def __post_init__(self) -> None:
        if self.password is not None and not self.username:
            raise ConfigError("is given without broker.username", key="password")
        for name in ("ca", "cert", "key"):
            if getattr(self.tls, name) is not None and not self.url.startswith("mqtts://"):
                raise ConfigError("certificates are used with an mqtts:// address only", key=f"tls.{name}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Telemetry:
    """[telemetry]: metrics and logs."""

    http: str = option("127.0.0.1:9108", help='address of /metrics; port 0: any free one; "": off', check=_check_address)
    log: Literal["debug", "info", "warning", "error"] = option("info", help="least severe message that is logged")
    log_format: Literal["text", "json"] = option("text", help="one line of text or one JSON object per message")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """[limits]: what this node refuses, so that no peer can fill its memory."""

    max_message_bytes: Size = option(
        size("120kB"), help="payload bytes of one chunk: larger payloads travel in chunks", min=1024, max=1 << 20
    )
    max_update_bytes: Size = option(size("64MiB"), help="largest encoded update that it takes or makes", min=1024, max=1 << 31)
    max_release_bytes: Size = option(size("1GiB"), help="largest release that it takes or makes", min=1024, max=1 << 32)
    max_children: int = option(1000, help="children that a fog node takes", min=1, max=100_000)


# --------------------------------------------------------------------------------------------------- sections of a device


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """[[data]]: samples for training; one table per task."""

    task: str = option("", help="name of the task that these samples are for; empty: any", check=_check_optional_id)
    path: Path | None = option(None, help="an .npz, .csv or .parquet file", check=_check_data_path)
    use: str = option(
        "", help="instead of a file, a Python function that gives (x, y)", check=_check_entry_point, example='"pkg.mod:load"'
    )
    x: str | tuple[str, ...] = option("x", help="array or columns of the input")
    y: str | tuple[str, ...] = option("y", help="array or columns of the target")
    select: dict[str, int | float | str] = option(
        {}, help="keep the samples whose column has this value", example="{ client = 3 }"
    )
    split: str = option("", help="column that tells training from test samples; empty: test_fraction decides")
    train: int | str = option(0, help="value of the split column for training samples")
    test: int | str = option(1, help="value of the split column for test samples")
    test_fraction: float = option(0.2, help="part of the samples kept for testing where there is no split column", min=0, below=1)

    def __post_init__(self) -> None:
        if (self.path is None) == (not self.use):
            raise ConfigError("give either a path or a function in use", key="use" if self.use else "path")
        if self.split and self.train == self.test:
            raise ConfigError("training and test samples need different values", key="test")


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """[training]: what training may take from the device."""

    threads: int = option(1, help="threads of one training step", min=1, max=256)
    nice: int = option(10, help="niceness of the training process, so that predictions go first", min=0, max=19)
    max_batch: int = option(0, help="largest batch; 0: what the plan says", min=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """[serving]: predictions."""

    http: str = option(
        "127.0.0.1:0", help='address of the prediction service; port 0: any free one; "": off', check=_check_address
    )
    keep: int = option(3, help="releases kept on disk", min=1, max=1000)


# ------------------------------------------------------------------------------------------------------ sections of a fog


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """[window]: when a fog node stops collecting and forwards."""

    k: int | Literal["all"] = option(
        "all", help="updates that close the window; all: one from every child", min=1, example='"all" or 10'
    )
    deadline: Duration = option(
        duration("30s"), help="the window closes after this if it holds quorum updates", above=0, max=30 * 86400
    )
    quorum: int = option(1, help="fewest updates that the deadline closes a window with", min=1)
    children: int = option(
        0,
        help="children that are expected to appear; 0: unknown. Until the deadline a window with k = all waits for those "
        "that have not appeared yet",
        min=0,
    )
    max_staleness: int = option(4, help="releases that an update may be behind before it is given back", min=0)

    def __post_init__(self) -> None:
        if isinstance(self.k, int) and self.quorum > self.k:
            raise ConfigError(f"{self.quorum} is never needed: the window closes at k = {self.k}", key="quorum")


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """[task]: what the top fog runs."""

    bundle: Path | None = option(None, help="task bundle (.edge) published at start; absent: published later")
    rounds: int = option(60, help="releases after which it stops; 0: without end", min=0)
    target: float = option(0.0, help="stop when the first metric reaches this; 0: off")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """[plan]: how devices train; what is absent is as the bundle says."""

    optimizer: Literal["sgd", "adam"] | None = option(None, help="local optimizer")
    lr: float | None = option(None, help="local learning rate", above=0)
    momentum: float | None = option(None, help="momentum of sgd", min=0, below=1)
    weight_decay: float | None = option(None, help="weight decay", min=0)
    prox_mu: float | None = option(None, help="weight of the FedProx term; 0: off", min=0)
    epochs: int | None = option(None, help="passes over the local samples", min=1)
    steps: int | None = option(None, help="batches per update instead of epochs; 0: whole epochs", min=0)
    batch_size: int | None = option(None, help="samples in a batch", min=1)
    clip: float | None = option(None, help="largest norm of a gradient; 0: off", min=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Codec:
    """[codec]: how updates are compressed."""

    use: Literal["lattice", "dense"] = option("lattice", help="lattice: integers, exactly mergeable; dense: floats")
    kappa: float = option(4.0, help="lattice step in root mean squares of an update", above=0, max=64)
    dtype: Literal["float32", "float16"] = option("float32", help="number format of dense")


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """[server]: how the top fog turns a merged update into a release."""

    optimizer: Literal["average", "momentum", "adam"] = option(
        "average", help="average: FedAvg; momentum: FedAvgM; adam: FedAdam"
    )
    lr: float = option(1.0, help="server learning rate", above=0)
    momentum: float = option(0.9, help="of momentum", min=0, below=1)
    beta1: float = option(0.9, help="first moment of adam", min=0, below=1)
    beta2: float = option(0.99, help="second moment of adam", min=0, below=1)
    tau: float = option(0.001, help="floor of adam's denominator", above=0)
    staleness: Literal["sqrt", "none"] = option("sqrt", help="weight of a late update: 1/sqrt(1 + releases behind), or 1")


# ------------------------------------------------------------------------------------------------------------- node files


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFile:
    """The file of a device: `edgemw device --config device.toml`."""

    schema: Literal[1] = option(1, help="version of this file's format")
    net: str = required(help="name of the federation", example='"line-3"', check=_check_id)
    node: Node = required(help="who this is")
    broker: Broker = section(Broker, help="how to reach the broker")
    data: tuple[Data, ...] = option((), help="samples for training")
    training: Training = section(Training, help="what training may take from the device")
    serving: Serving = section(Serving, help="predictions")
    telemetry: Telemetry = section(Telemetry, help="metrics and logs")
    limits: Limits = section(Limits, help="what this node refuses")

    def __post_init__(self) -> None:
        _refuse_embedded(self.broker)
        if not self.node.parent:
            raise ConfigError("is missing: a device needs a fog node above it", key="node.parent")
        tasks = [data.task for data in self.data]
        twice = next((i for i, task in enumerate(tasks) if task in tasks[:i]), None)
        if twice is not None:
            raise ConfigError(f"there are samples for task {tasks[twice]!r} already", key=f"data.{twice}.task")


@dataclass(frozen=True, slots=True, kw_only=True)
class FogFile:
    """The file of a fog node: `edgemw fog --config fog.toml`. Without a parent it is the top."""

    schema: Literal[1] = option(1, help="version of this file's format")
    net: str = required(help="name of the federation", example='"line-3"', check=_check_id)
    node: Node = required(help="who this is")
    broker: Broker = section(Broker, help="how to reach the broker")
    window: Window = section(Window, help="when it stops collecting and forwards")
    telemetry: Telemetry = section(Telemetry, help="metrics and logs")
    limits: Limits = section(Limits, help="what this node refuses")
    task: Task = section(Task, help="what runs; top fog only")
    plan: Plan = section(Plan, help="how devices train; top fog only")
    codec: Codec = section(Codec, help="how updates are compressed; top fog only")
    server: Server = section(Server, help="how a merged update becomes a release; top fog only")

    def __post_init__(self) -> None:
        _refuse_embedded(self.broker)
        if self.is_top:
            return
        for name, default in (("task", Task()), ("plan", Plan()), ("codec", Codec()), ("server", Server())):
            if getattr(self, name) != default:
                raise ConfigError(f"is decided by the top fog, and {self.node.id!r} has a parent", key=name)

    @property
    def is_top(self) -> bool:
        """Whether this fog has no parent, and so makes the releases."""
        return not self.node.parent


def _refuse_embedded(broker: Broker) -> None:
    if broker.url == EMBEDDED:
        raise ConfigError(f"{EMBEDDED!r} is for deployment files: a node connects to a broker that runs", key="broker.url")


# -------------------------------------------------------------------------------------------------------- deployment file


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """[data] of a deployment: one set of samples, dealt out to the devices."""

    source: Literal["", "digits"] = option("", help="a data set by name: digits is scikit-learn's")
    path: Path | None = option(None, help="instead of a name, an .npz file", check=_check_npz)
    x: str = option("x", help="array of the inputs")
    y: str = option("y", help="array of the targets")
    client: str = option("client", help="array that says whose each sample is; used by partition natural")
    split: str = option("", help="array that is 0 for training and 1 for test samples; empty: test_fraction decides")
    partition: Literal["iid", "dirichlet", "natural"] = option("iid", help="how samples are dealt out; natural: by client")
    alpha: float = option(0.5, help="dirichlet: smaller is more different from device to device", above=0)
    seed: int = option(0, help="decides the partition", min=0)
    min_size: int = option(8, help="fewest samples of a device", min=1)
    test_fraction: float = option(0.2, help="part of the samples kept for testing where there is no split", min=0, below=1)

    def __post_init__(self) -> None:
        if bool(self.source) == (self.path is not None):
            raise ConfigError("give either a source or a path", key="path" if self.source else "source")
        if self.source and (self.partition == "natural" or self.split):
            raise ConfigError(f"{self.source} does not have this array", key="split" if self.split else "partition")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """[tiers.NAME]: nodes of one kind. Sections say what differs from those at the top of the file."""

    role: Literal["fog", "device"] = required(help="what its nodes do")
    parent: str | None = option(None, help="name of the tier above; absent for the top")
    count: int = option(1, help="number of nodes", min=1, max=1_000_000)
    site: str = option("", help="where they stand: a label on their metrics", check=_check_optional_id)
    data: tuple[Data, ...] = option((), help="devices: their own samples instead of a part of [data]")
    broker: Broker = section(Broker, help="broker of these nodes", inherit=True, url=EMBEDDED)
    window: Window = section(Window, help="fog: window", inherit=True)
    training: Training = section(Training, help="devices: training", inherit=True)
    serving: Serving = section(Serving, help="devices: serving", inherit=True)
    telemetry: Telemetry = section(Telemetry, help="metrics and logs", inherit=True)
    limits: Limits = section(Limits, help="limits", inherit=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A deployment file: `edgemw up edgemw.toml`."""

    schema: Literal[1] = option(1, help="version of this file's format")
    name: str = required(help="name of the federation", example='"line-3"', check=_check_id)
    data: Dataset | None = option(None, help="samples, dealt out to the devices")
    broker: Broker = section(Broker, help="how to reach the broker", url=EMBEDDED)
    window: Window = section(Window, help="when a fog node stops collecting and forwards")
    training: Training = section(Training, help="what training may take from a device")
    serving: Serving = section(Serving, help="predictions")
    telemetry: Telemetry = section(Telemetry, help="metrics and logs")
    limits: Limits = section(Limits, help="what nodes refuse")
    task: Task = section(Task, help="what runs")
    plan: Plan = section(Plan, help="how devices train")
    codec: Codec = section(Codec, help="how updates are compressed")
    server: Server = section(Server, help="how a merged update becomes a release")
    tiers: dict[str, Tier] = required(help="the tree of nodes", check=_check_tier_names)

    def __post_init__(self) -> None:
        _check_tree(self.tiers)
        for name, tier in self.tiers.items():
            self._check_sections(name, tier)
            if tier.role == "fog":
                _check_reachable(self.tiers, name, tier)

    def _check_sections(self, name: str, tier: Tier) -> None:
        foreign = ("window",) if tier.role == "device" else ("training", "serving")
        for key in foreign:
            if getattr(tier, key) != getattr(self, key):
                raise ConfigError(f"a {tier.role} tier has no {key}", key=f"tiers.{name}.{key}")
        if tier.role == "fog" and tier.data:
            raise ConfigError("a fog tier has no data", key=f"tiers.{name}.data")
        if tier.role == "device" and not tier.data and self.data is None:
            raise ConfigError("its devices have no samples: add [data]", key=f"tiers.{name}")

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


def parent_of(child: int, children: int, parents: int) -> int:
    """Number of the parent of a child when children are given out in contiguous blocks whose sizes differ by at most 1."""
    return child * parents // children


def child_counts(tiers: Mapping[str, Tier], name: str) -> tuple[int, ...]:
    """How many children each node of a tier has, by number."""
    parents = tiers[name].count
    counts = [0] * parents
    for tier in tiers.values():
        if tier.parent == name:
            for parent in range(parents):
                first, after = (-(-n * tier.count // parents) for n in (parent, parent + 1))
                counts[parent] += after - first
    return tuple(counts)


def fan_in(tiers: Mapping[str, Tier], name: str) -> tuple[int, int]:
    """The fewest and the most children that a node of a tier has."""
    counts = child_counts(tiers, name)
    return min(counts), max(counts)


def _check_tree(tiers: Mapping[str, Tier]) -> None:
    tops = [name for name, tier in tiers.items() if tier.parent is None]
    if not tops:
        raise ConfigError("no tier is the top: one must have no parent", key="tiers")
    if len(tops) > 1:
        raise ConfigError(f"{tops[0]!r} is the top already; give this tier a parent", key=f"tiers.{tops[1]}")
    top = tiers[tops[0]]
    if top.role != "fog":
        raise ConfigError("the top tier is a fog", key=f"tiers.{tops[0]}.role")
    if top.count != 1:
        raise ConfigError("there is one top fog", key=f"tiers.{tops[0]}.count")
    for name, tier in tiers.items():
        _check_parent(tiers, name, tier)
    _check_ids(tiers, tops[0])


def _check_parent(tiers: Mapping[str, Tier], name: str, tier: Tier) -> None:
    key = f"tiers.{name}.parent"
    if tier.parent is None:
        return
    if tier.parent not in tiers:
        raise ConfigError(f"there is no tier {tier.parent!r}", key=key, suggestion=nearest(tier.parent, [*tiers]))
    if tiers[tier.parent].role == "device":
        raise ConfigError(f"{tier.parent!r} is a tier of devices: a parent is a fog", key=key)
    chain = [name]
    while (above := tiers[chain[-1]].parent) is not None and above in tiers:
        if above in chain:
            raise ConfigError(f"goes in a circle: {' -> '.join([*chain, above])}", key=key)
        chain.append(above)


def _check_ids(tiers: Mapping[str, Tier], top: str) -> None:
    for name, tier in tiers.items():
        longest = node_id(name, tier.count - 1, top=name == top)
        if not valid_id(longest):
            raise ConfigError(f"its node {longest!r} would have a name of more than 40 characters", key=f"tiers.{name}")
        prefix, _, number = top.rpartition("-")
        if name == prefix and number.isdecimal() and str(int(number)) == number and int(number) < tier.count:
            raise ConfigError(f"two nodes would be called {top!r}: rename this tier or the top", key=f"tiers.{name}")


def node_id(tier: str, number: int, *, top: bool) -> str:
    """Name of a node: the tier's own for the top, numbered for all others."""
    return tier if top else f"{tier}-{number}"


def _check_reachable(tiers: Mapping[str, Tier], name: str, tier: Tier) -> None:
    fewest, most = fan_in(tiers, name)
    if fewest == 0:
        reason = "no tier has it as its parent" if most == 0 else f"{tier.count} nodes for fewer children"
        raise ConfigError(f"a fog node without children would wait for ever: {reason}", key=f"tiers.{name}")
    window = tier.window
    if isinstance(window.k, int) and window.k > fewest:
        raise ConfigError(
            f"{window.k} updates never come: a node of this tier has {fewest} children", key=f"tiers.{name}.window.k"
        )
    if window.quorum > fewest:
        raise ConfigError(
            f"{window.quorum} updates never come: a node of this tier has {fewest} children", key=f"tiers.{name}.window.quorum"
        )
    if most > tier.limits.max_children:
        raise ConfigError(
            f"a node of this tier has {most} children, more than the {tier.limits.max_children} it takes",
            key=f"tiers.{name}.limits.max_children",
        )


# ----------------------------------------------------------------------------------------------------------- kind of file

Kind = Literal["deployment", "fog", "device"]
SCHEMAS: Mapping[Kind, type[Deployment | FogFile | DeviceFile]] = MappingProxyType(
    {"deployment": Deployment, "fog": FogFile, "device": DeviceFile}
)


def load_file(cls: type[T], path: Path, *, env: Mapping[str, str], overrides: Sequence[str] = ()) -> Loaded[T]:
    """Load a file of a known kind. Environment names that mean something in another kind of file are left alone.

    Raises:
        ConfigError: the file cannot be read, or what it says is refused.
    """
    return load(cls, read_text(path), str(path), env=env, overrides=overrides, also=tuple(SCHEMAS.values()))


def read_text(path: Path) -> str:
    """The text of a configuration file. Raises ConfigError when it cannot be read."""
    try:
        with path.open("rb") as stream:
            return stream.read(MAX_TEXT_CHARS + 1).decode()
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror or error}", file=str(path)) from error
    except UnicodeDecodeError as error:
        raise ConfigError("is not UTF-8 text", file=str(path)) from error


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
