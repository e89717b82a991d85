"""`edgemw device`: run one device."""

from __future__ import annotations

import argparse
import os

from edgemw.app.settings import DeviceFile
from edgemw.cli.nodes import add_node_flags, settings_of

_EXAMPLES = """the first Ctrl-C finishes what is in hand and saves, the second stops at once

examples:
  edgemw device --config device.toml
  EDGEMW_BROKER__URL=mqtts://broker.example:8883 edgemw device --config /etc/edgemw/device.toml --set telemetry.log=debug
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the main program."""
    parser = subparsers.add_parser(
        "device",
        help="run a device: train, send updates, serve predictions",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_node_flags(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run until stopped."""
    settings = settings_of(args, DeviceFile)
    from edgemw.app.wiring import run_device

    run_device(settings, os.environ)
    return 0
