"""What `edgemw device` and `edgemw fog` share: their flags, and from flags to settings."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from edgemw.app.settings import SCHEMAS, DeviceFile, FogFile, kind_of, load_file, read_text
from edgemw.core.errors import ConfigError
from edgemw.telemetry import logs

T = TypeVar("T", DeviceFile, FogFile)

_COMMANDS = {
    "deployment": "edgemw up {}",
    "fog": "edgemw fog --config {}",
    "device": "edgemw device --config {}",
}

_EXAMPLES = """the first Ctrl-C finishes what is in hand and saves, the second stops at once

examples:
  edgemw {role} --config {role}.toml
  EDGEMW_BROKER__URL=mqtts://broker.example:8883 edgemw {role} --config /etc/edgemw/{role}.toml --set telemetry.log=debug
"""


def add_node_parser(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser],
    role: str,
    about: str,
    run: Callable[[argparse.Namespace], int],
) -> None:
    """Add the command of a long-running node to the main program."""
    parser = subparsers.add_parser(
        role, help=about, epilog=_EXAMPLES.format(role=role), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", "-c", type=Path, required=True, metavar="FILE", help="the node's file (TOML)")
    help_ = "change a value, such as --set node.id=dev-7"
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help=help_)
    parser.set_defaults(run=run)


def settings_of(args: argparse.Namespace, cls: type[T]) -> T:
    """Load the file that the flags name and set up logging as it says.

    Raises:
        ConfigError: as `load_file`; the file of another command is told which one that is.
    """
    try:
        settings = load_file(cls, args.config, env=os.environ, overrides=args.overrides).value
    except ConfigError:
        kind = kind_of(read_text(args.config), str(args.config))
        if SCHEMAS[kind] is cls:
            raise
        raise ConfigError(f"is the file of a {kind}: {_COMMANDS[kind].format(args.config)}", file=str(args.config)) from None
    logs.configure(settings.telemetry.log, settings.telemetry.log_format, settings.node.id)
    return settings
