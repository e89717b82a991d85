"""Flags that several commands have; imports nothing, for some of these commands are to start fast."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_connection_flags(parser: argparse.ArgumentParser) -> None:
    """Add --config, --broker, --net and --pki."""
    parser.add_argument(
        "--config", "-c", type=Path, metavar="FILE", help="a node's or deployment's file: its broker and net are used"
    )
    parser.add_argument("--broker", metavar="URL", help="mqtt://HOST:PORT or mqtts://HOST:PORT[,...], instead of the file's")
    parser.add_argument("--net", help="name of the federation, instead of the file's")
    parser.add_argument("--pki", type=Path, metavar="DIR", help="folder of `edgemw pki`: with the certificate of a user of it")
