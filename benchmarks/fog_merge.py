"""Merging encodings against decoding, averaging and encoding them again; encode and decode throughput. Prints JSON.

    python benchmarks/fog_merge.py [--payloads N] [--size P] [--density F] [--repeats N] [--seed N]

Every variant goes from payload bytes to payload bytes and must give the same integers:

    merge_*       lattice merge with the compiled or the numpy reader
    baseline_*    what a fog node does with a codec that cannot add: decode each payload to float32[P], average, encode. The
                  average is encoded on step / N, so that nothing is lost and both sides write the same symbols. The reader and
                  writer of symbols are those of the name; the averaging is numpy, into one accumulator made beforehand.

Everything runs in one thread and is timed by the processor time of that thread, kernel included. The variants take turns, so
that whatever else the machine does to caches and clocks falls on all of them; figures are medians.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from edgemw.compression import rangecoder
from edgemw.compression.coders import Coders
from edgemw.compression.golomb import fastest
from edgemw.compression.golomb_numpy import NumpyGolomb
from edgemw.compression.lattice import Lattice
from edgemw.core.bundle import Vector

STEP = 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--payloads", type=int, default=64, help="payloads that are merged (default 64)")
    parser.add_argument("--size", type=int, default=10**6, help="parameters P (default 1000000)")
    parser.add_argument("--density", type=float, default=0.01, help="share of symbols that are not zero (default 0.01)")
    parser.add_argument("--repeats", type=int, default=21, help="turns of each variant (default 21)")
    parser.add_argument("--seed", type=int, default=0, help="of the random updates (default 0)")
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    payloads = [Lattice("golomb").encode(update(rng, options.size, options.density), STEP) for _ in range(options.payloads)]
    sample = update(rng, options.size, options.density)
    report = {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
        "compiled": fastest().name == "compiled",
        "payloads": options.payloads,
        "size": options.size,
        "density": options.density,
        "payload_bytes": round(statistics.mean(len(payload) for payload in payloads)),
        "merged_bytes": len(Lattice().merge(payloads, options.size)),
        "repeats": options.repeats,
        "seed": options.seed,
    }
    report |= merging(payloads, options.size, options.repeats)
    report |= throughput(sample, options.repeats)
    print(json.dumps(report, indent=1))


def update(rng: np.random.Generator, size: int, density: float) -> Vector:
    """A float32[P] of which the given share rounds away from zero; their magnitudes are exponential, 1 to 127 steps."""
    vector = rng.uniform(-0.45, 0.45, size).astype(np.float32)
    places = rng.choice(size, round(size * density), replace=False)
    vector[places] = rng.choice([-1, 1], places.size) * np.minimum(0.51 + rng.exponential(0.7, places.size), 127)
    return vector


def codecs() -> dict[str, Lattice]:
    coders = (Coders(golomb, rangecoder.fastest()) for golomb in (fastest(), NumpyGolomb()))
    return {each.golomb.name: Lattice("golomb").using(each) for each in coders}


def merging(payloads: list[bytes], size: int, repeats: int) -> dict[str, object]:
    """Median milliseconds of each variant; ratios baseline / merge."""
    variants: dict[str, Callable[[], object]] = {}
    total = np.zeros(size, np.float32)
    for name, codec in codecs().items():
        variants[f"merge_{name}"] = partial(codec.merge, payloads, size)
        variants[f"baseline_{name}"] = partial(average, codec, payloads, total)
        same(codec, payloads, size)
    medians = {name: spent * 1e3 for name, spent in interleaved(variants, repeats).items()}
    ratios = {
        f"{baseline} / {merge}": round(medians[baseline] / medians[merge], 1)
        for merge in medians
        for baseline in medians
        if merge.startswith("merge") and baseline.startswith("baseline")
    }
    return {"cpu_ms": {name: round(value, 2) for name, value in medians.items()}, "ratios": ratios}


def average(codec: Lattice, payloads: list[bytes], total: Vector) -> bytes:
    """Decode, average, encode."""
    total[:] = 0
    for payload in payloads:
        total += codec.decode(payload, total.size)
    total /= np.float32(len(payloads))
    return codec.encode(total, STEP / len(payloads))


def same(codec: Lattice, payloads: list[bytes], size: int) -> None:
    """Both ways must have written the same symbols, so that the comparison is one of like with like."""
    merged, averaged = codec.merge(payloads, size), average(codec, payloads, np.zeros(size, np.float32))
    if not np.array_equal(codec.decode(merged, size), codec.decode(averaged, size) * np.float32(len(payloads))):
        raise SystemExit(
            "the sum exceeds 127 steps or float32: choose fewer payloads, or a number of them that is a power of two"
        )


def throughput(vector: Vector, repeats: int) -> dict[str, object]:
    """MB of dense float32 per second of processor time."""
    variants: dict[str, Callable[[], object]] = {}
    for name, codec in codecs().items():
        payload = codec.encode(vector, STEP)
        variants[f"encode_{name}"] = partial(codec.encode, vector, STEP)
        variants[f"decode_{name}"] = partial(codec.decode, payload, vector.size)
    spent = interleaved(variants, 3 * repeats)
    return {"mb_per_s": {name: round(vector.nbytes / 1e6 / seconds) for name, seconds in spent.items()}}


def interleaved(variants: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of processor time of each variant; the first two turns only warm up."""
    spent: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(repeats + 2):
        for name, run in variants.items():
            start = time.thread_time()
            run()
            if turn >= 2:
                spent[name].append(time.thread_time() - start)
    return {name: statistics.median(values) for name, values in spent.items()}


if __name__ == "__main__":
    main()
