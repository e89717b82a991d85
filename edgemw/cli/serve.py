"""`edgemw serve`: predictions from a store of releases."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgemw.cli.flags import add_connection_flags
from edgemw.cli.typed import count, duration, share
from edgemw.core.errors import ConfigError
from edgemw.telemetry import logs

if TYPE_CHECKING:
    from edgemw.app.answering import MqttDoor

CANARY_FOR_S = 600.0
_EPILOG = """Clients speak the Open Inference Protocol, version 2, with JSON or binary tensors, as tritonclient does. The newest
release in the store answers; a newer one takes its place as soon as it is there, if it passes its checks. Neither the device
that fills the store nor a broker has to run.

With --node it answers over MQTT too: questions to em1/NET/NODE/pq/WHO/TASK, answers at em1/NET/NODE/pa/WHO/TASK or the response
topic of MQTT 5. --config takes broker, net and node from the file of a device, and what its [serving]
says of asking, of canaries and of the queue.

With --ask it asks another service, one with a larger model, where its own prediction is not sure, or where it has no release yet.

The first Ctrl-C, or SIGTERM, ends it.

exit code: 0 stopped, 2 wrong usage, 3 the store or an address cannot be used, 4 the broker refuses it

examples:
  edgemw serve state/device-0/releases
  edgemw serve /var/lib/edgemw/releases --http 0.0.0.0:8090 --socket /run/edgemw/predict.sock
  edgemw serve state/device-0/releases --broker mqtt://127.0.0.1:1883 --net line-3 --node device-0
  edgemw serve state/device-0/releases --config device-0.toml
  edgemw serve state/device-0/releases --config device-0.toml --streams streams.toml
  edgemw serve state/device-0/releases --config device-0.toml --ask fog-0 --ask-below 0.7 --ask-deadline 50ms
  edgemw serve state/device-0/releases --canary 0.1 --canary-for 10m
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
    help_ = "over MQTT, another service that is asked where an own prediction is not sure"
    parser.add_argument("--ask", metavar="NODE", help=help_)
    help_ = "probability of its class under which a prediction is not sure (default: 0.6); 0: ask only while there is no release"
    parser.add_argument("--ask-below", metavar="P", type=share, help=help_)
    help_ = "for the other's answer (default: 100ms); after that the own one is sent"
    parser.add_argument("--ask-deadline", metavar="TIME", type=duration, help=help_)
    help_ = "over MQTT, ask others, but take no questions"
    parser.add_argument("--ask-only", action="store_true", help=help_)
    help_ = "share of the requests that a newer release answers first (default: 0, all at once)"
    parser.add_argument("--canary", metavar="SHARE", type=share, help=help_)
    help_ = "how long, before it answers all (default: 10m); a failure ends it"
    parser.add_argument("--canary-for", metavar="TIME", type=duration, help=help_)
    help_ = "requests to a slow model that may wait (default: 64); one more is refused with 429"
    parser.add_argument("--queue", metavar="N", type=count, help=help_)
    help_ = "that computing waiting requests together may take (default: 20ms), where it pays; 0s: one at a time"
    parser.add_argument("--batch-latency", metavar="TIME", type=duration, help=help_)
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help="change a value of the file"
    )
    help_ = "threads of one prediction (default: 1); more pay from about a million parameters"
    parser.add_argument("--threads", metavar="N", type=count, default=1, help=help_)
    help_ = "file descriptor that is told the URL once the doors are open, for programs that start this one"
    parser.add_argument("--ready-fd", metavar="N", type=count, help=help_)
    help_ = "debug, info, warning or error (default: info)"
    parser.add_argument("--log", metavar="LEVEL", choices=("debug", "info", "warning", "error"), default="info", help=help_)
    parser.set_defaults(run=run, usage_error=parser.error)


def run(args: argparse.Namespace) -> int:
    """Serve until stopped."""
    over_mqtt = bool(args.node or args.config or args.broker or args.net or args.streams or args.ask or args.ask_only)
    if not args.http and args.socket is None and not over_mqtt:
        args.usage_error("there is no door: give --http, --socket or --node")
    if args.overrides and args.config is None:
        args.usage_error("--set changes a value of a file: give --config")
    logs.configure(args.log, "text", "")
    try:
        from edgemw.app.serve import ServeSettings, canary_of, run_serve
    except ModuleNotFoundError as error:
        raise ConfigError(f"serving needs {error.name}: pip install 'edgemw[device]'") from error
    mqtt = _over_mqtt(args) if over_mqtt else None
    settings = ServeSettings(
        store=args.store,
        tasks=tuple(args.task),
        http=args.http,
        socket=args.socket,
        threads=args.threads,
        ready_fd=args.ready_fd,
        mqtt=mqtt,
    )
    if args.queue is not None:
        settings = replace(settings, queue=args.queue)
    if args.batch_latency is not None:
        settings = replace(settings, batch_s=args.batch_latency)
    seconds = CANARY_FOR_S if args.canary_for is None else args.canary_for
    run_serve(replace(settings, canary=canary_of(args.canary or 0.0, seconds)))
    return 0


def _over_mqtt(args: argparse.Namespace) -> MqttDoor:
    """What the flags say of the broker; where they are silent the file does, also of what is not about MQTT."""
    from edgemw.app.answering import Asks, MqttDoor  # what this imports takes half a second, and memory
    from edgemw.app.checks import check_optional_id
    from edgemw.app.streams import load_streams
    from edgemw.cli.connect import server_of
    from edgemw.serving.placement import Rule

    broker, net, node, serving = server_of(args)
    flags = {"--ask-below": args.ask_below, "--ask-deadline": args.ask_deadline, "--ask-only": args.ask_only or None}
    given = [name for name, value in flags.items() if value is not None]
    for name, value in (
        ("ask", serving.ask),
        ("ask_below", serving.ask_below),
        ("ask_deadline", serving.ask_deadline),
        ("canary", serving.canary),
        ("canary_for", serving.canary_for),
        ("queue", serving.queue),
        ("batch_latency", serving.batch_latency),
    ):
        if getattr(args, name) is None:
            setattr(args, name, value)
    if not args.ask and given:
        args.usage_error(f"{given[0]} needs --ask NODE")
    if problem := check_optional_id(args.ask):
        raise ConfigError(problem, key="--ask")
    if args.ask == node:
        raise ConfigError(f"{node} would ask itself", key="--ask")
    asks = Asks(args.ask, Rule(args.ask_below, args.ask_deadline)) if args.ask else None
    streams = load_streams(args.streams) if args.streams else ()
    return MqttDoor(broker, net, node, os.environ, streams, asks, answers=not args.ask_only)
