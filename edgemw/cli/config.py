"""`edgemw config`: what the settings are, and where each of them came from."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import MISSING
from pathlib import Path

from edgemw.app.settings import SCHEMAS, Deployment, DeviceFile, FogFile, kind_of, load_file, read_text
from edgemw.core.config.explain import Explanation, explain
from edgemw.core.config.loader import Loaded, leaves
from edgemw.core.config.writer import toml_value
from edgemw.core.errors import ConfigError

_EXAMPLES = """examples:
  edgemw config explain window.deadline --config edgemw.toml
  edgemw config show --config /etc/edgemw/device.toml
"""
_EXPLAIN_EXAMPLES = """examples:
  edgemw config explain window.deadline --config edgemw.toml
  EDGEMW_WINDOW__K=4 edgemw config explain window --config fog.toml
"""
_SHOW_EXAMPLES = """examples:
  edgemw config show --config edgemw.toml
  edgemw config show --config edgemw.toml --set task.rounds=10 --json
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the main program."""
    parser = subparsers.add_parser(
        "config",
        help="show settings and where they came from",
        description="Settings, and where they came from: flag > environment > file > profile > default.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    explainer = verbs.add_parser(
        "explain",
        help="one key: value, origin, meaning, bounds",
        description="What a key is, what it may be, and where its value came from.",
        epilog=_EXPLAIN_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    explainer.add_argument("key", metavar="KEY", help="a dotted key or a section, such as window.deadline or window")
    shower = verbs.add_parser(
        "show",
        help="every key with its value and origin",
        description="Every key with its value and origin. Secrets are never read: only where they stand is shown.",
        epilog=_SHOW_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for verb, function in ((explainer, run_explain), (shower, run_show)):
        verb.add_argument("-c", "--config", metavar="FILE", help="deployment or node file (default: $EDGEMW_CONFIG)")
        verb.add_argument(
            "--set", metavar="KEY=VALUE", action="append", default=[], help="set a key, above the environment and the file"
        )
        verb.add_argument("--json", action="store_true", help="print one JSON object")
        verb.set_defaults(run=function)


def run_explain(args: argparse.Namespace) -> int:
    """Explain one key, or every key of a section. Returns 0, or 3 when the file or the key is refused."""
    return _printed(args, args.key)


def run_show(args: argparse.Namespace) -> int:
    """Show every key. Returns 0, or 3 when the file is refused."""
    return _printed(args, "")


def _printed(args: argparse.Namespace, key: str) -> int:
    try:
        found = _explained(_config_path(args), args.set, key)
    except ConfigError as error:
        print(f"edgemw: {error}", file=sys.stderr)
        return error.exit_code
    if args.json:
        print(json.dumps({item.key: _document(item) for item in found}, indent=2))
    elif key:
        print("\n\n".join(_paragraph(item) for item in found))
    else:
        print(_table(found))
    return 0


def _config_path(args: argparse.Namespace) -> Path:
    name = args.config or os.environ.get("EDGEMW_CONFIG")
    if not name:
        raise ConfigError("which file? Give --config FILE or set EDGEMW_CONFIG")
    return Path(name)


def _explained(path: Path, overrides: list[str], key: str) -> list[Explanation]:
    cls = SCHEMAS[kind_of(read_text(path), str(path))]
    loaded: Loaded[Deployment | FogFile | DeviceFile] = load_file(cls, path, env=os.environ, overrides=overrides)
    names = [name for name, _ in leaves(loaded.value) if not key or name == key or name.startswith(f"{key}.")]
    return [explain(cls, loaded, name) for name in names or [key]]


def _written(item: Explanation, value: object) -> str:
    return "(unset)" if value is None else toml_value(value, item.about.hint)


def _document(item: Explanation) -> dict[str, object]:
    return {
        "value": _written(item, item.value),
        "origin": item.origin,
        "help": item.about.option.help,
        "bounds": item.about.bounds,
        "env": item.env,
    }


def _paragraph(item: Explanation) -> str:
    default = "none: it must be given" if item.about.default is MISSING else _written(item, item.about.default)
    rows = [
        ("from", item.origin),
        ("means", item.about.option.help),
        ("expects", item.about.expected + (f", {item.about.bounds}" if item.about.bounds else "")),
        ("default", default),
        ("env", item.env),
    ]
    return "\n".join([f"{item.key} = {_written(item, item.value)}", *(f"  {label:<8} {text}" for label, text in rows)])


def _table(found: list[Explanation]) -> str:
    lines = [f"{item.key} = {_written(item, item.value)}" for item in found]
    width = min(max(map(len, lines)), 60)
    return "\n".join(f"{line:<{width}}  # {item.origin}" for line, item in zip(lines, found, strict=True))
