"""`edgemw task`: publish a bundle to a running net, or look into one."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from edgemw.app.checks import check_id
from edgemw.app.console import Console
from edgemw.app.places import AUTHOR, signing_key
from edgemw.app.wiring import load_bundle
from edgemw.cli.connect import signer_of, with_console
from edgemw.cli.flags import add_connection_flags
from edgemw.core.errors import ConfigError, EdgeError
from edgemw.wire.messages import ReleaseManifest

_EXAMPLES = """examples:
  edgemw task publish har.edge --config fog.toml
  edgemw task publish har.edge --broker mqtt://127.0.0.1:1883 --net quickstart --to top
  edgemw task publish har.edge --config fog.toml --sign pki/nodes/top/sign.key
  edgemw task show har.edge --json
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the main program."""
    parser = subparsers.add_parser(
        "task",
        help="publish a task bundle, or look into one",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    publish = verbs.add_parser(
        "publish",
        help="put a bundle on the broker: the fleet picks it up",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    publish.add_argument("bundle", type=Path, metavar="FILE.edge", help="the bundle")
    add_connection_flags(publish)
    publish.add_argument("--to", metavar="NODE", help="id of the top fog node (default: the one that is there)")
    publish.add_argument(
        "--timeout", type=float, default=20.0, metavar="S", help="seconds to wait for the top to take it (default: 20)"
    )
    publish.add_argument(
        "--sign",
        type=Path,
        metavar="FILE",
        help="Ed25519 key in PEM that signs the proposal, where the top asks for that (default: the author's in --pki, or "
        "security.key of --config)",
    )
    publish.add_argument("--json", action="store_true", help="print what happened as JSON")
    publish.set_defaults(run=run_publish)
    show = verbs.add_parser(
        "show",
        help="check a bundle and say what is in it",
        epilog="examples:\n  edgemw task show examples/quickstart/digits.edge\n  edgemw task show my.edge --json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    show.add_argument("bundle", type=Path, metavar="FILE.edge", help="the bundle")
    show.add_argument("--json", action="store_true", help="print the facts as JSON")
    show.set_defaults(run=run_show)


def run_publish(args: argparse.Namespace) -> int:
    """Publish and wait until the top has made a release of it."""
    data, bundle = load_bundle(args.bundle)
    task = bundle.manifest.name
    own = None if args.pki is None else signing_key(args.pki, AUTHOR)
    signer = signer_of(args.sign or own, args.config)

    async def work(console: Console) -> tuple[str, ReleaseManifest | None, str]:
        await console.settle()
        top = args.to or console.census.top()
        if top is None:
            raise EdgeError("no top fog node has been seen in this net: start one, or name it with --to")
        _refuse_others(console, top)
        made = await console.publish_task(top, task, data, args.timeout, signer)
        states = [] if made is not None else await console.ask()
        return top, made, "; ".join(s.status.reason for s in states if (s.node, s.task) == (top, task) and s.status.reason)

    top, manifest, reason = with_console(args, work, AUTHOR)
    if args.json:
        print(
            json.dumps(
                {"task": task, "top": top, "taken": manifest is not None, "release": manifest.number if manifest else None}
                | {"reason": reason}
            )
        )
    elif reason:
        print(f"{task}: {top} has not taken it within {args.timeout:g} s, and says: {reason}")
    elif manifest is None:
        print(
            f"{task}: on the broker, but {top} has not taken it within {args.timeout:g} s; it will when it runs (edgemw status)"
        )
    else:
        print(f"{task}: {top} has taken it and is at release {manifest.number}")
    return 0 if manifest is not None else 1


def _refuse_others(console: Console, node: str) -> None:
    """Only a top takes tasks: what is left with another node would stay there for ever, and nobody would read it."""
    if problem := check_id(node):
        raise ConfigError(problem, key="--to")
    role = console.census.role(node)
    if role not in ("", "top"):
        what = "a device" if role == "device" else "a fog node with a parent"
        raise ConfigError(f"{node} is {what}; the top is {console.census.top() or 'not there'}", key="--to")


def run_show(args: argparse.Namespace) -> int:
    """Verify the bundle and print what it says."""
    _, bundle = load_bundle(args.bundle)
    m = bundle.manifest
    facts = {
        "task": m.name,
        "format": m.format,
        "parameters": m.size,
        "tensors": len(m.layout),
        "input": f"{m.input.dtype}{list(m.input.shape)}",
        "target": f"{m.target.dtype}{list(m.target.shape)}",
        "output": f"{m.output.dtype}{list(m.output.shape)}",
        "loss": m.loss,
        "metrics": list(m.metrics),
        "training": m.training,
        "oracle": "onnx" if bundle.train is not None else f"torch ({m.python})",
    }
    print(json.dumps(facts) if args.json else "\n".join(f"{name:<12}{value}" for name, value in facts.items()))
    return 0
