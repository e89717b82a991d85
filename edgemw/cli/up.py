"""`edgemw up`: run a whole deployment on this machine."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path

from edgemw.app import folder
from edgemw.app.deployment import load_deployment
from edgemw.app.places import SECURED, identity_settings
from edgemw.app.report import REPORT, Report, amount
from edgemw.app.rounds import Round
from edgemw.app.settings import EMBEDDED, Deployment
from edgemw.app.up import prepare, run_deployment
from edgemw.app.watch import Listener

_EXAMPLES = """the first Ctrl-C finishes the round, measures and reports; the second stops at once
the same command with the same --out goes on from there

exit code: 0 finished; 1 a node could not run, or nothing was learned; 3 a file or data was refused; 4 the broker cannot be used;
130 stopped by Ctrl-C before all rounds were done

examples:
  edgemw up examples/quickstart/edgemw.toml --out run
  edgemw up examples/quickstart/edgemw.toml --set task.rounds=10 --set codec.use=dense --json
  edgemw up examples/quickstart/edgemw.toml --pki pki
"""
_DATA = """other samples: arrays x and y; with an array split, rows where it is 1 are held out for testing; with an array
client, no client's samples are shared out among devices (--set data.split= and --set data.partition=iid: not so)"""
_PKI = f"""folder of `edgemw pki`: every node shows its own certificate and signs, at {SECURED} where the file starts a broker"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the main program."""
    parser = subparsers.add_parser(
        "up",
        help="run a whole deployment on this machine",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="deployment file (TOML)")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of the run, to be made or to go on in (default: run/NAME-TIME)"
    )
    parser.add_argument("--pki", type=Path, metavar="DIR", help=_PKI)
    parser.add_argument("--data", type=Path, metavar="FILE.npz", help=_DATA)
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help="change a value of the file"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object per round, and the summary as the last line")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the deployment and print its report."""
    settings = _settings(args)
    listener = _json_listener() if args.json else Screen().listener()
    out = args.out or Path("run") / f"{settings.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    with folder.held(out):
        return _run(settings, out, listener, as_json=args.json)


def _settings(args: argparse.Namespace) -> Deployment:
    """The deployment; with --pki on a broker that runs, each node as itself, with signatures."""
    if args.pki is None:
        return load_deployment(args.file, args.data, os.environ, args.overrides)
    unsigned = [item for item in args.overrides if "security." not in item.partition("=")[0]]  # it adds to what --pki says
    settings = load_deployment(args.file, args.data, os.environ, unsigned)
    url = [f"broker.url={SECURED}"] if settings.broker.url == EMBEDDED else []
    known = identity_settings(args.pki)
    return load_deployment(args.file, args.data, os.environ, [*url, *known, *args.overrides])


def _run(settings: Deployment, out: Path, listener: Listener, *, as_json: bool) -> int:
    prepared = prepare(settings, out)
    out, report = prepared.out, prepared.report
    if prepared.longer:
        rounds = report.summary()["rounds"]
        listener.line(f"this run is finished ({rounds} rounds): give another --out, or --set {prepared.longer} to go on")
        files = [out / REPORT]
    else:
        report = run_deployment(prepared, os.environ, listener)
        files = [path for path in (report.write(out), report.draw(out)) if path is not None]
    print(json.dumps(report.summary()) if as_json else "\n" + report.screen(files), flush=True)
    return _exit_code(report)


def _exit_code(report: Report) -> int:
    if report.error is not None:
        raise report.error
    if report.interrupted:
        return 128 + signal.SIGINT
    return 0 if report.finished and not report.failed else 1


def _json_listener() -> Listener:
    def tell(kind: str, text: str) -> None:
        print(json.dumps({kind: text}), file=sys.stderr, flush=True)

    def round_(r: Round) -> None:
        line = {"release": r.release, "wall_s": round(r.wall_s, 3), **r.metrics}
        print(
            json.dumps(line | {"uplink_bytes": r.uplink_bytes, "downlink_bytes": r.downlink_bytes, "late": list(r.late)}),
            flush=True,
        )

    return Listener(lambda text: tell("event", text), round_, lambda text: tell("waiting", text))


class Screen:
    """Progress for people: a line per round, and on a terminal a line below that comes and goes."""

    def __init__(self) -> None:
        self._live = sys.stdout.isatty()
        self._columns: list[str] | None = None  # metrics in the head that was printed

    def listener(self) -> Listener:
        """Who is to be told of a run that is to be shown."""
        return Listener(self._line, self._round, self._waiting)

    def _line(self, text: str) -> None:
        self._clear()
        print(text, flush=True)

    def _round(self, r: Round) -> None:
        self._clear()
        known = self._columns or []
        new = [name for name in r.metrics if name not in ("train_loss", "train_s", "refused", *known)]
        if new or self._columns is None:  # a round that nobody measures, after a restart, has fewer metrics than others
            self._columns = known = [*known, *new]
            measures = "".join(f"{name:>15}" for name in known)
            print(f"{'round':>6}{'time':>9}{'train loss':>12}{measures}{'up':>11}{'down':>11}  late")
        loss = f"{r.metrics['train_loss']:.4f}" if "train_loss" in r.metrics else "-"
        values = "".join(f"{r.metrics[name]:>15.4f}" if name in r.metrics else f"{'-':>15}" for name in known)
        late = ", ".join(r.late) or "-"
        traffic = f"{amount(r.uplink_bytes):>11}{amount(r.downlink_bytes):>11}"
        print(f"{r.release:>6}{r.wall_s:>8.1f}s{loss:>12}{values}{traffic}  {late}", flush=True)

    def _waiting(self, text: str) -> None:
        if self._live:
            self._clear()
            print(f"  ... {text}"[:120], end="", flush=True)
        else:
            print(f"  ... {text}", flush=True)

    def _clear(self) -> None:
        if self._live:
            print("\r\x1b[K", end="")
