"""`edgemw serve`: predictions from a store of releases."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from edgemw.cli.flags import add_connection_flags
from edgemw.cli.typed import count
from edgemw.core.errors import ConfigError
from edgemw.telemetry import logs

_EPILOG = """Clients speak the Open Inference Protocol, version 2, with JSON or binary tensors, as tritonclient does. The newest
release in the store answers; a newer one takes its place as soon as it is there, if it passes its checks. Neither the device
that fills the store nor a broker has to run.

With --node it answers over MQTT too: questions to em1/NET/NODE/pq/WHO/TASK, answers at em1/NET/NODE/pa/WHO/TASK or the response
topic of MQTT 5. --config takes broker, net and node from the file of a device.

The first Ctrl-C, or SIGTERM, ends it.

exit code: 0 stopped, 2 wrong usage, 3 the store or an address cannot be used, 4 the broker refuses it

examples:
  edgemw serve state/device-0/releases
  edgemw serve /var/lib/edgemw/releases --http 0.0.0.0:8090 --socket /run/edgemw/predict.sock
  edgemw serve state/device-0/releases --broker mqtt://127.0.0.1:1883 --net line-3 --node device-0
  edgemw serve state/device-0/releases --config device-0.toml
  edgemw serve state/device-0/releases --config device-0.toml --streams streams.toml
  curl http://127.0.0.1:8090/v2/models/digits
  curl --unix-socket /run/edgemw/predict.sock http://localhost/v2/health/ready
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the main program."""
    parser = subparsers.add_parser(
        "serve",
        help="serve predictions from a store of releases",
        description="Serve predictions from a store of releases, in a process of its own.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("store", metavar="STORE", type=Path, help="folder of releases, such as STATE/releases of a device")
    parser.add_argument("--task", metavar="NAME", action="append", default=[], help="serve only this task; may be repeated")
    help_ = 'address of the HTTP door (default: 127.0.0.1:8090); port 0: any free one; "": none'
    parser.add_argument("--http", metavar="HOST:PORT", default="127.0.0.1:8090", help=help_)
    parser.add_argument("--socket", metavar="PATH", type=Path, help="also a Unix socket, for this user alone")
    add_connection_flags(parser)
    help_ = "name by which it is asked over MQTT (default: that of the device in --config)"
    parser.add_argument("--node", metavar="NAME", help=help_)
    help_ = "over MQTT, also read the sensors in this file, and publish predictions: docs/serving.md has an example"
    parser.add_argument("--streams", metavar="FILE", type=Path, help=help_)
    help_ = "threads of one prediction (default: 1); more pay from about a million parameters"
    parser.add_argument("--threads", metavar="N", type=count, default=1, help=help_)
    help_ = "file descriptor that is told the URL once the doors are open, for programs that start this one"
    parser.add_argument("--ready-fd", metavar="N", type=count, help=help_)
    help_ = "debug, info, warning or error (default: info)"
    parser.add_argument("--log", metavar="LEVEL", choices=("debug", "info", "warning", "error"), default="info", help=help_)
    parser.set_defaults(run=run, usage_error=parser.error)


def run(args: argparse.Namespace) -> int:
    """Serve until stopped."""
    over_mqtt = bool(args.node or args.config or args.broker or args.net or args.streams)
    if not args.http and args.socket is None and not over_mqtt:
        args.usage_error("there is no door: give --http, --socket or --node")
    logs.configure(args.log, "text", "")
    try:
        from edgemw.app.serve import ServeSettings, run_serve
    except ModuleNotFoundError as error:
        raise ConfigError(f"serving needs {error.name}: pip install 'edgemw[device]'") from error
    mqtt = None
    if over_mqtt:  # what this imports takes half a second, and memory
        from edgemw.app.answering import MqttDoor
        from edgemw.app.streams import load_streams
        from edgemw.cli.connect import server_of

        mqtt = MqttDoor(*server_of(args), os.environ, load_streams(args.streams) if args.streams else ())
    run_serve(
        ServeSettings(
            store=args.store,
            tasks=tuple(args.task),
            http=args.http,
            socket=args.socket,
            threads=args.threads,
            ready_fd=args.ready_fd,
            mqtt=mqtt,
        )
    )
    return 0
