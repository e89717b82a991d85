"""`edgemw fog`: run one fog node."""

from __future__ import annotations

import argparse
import os

from edgemw.app.settings import FogFile
from edgemw.cli.nodes import add_node_flags, settings_of

_EXAMPLES = """the first Ctrl-C finishes what is in hand and saves, the second stops at once

examples:
  edgemw fog --config fog.toml
  EDGEMW_BROKER__URL=mqtts://broker.example:8883 edgemw fog --config /etc/edgemw/fog.toml --set telemetry.log=debug
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the main program."""
    parser = subparsers.add_parser(
        "fog",
        help="run a fog node: merge updates, or release models at the top",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_node_flags(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run until stopped."""
    settings = settings_of(args, FogFile)
    from edgemw.app.wiring import run_fog

    run_fog(settings, os.environ)
    return 0
