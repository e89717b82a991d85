"""edgemw beside Flower: one task, one partition, the same first weights, one machine, one run. Prints JSON; a table with --text.

    python benchmarks/peer_flower.py --flower-python PATH [--peer DIR] [--seeds 0-4] [--rounds 80] [--target 0.9] [--text]
    python benchmarks/peer_flower.py --make-venv --text

Handwritten digits, MLP 64-256-128-10, eight devices with label-Dirichlet(0.3) parts, everybody in every round, SGD 0.1, batches
of 32, one epoch. Data and parts come from the peer's own common.py; a seed decides the parts and the first weights. These are of
torch's distribution, drawn from the seed as a bundle's recipe says, and the peer gets the same ones. Flower runs as that
folder's flower_legacy.py (gRPC, one process per client); edgemw runs `edgemw up` on the quickstart's tree (top, two fogs, eight
devices, mosquitto), and its devices answer predictions over HTTP all the while. Both run in one network namespace of their own,
one after the other.

What the numbers are, per device and direction, up to the first round whose model reaches the target:

    stream_bytes    both: all bytes of the TCP stream of the device's one connection, as the kernel counts them: MQTT or HTTP/2
                    with their own headers, handshakes and keep-alives, but no headers of TCP and IP. What `both` compares, the
                    two directions added. Flower: of the whole run, by the share of its rounds
    publish_bytes   edgemw: MQTT PUBLISH packets (topic, headers, payload) as the device's own link counts them
    wire_bytes      both: all that the device's connection to its broker or server carried, with 66 bytes of Ethernet, IP and
                    TCP headers for every segment sent or received, bare acknowledgements too. edgemw: the kernel's counters of
                    that connection, read when the round is reported, so some bytes of the next round are in it. Flower: its
                    own reading of the loopback, divided by direction as the kernel's counters of its clients' connections are
    loopback_bytes  both: all that crossed the loopback, divided by devices. Flower: each byte once. edgemw: each byte twice,
                    device to broker and broker to fog, on both levels of the tree, with predictions and the operator's console

peak_rss_mib is the kernel's high-water mark (VmHWM) of one device process, median and largest of eight. A round of Flower is
timed by its server, without its evaluation; a round of edgemw from release to release, with evaluation on the devices.

KAPPA and RELEASE_KAPPA were chosen by peer_choice.py on a part of the training samples, with other seeds than these.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import tomllib
import urllib.error
import urllib.request
import venv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from edgemw import __version__
from edgemw.core.bundle import read_bundle

ROOT = Path(__file__).resolve().parents[1]
QUICKSTART = ROOT / "examples" / "quickstart"
DEVICES, ALPHA, LR, BATCH, EPOCHS, FLOWER_PORT = 8, 0.3, 0.1, 32, 1, 18080
REQUIREMENTS = ("flwr==1.41.0", "torch==2.13.0", "scikit-learn", "psutil")
SEGMENT_HEADER_BYTES = 66  # Ethernet 14, IPv4 20, TCP 20 and its timestamps 12
SAMPLE_EVERY_S, ASK_EVERY_S = 0.25, 0.1
LIMIT_S = 900.0
KAPPA, RELEASE_KAPPA = 192.0, 20.0
GOALS = {
    "both": 100.0,
    "uplink": 50.0,
    "downlink": 2.0,
    "memory": 4.0,
    "round_time": 0.5,
}  # Flower's figure over edgemw's, at least

EXPORT = """
import sys
import numpy as np
from common import data, partition
x_train, x_test, y_train, y_test = data()
owner = np.empty(len(y_train), np.int64)
for device, rows in enumerate(partition(y_train, {devices}, {alpha})):
    owner[rows] = device
np.savez(
    sys.argv[1],
    x=np.concatenate([x_train, x_test]),
    y=np.concatenate([y_train, y_test]),
    client=np.concatenate([owner, np.arange(len(y_test)) % {devices}]),
    split=np.repeat(np.int8([0, 1]), [len(y_train), len(y_test)]),
)
"""
COMMON = """
import importlib.util
import numpy
spec = importlib.util.spec_from_file_location("peer_common", {common!r})
peer = importlib.util.module_from_spec(spec)
spec.loader.exec_module(peer)
globals().update((name, value) for name, value in vars(peer).items() if not name.startswith("_"))

def partition(y, n, alpha):
    return peer.partition(y, n, alpha, seed={seed})

def model():
    made, theta, start = peer.model(), numpy.load({theta0!r}), 0
    weights = peer.get_w(made)
    for number, weight in enumerate(weights):
        weights[number] = theta[start : start + weight.size].reshape(weight.shape)
        start += weight.size
    peer.set_w(made, weights)
    return made
"""
"""Stands before the peer's common.py: the same names, with the seed's parts and first weights."""


# ------------------------------------------------------------------------------------------------------------ what is watched


@dataclass(frozen=True, slots=True)
class Carried:
    """What one process sent and received over its connection: TCP payload, and segments."""

    sent_bytes: int = 0
    received_bytes: int = 0
    segments: int = 0
    segments_in: int = 0

    @property
    def up(self) -> int:
        """Bytes away from the process, with headers."""
        return self.sent_bytes + SEGMENT_HEADER_BYTES * self.segments

    @property
    def down(self) -> int:
        """Bytes to the process, with headers."""
        return self.received_bytes + SEGMENT_HEADER_BYTES * self.segments_in


@dataclass(slots=True)
class Watch:
    """Reads memory and connections of the processes below `root` that `name_of` names, until it is stopped.

    Attributes:
        port: of the broker or server; 0 while it is not known. Other connections are not counted.
        peak_rss_mib: high-water mark of resident memory by name.
        carried: what the kernel counted last, by name.
    """

    root: int
    name_of: Callable[[Sequence[str]], str]
    port: int = 0
    peak_rss_mib: dict[str, float] = field(default_factory=dict)
    carried: dict[str, Carried] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def sample(self) -> dict[str, Carried]:
        """Read once; gives the connections as they are now."""
        with self._lock:
            names = {}
            for pid in _below(self.root):
                with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended: what was read of it before stands
                    name = self.name_of(Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1])
                    if name:
                        names[pid] = name
                        self.peak_rss_mib[name] = max(self.peak_rss_mib.get(name, 0.0), _peak_mib(pid))
            if self.port:
                self.carried |= {names[pid]: carried for pid, carried in connections(self.port) if pid in names}
            return dict(self.carried)

    def memory(self) -> dict[str, float]:
        """Median and maximum over the processes."""
        values = list(self.peak_rss_mib.values())
        return {"median": round(statistics.median(values), 1), "max": round(max(values), 1)} if values else {}


def connections(port: int) -> Iterator[tuple[int, Carried]]:
    """What the kernel counted on each connection to `port`, with the process that opened it."""
    text = subprocess.run(["ss", "-tinpHO", f"dport = :{port}"], check=True, capture_output=True, text=True).stdout
    for line in text.splitlines():
        owner = re.search(r"pid=(\d+)", line)
        counts = [re.search(rf"\b{name}:(\d+)", line) for name in ("bytes_sent", "bytes_received", "segs_out", "segs_in")]
        if owner:
            yield int(owner[1]), Carried(*(int(found[1]) if found else 0 for found in counts))


def loopback_bytes() -> int:
    """Bytes that the loopback of this namespace has carried, each counted once."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, counts = line.partition(":")
        if name.strip() == "lo":
            return int(counts.split()[8])
    raise SystemExit("there is no loopback in /proc/net/dev")


@contextmanager
def repeated(action: Callable[[], object], every_s: float) -> Iterator[None]:
    """Repeat an action in a thread."""
    stop = threading.Event()

    def loop() -> None:
        while not stop.wait(every_s):
            action()

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _below(pid: int) -> Iterator[int]:
    """Process ids of the children, and of theirs."""
    with suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield int(child)
                yield from _below(int(child))


def _peak_mib(pid: int) -> float:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


# -------------------------------------------------------------------------------------------------------------------- edgemw


class Askers:
    """Predictions asked of each device in turn while it trains."""

    def __init__(self, nodes: Path) -> None:
        self._nodes, self._turn, self.answered = nodes, 0, 0
        tensor = {"name": "x", "shape": [1, 64], "datatype": "FP32", "data": [0.5] * 64}
        self._body = json.dumps({"inputs": [tensor]}).encode()

    def ask(self) -> None:
        """Ask the next device; one that has no release yet is passed over."""
        self._turn += 1
        note = self._nodes / f"device-{self._turn % DEVICES}" / "serving.address"
        try:
            url = note.read_text().strip() + "/v2/models/digits/infer"
            with urllib.request.urlopen(urllib.request.Request(url, self._body), timeout=5) as answer:
                self.answered += "outputs" in json.load(answer)
        except (OSError, urllib.error.URLError):
            return  # not there yet, or not any more


def run_edgemw(data: Path, bundle: Path, folder: Path, rounds: int, target: float) -> dict[str, Any]:
    """Run the quickstart's deployment on the peer's data and measure it."""
    out, before = folder / "edgemw", loopback_bytes()
    plan = {"plan.lr": LR, "plan.batch_size": BATCH, "plan.epochs": EPOCHS, "task.rounds": rounds}
    plan |= {"codec.kappa": KAPPA, "release.kappa": RELEASE_KAPPA}
    changes = [f"{key}={value}" for key, value in plan.items()]
    changes += ["data.partition=natural", "data.split=split", f"task.bundle={bundle}"]
    command = [sys.executable, "-m", "edgemw", "up", str(QUICKSTART / "edgemw.toml"), "--data", str(data)]
    command += ["--out", str(out), "--json"]
    command += [argument for change in changes for argument in ("--set", change)]
    history: list[tuple[dict[str, Any], list[Carried], int]] = []
    askers = Askers(out / "nodes")
    with (folder / "edgemw.log").open("w") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True)
    watch = Watch(process.pid, lambda words: Path(words[-1]).stem if "device" in words[2:5] else "")
    assert process.stdout is not None
    with repeated(watch.sample, SAMPLE_EVERY_S), repeated(askers.ask, ASK_EVERY_S), _limited(process):
        for line in process.stdout:
            watch.port = watch.port or _broker_port(out / "nodes" / "device-0.toml")
            history.append((json.loads(line), list(watch.sample().values()), loopback_bytes() - before))
    if process.wait() or not history:
        raise SystemExit(f"edgemw up ended with {process.returncode}:\n{(folder / 'edgemw.log').read_text()[-2000:]}")
    return _edgemw_figures(history, watch, askers.answered, target)


def _edgemw_figures(
    history: list[tuple[dict[str, Any], list[Carried], int]], watch: Watch, answered: int, target: float
) -> dict[str, Any]:
    summary, lines = history[-1][0], history[:-1]
    reached = next((entry for entry in lines if entry[0].get("accuracy", 0.0) >= target), None)
    times = [line["wall_s"] for line, _, _ in lines]
    figures: dict[str, Any] = {
        "version": __version__,
        "rounds": summary["rounds"],
        "accuracy": summary["accuracy"],
        "rounds_to_target": None,
        "per_device_to_target": None,
        "wall_s_per_round": round(statistics.median(b - a for a, b in pairwise(times)), 4),
        "peak_rss_mib": watch.memory(),
        "predictions_answered": answered,
        "updates": {name: summary[name] for name in ("updates_sent", "updates_counted", "updates_returned")},
    }
    if reached is not None:
        line, carried, loopback = reached
        figures["rounds_to_target"] = line["release"]
        figures["per_device_to_target"] = {
            "stream_bytes": {
                "up": sum(c.sent_bytes for c in carried) // DEVICES,
                "down": sum(c.received_bytes for c in carried) // DEVICES,
            },
            "publish_bytes": {"up": line["uplink_bytes"] // DEVICES, "down": line["downlink_bytes"] // DEVICES},
            "wire_bytes": {"up": sum(c.up for c in carried) // DEVICES, "down": sum(c.down for c in carried) // DEVICES},
            "loopback_bytes": loopback // DEVICES,
        }
    return figures


def _broker_port(node_file: Path) -> int:
    return int(tomllib.loads(node_file.read_text())["broker"]["url"].rpartition(":")[2])


# -------------------------------------------------------------------------------------------------------------------- Flower


def run_flower(python: Path, peer: Path, folder: Path, rounds: int, target: float) -> dict[str, Any]:
    """Run the peer's own script and measure it."""
    report = folder / "flower.json"
    command = [str(python), "flower_legacy.py", "--clients", DEVICES, "--rounds", rounds, "--alpha", ALPHA, "--epochs", EPOCHS]
    # "server" is what the script starts itself as, once it has a namespace; it has this one.
    command += ["--port", FLOWER_PORT, "--out", str(report), "--role", "server"]
    env = os.environ | {"FLWR_TELEMETRY_ENABLED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    with (folder / "flower.log").open("w") as log:
        process = subprocess.Popen([str(word) for word in command], cwd=peer, stdout=log, stderr=log, env=env)
    watch = Watch(process.pid, lambda words: words[-1] if "client" in words else "", port=FLOWER_PORT)
    with repeated(watch.sample, SAMPLE_EVERY_S), _limited(process):
        process.wait()
    if process.returncode or not report.exists():
        raise SystemExit(f"flower_legacy.py ended with {process.returncode}:\n{(folder / 'flower.log').read_text()[-2000:]}")
    return _flower_figures(json.loads(report.read_text()), watch, target)


def _flower_figures(report: dict[str, Any], watch: Watch, target: float) -> dict[str, Any]:
    lines, summary = report["rounds"], report["summary"]
    reached = next((number for number, line in enumerate(lines, 1) if line["acc"] >= target), None)
    figures: dict[str, Any] = {
        "version": summary["peer"],
        "rounds": len(lines),
        "accuracy": lines[-1]["acc"],
        "rounds_to_target": reached,
        "per_device_to_target": None,
        "wall_s_per_round": round(statistics.median(line["wall_s"] for line in lines), 4),
        "peak_rss_mib": watch.memory(),
        "rss_mib_by_its_own_script": round(summary["client_rss_mb_max"], 1),
    }
    if reached is not None:
        loopback = sum(line["lo_bytes"] for line in lines[:reached]) // DEVICES
        up, down = (sum(values) for values in zip(*((c.up, c.down) for c in watch.carried.values()), strict=True))
        away = round(loopback * up / (up + down))
        share = reached / len(lines) / DEVICES
        stream = [sum(values) for values in zip(*((c.sent_bytes, c.received_bytes) for c in watch.carried.values()), strict=True)]
        figures["per_device_to_target"] = {
            "stream_bytes": {"up": round(stream[0] * share), "down": round(stream[1] * share)},
            "wire_bytes": {"up": away, "down": loopback - away},
            "loopback_bytes": loopback,
        }
    return figures


@contextmanager
def _limited(process: subprocess.Popen[Any], limit_s: float = LIMIT_S) -> Iterator[None]:
    """End the process when it takes too long, and in any case at the end."""
    timer = threading.Timer(limit_s, process.terminate)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        process.terminate()
        process.wait()


# ---------------------------------------------------------------------------------------------------------------- comparison


def ratios(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """Flower's figure over edgemw's, whether the goal is met; null where one of them did not reach the target."""
    values: dict[str, float | None] = {
        "memory": theirs["peak_rss_mib"]["median"] / ours["peak_rss_mib"]["median"],
        "round_time": theirs["wall_s_per_round"] / ours["wall_s_per_round"],
        "rounds_to_target": None,
    }
    a, b = ours["per_device_to_target"], theirs["per_device_to_target"]
    for direction, name in (("up", "uplink"), ("down", "downlink")):
        values[name] = b["wire_bytes"][direction] / a["wire_bytes"][direction] if a and b else None
        values[f"{name}_publish"] = b["wire_bytes"][direction] / a["publish_bytes"][direction] if a and b else None
    values["both"] = sum(b["stream_bytes"].values()) / sum(a["stream_bytes"].values()) if a and b else None
    values["loopback"] = b["loopback_bytes"] / a["loopback_bytes"] if a and b else None
    if a and b:
        values["rounds_to_target"] = theirs["rounds_to_target"] / ours["rounds_to_target"]
    return {
        name: {"flower_over_edgemw": None if value is None else round(value, 3)}
        | ({"goal": GOALS[name], "met": value is not None and value >= GOALS[name]} if name in GOALS else {})
        for name, value in values.items()
    }


def machine() -> dict[str, Any]:
    """Where this was measured."""
    model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    return {
        "cpu": model[1] if model else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_before": [round(value, 2) for value in os.getloadavg()],
    }


def table(report: dict[str, Any]) -> str:
    """The report for people: a table for each seed, and the ratios of all."""
    tables = [f"seed {run['seed']}\n{_table(run, report['target'])}" for run in report["runs"]]
    lines = [f"{'flower over edgemw, all seeds':<34}{'median':>12}{'worst':>12}  goal"]
    for name, value in report["ratios"].items():
        goal = f"at least {value['goal']:g}: {'met' if value['met'] else 'missed'}" if "goal" in value else ""
        lines.append(f"{name:<34}{_cell(value['median']):>12}{_cell(value['worst']):>12}  {goal}".rstrip())
    return "\n\n".join([*tables, "\n".join(lines), f"load before {report['machine']['load_before']}"])


def _table(report: dict[str, Any], target: float) -> str:
    ours, theirs = report["edgemw"], report["flower"]
    rows = [("accuracy after all rounds", ours["accuracy"], theirs["accuracy"], "")]
    rows += [(f"rounds to {target}", ours["rounds_to_target"], theirs["rounds_to_target"], "rounds_to_target")]
    a, b = ours["per_device_to_target"], theirs["per_device_to_target"]
    if a and b:
        for direction in ("up", "down"):
            rows.append((f"{direction}, stream bytes per device", a["stream_bytes"][direction], b["stream_bytes"][direction], ""))
        rows.append(("both directions", sum(a["stream_bytes"].values()), sum(b["stream_bytes"].values()), "both"))
        for direction, name in (("up", "uplink"), ("down", "downlink")):
            rows.append((f"{name}, wire bytes per device", a["wire_bytes"][direction], b["wire_bytes"][direction], name))
            rows.append((f"{name}, MQTT PUBLISH bytes", a["publish_bytes"][direction], "-", f"{name}_publish"))
        rows.append(("loopback bytes per device", a["loopback_bytes"], b["loopback_bytes"], "loopback"))
    rows.append(("seconds per round, median", ours["wall_s_per_round"], theirs["wall_s_per_round"], "round_time"))
    rows.append(("peak MiB of a device, median", ours["peak_rss_mib"]["median"], theirs["peak_rss_mib"]["median"], "memory"))
    lines = [f"{'':<34}{'edgemw':>12}{'flower':>12}{'ratio':>9}  goal"]
    for label, mine, other, name in rows:
        ratio = report["ratios"].get(name, {})
        value = ratio.get("flower_over_edgemw")
        goal = f"at least {ratio['goal']:g}: {'met' if ratio['met'] else 'missed'}" if "goal" in ratio else ""
        lines.append(f"{label:<34}{_cell(mine):>12}{_cell(other):>12}{_cell(value):>9}  {goal}".rstrip())
    lines.append(f"{ours['predictions_answered']} predictions answered while training")
    return "\n".join(lines)


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "-" if value is None else str(value)


# ---------------------------------------------------------------------------------------------------------------------- main


def main() -> None:
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that what was started is ended
    with tempfile.TemporaryDirectory(prefix="peer-flower-") as name:
        if not arguments.inside:
            python = _make_venv(Path(name)) if arguments.make_venv else arguments.flower_python
            sys.exit(_inside(python, len(arguments.seeds)))
        report = compare(arguments, Path(name))
    print(table(report) if arguments.text else json.dumps(report, indent=1))


def compare(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run both sides, one after the other, with every seed."""
    report: dict[str, Any] = {
        "target": arguments.target,
        "devices": DEVICES,
        "kappa": [KAPPA, RELEASE_KAPPA],
        "machine": machine(),
    }
    report["runs"] = []
    for seed in arguments.seeds:
        place = folder / f"seed-{seed}"
        place.mkdir()
        report["runs"].append(_run(arguments, place, seed))
        print(f"seed {seed}: {json.dumps(report['runs'][-1]['ratios'].get('both'))}", file=sys.stderr, flush=True)
    report["ratios"] = _over_seeds([run["ratios"] for run in report["runs"]])
    return report


def _run(arguments: argparse.Namespace, folder: Path, seed: int) -> dict[str, Any]:
    python, data, bundle, peer = arguments.flower_python, folder / "digits.npz", folder / "digits.edge", folder / "peer"
    seeded = read_bundle((QUICKSTART / "digits.edge").read_bytes()).reseeded(seed)
    bundle.write_bytes(seeded.to_bytes())
    np.save(folder / "theta0.npy", seeded.theta0)
    peer.mkdir()
    shutil.copy(arguments.peer / "flower_legacy.py", peer)
    common = COMMON.format(common=str(arguments.peer / "common.py"), seed=seed, theta0=str(folder / "theta0.npy"))
    (peer / "common.py").write_text(common)
    export = [str(python), "-c", EXPORT.format(devices=DEVICES, alpha=ALPHA), str(data)]
    subprocess.run(export, check=True, env=os.environ | {"PYTHONPATH": str(peer), "PYTHONDONTWRITEBYTECODE": "1"})
    theirs = run_flower(python, peer, folder, arguments.rounds, arguments.target)
    ours = run_edgemw(data, bundle, folder, arguments.rounds, arguments.target)
    return {"seed": seed, "flower": theirs, "edgemw": ours, "ratios": ratios(ours, theirs)}


def _over_seeds(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Median and worst of each ratio; a seed that did not reach the target counts as 0."""
    summary: dict[str, Any] = {}
    for name in runs[0]:
        values = [run[name]["flower_over_edgemw"] or 0.0 for run in runs]
        summary[name] = {"median": round(statistics.median(values), 3), "worst": min(values)}
        if name in GOALS:
            summary[name] |= {"goal": GOALS[name], "met": min(values) >= GOALS[name]}
    return summary


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peer", type=Path, default=ROOT.parent / "shared/peers/flower", help="folder of the peer's scripts")
    python = parser.add_mutually_exclusive_group(required=True)
    python.add_argument("--flower-python", type=Path, help=f"a Python that has {' '.join(REQUIREMENTS)}")
    python.add_argument("--make-venv", action="store_true", help="make one in a temporary folder (1.3 GB)")
    parser.add_argument("--seeds", type=_span, default=range(1), help="one number, or the first and the last: 0-4 (default 0)")
    parser.add_argument("--rounds", type=int, default=80, help="rounds of either side (default 80)")
    parser.add_argument("--target", type=float, default=0.9, help="test accuracy to reach (default 0.9)")
    parser.add_argument("--text", action="store_true", help="a table instead of JSON")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.peer = arguments.peer.resolve()
    if not (arguments.peer / "flower_legacy.py").exists():
        parser.error(f"{arguments.peer} has no flower_legacy.py: give the folder with --peer")
    return arguments


def _span(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def _inside(python: Path, seeds: int) -> int:
    """Run this program again in a network namespace whose loopback nobody else uses."""
    words = [word for word in sys.argv[1:] if word != "--make-venv"]
    words += ["--inside"] if "--flower-python" in " ".join(words) else ["--inside", "--flower-python", str(python)]
    namespace = ["unshare", "-rn", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))}
    process = subprocess.Popen([*namespace, sys.executable, str(Path(__file__)), *words], env=env)
    with _limited(process, (2 + 2 * seeds) * LIMIT_S):
        return process.wait()


def _make_venv(folder: Path) -> Path:
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", *REQUIREMENTS], check=True, stdout=sys.stderr)
    return python


if __name__ == "__main__":
    main()
