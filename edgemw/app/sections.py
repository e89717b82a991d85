"""The sections of configuration files: one dataclass is one table.

Types, bounds and help stand at the field and nowhere else; `docs/configuration.md` is checked against them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from edgemw.app.checks import (
    AUTO,
    check_address,
    check_data_path,
    check_entry_point,
    check_id,
    check_npz,
    check_optional_id,
    check_patterns,
    check_profile,
    check_url,
)
from edgemw.core.config.named import NameOrFile
from edgemw.core.config.schema import option, required, section
from edgemw.core.config.secret import Secret
from edgemw.core.config.units import Duration, Size, duration, size
from edgemw.core.errors import CodecError, ConfigError, WireError
from edgemw.core.plan import LIMITS
from edgemw.profiles.device import check_energy_sources
from edgemw.robust.options import fewest_for, protects, unfit

MIN_BUDGET_BYTES = 64

# ------------------------------------------------------------------------------------------------- sections of every node


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """[node]: who this is."""

    id: str = required(help="name of this node, unique in its net", example='"device-0"', check=check_id)
    parent: str | None = option(None, help="id of the fog node above; absent for the top fog", check=check_optional_id)
    state: Path = option(Path("state"), help="folder of what must survive a restart", example='"/var/lib/edgemw"')
    site: str = option("", help="where it stands: a label on its metrics", check=check_optional_id)
    profile: NameOrFile = option(
        NameOrFile(AUTO),
        help='class of devices, of `edgemw profile list`, or a .toml file of your own; auto: detected; "": unknown',
        example='"raspberry-pi-4b"',
        check=check_profile,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """[broker.tls]: certificates, in PEM files; used with mqtts://."""

    ca: Path | None = option(None, help="authorities that may sign the broker's certificate; absent: the system's")
    cert: Path | None = option(None, help="this node's certificate; in a deployment file {node} stands for the node's id")
    key: Path | None = option(None, help="this node's private key; {node} as in cert")

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            present, absent = ("key", "cert") if self.cert is None else ("cert", "key")
            raise ConfigError(f"is given without tls.{absent}: a certificate and its key go together", key=present)


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """[broker]: how to reach it."""

    url: str = option(
        "mqtt://127.0.0.1:1883",
        help="mqtt://HOST:PORT or mqtts://HOST:PORT; those of a cluster with commas between, to go on with another server "
        'where one is lost; "embedded" (deployment files only) starts one',
        example='"mqtts://broker.example:8883"',
        check=check_url,
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

    http: str = option("127.0.0.1:9108", help='address of /metrics; port 0: any free one; "": off', check=check_address)
    advertise: str = option(
        "", help='"HOST:PORT" by which Prometheus reaches /metrics; "": it does not, and asks the parent', check=check_address
    )
    publish: Duration = option(
        duration("15s"), help="time between two messages to the parent about this node and its machine; 0s: none", min=0, max=3600
    )
    targets: Path | None = option(None, help="fog: a .json file that lists the children that advertise, for file_sd")
    log: Literal["debug", "info", "warning", "error"] = option("info", help="least severe message that is logged")
    log_format: Literal["text", "json"] = option("text", help="one line of text or one JSON object per message")

    def __post_init__(self) -> None:
        if 0 < float(self.publish) < 1:
            raise ConfigError("must be at least 1s, or 0s for none", key="publish")
        if self.advertise and not self.http:
            raise ConfigError("is given without telemetry.http: there is nothing to reach", key="advertise")
        if self.advertise and not float(self.publish):
            raise ConfigError("is told with the readings: telemetry.publish must not be 0s", key="advertise")


@dataclass(frozen=True, slots=True, kw_only=True)
class Energy:
    """[energy]: joules of this node."""

    scope: Literal["machine", "process"] = option(
        "machine",
        help="machine: all that this machine takes; process: other nodes run on it, and only what this one takes is counted",
    )
    sources: tuple[str, ...] = option(
        (),
        help="where joules are known from, the first that answers; none: those of the profile",
        example='["hwmon", "model"]',
        check=check_energy_sources,
    )
    interval: Duration = option(duration("1s"), help="time between two looks; 0s: energy is not looked at", min=0, max=60)
    budget: float = option(0.0, help="watts, mean of an hour, above which an alert is raised; 0: none", min=0)
    sysfs: Path = option(Path("/sys"), help="where the kernel shows its sensors; a container may see the host's elsewhere")
    procfs: Path = option(Path("/proc"), help="where it shows what machine this is")

    def __post_init__(self) -> None:
        if 0 < float(self.interval) < 0.1:
            raise ConfigError("must be at least 100ms, or 0s for none", key="interval")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """[limits]: what this node refuses, so that no peer can fill its memory."""

    max_message_bytes: Size = option(
        size("120kB"), help="payload bytes of one chunk: larger payloads travel in chunks", min=1024, max=1 << 20
    )
    max_update_bytes: Size = option(size("64MiB"), help="largest encoded update that it takes or makes", min=1024, max=1 << 31)
    max_release_bytes: Size = option(size("1GiB"), help="largest release that it takes or makes", min=1024, max=1 << 32)
    max_children: int = option(1000, help="children that a fog node takes", min=1, max=100_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Security:
    """[security]: signatures, Ed25519; needs pip install 'edgemw[security]'. In a deployment {node} in a path is a node's id."""

    key: Secret | None = option(
        None,
        help="private key that this node signs its updates with, a top its releases and bundles; PEM",
        example='{ file = "pki/nodes/{node}/sign.key" }',
    )
    certificate: Path | None = option(
        None, help="certificate of that key, by which a parent knows whose it is; PEM", example='"pki/nodes/{node}/sign.pem"'
    )
    ca: Path | None = option(
        None, help="its certificate, PEM. fog: updates are taken only where children whom this authority names have signed them"
    )
    crl: Path | None = option(
        None,
        help="revoked certificates of the authority, of children and release keys: a list, PEM; a new one holds within seconds",
    )
    release_key: tuple[Path, ...] = option(
        (),
        help="only releases and bundles that one of these keys has signed are taken; a top asks it of bundles that are proposed. "
        "Public keys or certificates, PEM",
        example='["pki/nodes/top/sign.pem"]',
    )
    evidence: Size = option(
        size("0B"),
        help="fog: bytes of signed updates of the last windows that are kept for `edgemw audit --ca`; 0: none",
        min=0,
        max=1 << 40,
        example='"64MiB"',
    )

    def __post_init__(self) -> None:
        if (self.key is None) != (self.certificate is None):
            present, absent = ("key", "certificate") if self.certificate is None else ("certificate", "key")
            raise ConfigError(f"is given without security.{absent}: a key and its certificate go together", key=present)
        for name in ("crl", "evidence"):
            if getattr(self, name) and self.ca is None:
                raise ConfigError("is given without security.ca: nobody's signature is asked for", key=name)


# --------------------------------------------------------------------------------------------------- sections of a device


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """[[data]]: samples for training; one table per task."""

    task: str = option("", help="name of the task that these samples are for; empty: any", check=check_optional_id)
    path: Path | None = option(None, help="an .npz, .csv or .parquet file", check=check_data_path)
    use: str = option(
        "", help="instead of a file, a Python function that gives (x, y)", check=check_entry_point, example='"pkg.mod:load"'
    )
    x: str | tuple[str, ...] = option("x", help="array or columns of the input")
    y: str | tuple[str, ...] = option("y", help="array or columns of the target")
    select: dict[str, int | float | str] = option(
        {}, help="keep the samples whose column has this value", example="{ client = 3 }"
    )
    split: str = option("", help="column that tells training from test samples; empty: test_fraction decides")
    train: int | str = option(0, help="value of the split column for training samples")
    test: int | str = option(1, help="value of the split column for test samples")
    test_fraction: float = option(
        0.2,
        help="chance of a sample to be kept for testing, where there is no split column; the sample itself decides",
        min=0,
        below=1,
    )

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
class Uplink:
    """[uplink]: what a device may send about updates. In any window of time T that is at most burst + rate * T bytes."""

    rate: Size = option(
        size("0B"),
        help="bytes per second for updates, repeats included; without tokens it waits and does not train; 0: no limit",
        min=0,
        max=1 << 40,
        example='"2kB"',
    )
    burst: Size = option(
        size("12kB"), help="most bytes at once after a pause, where there is a rate; no update is larger", min=2048, max=1 << 31
    )
    max_upload: Duration = option(
        duration("0s"),
        help="updates of the lattice codec are made as coarse as it takes to arrive in this time; 0: no limit",
        min=0,
        max=30 * 86400,
        example='"1s"',
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """[serving]: predictions."""

    http: str = option(
        "127.0.0.1:0", help='address of the prediction service; port 0: any free one; "": off', check=check_address
    )
    process: bool = option(
        False, help="the service is a process of its own, which also goes on when this one dies; about 60 MiB more"
    )
    keep: int = option(3, help="releases kept on disk", min=1, max=1000)
    guard: Literal["", "accuracy", "cross_entropy", "mse", "mae"] = option(
        "", help="metric of which a release must not be worse, on held-out samples, than the one that is served; empty: none"
    )
    guard_tolerance: float = option(
        0.02, help="how much worse it may be: so much less accuracy, or of another metric such a share more", min=0, max=10
    )
    canary: float = option(0.0, help="share of the requests that a new release answers first; 0: all at once", min=0, max=0.99)
    canary_for: Duration = option(
        duration("10m"), help="how long, before it answers all; a failure ends it", above=0, max=30 * 86400
    )
    mqtt: bool = option(False, help="questions are answered over MQTT too, under the name of this node")
    ask: str = option(
        "",
        help="node of another prediction service, with a larger model, asked over MQTT where own predictions are not sure",
        check=check_optional_id,
    )
    ask_below: float = option(
        0.6,
        help="probability of its class under which a prediction is not sure; 0: ask only while there is no release",
        min=0,
        max=1,
    )
    ask_deadline: Duration = option(duration("100ms"), help="for its answer; after that the own one is sent", above=0, max=60)
    queue: int = option(
        64, help="requests to a slow model (above a millisecond) that may wait; one more is refused", min=1, max=65536
    )
    batch_latency: Duration = option(
        duration("20ms"),
        help="requests that wait are computed together where that pays, as long as it takes no longer; 0s: one at a time",
        min=0,
        max=60,
    )
    int8: bool = option(
        False,
        help="releases are quantised, and served so where they are as good on held-out samples; needs pip install 'edgemw[int8]'",
    )
    int8_tolerance: float = option(
        0.01,
        help="how much worse int8 may be, said as guard_tolerance, by guard or else by the task's first metric",
        min=0,
        max=10,
    )

    def __post_init__(self) -> None:
        if self.process and not self.http:
            raise ConfigError("a process of its own has an HTTP door: give serving.http an address", key="process")


@dataclass(frozen=True, slots=True, kw_only=True)
class Insisted:
    """[privacy] of a device: what it insists on, whatever a release asks for."""

    least_noise: float = option(
        0.0,
        help="device: it trains only where its updates get noise of its own, of at least this multiple of their bound "
        '(privacy.mode = "local" at the top), and sends no measure of held-out samples; 0: as releases say',
        min=0,
        max=1e6,
    )
    unit: Literal["device", "sample"] = option(
        "device",
        help="device: what least_noise protects. sample: it trains also where noise is for single samples (privacy.unit, top)",
    )
    require_masks: bool = option(
        False, help="device: it sends nothing to a fog node that asks for updates without masks (privacy.masks at the top)"
    )


# ------------------------------------------------------------------------------------------------------ sections of a fog


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """[window]: when a fog node stops collecting and forwards."""

    k: int | Literal["all"] = option(
        "all", help="updates that close the window; all: one from every child", min=1, example='"all" or 10'
    )
    deadline: Duration = option(
        duration("30s"),
        help="this long after its first update a window closes if it holds quorum updates",
        above=0,
        max=30 * 86400,
    )
    quorum: int = option(1, help="fewest updates that the deadline closes a window with, while somebody has not answered", min=1)
    children: int = option(
        0,
        help="children that are expected to appear; 0: unknown. Until the deadline a window with k = all waits for those "
        "that have not appeared yet",
        min=0,
    )
    budget: Size = option(
        size("0B"),
        help="largest payload that this node sends up, where it has a parent; what does not fit waits for its next window. "
        'It needs codec.parameters = { steps = "dyadic" }; 0: no limit',
        min=0,
        max=1 << 31,
    )
    max_staleness: int = option(4, help="releases that an update may be behind before it is given back", min=0, max=1 << 20)
    robust: Literal["", "norm", "krum", "median", "trimmed"] = option(
        "",
        help="how it is merged where children may lie: norm: what is longer than that of others is thinned out; krum: what is "
        "far from others is left out; median, trimmed: of every coordinate, for codec dense; empty: all is added",
    )
    robust_bound: float = option(
        1.5, help="how many times as much as the median child one child may bring, where robust is on", min=1, max=1000
    )
    robust_share: float = option(0.2, help="part of the children that may lie, for robust = krum and trimmed", above=0, max=0.45)

    def __post_init__(self) -> None:
        self._check_robust()
        if 0 < self.budget < MIN_BUDGET_BYTES:
            raise ConfigError(f"is less than any payload needs: give {MIN_BUDGET_BYTES} bytes or more", key="budget")
        if isinstance(self.k, int) and self.quorum > self.k:
            raise ConfigError(f"{self.quorum} is never needed: the window closes at k = {self.k}", key="quorum")

    def _check_robust(self) -> None:
        if self.robust_bound != 1.5 and not self.robust:
            raise ConfigError("is given without window.robust: there is nothing to bound", key="robust_bound")
        if self.robust_share != 0.2 and self.robust not in ("krum", "trimmed"):
            raise ConfigError("is for robust = krum and trimmed", key="robust_share")
        if isinstance(self.k, int):
            check_enough(self, self.k, "robust", f"the window closes at k = {self.k}")


def check_enough(window: Window, children: int, key: str, why: str) -> None:
    """Refuse robust merging of windows that are too small for it; `why` says how large they are."""
    if window.robust and not protects(window.robust, children, window.robust_share):
        fewest = fewest_for(window.robust, window.robust_share)
        enough = f"{fewest} children or more"
        if window.robust in ("krum", "trimmed"):
            enough = f"{fewest} children, say, where {window.robust_share:g} of them may lie"
        raise ConfigError(f"{window.robust} protects windows of {enough}, and {why}", key=key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """[task]: what the top fog runs."""

    bundle: Path | None = option(None, help="task bundle (.edge) published at start; absent: published later")
    rounds: int = option(60, help="releases after which it stops; what is late for the last one is returned; 0: never", min=0)
    target: float = option(0.0, help="stop when the first metric reaches this; 0: off")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """[plan]: how devices train; what is absent is as the bundle says."""

    optimizer: Literal["sgd", "adam"] | None = option(None, help="local optimizer")
    lr: float | None = option(None, help="local learning rate", above=0)
    momentum: float | None = option(None, help="momentum of sgd", min=0, below=1)
    weight_decay: float | None = option(None, help="weight decay", min=0)
    prox_mu: float | None = option(None, help="weight of the FedProx term; 0: off", min=0)
    epochs: int | None = option(None, help="passes over the local samples", min=1, max=LIMITS["epochs"][1])
    steps: int | None = option(None, help="batches per update instead of epochs; 0: whole epochs", min=0, max=LIMITS["steps"][1])
    batch_size: int | None = option(None, help="samples in a batch", min=1, max=LIMITS["batch_size"][1])
    clip: float | None = option(None, help="largest norm of a gradient; 0: off", min=0)
    personal: tuple[str, ...] | None = option(
        None,
        help="tensors that every device trains for itself and never sends, by name; * stands for anything",
        example='["head.*"]',
        check=check_patterns,
    )
    frozen: tuple[str, ...] | None = option(
        None, help="tensors that stay as the release says: neither trained nor sent", example='["embed.*"]', check=check_patterns
    )
    rare: tuple[str, ...] | None = option(
        None,
        help="tensors that are trained always and sent from every rare_every-th release only",
        example='["embed.*"]',
        check=check_patterns,
    )
    rare_every: int | None = option(
        None, help="releases between those that rare tensors are sent from", min=1, max=LIMITS["rare_every"][1]
    )

    def changes(self) -> dict[str, int | float | str]:
        """What is given, as the release says it: several patterns in one text."""
        given = {spec.name: getattr(self, spec.name) for spec in fields(self)}
        return {
            name: " ".join(value) if isinstance(value, tuple) else value for name, value in given.items() if value is not None
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Codec:
    """[codec]: how updates are compressed."""

    use: str = option(
        "lattice",
        help="lattice: integers, exactly mergeable; lanes: integers of a fixed width, for masks; dense: floats; topk, qsgd, "
        "signsgd, powersgd: for comparison; or the name of an installed codec",
    )
    kappa: float = option(
        16.0, help="lattice step in root mean squares of what training moves; larger is fewer bytes", above=0, max=1000
    )
    parameters: dict[str, int | float | str] = option(
        {}, help="parameters of the codec by name", example='{ k = 0.01 }, { coder = "golomb" }, { steps = "dyadic" }'
    )
    budget_round: Size | None = option(
        None, help="bytes that a device may send in a round, on average: kappa follows it", min=1, example='"1.5kB"'
    )
    budget_run: Size | None = option(
        None, help="bytes that a device may send in the whole run: kappa follows it", min=1, example='"60kB"'
    )

    def __post_init__(self) -> None:
        from edgemw.compression.table import codec_named  # numpy is loaded by who has a codec

        try:
            stepped = codec_named(self.use, **self.parameters).stepped
        except WireError as error:
            raise ConfigError(error.detail, key="use") from error
        except CodecError as error:
            raise ConfigError(str(error), key="parameters" if self.parameters else "use") from error
        if self.use == "lattice" and "kappa" in self.parameters:  # there it is for releases without a step alone
            raise ConfigError("kappa is a key of its own, codec.kappa: give it there", key="parameters")
        _check_budgets(self.budget_round, self.budget_run, "" if stepped else f"{self.use} has no step that could follow it")


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """[release]: how releases travel to the devices."""

    use: Literal["lattice", "dense"] = option(
        "lattice", help="lattice: the difference to the release before, in integers; dense: all of it, as float32"
    )
    kappa: float = option(2.0, help="lattice step in root mean squares of what the server step moves", above=0, max=64)
    budget_round: Size | None = option(
        None, help="bytes of a release for a device, on average: the step follows it", min=1, example='"2kB"'
    )
    budget_run: Size | None = option(
        None, help="bytes of all releases of a run for a device: the step follows it", min=1, example='"80kB"'
    )

    def __post_init__(self) -> None:
        _check_budgets(self.budget_round, self.budget_run, "" if self.use == "lattice" else f"{self.use} is always as large")


def _check_budgets(budget_round: Size | None, budget_run: Size | None, unfit: str) -> None:
    """Refuse two budgets, and one that nothing can follow; `unfit` says why."""
    given = [name for name, value in (("budget_round", budget_round), ("budget_run", budget_run)) if value is not None]
    if len(given) == 2:
        raise ConfigError("is given beside budget_round: one of them is enough", key="budget_run")
    if given and unfit:
        raise ConfigError(unfit, key=given[0])


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Privacy:
    """[privacy]: what releases, and updates, tell of a device's samples; see docs/security-privacy.md, security-masks.md."""

    mode: Literal["", "central", "local"] = option(
        "",
        help="differential privacy of devices. central: the top adds noise to sums, and sees what it sums; local: devices add "
        "it, and nobody sees more. Needs pip install 'edgemw[privacy]' at the top; empty: none",
    )
    unit: Literal["device", "sample"] = option(
        "device",
        help="who is protected. device: all samples of one; sample: any one of them, for small models and fleets: an update is "
        "one step, a sum over samples of which each has the bound",
    )
    clip: float = option(
        1.0,
        help="largest norm of an update, or of what one sample adds to it (unit); all devices weigh the same",
        min=1e-25,
        max=1e6,
    )
    noise: float = option(1.0, help="deviation of the noise of every parameter, as a multiple of clip", min=1e-6, max=1e6)
    delta: float = option(1e-5, help="epsilon is said at this delta; less than one over the number of devices", above=0, below=1)
    epsilon: float = option(0.0, help="no release is made that would exceed this; 0: no limit", min=0)
    kappa: float = option(
        0.5, help="lattice step of updates in root mean squares of one at the bound; larger is fewer bytes", min=0.05, max=16
    )
    masks: bool = option(
        False,
        help="a fog node sees the sum of its devices' updates and no single one; needs codec.use = 'lanes', 3 to 128 devices to "
        "each such node, and pip install 'edgemw[security]'",
    )
    threshold: int = option(
        67, help="percent of a group of devices, and more than half, whose answers take the masks off its sum", min=51, max=100
    )


def check_members(codec: Codec, devices: int) -> None:
    """Refuse lanes that the sum over so many devices could wrap: it would be another sum, and nothing would tell."""
    from edgemw.compression.fixedwidth import MOST_BITS  # numpy is loaded by who has a codec
    from edgemw.compression.lanes import Lanes
    from edgemw.compression.table import codec_named

    lanes = codec_named(codec.use, **codec.parameters)
    if isinstance(lanes, Lanes) and devices > lanes.members:
        bits = max(lanes.bits, devices.bit_length() + 1)
        hint = f"give members = {devices} with bits = {bits}" if bits <= MOST_BITS else "use codec lattice"
        reason = f"lanes of {lanes.members} members would wrap in sums over {devices} devices: {hint}"
        raise ConfigError(reason, key="codec.parameters")


def check_robust(codec: Codec, window: Window, key: str) -> None:
    """Refuse robust merging that does not go with a codec; `key` is the window's."""
    reason = unfit(window.robust, codec.use)
    if reason:
        raise ConfigError(reason, key=f"{key}.robust")


def check_staleness(codec: Codec, server: Server) -> None:
    """Refuse to take late updates as they are where every fog node weighs them."""
    if codec.parameters.get("steps") == "dyadic" and server.staleness == "none":
        raise ConfigError(
            "with dyadic steps fog nodes weigh late updates on their way: leave it, or use free steps", key="server.staleness"
        )


# ---------------------------------------------------------------------------------------------- sections of a deployment


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """[data] of a deployment: one set of samples, dealt out to the devices."""

    source: Literal["", "digits"] = option("", help="a data set by name: digits is scikit-learn's")
    path: Path | None = option(None, help="instead of a name, an .npz file", check=check_npz)
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
