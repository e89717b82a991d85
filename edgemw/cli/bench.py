"""`edgemw bench`: compare ways of doing something, on this machine, with the user's own task."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from edgemw.cli.typed import count, count_or_none
from edgemw.core.config.units import size
from edgemw.core.errors import ConfigError, EdgeError

if TYPE_CHECKING:  # other commands do not load what only a comparison needs
    from edgemw.bench.report import Comparison
    from edgemw.bench.runner import Progress

_LIVE_S, _EVERY_S, _QUIET_S = 0.25, 5.0, 2.0
_EPILOG = """Whole training runs in this process, with the code that devices and fog nodes run, and every byte counted: messages,
what MQTT adds to them, and the task itself. All settings get the same samples, seeds and rounds.

A setting is NAME[:KEY=VALUE]..., such as lattice:kappa=8, topk:k=0.01, dense:dtype=float16 or dense:release=dense. kappa,
budget_round and budget_run are those of [codec] in a deployment file; release (lattice or dense), release_kappa,
release_budget_round and release_budget_run are use, kappa and budgets of [release]; other keys are parameters of the codec.
dense:release=dense, floats both ways, always runs: it is what the others are measured by.

The recommendation is the cheapest setting within 0.5 point of that on validation samples (a fifth of every device's training
samples, held out), or with --budget the best one that moves no more. Test samples are reported and decide nothing.

exit code: 0 done; 1 nothing was learned, or nothing is within the budget; 2 wrong usage; 3 a file, a setting or data was refused;
130 stopped by Ctrl-C; the seeds that every setting has run with are reported all the same

"""
_EXAMPLES = """examples:
  edgemw bench codec --task examples/quickstart/digits.edge --data digits
  edgemw bench codec --task my.edge --data my.npz --devices 30 --fogs 5 --rounds 40 --seeds 5 --out bench
  edgemw bench codec --task my.edge --data my.npz --codecs lattice:kappa=8,lattice:kappa=32,topk:k=0.02 --budget 200kB
  edgemw bench codec --task my.edge --data my.npz --codecs lattice,lattice:budget_round=600,lattice:release_budget_round=2kB
  edgemw bench codec --task my.edge --data my.npz --participation 0.5 --codecs lattice,lattice:rounding=nearest
  edgemw bench codec --config edgemw.toml --data my.npz --set plan.lr=0.05
"""


_SERVE_EPILOG = """Both are opened in this process, with one thread, and take turns. int8 is calibrated on training samples, at
most 256; metrics are those of the task on test samples. bytes are of what is opened: graph and weights. The machine that will
serve is the one to ask: some processors have instructions for int8, and some models gain nothing from them.

The recommendation is int8 where one prediction takes at most 0.95 of the time of float32, and the task's first metric is not
worse by more than --tolerance.

exit code: 0 done; 1 the weights give no outputs that can be served; 2 wrong usage; 3 a file or data was refused, or the package
onnx is missing; 130 stopped by Ctrl-C

"""
_SERVE_EXAMPLES = """examples:
  edgemw bench serve --task examples/quickstart/digits.edge --data digits
  edgemw bench serve --task my.edge --data my.npz --store run/nodes/device-0/releases
  edgemw bench serve --task my.edge --data run/data/device-0.npz --store run/nodes/device-0/releases --tolerance 0.005 --json
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the main program."""
    parser = subparsers.add_parser(
        "bench",
        help="compare codecs, or ways to serve, on your own task, without a broker",
        epilog=_EXAMPLES + _SERVE_EXAMPLES.partition("\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    kinds = parser.add_subparsers(title="what to compare", metavar="WHAT", required=True)
    codec = kinds.add_parser(
        "codec",
        help="accuracy against bytes of the ways to compress updates",
        description="Train your task with one codec after the other, and say which one to take.",
        epilog=_EPILOG + _EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    codec.add_argument("--task", metavar="FILE.edge", type=Path, help="task bundle (default: that of --config)")
    codec.add_argument(
        "--data",
        metavar="DATA",
        help="an .npz file with arrays x and y, and split and client where there are, as for `edgemw up`; or digits",
    )
    codec.add_argument("--config", metavar="FILE", type=Path, help="deployment file: its tree, data, plan, server and release")
    codec.add_argument("--devices", metavar="N", type=count, help="devices (default: 8)")
    codec.add_argument("--fogs", metavar="M", type=count_or_none, help="fog nodes between devices and top, or 0 (default: 2)")
    codec.add_argument(
        "--partition",
        choices=("natural", "dirichlet", "iid"),
        help="who gets which samples (default: natural where the file has an array client; else dirichlet, for classes, or iid)",
    )
    codec.add_argument("--rounds", metavar="R", type=count, help="rounds of every run (default: that of --config, or 60)")
    codec.add_argument(
        "--participation", metavar="P", type=_chance, default=1.0, help="chance that a device trains in a round (default: 1)"
    )
    codec.add_argument("--seeds", metavar="S", type=count, default=3, help="runs of every setting (default: 3)")
    codec.add_argument("--codecs", metavar="A,B,...", help="settings to compare (default: a dozen)")
    codec.add_argument("--budget", metavar="BYTES", help="bytes that a device may move in a run, both ways, such as 300kB")
    codec.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help="as for `edgemw up`")
    codec.add_argument("--out", metavar="DIR", type=Path, default=Path("bench"), help="folder of the results (default: bench)")
    codec.add_argument("--json", action="store_true", help="print what codecs.json holds; progress goes to standard error")
    codec.set_defaults(run=run, usage_error=codec.error)
    serve = kinds.add_parser(
        "serve",
        help="size, speed and accuracy of float32 and int8",
        description="Serve your task as float32 and as int8, and say which one to take on this machine.",
        epilog=_SERVE_EPILOG + _SERVE_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    serve.add_argument("--task", metavar="FILE.edge", type=Path, required=True, help="task bundle")
    help_ = "an .npz file with arrays x and y, and split where there is one, as for `edgemw up`; or digits"
    serve.add_argument("--data", metavar="DATA", required=True, help=help_)
    help_ = "folder of releases: weights are those of the one that is to be served (default: first weights, of the bundle)"
    serve.add_argument("--store", metavar="STORE", type=Path, help=help_)
    help_ = "how much worse int8 may be: so much less accuracy, or of another metric such a share more (default: 0.01)"
    serve.add_argument("--tolerance", metavar="T", type=_tolerance, default=0.01, help=help_)
    serve.add_argument("--json", action="store_true", help="print one JSON object; progress goes to standard error")
    serve.set_defaults(run=run_serve)


def run(args: argparse.Namespace) -> int:
    """Compare, print and write. Returns the exit code."""
    try:
        from edgemw.bench.experiment import Request, prepare
        from edgemw.bench.picture import draw
        from edgemw.bench.report import Comparison
        from edgemw.bench.runner import compare
        from edgemw.bench.settings import DEFAULTS, parse_setting
    except ModuleNotFoundError as error:
        raise ConfigError(f"training here needs {error.name}: pip install 'edgemw[device]'") from error

    if args.config is not None and (args.devices is not None or args.fogs is not None):
        args.usage_error("with --config the tree is the file's: change it with --set tiers.NAME.count=N")
    settings = tuple(map(parse_setting, args.codecs.split(","))) if args.codecs is not None else DEFAULTS
    budget_bytes = _budget(args.budget)
    request = Request(
        settings=settings,
        seeds=args.seeds,
        task=args.task,
        data=args.data,
        config=args.config,
        devices=8 if args.devices is None else args.devices,
        fogs=2 if args.fogs is None else args.fogs,
        partition=args.partition or "",
        rounds=args.rounds or 0,
        participation=args.participation,
        overrides=tuple(args.overrides),
    )
    experiment = prepare(request, os.environ)
    _make(args.out)
    screen = _Screen(experiment.options, as_json=args.json)
    found = compare(experiment, request.seeds, screen.progress, screen.note)
    comparison = Comparison.of(experiment, found, screen.notes[0], budget_bytes)
    files = [path for path in (comparison.write(args.out), draw(comparison, args.out)) if path is not None]
    print(json.dumps(comparison.document()) if args.json else "\n" + comparison.screen(files), flush=True)
    return 128 + signal.SIGINT if len(found[0].trials) < request.seeds else _exit_code(comparison)


def run_serve(args: argparse.Namespace) -> int:
    """Measure and print. Returns 0."""
    try:
        from edgemw.bench.serving import measure, prepare
    except ModuleNotFoundError as error:
        raise ConfigError(f"predicting here needs {error.name}: pip install 'edgemw[device]'") from error

    subject, started = prepare(args.task, args.data, args.store), time.monotonic()

    def tell(text: str) -> None:
        if time.monotonic() - started > _QUIET_S:
            print(json.dumps({"event": text}) if args.json else text, file=sys.stderr, flush=True)

    found = measure(subject, args.tolerance, tell)
    print(json.dumps(found.document(), indent=1) if args.json else found.screen(), flush=True)
    return 0


def _exit_code(comparison: Comparison) -> int:
    return 0 if comparison.choice is not None and comparison.learned else 1


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EdgeError(f"{folder}: {error.strerror}: give another folder with --out") from error


def _budget(text: str | None) -> int:
    """Bytes; 0 where no budget is given."""
    if text is None:
        return 0
    try:
        budget_bytes = int(size(text if not text.isdecimal() else f"{text}B"))
    except ValueError as error:
        raise ConfigError(f"{error}", key="--budget") from error
    if budget_bytes == 0:
        raise ConfigError("nothing can be sent within 0 bytes", key="--budget")
    return budget_bytes


def _chance(text: str) -> float:
    """A number above 0 and at most 1."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0 and at most 1")
    return value


def _tolerance(text: str) -> float:
    """A number from 0 to 10."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 10:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 10")
    return value


class _Screen:
    """Progress: a line for each run that is over, and now and then how far the present one is; JSON lines on standard error."""

    def __init__(self, settings: Iterable[str], *, as_json: bool) -> None:
        self.notes: list[str] = []
        self.width = max(map(len, settings))
        self._as_json = as_json
        self._live = sys.stdout.isatty() and not as_json
        self._told_s = time.monotonic()

    def note(self, text: str) -> None:
        """Something that people should know."""
        self.notes.append(text)
        self._say(text, {"event": text})

    def progress(self, at: Progress) -> None:
        """A round, or a run, is over."""
        facts: dict[str, object] = {"run": at.run, "runs": at.runs, "setting": at.setting, "seed": at.seed, "release": at.release}
        text = f"{at.run:>4} of {at.runs}  seed {at.seed}  {at.setting:<{self.width}}  "
        if at.done is not None:
            wall_s = at.done.wall_s
            self._say(f"{text}{at.value:.4f} after {at.rounds} rounds, {wall_s:.1f} s", facts | {"wall_s": round(wall_s, 3)})
        elif time.monotonic() - self._told_s > (_LIVE_S if self._live else _EVERY_S):
            self._say(f"{text}round {at.release} of {at.rounds}", facts, end="" if self._live else "\n")

    def _say(self, text: str, facts: dict[str, object], end: str = "\n") -> None:
        self._told_s = time.monotonic()
        if self._as_json:
            print(json.dumps(facts), file=sys.stderr, flush=True)
        else:
            print(f"\r\x1b[K{text}" if self._live else text, end=end, flush=True)
