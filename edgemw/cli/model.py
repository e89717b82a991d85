"""`edgemw model`: the releases in a store, which of them is served, and one more from a file."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from edgemw.cli.typed import count, count_or_none
from edgemw.core.bundle import Bundle, Vector, read_bundle
from edgemw.core.errors import BundleError, ConfigError, StorageError
from edgemw.serving.store import Choice, Kept, ReleaseStore, chosen_task

_EXAMPLES = """examples:
  edgemw model list state/device-0/releases
  edgemw model rollback state/device-0/releases
  edgemw model pin state/device-0/releases 41
  edgemw model use state/device-0/releases latest
  edgemw model add models digits-large.edge --weights weights.npy
"""
_LIST = """Every release is read and its sha256 verified. The one that is marked is what the store says is to be served; whether a
server took it, the server's own log says, and its /v2/models/TASK.

examples:
  edgemw model list state/device-0/releases
  edgemw model list state/device-0/releases --task digits --json
"""
_USE = """A release that is saved later takes over, as always; "latest" is the newest now. Servers are told at once, and check the
release before they serve it.

examples:
  edgemw model use state/device-0/releases 41
  edgemw model use state/device-0/releases latest
"""
_PIN = """It is served whatever comes, and is not removed, until something else is used or pinned.

examples:
  edgemw model pin state/device-0/releases
  edgemw model pin state/device-0/releases 41 --run 3
"""
_ROLLBACK = """The release before the one that is to be served now. A release that is saved later takes over; once more goes back
further.

examples:
  edgemw model rollback state/device-0/releases
"""
_ADD = """For a service that no device fills: a larger model on a fog node, which devices ask where they are not sure, or one that
was trained elsewhere. It has to pass the checks of a server. The store is made where there is none. Servers of the store are
told at once.

examples:
  edgemw model add models digits-large.edge
  edgemw model add models digits-large.edge --weights weights.npy --release 7
"""
_CODES = """
exit code: 0 done, 1 the release is damaged, or the store cannot be used, 2 wrong usage, 3 no such store, task or release
"""


LATEST = -1
RAW = ".f32"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the main program."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = subparsers.add_parser(
        "model",
        help="list the releases in a store, and say which is served",
        description="Releases that a device keeps on disk, and which of them is served. Nothing else needs to run.",
        epilog=_EXAMPLES + _CODES,
        formatter_class=raw,
    )
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    about = {
        "list": ("all releases on disk", _LIST, run_list),
        "use": ("serve a release until a later one comes", _USE, run_use),
        "pin": ("serve a release whatever comes", _PIN, run_pin),
        "rollback": ("serve the release before", _ROLLBACK, run_rollback),
    }
    for name, (help_, epilog, function) in about.items():
        verb = verbs.add_parser(name, help=help_, epilog=epilog + _CODES, formatter_class=raw)
        verb.add_argument("store", metavar="STORE", type=Path, help="folder of releases, such as STATE/releases of a device")
        if name == "use":
            verb.add_argument("release", metavar="RELEASE", type=_number, help="its number, or latest")
        elif name == "pin":
            help_ = "its number, or latest (default: the one that is to be served now)"
            verb.add_argument("release", metavar="RELEASE", type=_number, nargs="?", help=help_)
        if name in ("use", "pin"):
            help_ = "the training run of the release, where several have its number (default: the newest of them)"
            verb.add_argument("--run", metavar="N", type=int, dest="of_run", help=help_)
        verb.add_argument("--task", metavar="NAME", help="where the store has several")
        verb.add_argument("--json", action="store_true", help="print one JSON object")
        verb.set_defaults(run=function)
    add = verbs.add_parser("add", help="put a release into a store", epilog=_ADD + _CODES, formatter_class=raw)
    add.add_argument("store", metavar="STORE", type=Path, help="folder of releases")
    add.add_argument("bundle", metavar="FILE.edge", type=Path, help="task bundle, as edgemw compile writes it")
    help_ = "its weights, float32[P] in the order of the bundle's layout: a .npy file, or the theta.f32 of a release "
    help_ += "(default: the bundle's first values)"
    add.add_argument("--weights", metavar="FILE", type=Path, help=help_)
    help_ = "its number (default: one more than the newest, or 0)"
    add.add_argument("--release", metavar="N", type=count_or_none, help=help_)
    add.add_argument("--run", metavar="N", type=count_or_none, dest="of_run", default=0, help="its training run (default: 0)")
    add.add_argument("--keep", metavar="N", type=count, help="newest releases that are kept (default: all)")
    add.add_argument("--json", action="store_true", help="print one JSON object")
    add.set_defaults(run=run_add)


def run_list(args: argparse.Namespace) -> int:
    """Print all releases. Returns 0."""
    store = _opened(args)
    tasks = [_task(args, store)] if args.task else _tasks(args, store)
    found = {task: (store.kept(task), *store.wanted_place(task)) for task in tasks}
    if args.json:
        listed = {task: [_document(each, place, choice) for each in kept] for task, (kept, place, choice) in found.items()}
        print(json.dumps(listed, indent=1))
        return 0
    print(f"{'task':<16}{'release':>8}{'run':>12}  {'saved':<20}{'bytes':>10}  precision")
    for task, (kept, wanted, choice) in found.items():
        for each in reversed(kept):
            number, run = (str(each.number), str(each.run)) if each.run >= 0 else ("?", "?")
            saved = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(each.saved)) if each.saved else "?"
            state = f"{each.precision or '?':<9}  {_state(each, wanted, choice)}"
            print(f"{task:<16}{number:>8}{run:>12}  {saved:<20}{each.size_bytes:>10}  {state}".rstrip())
    return 0


def run_use(args: argparse.Namespace) -> int:
    """Serve a release until a later one comes. Returns 0."""
    store = _opened(args)
    task = _task(args, store)
    kept = store.kept(task)
    release = _named(kept, args.release, args.of_run)
    return _choose(args, store, task, release, Choice(release.place, kept[-1].place))


def run_pin(args: argparse.Namespace) -> int:
    """Serve a release whatever comes. Returns 0."""
    store = _opened(args)
    task = _task(args, store)
    kept = store.kept(task)
    release = _wanted(store, task, kept) if args.release is None else _named(kept, args.release, args.of_run)
    if release.fault:
        raise StorageError(f"release {release.number} is damaged: {release.fault}")
    return _choose(args, store, task, release, Choice(release.place, None))


def run_rollback(args: argparse.Namespace) -> int:
    """Serve the release before. Returns 0."""
    store = _opened(args)
    task = _task(args, store)
    kept = store.kept(task)
    wanted = _wanted(store, task, kept)
    whole = [each for each in kept if each.place <= wanted.place and not each.fault]
    before = whole[:-1]  # the last of them is what answers
    if not before:
        number = (whole or [wanted])[-1].number
        raise ConfigError(f"no whole release is before release {number}: edgemw model list has all", key="STORE")
    return _choose(args, store, task, before[-1], Choice(before[-1].place, kept[-1].place))


def run_add(args: argparse.Namespace) -> int:
    """Save a release. Returns 0."""
    try:
        bundle = read_bundle(args.bundle.read_bytes())
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", file=str(args.bundle)) from error
    except BundleError as error:
        raise BundleError(f"{args.bundle}: {error}") from error
    task, store = bundle.manifest.name, ReleaseStore(args.store, keep=args.keep or sys.maxsize)
    theta = bundle.theta0 if args.weights is None else _weights(args.weights, bundle.manifest.size)
    if reason := _unfit(bundle, theta):
        raise ConfigError(f"no server would take it: {reason}", file=str(args.weights or args.bundle))
    known = store.latest(task)
    number = args.release if args.release is not None else 0 if known is None else known.number + 1
    store.save(task, bundle, args.of_run, number, theta)
    if args.json:
        print(json.dumps({"task": task, "run": args.of_run, "number": number, "size_bytes": theta.nbytes}, indent=1))
    else:
        print(f"{task}: release {number} of run {args.of_run} is in {args.store}")
    return 0


def _unfit(bundle: Bundle, theta: Vector) -> str:
    """Why a server would not serve these weights; "" where it would."""
    if not np.isfinite(theta).all():
        return f"{int((~np.isfinite(theta)).sum())} of {theta.size} weights are not finite"
    try:
        from edgemw.serving.check import check_outputs, check_reference
        from edgemw.serving.session import open_inference
    except ModuleNotFoundError as error:
        raise ConfigError(f"checking a release needs {error.name}: pip install 'edgemw[device]'") from error
    first, session = (open_inference(bundle.infer, each, size=bundle.manifest.size) for each in (bundle.theta0, theta))
    return check_reference(first, bundle) or check_outputs(session, bundle.manifest)


def _weights(path: Path, size: int) -> Vector:
    """float32[size] of a .npy file, or of a release's theta.f32; either is looked at before it is read."""
    try:
        if path.suffix == RAW:
            if path.stat().st_size != 4 * size:
                raise ConfigError(f"has {path.stat().st_size} bytes, the bundle's layout needs {4 * size}", file=str(path))
            return np.fromfile(path, "<f4").astype(np.float32, copy=False)
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror or error}", file=str(path)) from error
    except (ValueError, EOFError) as error:  # numpy's own words would have people read pickles
        raise ConfigError(f"is no .npy or {RAW} file of numbers", file=str(path)) from error
    if not isinstance(array, np.ndarray) or array.shape != (size,) or array.dtype.kind != "f":
        found = f"{array.dtype}{list(array.shape)}" if isinstance(array, np.ndarray) else "several arrays"
        raise ConfigError(f"holds {found}, the bundle's layout needs float32[{size}]", file=str(path))
    return np.array(array, np.float32)


def _opened(args: argparse.Namespace) -> ReleaseStore:
    return ReleaseStore(args.store, keep=1)  # nothing is saved here


def _tasks(args: argparse.Namespace, store: ReleaseStore) -> list[str]:
    """All tasks. Raises ConfigError where there is no store, or nothing in it."""
    tasks = store.tasks()
    chosen_task(args.store, tasks, tasks[0] if tasks else None)
    return tasks


def _task(args: argparse.Namespace, store: ReleaseStore) -> str:
    return chosen_task(args.store, store.tasks(), args.task)


def _wanted(store: ReleaseStore, task: str, kept: Sequence[Kept]) -> Kept:
    choice = store.choice(task)
    return next((each for each in kept if choice is not None and each.place == choice.place), kept[-1])


def _named(kept: Sequence[Kept], number: int, run: int | None) -> Kept:
    """The newest release with this number that can be served."""
    fitting = [each for each in kept if number in (LATEST, each.number) and run in (None, each.run)]
    whole = [each for each in fitting if not each.fault]
    if whole:
        return whole[-1]
    name = "release" if number == LATEST else f"release {number}"
    name += "" if run is None else f" of run {run}"
    if fitting:
        raise StorageError(f"{name} is damaged: {fitting[-1].fault}")
    there = ", ".join(dict.fromkeys(str(each.number) for each in kept if each.run >= 0)) or "none that can be read"
    raise ConfigError(f"there is no {name} in the store; there are {there}", key="RELEASE")


def _choose(args: argparse.Namespace, store: ReleaseStore, task: str, release: Kept, choice: Choice | None) -> int:
    store.choose(task, choice)
    document = _document(release, release.place, choice)
    if args.json:
        print(json.dumps({"task": task} | document, indent=1))
    else:
        print(f"{task}: release {release.number} of run {release.run} is to be served{_HOW_LONG[_lasts(choice)]}")
    return 0


_HOW_LONG = {"": "", "until-later": ", until a later one is saved", "pinned": ", whatever comes"}


def _lasts(choice: Choice | None) -> str:
    if choice is None:
        return ""
    return "pinned" if choice.until is None else "until-later"


def _document(release: Kept, wanted: int, choice: Choice | None) -> dict[str, object]:
    wants = release.place == wanted
    return asdict(release) | {"wanted": wants, "choice": _lasts(choice) if wants else ""}


def _state(release: Kept, wanted: int, choice: Choice | None) -> str:
    wrong = [f"damaged: {release.fault}"] if release.fault else [f"not int8: {release.damage}"] if release.damage else []
    return "; ".join(([f"<- to be served{_HOW_LONG[_lasts(choice)]}"] if release.place == wanted else []) + wrong)


def _number(text: str) -> int:
    if text == "latest":
        return LATEST
    if not text.isdecimal() or len(text) > 18:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of a release, nor latest")
    return int(text)
