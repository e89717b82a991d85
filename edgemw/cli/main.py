"""`edgemw`: the command line. One module per command; each adds its parser and says what to run."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module

from edgemw import __version__
from edgemw.core.errors import EdgeError, single

COMMANDS = (
    "up",
    "check",
    "status",
    "audit",
    "pki",
    "broker",
    "doctor",
    "device",
    "fog",
    "compile",
    "task",
    "predict",
    "serve",
    "model",
    "bench",
    "simulate",
    "fuzz",
    "config",
    "profile",
)
_EXAMPLES = """examples:
  edgemw up examples/quickstart/edgemw.toml      run a whole deployment on this machine
  edgemw status --config device.toml             how is everybody?

exit codes: 0 done, 1 failed, 2 wrong usage, 3 a file or data was refused, 4 the broker cannot be used, 130 interrupted
"""


def parser(commands: Sequence[str] = COMMANDS) -> argparse.ArgumentParser:
    """The parser with these commands; a device loads only what its own command needs."""
    main_parser = argparse.ArgumentParser(
        prog="edgemw",
        description="A fleet of small machines learns one model over MQTT and uses it where the data is.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    main_parser.add_argument("--version", action="version", version=f"edgemw {__version__}")
    subparsers = main_parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in commands:
        import_module(f"edgemw.cli.{name}").add_parser(subparsers)
    return main_parser


def main(arguments: list[str] | None = None) -> int:
    """Run one command; every refusal ends in one line on standard error and its exit code."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")  # vectors are short here: threads of a BLAS would only spin on other nodes' cores
    given = sys.argv[1:] if arguments is None else arguments
    try:
        args = parser(given[:1] if given and given[0] in COMMANDS else COMMANDS).parse_args(given)
        return int(args.run(args))
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except (EdgeError, BrokenPipeError, PermissionError, BaseExceptionGroup) as raised:
        error = single(raised)
        if isinstance(error, BrokenPipeError):  # whoever read what we print has seen enough, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 128 + signal.SIGPIPE
        if isinstance(error, PermissionError) and error.filename is not None:  # of another user, for a start
            print(f"edgemw: {error.filename}: {error.strerror}: run it as the user that owns it", file=sys.stderr)
            return 1
        if not isinstance(error, EdgeError):
            raise
        print(f"edgemw: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
