"""`edgemw fog`: run one fog node."""

from __future__ import annotations

import argparse
import os

from edgemw.app.settings import FogFile
from edgemw.cli.nodes import add_node_parser, settings_of


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the main program."""
    add_node_parser(subparsers, "fog", "run a fog node: merge updates, or release models at the top", run)


def run(args: argparse.Namespace) -> int:
    """Run until stopped."""
    settings = settings_of(args, FogFile)
    from edgemw.app.wiring import run_fog

    run_fog(settings, os.environ)
    return 0
