"""What `edgemw device` and `edgemw fog` share: their flags, and from flags to settings."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TypeVar

from edgemw.app.settings import DeviceFile, FogFile, load_file
from edgemw.telemetry import logs

T = TypeVar("T", DeviceFile, FogFile)


def add_node_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of a long-running node."""
    parser.add_argument("--config", "-c", type=Path, required=True, metavar="FILE", help="the node's file (TOML)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="change a value, such as --set node.id=dev-7",
    )


def settings_of(args: argparse.Namespace, cls: type[T]) -> T:
    """Load the file that the flags name and set up logging as it says."""
    settings = load_file(cls, args.config, env=os.environ, overrides=args.overrides).value
    logs.configure(settings.telemetry.log, settings.telemetry.log_format, settings.node.id)
    return settings
