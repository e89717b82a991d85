"""`edgemw compile`: from an author's torch module to a task bundle."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

from edgemw.core.errors import ConfigError, EdgeError
from edgemw.core.plan import PATTERNS

_EXAMPLES = """needs torch and onnx: pip install "edgemw[author]"

examples:
  edgemw compile examples/har/task.py:task -o har.edge
  edgemw compile my_package.tasks:vibration -o vibration.edge --seed 7 --initial seeded
  edgemw compile task.py:task --personal 'head.*' --frozen 'embed.*'
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the main program."""
    parser = subparsers.add_parser(
        "compile",
        help="compile a PyTorch task into a bundle that devices run without torch",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("task", metavar="FILE.py:NAME", help="where the edgemw.Task is: a file or a module, and the name in it")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.edge", help="bundle to write (default: NAME-OF-TASK.edge)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the initial weights (default: 0)")
    parser.add_argument(
        "--initial",
        choices=("stored", "seeded"),
        default="stored",
        help="stored: the weights that torch made (or the author loaded) travel in the bundle; seeded: weights of the same "
        "distribution are drawn from --seed by every reader, and the bundle carries the seed (default: stored)",
    )
    parser.add_argument(
        "--torch-oracle",
        action="store_true",
        help="do not export the training step: devices will need torch and the task's package, given as PACKAGE.MODULE:NAME",
    )
    for name, meaning in (
        ("personal", "trained on every device and never sent"),
        ("frozen", "neither trained nor sent"),
        ("rare", "sent from every plan.rare_every-th release only"),
    ):
        parser.add_argument(
            f"--{name}",
            action="append",
            metavar="PATTERN",
            help=f"tensors that are {meaning}, such as 'head.*'; may be given more than once, instead of what the task says",
        )
    parser.add_argument("--json", action="store_true", help="print what was made as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Compile and write the bundle."""
    _check_output(args.output or Path("task.edge"))  # before the work, not after it
    try:
        from edgemw.compile.export import compile_task
        from edgemw.compile.load import load_task
    except ImportError as error:
        raise EdgeError(f"{error}: compiling needs torch and onnx: pip install 'edgemw[author]'") from error
    started = time.monotonic()

    def progress(text: str) -> None:
        if not args.json:
            print(f"  {time.monotonic() - started:5.1f}s  {text}", file=sys.stderr, flush=True)

    task = load_task(args.task)
    said = {name: tuple(getattr(args, name) or getattr(task, name)) for name in PATTERNS}
    task = replace(task, personal=said["personal"], frozen=said["frozen"], rare=said["rare"])
    python = args.task if args.torch_oracle else None
    bundle = compile_task(task, args.seed, python=python, seeded=args.initial == "seeded", progress=progress)
    data = bundle.to_bytes()
    output: Path = args.output or Path(f"{task.name}.edge")
    try:
        output.write_bytes(data)
    except OSError as error:
        raise EdgeError(f"{output}: {error.strerror}") from error
    manifest = bundle.manifest
    facts = {
        "file": str(output),
        "task": manifest.name,
        "parameters": manifest.size,
        "bytes": len(data),
        "initial": args.initial,
        "input": [*manifest.input.shape],
        "output": [*manifest.output.shape],
        "metrics": [*manifest.metrics],
        "oracle": "torch" if bundle.train is None else "onnx",
        "seconds": round(time.monotonic() - started, 1),
    }
    if args.json:
        print(json.dumps(facts))
    else:
        print(f"{output}: task {manifest.name!r}, {manifest.size} parameters, {len(data)} bytes, {facts['oracle']} oracle")
    return 0


def _check_output(path: Path) -> None:
    """Raise ConfigError where no file can be written."""
    if not path.parent.is_dir():
        raise ConfigError(f"there is no folder {path.parent}", key="--output")
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ConfigError(f"{path} cannot be written", key="--output")
