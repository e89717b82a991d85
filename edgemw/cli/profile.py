"""`edgemw profile`: what is known about classes of devices and radios, and from where."""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from edgemw.app.checks import AUTO
from edgemw.app.energy import sources_of
from edgemw.app.joules import prefixed
from edgemw.app.settings import Energy
from edgemw.cli import calibrate
from edgemw.core.config.units import duration_text
from edgemw.profiles.catalogue import load_either, load_profile, load_radio, profile_names, radio_names
from edgemw.profiles.device import Profile
from edgemw.profiles.known import HOW, Curve, Known, Names, Number, Time, numbers
from edgemw.profiles.radio import Radio

_LIST_EXAMPLES = """examples:
  edgemw profile list
  edgemw profile list --json
"""
_HOW = "\n".join(f"  {how:<11}{meaning}" for how, meaning in HOW.items())
_SHOW_EXAMPLES = f"""how a number is known:
{_HOW}

examples:
  edgemw profile show raspberry-pi-4b
  edgemw profile show lte-m-nrf9160 --json
  edgemw profile show ./my-board.toml
"""
_DETECT_EXAMPLES = """exit code: 0 it is of a class that there is, 1 it is of none

examples:
  edgemw profile detect
  edgemw profile detect --json
"""
_EXAMPLES = """examples:
  edgemw profile list
  edgemw profile detect
  edgemw profile show raspberry-pi-4b
  edgemw profile calibrate --out my-board.toml

docs/profiles.md says how to write one's own.
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the main program."""
    parser = subparsers.add_parser(
        "profile",
        help="what is known about classes of devices and radios",
        description="Power, speed, memory and limits of classes of devices, and what radios cost; every number with its source.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    lister = verbs.add_parser(
        "list", help="all that there are", epilog=_LIST_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    shower = verbs.add_parser(
        "show",
        help="every number of one, how it is known and where from",
        epilog=_SHOW_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    shower.add_argument("name", metavar="NAME", help="a class of devices or a radio, or a file that ends in .toml")
    detector = verbs.add_parser(
        "detect",
        help="which class this machine is of, and where its joules would be known from",
        epilog=_DETECT_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    calibrate.add_parser(verbs)
    for verb, function in ((lister, run_list), (shower, run_show), (detector, run_detect)):
        verb.add_argument("--json", action="store_true", help="print one JSON object")
        verb.set_defaults(run=function)


def run_list(args: argparse.Namespace) -> int:
    """Print all names. Returns 0."""
    devices, radios = [*map(load_profile, profile_names())], [*map(load_radio, radio_names())]
    if args.json:
        print(json.dumps({"devices": [*map(_brief, devices)], "radios": [*map(_brief, radios)]}, indent=1))
        return 0
    print(f"{'device':<22}{'kind':<13}{'runs':<8}{'idle':>9}{'busy':>9}  what it is")
    for device in devices:
        watts = "".join(f"{amount(number, 'W'):>9}" for number in (device.power.idle_w, device.power.active_w))
        print(f"{device.name:<22}{device.kind:<13}{device.runs:<8}{watts}  {device.title}")
    print(f"\n{'radio':<22}{'kind':<13}{'byte up':>9}{'down':>9}{'session':>9}  what it is")
    for radio in radios:
        numbers = (radio.energy.tx_j_per_byte, radio.energy.rx_j_per_byte, radio.energy.session_j)
        joules = "".join(f"{amount(number, 'J'):>9}" for number in numbers)
        print(f"{radio.name:<22}{radio.kind:<13}{joules}  {radio.title}")
    return 0


def run_show(args: argparse.Namespace) -> int:
    """Print one profile. Returns 0, or 3 where there is none, or its file is refused."""
    found = load_either(args.name)
    for radio in found.radios if isinstance(found, Profile) else ():
        load_radio(radio)  # it says so where there is none
    if args.json:
        print(json.dumps(_without_unknown(asdict(found)), indent=1))
    else:
        print("\n".join(_paragraphs(found)))
    return 0


def run_detect(args: argparse.Namespace) -> int:
    """Print what a node with `profile = "auto"` would find. Returns 0, or 1 where that is nothing."""
    sources = sources_of(AUTO, Energy())
    found, states = sources.profile, sources.states
    if args.json:
        name = None if found is None else found.name
        print(json.dumps({"profile": name, "known_by": sources.known_by, "energy_sources": states}, indent=1))
    else:
        print(f"{found.name}: {found.title}" if found is not None else "no profile: say node.profile, or write one of your own")
        print(f"known by   {sources.known_by}")
        for name, reason in states.items():
            hint = sources.found.unavailable[name].hint if name in sources.found.unavailable else ""
            print(f"{name:<11}{reason or 'can be read'}{f': {hint}' if hint else ''}")
    return 0 if found is not None else 1


def amount(number: Number | None, unit: str) -> str:
    """A number of a profile in three digits and with a prefix; "-" where it is not known."""
    return "-" if number is None else prefixed(number.value, unit)


def _brief(found: Profile | Radio) -> dict[str, object]:
    brief: dict[str, object] = {"name": found.name, "title": found.title, "kind": found.kind}
    if isinstance(found, Profile):
        brief |= {"runs": found.runs, "radios": found.radios}
    return brief


def _paragraphs(found: Profile | Radio) -> Iterator[str]:
    yield f"{found.name}: {found.title}"
    if isinstance(found, Profile):
        yield f"{found.kind}, {'runs edgemw' if found.runs == 'python' else 'does not run edgemw itself'}"
        yield f"radios: {', '.join(found.radios) or 'none'}"
    else:
        yield found.kind
    if found.note:
        yield found.note
    yield ""
    rows = [(key, _written(number), number) for key, number in numbers(found)]
    keys = max((len(key) for key, _, _ in rows), default=0) + 2
    values = max((len(value) for _, value, _ in rows), default=0) + 2
    for key, value, number in rows:
        yield f"{key:<{keys}}{value:<{values}}{number.how:<11}{number.source}"
        yield from textwrap.wrap(number.note, 110, initial_indent=" " * keys, subsequent_indent=" " * keys)
    yield "\nsources"
    for name, title in found.sources.items():
        yield f"  {name:<24}{title}"


def _written(known: Known) -> str:
    if isinstance(known, Curve):
        return " ".join(f"{use:g}:{watts:g}" for use, watts in known.points)
    if isinstance(known, Time):
        return duration_text(known.value)
    if isinstance(known, Names):
        return ", ".join(known.value)
    return f"{getattr(known, 'value', None):.12g}"


def _without_unknown(part: Any) -> Any:
    """The same, without the keys that a file leaves out."""
    if isinstance(part, dict):
        inner = {key: _without_unknown(value) for key, value in part.items()}
        return {key: value for key, value in inner.items() if value not in (None, "", {}, ())}
    return part
