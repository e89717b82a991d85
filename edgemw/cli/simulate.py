"""`edgemw simulate`: a deployment of any size in virtual time, in this process."""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgemw.app.report import PICTURE, REPORT, Accounts, Report, amount
from edgemw.app.rounds import Round
from edgemw.bench.cost import energy_of, links_of
from edgemw.bench.scenario import Scenario, scenario_of
from edgemw.cli.typed import count, count_or_none
from edgemw.core.config.units import duration, size
from edgemw.core.errors import ConfigError, EdgeError
from edgemw.simulation import fleet
from edgemw.simulation.broker import ON_THEIR_WAY, BrokerSpec
from edgemw.simulation.fleet import Conditions, Fleet, Outcome
from edgemw.simulation.links import DIRECT, LinkSpec

_RATES = {"bit": 0.125, "kbit": 125.0, "Mbit": 125e3}
_EPILOG = """The roles, windows, codecs and messages are those of production; clock, links, broker and disks are simulated, and
everything random comes from the seed: the same command ends with the same model and the same events, which their digests show,
whatever --workers is. With --train none devices only answer, for questions of scale.

A link is RATE,DELAY,LOSS: 250kbit,40ms,1% carries 250 kbit/s each way, 40 ms late, and sends 1 % of its packets twice. Devices
work for --work on average, each at its own speed (the slowest takes four times as long as the fastest), and by chance half to one
and a half of that; with --away 10m,2m they are connected for 10 and gone for 2 minutes at a time, on average.

Tiers with a profile are of that class: it gives the link of their radio and the time of a training, where --link and --work do
not, and what devices cost in joules, class by class; --profile puts all devices into one. A training is estimated as one
multiplication for each parameter and sample, and twice as many on the way back.

The broker keeps what was on its way to a device that is gone, for an hour. It drops what finds the queue of a reader full
(--queue) or is larger than its packets may be (--packet). Updates are sent again, as they are in reality; a release is not.

exit code: 0 the run came to its end, or --for passed; 1 nothing was learned, or it stood still; 2 wrong usage; 3 a file or data
was refused; 130 stopped by Ctrl-C, with what there is by then

examples:
  edgemw simulate examples/quickstart/edgemw.toml --seed 7
  edgemw simulate examples/quickstart/edgemw.toml --devices 100 --set data.partition=iid --link 250kbit,40ms,1% --work 20s
  edgemw simulate examples/quickstart/edgemw.toml --profile raspberry-pi-4b --away 10m,2m
  edgemw simulate examples/quickstart/edgemw.toml --devices 20000 --set tiers.fog.count=100 --train none --for 1h --json
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the main program."""
    parser = subparsers.add_parser(
        "simulate",
        help="run a deployment of any size in virtual time, without a broker",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("file", type=Path, metavar="FILE", help="deployment file (TOML)")
    add("--devices", metavar="N", type=count, default=0, help="devices (default: as many as the file has)")
    add("--seed", metavar="S", type=int, default=0, help="of everything random (default: 0)")
    add("--for", metavar="TIME", dest="limit", type=_seconds, default=0.0, help="virtual time, such as 6h (default: to the end)")
    add("--train", choices=("real", "none"), default="real", help="whether devices train (default: real)")
    add("--workers", metavar="W", type=count_or_none, default=0, help="processes that train beside this one (default: 0)")
    add("--link", metavar="RATE,DELAY,LOSS", type=_link, default=DIRECT, help="of every node (default: nothing takes time)")
    add("--work", metavar="TIME", type=_seconds, default=0.0, help="mean time of a training (default: none)")
    add("--profile", metavar="NAME", default="", help="class of all devices, as in `edgemw profile list`, or a file of your own")
    add(
        "--away",
        metavar="ON,OFF",
        type=_pair,
        default=(0.0, 0.0),
        help="how long devices are there and away (default: always there)",
    )
    add("--join", metavar="TIME", type=_seconds, default=0.0, help="in which devices appear, evenly (default: all at once)")
    add(
        "--queue",
        metavar="N",
        type=count_or_none,
        default=1000,
        help="messages that wait for one reader (default: 1000; 0: no limit)",
    )
    add("--packet", metavar="SIZE", type=_size, default=0, help="largest message of the broker, such as 64kB (default: no limit)")
    add("--data", type=Path, metavar="FILE.npz", help="other samples, as for `edgemw up`")
    add("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help="as for `edgemw up`")
    add("--out", type=Path, metavar="DIR", help="folder for report.json and report.png (default: none)")
    add("--json", action="store_true", help="print the summary as JSON; progress goes to standard error")
    parser.set_defaults(run=run, usage_error=parser.error)


def run(args: argparse.Namespace) -> int:
    """Simulate, print and write. Returns the exit code."""
    if args.out is not None:
        _check_folder(args.out)
    trains = args.train == "real"
    scenario = scenario_of(args.file, args.data, args.devices, os.environ, args.overrides, train=trains, profile=args.profile)
    if not (scenario.rounds or args.limit):
        args.usage_error("this deployment has no end of its own: say --for TIME, or --set task.rounds=N")
    links = links_of(scenario.groups) if args.link == DIRECT else {}
    works_s = {} if args.work else scenario.times()
    takes_time = args.link != DIRECT or args.work or any(works_s.values()) or any(link != DIRECT for link in links.values())
    if not (scenario.rounds or takes_time):
        args.usage_error("nothing takes time here, so --for would never pass: say --work TIME or --link RATE,DELAY,LOSS as well")
    on, off = args.away
    broker = BrokerSpec(args.queue + ON_THEIR_WAY if args.queue else 0, args.packet)
    conditions = Conditions(
        link=args.link,
        links=links,
        work_s=args.work,
        works_s=works_s,
        online_s=on,
        offline_s=off,
        join_s=args.join,
        broker=broker,
        uplink=scenario.uplink,
    )
    report = Report(scenario.name, scenario.metric, len(scenario.tree.devices), scenario.rounds)
    screen = _Screen(report, sys.stderr if args.json else sys.stdout)
    screen.line(f"{len(scenario.tree.devices)} devices, {len(scenario.tree.fogs) + 1} fog nodes; {scenario.how}")
    started, stopped = time.monotonic(), False
    with scenario.working(args.workers) as begin:
        net = Fleet(
            scenario.tree,
            scenario.data,
            scenario.options,
            begin,
            conditions,
            seed=args.seed,
            on_round=screen.round,
            tick=screen.tick,
        )
        try:
            with _stopped_by_ctrl_c(net) as asked:
                outcome = net.run_for(args.limit or float("inf"))
            stopped = bool(asked)
        except KeyboardInterrupt:  # the second one
            outcome, stopped = net.outcome(), True
    report.wall_s, report.finished, report.interrupted = outcome.at_s, outcome.finished, stopped
    report.accounts = _accounts(report.accounts, net, scenario)
    document = report.summary() | _about(outcome, time.monotonic() - started, args.seed) | {"dropped": dict(net.dropped)}
    energy = energy_of(net, scenario.groups, outcome.at_s)
    if energy is not None:
        document["energy"] = energy
    files = _write(args.out, report, document)
    print(json.dumps(document) if args.json else _summary(report, document, files), flush=True)
    if stopped:
        return 128 + signal.SIGINT
    learned = args.train == "none" or report.accounts.updates_counted
    return 0 if learned and (outcome.finished or args.limit) else 1


@contextmanager
def _stopped_by_ctrl_c(net: Fleet) -> Iterator[list[int]]:
    """The first Ctrl-C ends the run after the event at hand, the second one at once; yields the signals so far.

    Not by way of KeyboardInterrupt, which code that is not ours may swallow.
    """
    asked: list[int] = []

    def on_signal(number: int, frame: object) -> None:
        asked.append(number)
        if len(asked) > 1:
            raise KeyboardInterrupt
        net.stop()

    before = signal.signal(signal.SIGINT, on_signal)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)


def _about(outcome: Outcome, wall_s: float, seed: int) -> dict[str, Any]:
    return {
        "seed": seed,
        "virtual_s": round(outcome.at_s, 3),
        "real_s": round(wall_s, 3),
        "events": outcome.events,
        "events_sha256": outcome.events_digest,
        "model_sha256": outcome.model_digest,
    }


def _accounts(accounts: Accounts, net: Fleet, scenario: Scenario) -> Accounts:
    memories = [net.disks[device].memory for device in scenario.tree.devices]
    released = net.disks[scenario.tree.top].released
    return Accounts(
        updates_sent=sum(memory.updates_sent for memory in memories),
        weight_sent=sum(memory.weight_sent for memory in memories),
        updates_returned=sum(memory.updates_returned for memory in memories),
        weight_returned=sum(memory.weight_returned for memory in memories),
        updates_counted=released.totals.updates if released is not None else accounts.updates_counted,
        weight_counted=released.totals.weight if released is not None else accounts.weight_counted,
    )


def _check_folder(folder: Path) -> None:
    """Refuse, before anything is simulated, a folder that cannot be written or has something else in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        there = {path.name for path in folder.iterdir()}
        report = folder / REPORT
        own = not there or (there <= {REPORT, PICTURE} and "events_sha256" in json.loads(report.read_text()))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"{REPORT} is not one of a simulation"
        raise ConfigError(f"{folder}: {reason}: give another folder", key="--out") from error
    if not own:
        raise ConfigError(f"{folder} holds something else than an earlier simulation: give another folder", key="--out")


def _write(folder: Path | None, report: Report, document: dict[str, Any]) -> list[Path]:
    if folder is None:
        return []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = report.write(folder)
        path.write_text(json.dumps(json.loads(path.read_text()) | document, indent=1) + "\n")
        picture = report.draw(folder)
    except OSError as error:
        raise EdgeError(f"{folder}: {error.strerror}: give another folder with --out") from error
    return [path] if picture is None else [path, picture]


def _summary(report: Report, document: dict[str, Any], files: list[Path]) -> str:
    lines = [
        "",
        report.screen(files),
        f"  {'events':<18}{document['events']} in {document['real_s']:.1f} s of real time",
        f"  {'digest of events':<18}{document['events_sha256'][:32]}",
        f"  {'digest of model':<18}{document['model_sha256'][:32]}",
        *(f"  {'energy':<18}{_energy(each)}" for each in (document["energy"] or {}).get("classes", ())),
        *(f"  {'dropped':<18}{number} messages by the broker: {why}" for why, number in document["dropped"].items()),
    ]
    return "\n".join(lines)


def _energy(found: dict[str, Any]) -> str:
    of = f"{found['devices']} of {found['profile']} {found['radio']}".rstrip()
    if found["joules_per_device"] is None:
        return f"not known of {of}: {found['reason']}"
    idle, cpu, radio = (f"{found[f'{part}_joules']:.4g}" for part in ("idle", "cpu", "radio"))
    within = "" if found["uncertainty_ratio"] is None else f", within {found['uncertainty_ratio']:.0%}"
    parts = f"idle {idle}, processor {cpu}, radio {radio}"
    return f"{found['joules_per_device']:.4g} J per device ({parts}){within}: {of}"


class _Screen:
    """A line for every round; for long ones also where virtual time stands."""

    def __init__(self, report: Report, stream: Any) -> None:
        self._report, self._stream, self._told, self._head = report, stream, time.monotonic(), False

    def line(self, text: str) -> None:
        """Print."""
        print(text, file=self._stream, flush=True)
        self._told = time.monotonic()

    def tick(self, at_s: float, events: int) -> None:
        """Time has passed."""
        if time.monotonic() - self._told > 2.0:
            self.line(f"  {at_s:.1f} s of virtual time, {events} events")

    def round(self, done: fleet.Round) -> None:
        """A release was reported on."""
        report, facts = self._report, done.report.facts
        metrics = {name: float(value) for name, value in facts.items() if isinstance(value, int | float)}
        counted = (int(facts["updates_counted"]), int(facts["weight_counted"]))
        report.add(Round(done.report.release, done.at_s, metrics, done.up_bytes, done.down_bytes, *counted, done.report.late))
        if not self._head:
            self._head = True
            self.line(f"{'round':>6}{'time':>12}{report.metric:>16}{'up':>12}{'down':>12}  late")
        value = metrics.get(report.metric)
        shown = "-" if value is None else f"{value:.4f}"
        late = ", ".join(done.report.late[:3]) + (f" and {len(done.report.late) - 3} more" if len(done.report.late) > 3 else "")
        up, down = amount(done.up_bytes), amount(done.down_bytes)
        self.line(f"{done.report.release:>6}{done.at_s:>11.1f}s{shown:>16}{up:>12}{down:>12}  {late or '-'}")


# ------------------------------------------------------------------------------------------------------------------ what is typed


def _checked(text: str, read: Callable[[str], Any], what: str) -> Any:
    try:
        return read(text)
    except (ConfigError, ValueError, KeyError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}") from error


def _seconds(text: str) -> float:
    return float(_checked(text, lambda given: float(duration(given)), "a time such as 90s, 40ms or 6h"))


def _size(text: str) -> int:
    return int(_checked(text, lambda given: int(size(given)), "a size such as 64kB"))


def _pair(text: str) -> tuple[float, float]:
    on, comma, off = text.partition(",")
    if not comma or not _seconds(on) or not _seconds(off):
        raise argparse.ArgumentTypeError(f"{text!r} is not two times, such as 10m,2m")
    return _seconds(on), _seconds(off)


def _link(text: str) -> LinkSpec:
    what = "a link such as 250kbit,40ms,1%"
    rate, delay, loss = _checked(text, lambda given: _three(given.split(",")), what)
    found = re.fullmatch(r"([0-9.]+)(bit|kbit|Mbit)", rate)
    share = re.fullmatch(r"([0-9.]+)%", loss)
    if found is None or share is None or float(found[1]) <= 0 or not 0 <= float(share[1]) < 100:
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
    return LinkSpec(float(found[1]) * _RATES[found[2]], _seconds(delay), float(share[1]) / 100)


def _three(words: list[str]) -> tuple[str, str, str]:
    first, second, third = words
    return first, second, third
