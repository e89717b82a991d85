"""`edgemw device`: run one device."""

from __future__ import annotations

import argparse
import os

from edgemw.app.settings import DeviceFile
from edgemw.cli.nodes import add_node_parser, settings_of


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the main program."""
    add_node_parser(subparsers, "device", "run a device: train, send updates, serve predictions", run)


def run(args: argparse.Namespace) -> int:
    """Run until stopped."""
    settings = settings_of(args, DeviceFile)
    from edgemw.app.wiring import run_device

    origin = ["--config", str(args.config), *(flag for each in args.overrides for flag in ("--set", each))]
    run_device(settings, os.environ, origin)
    return 0
