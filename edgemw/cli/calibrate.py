"""`edgemw profile calibrate`: measure this machine, and write a profile of it."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import edgemw
from edgemw.app.checks import AUTO
from edgemw.app.sections import Energy
from edgemw.core.config.named import SUFFIX
from edgemw.core.errors import ConfigError, EdgeError
from edgemw.core.files import replace_file
from edgemw.core.ids import valid_id
from edgemw.profiles.catalogue import load_profile
from edgemw.profiles.device import Profile

_AT_HAND = Path(edgemw.__file__).parents[1] / "examples" / "quickstart" / "digits.edge"
_EPILOG = """Training steps, predictions and the default codec are measured with the code that devices run, on random samples, in
turns; values are medians, and their notes hold the quartiles. What the machine draws is not measured: that stays as its class
says, with its sources. A warning says where other programs were busy, or values differed much: then repeat it.

The file is a profile like any other: `node.profile = "my-board.toml"` in a device's file, `edgemw simulate --profile`.

exit code: 0 done, 3 the bundle, the base or the file is refused

examples:
  edgemw profile calibrate
  edgemw profile calibrate --bundle my.edge --base raspberry-pi-4b --name my-board
  edgemw profile calibrate --seconds 60 --out /etc/edgemw/my-board.toml --force --json
"""


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb to `edgemw profile`."""
    parser = verbs.add_parser(
        "calibrate",
        help="measure how fast this machine is, and write a profile of its own",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--bundle", metavar="FILE.edge", type=Path, help="task to train (default: the quickstart's, in a checkout)")
    add("--base", metavar="NAME", default=AUTO, help="class of this machine, or a .toml file (default: detected)")
    add("--name", default="", help="name of the profile (default: that of the base, with -local)")
    add("--out", metavar="FILE.toml", type=Path, help="file to write (default: NAME.toml)")
    add("--force", action="store_true", help="write over a file that is there")
    add("--seconds", metavar="S", type=_seconds, default=10.0, help="about how long (default: 10)")
    add("--json", action="store_true", help="print one JSON object; progress goes to standard error")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure and write. Returns 0, or 3 where something is refused."""
    from edgemw.app.energy import profile_of
    from edgemw.app.wiring import load_bundle

    base, known_by = profile_of(args.base, Energy()) if args.base == AUTO else (load_profile(args.base), "--base says so")
    name = args.name or (f"{base.name.removesuffix('-local')}-local" if base is not None else "local")
    if not valid_id(name):
        raise ConfigError(f"{name!r} is not 1 to 40 of a-z, 0-9 and '-'", key="--name")
    out = _free(args.out or Path(f"{name}{SUFFIX}"), force=args.force)
    bundle = load_bundle(_bundle(args.bundle))[1]
    try:
        from edgemw.bench.calibrate import calibrate
        from edgemw.bench.local import local_profile

        _tell(f"measuring {bundle.manifest.name} for about {args.seconds:g} s; base: {base.name if base else 'none'}, {known_by}")
        found = calibrate(bundle, args.seconds, _tell)
    except ModuleNotFoundError as error:
        raise ConfigError(f"measuring needs {error.name}: pip install 'edgemw[device]'") from error
    profile = local_profile(base, name, found, _source())
    _write(out, profile)
    for warning in found.warnings:
        _tell(f"warning: {warning}")
    measured = {key: {"median": each.median, "low": each.low, "high": each.high} for key, each in found.measured.items()}
    document = {"file": str(out), "profile": name, "base": base.name if base is not None else None, "known_by": known_by}
    document |= {"measured": measured, "threads": found.threads, "warnings": [*found.warnings]}
    print(json.dumps(document, indent=1) if args.json else _summary(document, profile))
    return 0


def _bundle(path: Path | None) -> Path:
    if path is None and not _AT_HAND.is_file():
        reason = "which task? Give a bundle: `edgemw compile` makes one, and examples/quickstart of a checkout has digits.edge"
        raise ConfigError(reason, key="--bundle")
    return path or _AT_HAND


def _free(out: Path, *, force: bool) -> Path:
    """Where to write. Raises ConfigError, before anything is measured, where that is no profile's place or something is there."""
    if out.suffix != SUFFIX:
        raise ConfigError(f"{out}: the file of a profile ends in {SUFFIX}", key="--out")
    if not out.parent.is_dir():
        raise ConfigError(f"{out.parent} is no folder", key="--out")
    if out.exists() and not force:
        raise ConfigError(f"{out} is there already: give another --out, or --force", key="--out")
    return out


def _write(out: Path, profile: Profile) -> None:
    from edgemw.profiles.writer import profile_text

    try:
        replace_file(out, profile_text(profile).encode())
    except OSError as error:
        raise EdgeError(f"{out}: {error.strerror}: give another file with --out") from error


def _source() -> str:
    """What says which machine this was, and when."""
    versions = f"edgemw {edgemw.__version__}, Python {platform.python_version()}, onnxruntime {_onnxruntime()}"
    return f"edgemw profile calibrate, {datetime.now(UTC).date()}, this machine ({platform.machine()}): {versions}"


def _onnxruntime() -> str:
    """Its version; builds for graphics cards have other names."""
    for name in metadata.packages_distributions().get("onnxruntime", ()):
        return metadata.version(name)
    return "unknown"


def _summary(document: dict[str, Any], profile: Profile) -> str:
    rows = [
        f"  {key:<32}{each['median']:<12.4g}{each['low']:.4g} to {each['high']:.4g}" for key, each in document["measured"].items()
    ]
    ram = profile.memory.ram_bytes
    memory = "" if ram is None else f", {ram.value >> 20} MiB of memory"
    head = f"{document['profile']}: {document['threads']} thread{'s' if document['threads'] > 1 else ''}{memory}"
    return "\n".join([head, *rows, f"written to {document['file']}: edgemw profile show {document['file']}"])


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.5 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0.5 to 3600")
    return seconds
