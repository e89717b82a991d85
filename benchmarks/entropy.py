"""The range coder and Golomb coding against the entropy of what they write, and how fast they are. Prints JSON.

    python benchmarks/entropy.py [--sizes N ...] [--repeats N] [--seed N]

`sizes` compares bytes. The entropy is of order 0, over all P symbols with the zeros; headers (the 8 bytes of the lattice) are in
neither. Vectors are

    laplace K          Laplace, rounded on a step of K times their root mean square, as a device does
    sum of N, laplace  N of them added, as a fog node does
    sparse D           a share D of symbols that are not zero; magnitudes geometric, 10 % above 1
    digits K           updates of ten devices that train 64-256-10 on scikit-learn's digits, two classes each, with error
                       feedback and a step of K; rounds 3 to 12
    sum of 10, digits  the sum of their updates in a round

`mb_per_s` and `merge_ms` are of the lattice codec with each coder: dense float32 in or out, quantisation included, at 1 % of
symbols that are not zero. Everything runs in one thread and is timed by its processor time; the coders take turns, and figures
are medians.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits

from edgemw.compression import golomb, rangecoder
from edgemw.compression.coders import Coders
from edgemw.compression.golomb_numpy import NumpyGolomb, Symbols
from edgemw.compression.lattice import Lattice
from edgemw.compression.rangecoder_python import PythonRangeCoder

Matrix = npt.NDArray[np.float64]
Named = Iterator[tuple[str, Symbols]]

STEP = 1.0
DEVICES = 10
LAYERS = (64, 256, 10)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[10**4, 10**5, 10**6, 10**7], help="parameters P of drawn vectors"
    )
    parser.add_argument("--repeats", type=int, default=11, help="turns of each coder (default 11)")
    parser.add_argument("--seed", type=int, default=0, help="of everything random (default 0)")
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    vectors = [vector for size in options.sizes for vector in drawn(rng, size)]
    vectors += [vector for kappa in (2, 3, 4, 5) for vector in trained(rng, kappa)]
    sizes = [compare(name, symbols) for name, symbols in vectors]
    report = {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
        "compiled": rangecoder.fastest().name == "compiled",
        "seed": options.seed,
        "repeats": options.repeats,
        "worst_range_percent_from_1_kb": max(row.range_percent for row in sizes if row.entropy_bytes >= 1000),
        "mb_per_s": rates(rng, options.repeats),
        "merge_ms": merges(rng, options.repeats),
        "sizes": [asdict(row) for row in sizes],
    }
    print(json.dumps(report, indent=1))


# ---- vectors


def drawn(rng: np.random.Generator, size: int) -> Named:
    for kappa in (2, 3, 4, 5):
        yield f"laplace {kappa}", laplace(rng, size, kappa)
    for children in (5, 16, 64):
        total = np.zeros(size, np.int32)
        for _ in range(children):
            total += laplace(rng, size, 3)
        yield f"sum of {children}, laplace 3", total
    for density in (0.001, 0.01, 0.05, 0.1, 0.25, 0.5):
        yield f"sparse {density}", sparse(rng, size, density)


def rounded(scaled: Matrix) -> Symbols:
    whole: Symbols = np.trunc(scaled + np.copysign(0.5, scaled)).clip(-127, 127).astype(np.int32)
    return whole


def laplace(rng: np.random.Generator, size: int, kappa: float) -> Symbols:
    return rounded(rng.laplace(size=size) / (kappa * np.sqrt(2)))


def sparse(rng: np.random.Generator, size: int, density: float) -> Symbols:
    symbols = np.zeros(size, np.int32)
    places = np.flatnonzero(rng.random(size) < density)
    symbols[places] = rng.geometric(0.9, places.size) * rng.choice([-1, 1], places.size)
    return symbols


def trained(rng: np.random.Generator, kappa: float) -> Named:
    """What ten devices send, and their sum, in ten rounds, each joined to one vector."""
    theta = initial(rng)
    shards = [devices_data(device) for device in range(DEVICES)]
    residuals = [np.zeros(theta.size) for _ in shards]
    one: list[Symbols] = []
    total: list[Symbols] = []
    for number in range(12):
        wanted = [residual + update(rng, theta, *shard) for residual, shard in zip(residuals, shards, strict=True)]
        step = kappa * np.sqrt(np.mean(np.square(wanted)))
        sent = [rounded(vector / step) for vector in wanted]
        residuals = [vector - step * symbols for vector, symbols in zip(wanted, sent, strict=True)]
        theta = theta + step * np.mean(sent, axis=0)
        if number >= 2:
            one.append(sent[number % DEVICES])
            total.append(np.sum(sent, axis=0).astype(np.int32))
    for symbols in one[:2]:
        yield f"digits {kappa}, one update", symbols
    yield f"digits {kappa}, ten updates in a row", np.concatenate(one)
    yield f"sum of 10, digits {kappa}", total[0]
    yield f"sum of 10, digits {kappa}, ten in a row", np.concatenate(total)


def initial(rng: np.random.Generator) -> Matrix:
    parts = []
    for inputs, outputs in itertools.pairwise(LAYERS):
        parts += [rng.normal(0, np.sqrt(2 / inputs), inputs * outputs), np.zeros(outputs)]
    return np.concatenate(parts)


def devices_data(device: int) -> tuple[Matrix, Matrix]:
    images, labels = load_digits(return_X_y=True)
    mine = np.flatnonzero((labels == device) | (labels == (device + 3) % 10))[device % 2 :: 2]
    return images[mine] / 16, np.eye(10)[labels[mine]]


def update(rng: np.random.Generator, theta: Matrix, images: Matrix, targets: Matrix) -> Matrix:
    """What ten steps of SGD change."""
    local = theta.copy()
    for _ in range(10):
        batch = rng.choice(len(images), 32)
        local -= 0.1 * gradient(local, images[batch], targets[batch])
    change: Matrix = local - theta
    return change


def gradient(theta: Matrix, images: Matrix, targets: Matrix) -> Matrix:
    inputs, hidden, outputs = LAYERS
    ends = np.cumsum([inputs * hidden, hidden, hidden * outputs])
    first, first_bias, second, second_bias = np.split(theta, ends)
    active = np.maximum(images @ first.reshape(inputs, hidden) + first_bias, 0)
    logits = active @ second.reshape(hidden, outputs) + second_bias
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    error = (odds / odds.sum(axis=1, keepdims=True) - targets) / len(images)
    back = error @ second.reshape(hidden, outputs).T * (active > 0)
    return np.concatenate([(images.T @ back).ravel(), back.sum(axis=0), (active.T @ error).ravel(), error.sum(axis=0)])


# ---- measurements


@dataclass(frozen=True, slots=True)
class Row:
    """Bytes and bits per parameter; percent above the entropy."""

    vector: str
    size: int
    density: float
    entropy_bytes: int
    entropy_bits: float
    range_bits: float
    golomb_bits: float
    range_percent: float
    golomb_percent: float


def compare(name: str, symbols: Symbols) -> Row:
    positions = np.flatnonzero(symbols)
    _, counts = np.unique(symbols, return_counts=True)
    entropy = float(-(counts * np.log2(counts / symbols.size)).sum()) / 8
    ranged, golombed = (
        len(coder.pack(positions, symbols[positions], symbols.size)) for coder in (rangecoder.fastest(), golomb.fastest())
    )
    return Row(
        vector=name,
        size=symbols.size,
        density=round(positions.size / symbols.size, 4),
        entropy_bytes=round(entropy),
        entropy_bits=round(8 * entropy / symbols.size, 4),
        range_bits=round(8 * ranged / symbols.size, 4),
        golomb_bits=round(8 * golombed / symbols.size, 4),
        range_percent=round(100 * (ranged / entropy - 1), 2),
        golomb_percent=round(100 * (golombed / entropy - 1), 2),
    )


def codecs() -> dict[str, Lattice]:
    plain = Coders(NumpyGolomb(), PythonRangeCoder())
    found = {"golomb_numpy": Lattice("golomb").using(plain), "range_python": Lattice("range").using(plain)}
    for name, coder in (("golomb", golomb.fastest()), ("range", rangecoder.fastest())):
        if coder.name == "compiled":
            found[f"{name}_compiled"] = Lattice(name)
    return found


def rates(rng: np.random.Generator, repeats: int) -> dict[str, int]:
    vector = sparse(rng, 10**6, 0.01).astype(np.float32)
    variants: dict[str, Callable[[], object]] = {}
    for name, codec in codecs().items():
        variants[f"encode_{name}"] = partial(codec.encode, vector, STEP)
        variants[f"decode_{name}"] = partial(codec.decode, codec.encode(vector, STEP), vector.size)
    return {name: round(vector.nbytes / 1e6 / spent) for name, spent in interleaved(variants, repeats).items()}


def merges(rng: np.random.Generator, repeats: int) -> dict[str, float]:
    """64 payloads, P = 1 000 000, 1 %; Python, which needs seconds, has a turn or two."""
    vectors = [sparse(rng, 10**6, 0.01).astype(np.float32) for _ in range(64)]
    variants: dict[str, Callable[[], object]] = {}
    for name, codec in codecs().items():
        variants[name] = partial(codec.merge, [codec.encode(vector, STEP) for vector in vectors], vectors[0].size)
    slow = interleaved({name: run for name, run in variants.items() if not name.endswith("compiled")}, 2)
    spent = slow | interleaved({name: run for name, run in variants.items() if name.endswith("compiled")}, repeats)
    return {name: round(1e3 * seconds, 2) for name, seconds in spent.items()}


def interleaved(variants: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of processor time of each variant; the first turn only warms up."""
    spent: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(repeats + 1):
        for name, run in variants.items():
            start = time.thread_time()
            run()
            if turn:
                spent[name].append(time.thread_time() - start)
    return {name: statistics.median(values) for name, values in spent.items()}


if __name__ == "__main__":
    main()
