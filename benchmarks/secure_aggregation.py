"""What a sum under masks costs a device and its fog node, beside the same lanes without masks; and what it costs in accuracy.

Prints JSON; tables with --text, and a picture of bytes with --picture FILE.

    python benchmarks/secure_aggregation.py [--only cost,accuracy] [--devices 8,32,128] [--seeds 3] [--text] [--picture FILE]

cost      one release of one group, both halves of the protocol as they run on nodes, without a broker. Devices that drop out do
          so after their shares and before their update, which is what costs the fog node most. Lanes of 8 bits, of 9 for 128
          devices, 10 blocks, for 9610 and 66 560 parameters.
          up, down   bytes that a device says and is told, packed messages with their envelope, mean over those that stay
          plain      the same without masks: one update up, one acknowledgement down; a release is the same for both
          messages   of a device, both ways, plain: 2
          device_ms  processor time of one device for everything that masks ask for; plain_ms: for its encoding
          fog_ms     processor time of the fog node for the whole group, from keys to the sum; plain_ms: for its merge
accuracy  handwritten digits, 50 826 parameters, 8 devices below two fog nodes, dealt out evenly, 20 releases of 40 steps;
          lattice as it comes, lanes in 4 and in 10 blocks, and the former under masks: the same model, bit for bit.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgemw.bench.experiment import Request, prepare
from edgemw.bench.settings import parse_setting
from edgemw.compression.lanes import Lanes
from edgemw.compression.merge import merge
from edgemw.core.encoded import Encoded, Section
from edgemw.core.ids import Place
from edgemw.device.events import Action as DeviceAction
from edgemw.device.member import GroupMember
from edgemw.fog.events import Action as FogAction
from edgemw.fog.grouping import Grouping
from edgemw.fog.window import parts_of
from edgemw.simulation.chance import secret_of
from edgemw.simulation.learner import Learner
from edgemw.simulation.rounds import run_rounds
from edgemw.wire import topics
from edgemw.wire.messages import (
    Ack,
    Blob,
    Frame,
    Group,
    MaskKeys,
    Message,
    NoGroup,
    ReleaseManifest,
    Revealed,
    Shares,
    Unmask,
    Update,
    pack,
)
from edgemw.wire.traffic import Send, Upload

QUICKSTART = Path(__file__).resolve().parents[1] / "examples" / "quickstart" / "digits.edge"
NET, TASK, FOG, PERCENT, DEADLINE_S = "net", "digits", "fog", 67, 30.0
SIZES, DROPS = (9_610, 66_560), (0.0, 0.1, 0.3)
RELEASES = 20
LANES = "lanes:members=8:blocks=4:kappa=0.5", "lanes:members=8:blocks=10:kappa=0.5"
MASKED = f"{LANES[0]}, masks"


class Ring:
    """One group: messages are carried at once, and counted; whose code runs is whose time it is."""

    def __init__(self, devices: int, size: int) -> None:
        self.size = size
        self.codec = Lanes(bits=8 if devices <= 127 else 9, blocks=10, members=devices)
        self.names = [f"device-{n:03}" for n in range(devices)]
        self.manifest = ReleaseManifest(1, 0, bytes(16), Blob(bytes(32), 4 * size, 1024), True, "lanes", {}, 1.0, None, 4)
        self.manifest = replace(self.manifest, threshold=PERCENT)
        self.fog = Grouping(Place(NET, FOG, "", 1), TASK, DEADLINE_S)
        self.fog.begin(self.manifest)
        self.members = {name: GroupMember(Place(NET, name, FOG, 1, secret_of(name, 1)), TASK, None, ()) for name in self.names}
        self.up = dict.fromkeys(self.names, 0)
        self.down, self.messages = dict(self.up), dict(self.up)
        self.device_s = dict.fromkeys(self.names, 0.0)
        self.fog_s = 0.0

    def by_device(self, name: str, work: Callable[[], list[DeviceAction]]) -> None:
        """Let a device do something."""
        started = time.process_time()
        actions = work()
        self.device_s[name] += time.process_time() - started
        for action in actions:
            if isinstance(action, Upload):
                message = action.frame.message
                self.said(name, action.frame)
                assert isinstance(message, MaskKeys | Shares | Revealed)
                self.by_fog(partial(self.fog.on_message, action.frame, message, 0.0))

    def by_fog(self, work: Callable[[], list[FogAction]]) -> None:
        """Let the fog node do something."""
        started = time.process_time()
        actions = work()
        self.fog_s += time.process_time() - started
        for action in actions:
            if isinstance(action, Send):
                name, message = topics.parse(action.topic)["node"], action.frame.message
                self.told(name, message)
                assert isinstance(message, Group | Shares | Unmask | NoGroup)
                self.by_device(name, partial(self.members[name].on_message, FOG, message, 0.0))

    def said(self, name: str, frame: Frame) -> None:
        """Count what a device says."""
        self.up[name] += len(pack(frame))
        self.messages[name] += 1

    def told(self, name: str, message: Message) -> None:
        """Count what a device is told."""
        self.down[name] += len(pack(Frame(TASK, FOG, 1, 0, message)))
        self.messages[name] += 1


@dataclass(frozen=True, slots=True)
class Cost:
    """A row of the table; see the module."""

    devices: int
    size: int
    dropped: int
    up: float
    down: float
    plain_up: float
    plain_down: float
    messages: float
    device_ms: float
    device_plain_ms: float
    fog_ms: float
    fog_plain_ms: float


def cost(devices: int, size: int, drop: float) -> Cost:
    """One release of one group. Raises SystemExit where the sum is not that of the plain updates."""
    ring, dropped = Ring(devices, size), round(drop * devices)
    for name, member in ring.members.items():
        ring.by_device(name, partial(member.begin, ring.manifest, (), 0.0))
    for _ in range(2):
        ring.by_fog(lambda: ring.fog.look(0.0, ring.names, 0))
    staying, plain, masked, encoding = ring.names[dropped:], [], [], []
    rng = np.random.default_rng(7)
    for name in staying:
        vector = rng.normal(0, 0.5, size).astype(np.float32)
        started = time.process_time()
        section = Section(0, 100, 1, 1.0, ring.codec.encode(vector, 1.0))
        encoding.append(time.process_time() - started)
        frame = Frame(TASK, name, 1, 0, Update(1, "lanes", size, (section,), {"loss": (1.0, 1.0)}, 0))
        started = time.process_time()
        hidden = ring.members[name].masked(frame)
        ring.device_s[name] += time.process_time() - started
        ring.said(name, hidden)
        ring.told(name, Ack(1, 0))
        plain.append(frame)
        masked.append(hidden)
    ring.by_fog(lambda: ring.fog.unmask(masked, 0.0))
    if not ring.fog.solved:
        raise SystemExit(f"{devices} devices, {dropped} dropped: {ring.fog.failed}")
    total, total_s = _timed(lambda: ring.fog.sum_of(ring.codec, masked))
    expected, merge_s = _timed(lambda: merge(ring.codec, parts_of(plain)))
    if total.sections[0].payload != expected.sections[0].payload:
        raise SystemExit("the sum is another one than that of the plain updates")

    def mean(numbers: Mapping[str, float]) -> float:
        return statistics.fmean(numbers[name] for name in staying)

    return Cost(
        devices, size, dropped, mean(ring.up), mean(ring.down), statistics.mean(len(pack(frame)) for frame in plain),
        len(pack(Frame(TASK, FOG, 1, 0, Ack(1, 0)))), mean(ring.messages),
        1e3 * mean(ring.device_s), 1e3 * statistics.mean(encoding), 1e3 * (ring.fog_s + total_s), 1e3 * merge_s,
    )  # fmt: skip


def _timed(work: Callable[[], Encoded]) -> tuple[Encoded, float]:
    started = time.process_time()
    return work(), time.process_time() - started


def accuracy(seeds: int) -> Iterator[dict[str, Any]]:
    """Test accuracy of whole runs, and whether masks have changed a bit."""
    settings = tuple(map(parse_setting, ("lattice", *LANES)))
    overrides = "data.partition=iid", "plan.steps=40"
    request = Request(settings=settings, task=QUICKSTART, data="digits", rounds=RELEASES, devices=8, fogs=2, overrides=overrides)
    experiment = prepare(request, os.environ)
    options = {"lattice": experiment.options["lattice"], **{name: experiment.options[name] for name in LANES}}
    options[MASKED] = replace(experiment.options[LANES[0]], threshold=PERCENT)
    models: dict[int, bytes] = {}
    for name, chosen in options.items():
        tests, up, down, same = [], [], [], True
        for seed in range(seeds):
            shares, refused, _ = experiment.shares(seed)
            learner = Learner(experiment.oracle, shares, refused)
            run = run_rounds(experiment.tree, experiment.data, chosen, learner, seed=seed)
            tests.append(float(run.rounds[-1].metrics[experiment.metric]))
            links = [run.links[device] for device in experiment.tree.devices]
            up.append(statistics.mean(link.up.wire_bytes for link in links) / RELEASES)
            down.append(statistics.mean(link.down.wire_bytes for link in links) / RELEASES)
            if name == LANES[0]:
                models[seed] = run.theta.tobytes()
            same = same and (name != MASKED or run.theta.tobytes() == models[seed])
        if not same:
            raise SystemExit("masks have changed the model")
        deviation = statistics.stdev(tests) if seeds > 1 else 0.0
        yield {"codec": name, "test": statistics.mean(tests), "deviation": deviation} | {
            "up": statistics.mean(up), "down": statistics.mean(down)
        }  # fmt: skip


def main() -> None:
    """Run the tables that are asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="cost,accuracy", help="tables, separated by commas")
    parser.add_argument("--devices", default="8,32,128", help="sizes of groups")
    parser.add_argument("--seeds", type=int, default=3, help="of accuracy")
    parser.add_argument("--text", action="store_true", help="tables instead of JSON")
    parser.add_argument("--picture", type=Path, help="draw bytes against the size of the group")
    asked = parser.parse_args()
    rows, runs = [], []
    if "cost" in asked.only:
        sizes = [int(devices) for devices in asked.devices.split(",")]
        cost(sizes[0], SIZES[0], 0.0)  # imports, and the first use of the library
        for devices in sizes:
            for size in SIZES:
                for drop in DROPS:
                    rows.append(cost(devices, size, drop))
                    print(f"{devices} devices, {size} parameters, {rows[-1].dropped} dropped", file=sys.stderr, flush=True)
    if "accuracy" in asked.only:
        runs = [*accuracy(asked.seeds)]
    if asked.picture:
        draw(rows, asked.picture)
    if asked.text:
        print("\n".join(text(rows, runs)))
        return
    about = {"machine": platform.platform(), "load": os.getloadavg()}
    print(json.dumps(about | {"cost": [{name: getattr(r, name) for name in Cost.__slots__} for r in rows], "accuracy": runs}))


def text(rows: Sequence[Cost], runs: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Both tables."""
    if rows:
        heads = f"{'devices':>7} {'size':>6} {'gone':>4} {'up':>6} {'plain':>6} {'down':>6} {'msgs':>4}"
        yield f"{heads} {'device ms (plain)':>18} {'fog ms (plain)':>18}"
    for r in rows:
        counts = f"{r.devices:>7} {r.size:>6} {r.dropped:>4} {r.up:>6.0f} {r.plain_up:>6.0f} {r.down:>6.0f} {r.messages:>4.0f}"
        yield f"{counts} {r.device_ms:>9.1f} {f'({r.device_plain_ms:.2f})':>8} {r.fog_ms:>9.1f} {f'({r.fog_plain_ms:.2f})':>8}"
    for run in runs:
        test = f"{100 * run['test']:.1f} +- {100 * run['deviation']:.1f}"
        yield f"{run['codec']:43} {test:>13}   up {run['up']:>7.0f}   down {run['down']:>7.0f} bytes a device and release"


def draw(rows: Sequence[Cost], path: Path) -> None:
    """Bytes up and down of a device against the size of the group, without drop-outs."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(SIZES), figsize=(8, 3), sharey=True)
    for axis, size in zip(axes, SIZES, strict=True):
        chosen = [row for row in rows if row.size == size and not row.dropped]
        at = [row.devices for row in chosen]
        for label, values, style in (
            ("up, masks", [r.up for r in chosen], "o-"),
            ("up, plain", [r.plain_up for r in chosen], "o:"),
            ("down, masks", [r.down for r in chosen], "s-"),
        ):
            axis.plot(at, [value / 1000 for value in values], style, label=label)
        axis.set(title=f"{size} parameters", xlabel="devices of a group", xscale="log", xticks=at, xticklabels=at)
    axes[0].set_ylim(bottom=0)
    axes[0].set_ylabel("kB of a device and release")
    axes[0].legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
