"""`edgemw fuzz`: do the state machines keep their promises, whatever happens to a net?"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

from edgemw.cli.typed import count
from edgemw.core.errors import ConfigError, EdgeError
from edgemw.simulation.fuzz.batch import SOMETIMES_AFTER, Result, never_seen, run_many
from edgemw.simulation.fuzz.options import Options, from_json, options_of, to_json

REPORT_EVERY_S = 2.0
_EPILOG = f"""A seed stands for a net, its settings and links, and for what happens to it: nodes killed between any two
actions, power cuts, lost, doubled and altered messages and chunks, half-dead connections, clocks that jump, full disks, brokers
that forget, a fleet that comes back at once, a new task. Roles, codecs and windows are those of production, in virtual time. Then
everything heals. After every fault the books of all nodes must agree; always each update must be counted once at most, and a
release be the mean of its window, the same bits wherever it is used; at the end the run must be over, and nothing wait.
{SOMETIMES_AFTER} seeds or more must also have seen certain things happen: docs/delivery.md has the list.

A seed that fails is written to --out, with its options in words; --replay runs those files again.

exit code: 0 all held, 1 something did not hold or never happened, 2 wrong usage, 3 a file was refused, 130 stopped by Ctrl-C

examples:
  edgemw fuzz --seeds 1000
  edgemw fuzz --seeds 10000 --first 1000 --workers 4 --out failing
  edgemw fuzz --seeds 1 --first 1610 --json
  edgemw fuzz --replay failing
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the main program."""
    parser = subparsers.add_parser(
        "fuzz",
        help="let random things happen to simulated nets, and check that nothing is lost or counted twice",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seeds", metavar="N", type=count, default=100, help="how many (default: 100)")
    parser.add_argument("--first", metavar="S", type=int, default=0, help="the first of them (default: 0)")
    parser.add_argument(
        "--workers", metavar="W", type=count, default=os.cpu_count() or 1, help="processes (default: one for each core)"
    )
    parser.add_argument(
        "--out", metavar="DIR", type=Path, default=Path("seeds"), help="where failing seeds are written (default: seeds)"
    )
    parser.add_argument(
        "--replay", metavar="PATH", type=Path, help="run the seeds in a file, or in all files of a folder, instead"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object; progress goes to standard error")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run, print and write. Returns the exit code."""
    asked = _replayed(args.replay) if args.replay is not None else [*map(options_of, range(args.first, args.first + args.seeds))]
    if len(asked) == 1 and not args.json:
        print(f"seed {asked[0].seed}: {asked[0]}", flush=True)
    results, told = list[Result](), time.monotonic()
    for result in run_many(asked, min(args.workers, len(asked))):
        results.append(result)
        if result.failure:
            if args.replay is None:
                _write(args.out, result)
            print(f"! seed {result.options.seed}: {result.failure}\n    {result.options}", file=sys.stderr, flush=True)
        if time.monotonic() - told > REPORT_EVERY_S:
            told = time.monotonic()
            failed = sum(bool(one.failure) for one in results)
            print(f"{len(results)} of {len(asked)} seeds, {failed} failed", file=sys.stderr, flush=True)
    never = never_seen(results) if args.replay is None and len(results) >= SOMETIMES_AFTER else []
    failures = [result for result in results if result.failure]
    if args.json:
        document = {"seeds": len(results), "failed": [*map(_document, failures)], "never_seen": never, "seen": _seen(results)}
        print(json.dumps(document))
    else:
        _print(results, len(failures), never, args.replay or args.out)
    return 1 if failures or never else 0


def _print(results: list[Result], failed: int, never: list[str], out: Path) -> None:
    for what, times in sorted(_seen(results).items()):
        print(f"{times:>9}  {what}")
    for what in never:
        print(f"! never seen: {what}")
    print(f"{len(results)} seeds, {failed} failed" + (f": see {out}" if failed else ""))


def _seen(results: list[Result]) -> dict[str, int]:
    found: dict[str, int] = {}
    for result in results:
        for what, times in result.seen.items():
            found[what] = found.get(what, 0) + times
    return found


def _document(result: Result) -> dict[str, object]:
    return {"failure": result.failure, "words": str(result.options), "options": to_json(result.options)}


def _write(folder: Path, result: Result) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{result.options.seed}.json").write_text(json.dumps(_document(result), indent=1) + "\n")
    except OSError as error:
        raise EdgeError(f"{folder}: {error.strerror}: give another folder with --out") from error


def _replayed(path: Path) -> list[Options]:
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise ConfigError(f"{path}: there are no seeds, files such as 17.json", key="--replay")
    return [_options_in(file) for file in files]


def _options_in(file: Path) -> Options:
    try:
        return from_json(json.loads(file.read_text())["options"])
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}", key="--replay") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{file}: not a file that `edgemw fuzz` has written: {error}", key="--replay") from error
