"""What a fog node pays to merge, for every codec, beside decoding, averaging and encoding. Prints JSON; --text a table.

    python benchmarks/fog_merge.py [--quick] [--text] [--picture FILE] [--codecs NAME ...] [--sizes P ...] [--children N ...]

From payload bytes to payload bytes, on one core, in processor time of one thread; figures are medians of variants that take
turns. `grid` has one row for each codec, size P and number of children:

    merge_ms        the codec's own merge
    dense_ms        the dense way, which is what a fog node of a framework does with a codec that cannot add: decode every payload
                    to float32[P], multiply it by its weight and add it to one accumulator (both in place, as Flower's
                    aggregate_inplace does), encode the result. The weights are equal, and the average is written on step /
                    children, so that a lattice loses nothing: that both ways give the same integers is checked.
    times           dense_ms / merge_ms
    dense_pure_ms   the same with Golomb coding in numpy, which is how a framework in Python would read such payloads; times_pure
                    is beside it. Only for the lattice with Golomb coding
    peak_mb         the most memory that a merge holds at once, payloads not counted (tracemalloc, which sees the extensions and
                    numpy)
    in_mb, out_mb   the payloads together, and their sum
    of_copy         in_mb per second over `copy_gb_per_s`: np.copyto of 64 MiB, measured in the same run

Device updates are drawn: 1 % of the symbols are not zero, 5 % of those are above one step (updates of `entropy.py` that train on
digits have 3 to 6 %). Dense codecs get normal values. Payloads of dense codecs repeat after 8, because their time does not depend
on what is in them; those of sparse codecs are all different.

`dense int8` is the codec lanes with one block of 8 bits: every coordinate, and sums modulo 256.

Rule of what is left out, with `skipped` in its row: a call that touches more than `--most` values (its children times P; for the
merge of a sparse codec times 1 % of that).

`curves` gives the lattice's cost against non-zeros at P = 1e6 and against P at 10 000 non-zeros in each of 16 children.
`growth` gives bits per parameter of sums beside their laws: for dense independent symbols the entropy grows by log2(c) / 2, for
sparse ones the support is 1 - (1 - p)^c and the entropy at most c times that of one.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import struct
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgemw.compression import coders, golomb, rangecoder
from edgemw.compression.codec import Codec
from edgemw.compression.coders import Coders
from edgemw.compression.golomb_numpy import NumpyGolomb, Positions, Symbols
from edgemw.compression.lattice import Lattice
from edgemw.compression.table import CODECS, codec_named

Row = dict[str, Any]  # as it stands in JSON
Report = dict[str, Any]

STEP = 1.0
HEADER = struct.Struct("<fI")
DENSITY = 0.01
ABOVE_ONE = 0.05
DISTINCT = 8  # payloads of a dense codec
TURN_S = 0.25  # for each variant, in which it has 3 to 15 turns, or one if that takes longer
COPY_BYTES = 64 << 20
COLUMNS = [
    "codec",
    "size",
    "children",
    "merge_ms",
    "dense_ms",
    "times",
    "times_pure",
    "peak_mb",
    "in_mb",
    "out_mb",
    "of_copy",
    "skipped",
]


@dataclass(frozen=True, slots=True)
class Subject:
    """A codec as it is measured: `merges_sent` says that a merge touches what was sent and not P values."""

    name: str
    codec: Codec
    merges_sent: bool
    coder: str = ""  # of a lattice
    pure: Codec | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer sizes and children, about a minute")
    parser.add_argument("--text", action="store_true", help="tables instead of JSON")
    parser.add_argument("--picture", type=Path, help="write the curves as an image")
    parser.add_argument("--codecs", nargs="+", help="names of subjects, as in the table (default all)")
    parser.add_argument("--sizes", type=int, nargs="+", help="parameters P (default 1e4 1e5 1e6 1e7)")
    parser.add_argument("--children", type=int, nargs="+", help="payloads that are merged, powers of two (default 2 16 64 1024)")
    parser.add_argument("--most", type=float, help="values that one call may touch (default 2e8)")
    parser.add_argument("--seed", type=int, default=0, help="of the random updates (default 0)")
    options = parser.parse_args()
    sizes = options.sizes or ([10**4, 10**6] if options.quick else [10**4, 10**5, 10**6, 10**7])
    children = options.children or ([16, 64] if options.quick else [2, 16, 64, 1024])
    if any(number & (number - 1) or number < 1 for number in children):
        parser.error("--children must be powers of two, so that an average is exact")
    most = options.most or (7e7 if options.quick else 2e8)
    rng = np.random.default_rng(options.seed)
    chosen = [subject for subject in subjects() if options.codecs is None or subject.name in options.codecs]
    copy_bytes_per_s = COPY_BYTES / copy_s()
    grid = [row for subject in chosen for row in rows(rng, subject, sizes, children, most, copy_bytes_per_s)]
    report: Report = {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
        "compiled": golomb.fastest().name == "compiled",
        "seed": options.seed,
        "density": DENSITY,
        "copy_gb_per_s": round(copy_bytes_per_s / 1e9, 2),
        "grid": grid,
        "curves": curves(rng),
        "growth": growth(rng, 10**4 if options.quick else 10**5),
    }
    if options.picture:
        picture(report, options.picture)
    print(table(report) if options.text else json.dumps(report, indent=1))


def subjects() -> Iterator[Subject]:
    """Every codec of the table, some in more than one way."""
    plain = Lattice("golomb").using(Coders(NumpyGolomb(), rangecoder.fastest()))
    yield Subject("lattice, golomb", Lattice("golomb"), True, "golomb", plain)
    yield Subject("lattice, range", Lattice("range"), True, "range")
    yield Subject("dense float32", codec_named("dense", dtype="float32"), False)
    yield Subject("dense float16", codec_named("dense", dtype="float16"), False)
    yield Subject("dense int8", codec_named("lanes", blocks=1, bits=8), False)
    for name in CODECS:
        if name not in ("lattice", "dense", "lanes"):
            codec = codec_named(name)
            yield Subject(name, codec, codec.merging == "growth")


# ---- payloads


def symbols(rng: np.random.Generator, size: int, density: float) -> tuple[Positions, Symbols]:
    """Where a device's symbols stand, and what they are; drawn without touching P places."""
    expected = size * density
    gaps = rng.geometric(density, int(expected + 6 * math.sqrt(expected) + 6))
    positions = np.cumsum(gaps) - 1
    positions = positions[: np.searchsorted(positions, size)]
    values = rng.geometric(1 - ABOVE_ONE, positions.size) * rng.choice([-1, 1], positions.size)
    return positions, values.astype(np.int32)


def lattice_payloads(rng: np.random.Generator, name: str, size: int, children: int, density: float) -> list[bytes]:
    """As `Lattice.encode` writes them: step, number of non-zeros and which coder, and what that makes of them."""
    coder = coders.fastest().one(ranged=name == "range")
    mark = (name == "range") << 31
    drawn = (symbols(rng, size, density) for _ in range(children))
    return [HEADER.pack(STEP, positions.size | mark) + coder.pack(positions, values, size) for positions, values in drawn]


def payloads_of(rng: np.random.Generator, subject: Subject, size: int, children: int) -> list[bytes]:
    if subject.coder:
        return lattice_payloads(rng, subject.coder, size, children, DENSITY)
    distinct = children if subject.merges_sent else min(children, DISTINCT)
    made = [subject.codec.encode(rng.standard_normal(size, np.float32), STEP) for _ in range(distinct)]
    return [made[i % distinct] for i in range(children)]


# ---- the two ways


def dense_way(codec: Codec, payloads: list[bytes], size: int) -> bytes:
    """Decode, average with weights, encode."""
    total = np.zeros(size, np.float32)
    weight = np.float32(1 / len(payloads))
    for payload in payloads:
        vector = codec.decode(payload, size)
        vector *= weight
        total += vector
    return codec.encode(total, STEP / len(payloads))


def require_same(codec: Codec, payloads: list[bytes], size: int) -> None:
    """Both ways must have written the same symbols, so that the comparison is one of like with like."""
    merged, averaged = codec.merge(payloads, size), dense_way(codec, payloads, size)
    if not np.array_equal(codec.decode(merged, size), codec.decode(averaged, size) * np.float32(len(payloads))):
        raise SystemExit("the two ways differ")


# ---- the grid


def rows(
    rng: np.random.Generator, subject: Subject, sizes: list[int], children: list[int], most: float, copy_bytes_per_s: float
) -> Iterator[Row]:
    for size in sizes:
        drawable = [number for number in children if work(subject, size, number) <= most]
        payloads = payloads_of(rng, subject, size, max(drawable, default=1))
        for number in children:
            if number in drawable:
                yield measured(subject, payloads[:number], size, most, copy_bytes_per_s)
            else:
                reason = f"{work(subject, size, number):.0e} values"
                yield {"codec": subject.name, "size": size, "children": number, "skipped": reason}


def work(subject: Subject, size: int, children: int) -> float:
    """Values that a merge touches."""
    return size * children * (DENSITY if subject.merges_sent else 1)


def measured(subject: Subject, payloads: list[bytes], size: int, most: float, copy_bytes_per_s: float) -> Row:
    codec = subject.codec
    variants: dict[str, Callable[[], object]] = {"merge_ms": partial(codec.merge, payloads, size)}
    if size * len(payloads) <= most:
        variants["dense_ms"] = partial(dense_way, codec, payloads, size)
        if subject.pure:
            variants["dense_pure_ms"] = partial(dense_way, subject.pure, payloads, size)
        if subject.coder:
            require_same(codec, payloads, size)
    spent = interleaved(variants)
    merged, peak_bytes = traced(variants["merge_ms"])
    row: Row = {"codec": subject.name, "size": size, "children": len(payloads), "merging": codec.merging}
    row |= {name: round(1e3 * seconds, 3) for name, seconds in spent.items()}
    for name, ratio in (("dense_ms", "times"), ("dense_pure_ms", "times_pure")):
        if name in spent:
            row[ratio] = round(spent[name] / spent["merge_ms"], 1)
    if "dense_ms" not in spent:
        row["skipped"] = f"dense way, {size * len(payloads):.0e} values"
    in_bytes = sum(map(len, payloads))
    row |= {
        "peak_mb": round(peak_bytes / 1e6, 3),
        "in_mb": round(in_bytes / 1e6, 4),
        "out_mb": round(len(merged) / 1e6, 4),
        "of_copy": round(in_bytes / spent["merge_ms"] / copy_bytes_per_s, 3),
    }
    return row


def traced(merge: Callable[[], object]) -> tuple[bytes, int]:
    """What a merge returns, and the most bytes that it holds at once."""
    tracemalloc.start()
    try:
        merged = merge()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(merged, bytes)
    return merged, peak


def copy_s() -> float:
    source, target = np.ones(COPY_BYTES, np.uint8), np.zeros(COPY_BYTES, np.uint8)
    return interleaved({"copy": partial(np.copyto, target, source)})["copy"]


def interleaved(variants: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median seconds of processor time of each variant; the first turn says how many there will be."""
    spent = {name: [timed(run)] for name, run in variants.items()}
    first = sum(times[0] for times in spent.values())
    turns = max(3, min(15, int(TURN_S * len(variants) / first))) if first < 4 * TURN_S * len(variants) else 0
    for _ in range(turns):
        for name, run in variants.items():
            spent[name].append(timed(run))
    return {name: statistics.median(times[1:] or times) for name, times in spent.items()}


def timed(run: Callable[[], object]) -> float:
    start = time.thread_time()
    run()
    return time.thread_time() - start


# ---- curves and growth


def curves(rng: np.random.Generator) -> dict[str, list[Row]]:
    """Time of a lattice merge of 16 children, with both coders: against non-zeros, and against P."""
    densities = [(10**6, density) for density in (1e-5, 1e-4, 1e-3, 1e-2, 0.05, 0.2)]
    sizes = [(size, 10**4 / size) for size in (10**5, 3 * 10**5, 10**6, 3 * 10**6, 10**7)]
    return {"against_non_zeros": list(points(rng, densities)), "against_size": list(points(rng, sizes))}


def points(rng: np.random.Generator, cases: list[tuple[int, float]]) -> Iterator[Row]:
    for size, density in cases:
        row: Row = {"size": size, "non_zeros_per_child": round(size * density)}
        state = rng.bit_generator.state
        variants: dict[str, Callable[[], object]] = {}
        for name in ("golomb", "range"):
            rng.bit_generator.state = state  # the same symbols for both
            variants[f"{name}_ms"] = partial(Lattice(name).merge, lattice_payloads(rng, name, size, 16, density), size)
        yield row | {name: round(1e3 * seconds, 3) for name, seconds in interleaved(variants).items()}


def growth(rng: np.random.Generator, size: int) -> dict[str, list[Row]]:
    """Bits per parameter of sums of c children."""
    dense, sparse = [], []
    dense_sum, sparse_sum = np.zeros(size, np.int32), np.zeros(size, np.int32)
    added = 0
    for children in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024):
        for _ in range(children - added):
            dense_sum += np.rint(rng.standard_normal(size)).astype(np.int32)
            positions, values = symbols(rng, size, DENSITY)
            sparse_sum[positions] += values
        added = children
        dense.append(grown(dense_sum, children) | {"law_bits": 0.0})
        sparse.append(grown(sparse_sum, children) | {"law_support": round(1 - (1 - DENSITY) ** children, 4)})
    for row in dense:
        row["law_bits"] = round(float(dense[0]["entropy_bits"]) + math.log2(row["children"]) / 2, 3)
    for row in sparse:
        row["most_bits"] = round(float(sparse[0]["entropy_bits"]) * int(row["children"]), 3)
    return {"dense": dense, "sparse": sparse}


def grown(total: Symbols, children: int) -> Row:
    positions = np.flatnonzero(total)
    _, counts = np.unique(total, return_counts=True)
    shares = counts / total.size
    row: Row = {
        "children": children,
        "support": round(positions.size / total.size, 4),
        "entropy_bits": round(float(-(shares * np.log2(shares)).sum()), 4),
    }
    for name, coder in (("golomb_bits", golomb.fastest()), ("range_bits", rangecoder.fastest())):
        row[name] = round(8 * len(coder.pack(positions, total[positions], total.size)) / total.size, 4)
    return row


# ---- table and picture


def table(report: Report) -> str:
    parts = [f"copy {report['copy_gb_per_s']} GB/s, load {report['load']}, compiled {report['compiled']}"]
    parts.append(aligned([COLUMNS, *([str(row.get(name, "")) for name in COLUMNS] for row in report["grid"])]))
    for name, rows in (report["curves"] | report["growth"]).items():
        parts.append(f"{name}\n" + aligned([list(rows[0]), *([str(value) for value in row.values()] for row in rows)]))
    return "\n\n".join(parts)


def aligned(lines: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.rjust, line, widths)).rstrip() for line in lines)


def picture(report: Report, path: Path) -> None:
    """Cost against non-zeros and against P, times faster than the dense way, growth of bits."""
    import matplotlib as mpl  # only a picture needs it

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, ((by_non_zeros, by_size), (times, bits)) = pyplot.subplots(2, 2, figsize=(11, 8), layout="constrained")
    for coder in ("golomb", "range"):
        against, sizes = report["curves"]["against_non_zeros"], report["curves"]["against_size"]
        by_non_zeros.loglog(column(against, "non_zeros_per_child"), column(against, f"{coder}_ms"), "o-", label=coder)
        by_size.loglog(column(sizes, "size"), column(sizes, f"{coder}_ms"), "o-", label=coder)
    by_non_zeros.set(title="lattice, P = 1e6, 16 children", xlabel="non-zeros of each child", ylabel="merge, ms")
    by_size.set(title="lattice, 16 children of 10 000 non-zeros", xlabel="P", ylabel="merge, ms", ylim=(0.1, None))
    compared = [row for row in report["grid"] if "times" in row and row["size"] <= 10**6]
    largest = max(column(compared, "size"), default=0)
    for codec in dict.fromkeys(column(compared, "codec")):
        rows = [row for row in compared if (row["codec"], row["size"]) == (codec, largest)]
        times.loglog(column(rows, "children"), column(rows, "times"), "o-", label=codec)
    times.set(title=f"times faster than the dense way, P = {largest:.0e}", xlabel="children")
    for kind, law, color in (("dense", "law_bits", "C0"), ("sparse", "most_bits", "C1")):
        rows = report["growth"][kind]
        bits.loglog(column(rows, "children"), column(rows, "entropy_bits"), "o-", color=color, label=f"{kind}, entropy")
        bits.loglog(column(rows, "children"), column(rows, "range_bits"), "x", color=color, label=f"{kind}, range coder")
        bits.loglog(column(rows, "children"), column(rows, law), ":", color=color, label=f"{kind}, law")
    bits.set(title="bits per parameter of a sum", xlabel="children", ylim=(0.05, 20))
    for axes in figure.axes:
        axes.legend(fontsize="small")
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def column(rows: list[Row], name: str) -> list[Any]:
    return [row[name] for row in rows]


if __name__ == "__main__":
    main()
