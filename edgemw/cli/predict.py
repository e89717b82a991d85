"""`edgemw predict`: what a model says about samples, from a device's store or through a device's HTTP door."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import urllib.error
import urllib.request
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemw.cli.flags import add_connection_flags
from edgemw.core.errors import ConfigError, DataError, EdgeError, LinkError
from edgemw.core.ids import valid_id
from edgemw.serving.decision import class_of

MAX_INPUT_BYTES = 256 << 20
TIMEOUT_S, MQTT_TIMEOUT_S = 30.0, 10.0
_FORMATS = ".npz, .npy, .csv (numbers, one sample a line) and .json are read"
_EPILOG = f"""Samples are numbers in the shape that the model takes; one sample, or a batch of them. A line is printed for each:
the class and its score where the model is a classifier, the outputs otherwise.

Samples come from the command line (--json VALUES) or from a file (--input FILE):
{_FORMATS}. --json without VALUES is about the answer:
it is the same as --json-output.

exit code: 0 done, 2 wrong usage, 3 the samples or the store do not fit, 4 the device cannot be reached

examples:
  edgemw predict --store state/device-0/releases --input samples.npz --array x --row 0
  edgemw predict --url http://127.0.0.1:8080 --task digits --json '[[0.5, 1.0], [0.0, 0.25]]'
  edgemw predict --node device-0 --broker mqtt://127.0.0.1:1883 --net line-3 --task digits --input samples.npz --row 0
"""


@dataclass(frozen=True, slots=True)
class Prediction:
    """Outputs [N, *output] of one release; `classes` is None where the model is no classifier."""

    task: str
    release: int
    classes: int | None
    outputs: npt.NDArray[Any]


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the main program."""
    parser = subparsers.add_parser(
        "predict",
        help="predict with the latest release of a device",
        description="Predict with the latest release of a task: from a store on this machine, or by asking a running device.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--store", metavar="DIR", type=Path, help="folder of releases; the model runs in this process")
    source.add_argument("--url", metavar="URL", help="prediction service of a device, such as http://127.0.0.1:8080")
    source.add_argument("--node", metavar="NAME", help="prediction service that answers by this name over MQTT")
    add_connection_flags(parser)
    help_ = "who asks, over MQTT: under access rules the name that the broker knows you by (default: the node of --config)"
    parser.add_argument("--as", metavar="NAME", dest="asker", help=help_)
    help_ = "task; may be left out where there is only one (always needed with --url and --node)"
    parser.add_argument("--task", metavar="NAME", help=help_)
    help_ = "samples: an .npz, .npy, .csv or .json file, or - for JSON on standard input"
    parser.add_argument("--input", metavar="FILE", help=help_)
    parser.add_argument("--array", metavar="NAME", default="x", help="array of an .npz file (default: x)")
    parser.add_argument("--row", metavar="N", type=int, help="only this sample; negative counts from the end")
    help_ = "samples as JSON, such as '[[0.5, 1.0]]'; without VALUES: the same as --json-output"
    parser.add_argument("--json", metavar="VALUES", nargs="?", const="", help=help_)
    parser.add_argument("--json-output", action="store_true", help="print the answer as one JSON object")
    parser.add_argument("stray", nargs="*", help=argparse.SUPPRESS)
    parser.set_defaults(run=run, usage_error=parser.error)


def run(args: argparse.Namespace) -> int:
    """Predict and print. Returns 0, or the exit code of the error that it printed."""
    as_json = args.json_output or args.json == ""
    if args.stray:
        args.usage_error(f"{args.stray[0][:40]!r} stands alone: samples are given with --json VALUES or --input FILE")
    if bool(args.input) == bool(args.json):
        args.usage_error("give the samples, either with --input or with --json VALUES")
    if not args.store and not args.task:
        args.usage_error("--url needs --task" if args.url else "--node needs --task")
    try:
        x = _samples(args)
        if args.store:
            prediction = _compute(args.store, args.task, x)
        else:
            prediction = _ask(args.url, args.task, x) if args.url else _ask_over_mqtt(args, x)
    except EdgeError as error:
        print(json.dumps({"error": str(error)}) if as_json else f"edgemw: {error}", file=sys.stderr)
        return error.exit_code
    if as_json:
        print(json.dumps(_document(prediction)))
    else:
        for row in prediction.outputs:
            print(_line(row, prediction.classes))
    return 0


# -- samples


def _samples(args: argparse.Namespace) -> npt.NDArray[Any]:
    if args.json:
        where, x = "--json", _from_json(args.json, "--json")
    elif args.input == "-":
        where, x = "standard input", _from_json(sys.stdin.read(MAX_INPUT_BYTES), "standard input")
    else:
        where, x = args.input, _from_file(Path(args.input), args.array)
    if x.dtype.kind not in "fiub":
        raise DataError(f"{where} holds something that is not a number")
    if args.row is None:
        return x
    if x.ndim == 0 or not -len(x) <= args.row < len(x):
        raise DataError(f"there is no sample {args.row}, there are {len(x) if x.ndim else 0}")
    row: npt.NDArray[Any] = x[args.row]
    return row


def _from_file(path: Path, array: str) -> npt.NDArray[Any]:
    try:
        size_bytes = path.stat().st_size
        if size_bytes > MAX_INPUT_BYTES:
            raise DataError(f"{path} has {size_bytes} bytes, at most {MAX_INPUT_BYTES} are read")
        if path.suffix == ".json":
            return _from_json(path.read_text(encoding="utf-8"), str(path))
        if path.suffix == ".csv":
            return _from_csv(path.read_text(encoding="utf-8"))
        return _from_numpy(path, array)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = "it holds Python objects, not numbers" if "pickle" in str(error) else error
        raise DataError(f"{path} cannot be read: {reason}") from error


def _from_numpy(path: Path, array: str) -> npt.NDArray[Any]:
    """The array of an .npy file, or the one of that name in an .npz file. Raises DataError for any other content."""
    with path.open("rb") as file:
        start = file.read(len(np.lib.format.MAGIC_PREFIX))
    if start != np.lib.format.MAGIC_PREFIX and not zipfile.is_zipfile(path):
        raise DataError(f"{path} is no array: {_FORMATS}")
    loaded = np.load(path, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return loaded
    with loaded as arrays:
        if array not in arrays:
            raise DataError(f"{path} has no array {array!r}; it has {', '.join(arrays)}")
        x: npt.NDArray[Any] = arrays[array]
        return x


def _from_csv(text: str) -> npt.NDArray[Any]:
    """Rows of numbers [N, columns]. Raises ValueError."""
    rows = [line.split(",") for line in text.splitlines() if line.strip()]
    if len({len(row) for row in rows}) != 1:
        raise ValueError("the lines do not have as many numbers, or there are none")
    return np.array([[float(cell) for cell in row] for row in rows])


def _from_json(text: str, where: str) -> npt.NDArray[Any]:
    try:
        x: npt.NDArray[Any] = np.array(json.loads(text))
    except (ValueError, RecursionError, OverflowError) as error:
        raise DataError(f"{where} is not a JSON array of numbers, all rows of one length: {error}") from error
    return x


# -- the two ways to a prediction


def _compute(store: Path, task: str | None, x: npt.NDArray[Any]) -> Prediction:
    try:
        from edgemw.serving.predictor import Predictor
    except ModuleNotFoundError as error:
        raise ConfigError(f"--store needs {error.name}: pip install 'edgemw[device]'") from error
    predictor = Predictor(store, task)
    manifest = predictor.manifest
    outputs = predictor.predict(x)
    outputs = outputs.reshape(-1, *manifest.output.shape)
    return Prediction(predictor.task, predictor.release, _classes(manifest.classes, manifest.output.shape), outputs)


def _ask(url: str, task: str, x: npt.NDArray[Any]) -> Prediction:
    model = f"{url.rstrip('/')}/v2/models/{task}"
    described = _request(model)
    try:
        return _prediction(task, described, _request(f"{model}/infer", json.dumps(_question(described, x)).encode()))
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise LinkError("an answer that is no prediction", where=url, hint="is this the address of serving.http?") from error


def _ask_over_mqtt(args: argparse.Namespace, x: npt.NDArray[Any]) -> Prediction:
    from edgemw.app.asking import open_asker
    from edgemw.cli.connect import asked_of

    broker, net, node, asker_name = asked_of(args)
    if not valid_id(args.task):
        raise ConfigError(f"{args.task!r} cannot name a task", key="--task")

    async def ask() -> Prediction:
        async with open_asker(broker, net, node, os.environ, MQTT_TIMEOUT_S, asker_name) as asker:
            described = await asker.ask(args.task, None, MQTT_TIMEOUT_S)
            return _prediction(args.task, described, await asker.ask(args.task, _question(described, x), MQTT_TIMEOUT_S))

    try:
        return asyncio.run(ask())
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise LinkError("an answer that is no prediction", where=f"{net}/{node}", hint="who answers there?") from error


def _question(described: dict[str, Any], x: npt.NDArray[Any]) -> dict[str, Any]:
    """A request, for a model that is described. Raises KeyError and the like for a description that is none."""
    shape = [int(n) for n in described["inputs"][0]["shape"][1:]]
    batch = x[None] if list(x.shape) == shape else x
    kind = "INT64" if batch.dtype.kind in "iub" else "FP64"
    tensor = {"name": "x", "datatype": kind, "shape": list(batch.shape), "data": batch.ravel().tolist()}
    return {"inputs": [tensor]}


def _prediction(task: str, described: dict[str, Any], answer: dict[str, Any]) -> Prediction:
    """What was answered. Raises as `_question`."""
    classes = _classes(described.get("parameters", {}).get("classes"), described["outputs"][0]["shape"][1:])
    output = answer["outputs"][0]
    outputs = np.array(output["data"], np.float32).reshape(output["shape"])
    return Prediction(task, int(answer["model_version"]), classes, outputs)


def _classes(classes: int | None, shape: Sequence[int]) -> int | None:
    """The number of classes, where a sample's outputs are the scores of one classification."""
    return classes if len(shape) == 0 or list(shape) in ([1], [classes]) else None


def _request(url: str, body: bytes | None = None) -> dict[str, Any]:
    """The JSON object at an address. Raises DataError for what the service refuses, LinkError where there is none."""
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"{url!r} is no http:// address, such as http://127.0.0.1:8090", key="--url")
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310  (the scheme was checked)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310  (the scheme was checked)
            document = json.loads(response.read(MAX_INPUT_BYTES))
    except urllib.error.HTTPError as error:
        text = _reason(error)
        if error.code in (502, 503, 504):
            raise LinkError(text, where=url, hint="try again when the device has a release") from error
        raise DataError(text) from error
    except (urllib.error.URLError, OSError) as error:
        cause = getattr(error, "reason", error)
        raise LinkError(f"no answer ({cause})", where=url, hint="is the device running, and is this its serving.http?") from error
    except ValueError as error:
        raise LinkError("an answer that is not JSON", where=url, hint="is this the address of serving.http?") from error
    if not isinstance(document, dict):
        raise LinkError("an answer that is no JSON object", where=url, hint="is this the address of serving.http?")
    return document


def _reason(error: urllib.error.HTTPError) -> str:
    with error:
        try:
            return str(json.loads(error.read(65536))["error"])
        except (ValueError, KeyError, TypeError):
            return f"HTTP {error.code} {error.reason}"


# -- printing


def _line(outputs: npt.NDArray[Any], classes: int | None) -> str:
    if classes is None:
        return " ".join(f"{value:.6g}" for value in outputs.reshape(-1).tolist())
    label, score = class_of(outputs)
    return f"class {label}  score {score:.4f}"


def _document(prediction: Prediction) -> dict[str, Any]:
    document: dict[str, Any] = {"task": prediction.task, "release": prediction.release, "outputs": prediction.outputs.tolist()}
    if prediction.classes is not None:
        chosen = [class_of(row) for row in prediction.outputs]
        document |= {"classes": [label for label, _ in chosen], "scores": [score for _, score in chosen]}
    return document
