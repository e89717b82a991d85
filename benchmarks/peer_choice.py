"""Which kappa `peer_flower.py` runs with, chosen without the test samples. Prints JSON, one line for each pair.

    python benchmarks/peer_choice.py [--kappas 96,192,384] [--release-kappas 16,20,24] [--seeds 100-104] [--target 0.9]

The peer's task and schedule in one process: the quickstart's bundle, eight devices, everybody in every round, SGD 0.1, batches of
32, one epoch; the encodings, the merge, the server step and the differences are the functions that nodes run. A fifth of the
*training* samples is held out and measured; the test samples of the comparison are never read. Partitions and first weights come
from seeds that the comparison does not use.

A pair is (kappa of updates, kappa of releases). `bytes` are those of a device up to the first release that reaches the target on
the held-out samples: payloads of its updates and of the differences, and FIXED_BYTES for everything else that a round carries.
The pair with the smallest median of bytes among those that reach the target within MAX_ROUNDS with every seed is the cheapest;
chosen was 192 and 20, an eighth above it: the cheapest of 12 to 384, 384 and 20, has neighbours that fail with some seeds.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from edgemw.compression.merge import merge
from edgemw.compression.residual import Contribution, encode_update
from edgemw.compression.table import codec_named
from edgemw.core.bundle import Bundle, Vector, read_bundle, theta_view
from edgemw.core.ids import UpdateId
from edgemw.core.plan import plan_of
from edgemw.fog.events import Released
from edgemw.fog.release import TopOptions, first_release, moved, past_of
from edgemw.fog.server import ServerOptions
from edgemw.fog.trail import Trail
from edgemw.fog.window import WindowOptions
from edgemw.learning.dataset import Samples
from edgemw.learning.onnx_oracle import OnnxOracle
from edgemw.learning.partition import dirichlet
from edgemw.learning.trainer import train
from edgemw.serving.session import TrainingSession, open_inference
from edgemw.wire.messages import unpack_difference

BUNDLE = Path(__file__).resolve().parents[1] / "examples" / "quickstart" / "digits.edge"
DEVICES, ALPHA, MIN_SIZE, MAX_ROUNDS, FIXED_BYTES = 8, 0.3, 8, 60, 380


@dataclass(frozen=True, slots=True)
class Setting:
    """One run: the bundle with its first weights, a part for each device, what is measured on, and how it is encoded."""

    bundle: Bundle
    parts: list[Samples]
    held_out: Samples
    options: TopOptions


def rounds(setting: Setting) -> Iterator[tuple[float, int]]:
    """Accuracy of each release on the held-out samples, and the payload bytes that a device has sent and received by then."""
    bundle, options, trail = setting.bundle, setting.options, Trail()
    oracle, carried = oracle_of(bundle), 0
    plan = plan_of(bundle.manifest.training)
    trail.start(theta_view(bundle.theta0))
    past = past_of(bundle)
    released = Released(first_release(bundle, bytes(16), 1, options), bundle.theta0)
    residuals: list[Vector] = [np.zeros_like(bundle.theta0) for _ in setting.parts]
    for number in range(MAX_ROUNDS + 1):
        manifest, encodings = released.manifest, []
        codec = codec_named(manifest.codec, **manifest.parameters)
        outputs = oracle.predictor(released.theta)(setting.held_out.x)
        yield float((outputs.argmax(1) == setting.held_out.y).mean()), carried
        for device, part in enumerate(setting.parts):
            trained = train(oracle, released.theta, part, plan, 1000 * number + device, lambda: False)
            update = Contribution(UpdateId(f"device-{device}", 1, number), number, trained.weight, trained.delta)
            encoded, residuals[device] = encode_update(codec, update, residuals[device], manifest.step)
            encodings.append(encoded)
        carried += sum(len(e.sections[0].payload) for e in encodings) // len(encodings)
        past = past.then(released, 0)
        nxt = replace(released, manifest=replace(manifest, number=number + 1))
        released = moved(nxt, past, merge(codec, encodings), 0.0, options, trail)
        if released.manifest.difference != manifest.difference:
            carried += len(unpack_difference(released.manifest.difference).payload)
        trail.heard(released.manifest)


def setting_of(seed: int, options: TopOptions) -> Setting:
    """The peer's training samples, a fifth of them held out, parts and first weights of a seed."""
    x, y = load_digits(return_X_y=True)
    x, _, y, _ = train_test_split((x / 16.0).astype(np.float32), y.astype(np.int64), test_size=0.2, random_state=0, stratify=y)
    x, held_x, y, held_y = train_test_split(x, y, test_size=0.2, random_state=seed, stratify=y)
    parts = dirichlet(y, DEVICES, ALPHA, MIN_SIZE, np.random.default_rng(seed))
    return Setting(
        read_bundle(BUNDLE.read_bytes()).reseeded(seed),
        [Samples(x[rows], y[rows]) for rows in parts],
        Samples(held_x, held_y),
        options,
    )


def oracle_of(bundle: Bundle) -> OnnxOracle:
    """Loss, gradient and predictions of a bundle, with one thread."""
    assert bundle.train is not None
    size = bundle.manifest.size
    return OnnxOracle(
        bundle.manifest, TrainingSession(bundle.train), lambda theta: open_inference(bundle.infer, theta, size=size).run
    )


def options_of(kappa: float, release_kappa: float, server: ServerOptions) -> TopOptions:
    """The quickstart's settings with these two."""
    return TopOptions(WindowOptions(children=DEVICES), server, {}, kappa=kappa, release_kappa=release_kappa)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kappas", type=numbers, default=[96.0, 192.0, 384.0], help="candidates for updates")
    parser.add_argument("--release-kappas", type=numbers, default=[16.0, 20.0, 24.0], help="candidates for releases")
    parser.add_argument("--seeds", type=span, default=range(100, 105))
    parser.add_argument("--target", type=float, default=0.9)
    parser.add_argument("--server-lr", type=float, default=1.0)
    parser.add_argument("--server-momentum", type=float, default=0.0, help="0: the plain mean")
    arguments = parser.parse_args()
    optimizer = "momentum" if arguments.server_momentum else "average"
    server = ServerOptions(optimizer, arguments.server_lr, arguments.server_momentum)
    for kappa, release_kappa in product(arguments.kappas, arguments.release_kappas):
        options = options_of(kappa, release_kappa, server)
        runs = [reached(setting_of(seed, options), arguments.target) for seed in arguments.seeds]
        good = [run for run in runs if run is not None]
        line = {"kappa": [kappa, release_kappa], "failed": len(runs) - len(good), "rounds": [run[0] for run in good]}
        line["bytes"] = [run[1] for run in good]
        line["median_bytes"] = round(statistics.median(run[1] for run in good)) if good else None
        print(json.dumps(line), flush=True)


def reached(setting: Setting, target: float) -> tuple[int, int] | None:
    """The first release that reaches the target, and the bytes until then; None where none does."""
    for number, (accuracy, carried) in enumerate(rounds(setting)):
        if accuracy >= target:
            return number, carried + FIXED_BYTES * number
    return None


def numbers(text: str) -> list[float]:
    """3,4,5"""
    return [float(word) for word in text.split(",")]


def span(text: str) -> range:
    """0-4, or one number."""
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


if __name__ == "__main__":
    main()
