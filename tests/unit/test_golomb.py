"""Golomb coding: one format, two implementations, and the extension that may be missing."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import tracemalloc
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from edgemw.compression.golomb import Golomb, fastest
from edgemw.compression.golomb_numpy import NumpyGolomb, Positions, Symbols, rice_parameter
from edgemw.core.errors import CodecError, WireError

ROOT = Path(__file__).resolve().parents[2]
NAME = "edgemw.compression._golomb"
LOWEST, HIGHEST = -(1 << 31), (1 << 31) - 1


def build(folder: Path, **environment: str) -> list[Path]:
    """Build the extension into a folder, as an installation would; returns what came of it."""
    command = [
        sys.executable,
        "-W",
        "ignore",
        "setup.py",
        "-q",
        "build_ext",
        "-b",
        str(folder / "lib"),
        "-t",
        str(folder / "tmp"),
    ]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, env=os.environ | environment)
    return list((folder / "lib").rglob("_golomb.*"))


def implementations() -> dict[str, Golomb]:
    """Both, if this machine can have both: an extension that was not built in place is built aside and loaded from there."""
    if importlib.util.find_spec(NAME) is None and shutil.which("cc"):
        with tempfile.TemporaryDirectory() as folder:
            (path,) = build(Path(folder))
            loader = importlib.machinery.ExtensionFileLoader(NAME, str(path))
            spec = importlib.util.spec_from_loader(NAME, loader)
            assert spec
            module = importlib.util.module_from_spec(spec)
            loader.exec_module(module)
            sys.modules[NAME] = module
    found: dict[str, Golomb] = {"numpy": NumpyGolomb()}
    if NAME in sys.modules or importlib.util.find_spec(NAME):
        found["compiled"] = importlib.import_module("edgemw.compression.golomb_compiled").CompiledGolomb()
    return found


GOLOMBS = implementations()


@pytest.fixture(params=GOLOMBS)
def golomb(request: pytest.FixtureRequest) -> Golomb:
    return GOLOMBS[request.param]


def symbols_of(places: dict[int, int]) -> tuple[Positions, Symbols]:
    ordered = sorted(places.items())
    return np.array([place for place, _ in ordered], np.int64), np.array([value for _, value in ordered], np.int32)


def bits(text: str) -> bytes:
    text = text.replace(" ", "")
    return bytes(int(text[i : i + 8].ljust(8, "0"), 2) for i in range(0, len(text), 8))


VALUES = st.one_of(st.integers(-3, 3), st.integers(LOWEST, HIGHEST)).filter(bool)
PLACES = st.integers(1, 3000).flatmap(
    lambda size: st.tuples(st.just(size), st.dictionaries(st.integers(0, size - 1), VALUES, max_size=60))
)


@hypothesis.settings(deadline=None)
@hypothesis.given(drawn=PLACES)
def test_unpack_is_the_inverse_of_pack_and_all_write_the_same_bytes(drawn: tuple[int, dict[int, int]]) -> None:
    size, places = drawn
    positions, symbols = symbols_of(places)
    packed = {implementation.pack(positions, symbols, size) for implementation in GOLOMBS.values()}
    assert len(packed) == 1
    for implementation in GOLOMBS.values():
        read_positions, read_symbols = implementation.unpack(next(iter(packed)), positions.size, size)
        assert f"{read_positions.dtype} {read_symbols.dtype}" == "int64 int32"
        assert np.array_equal(read_positions, positions)
        assert np.array_equal(read_symbols, symbols)


@hypothesis.settings(deadline=None, max_examples=500)
@hypothesis.given(
    data=st.binary(max_size=40),
    count=st.integers(-1, 40) | st.integers(0, 1 << 32),
    size=st.integers(0, 50) | st.integers(0, 1 << 31),
)
def test_all_refuse_the_same_bytes_for_the_same_reason(data: bytes, count: int, size: int) -> None:
    outcomes = set()
    for implementation in GOLOMBS.values():
        try:
            positions, symbols = implementation.unpack(data, count, size)
            assert implementation.pack(positions, symbols, size) == data
            outcomes.add("read")
        except WireError as error:
            outcomes.add(error.reason)
    assert len(outcomes) == 1


@hypothesis.settings(deadline=None)
@hypothesis.given(size=st.integers(1, 70_000), seed=st.integers(0, 1 << 32), density=st.floats(0, 1), flips=st.integers(0, 3))
def test_all_agree_on_damaged_payloads(size: int, seed: int, density: float, flips: int) -> None:
    rng = np.random.default_rng(seed)
    positions = np.flatnonzero(rng.random(size) < density)
    symbols = (rng.geometric(0.6, positions.size) * rng.choice([-1, 1], positions.size)).astype(np.int32)
    damaged = bytearray(GOLOMBS["numpy"].pack(positions, symbols, size))
    for _ in range(flips if damaged else 0):
        damaged[rng.integers(len(damaged))] ^= 1 << int(rng.integers(8))
    outcomes = []
    for implementation in GOLOMBS.values():
        try:
            outcomes.append(implementation.merge([(bytes(damaged), positions.size)] * 3, size))
        except WireError as error:
            outcomes.append((0, error.reason.encode()))
    assert len(set(outcomes)) == 1
    if not flips:
        expected = np.zeros(size, np.int32)
        expected[positions] = 3 * symbols
        assert np.array_equal(_dense(outcomes[0], size), expected)


def _dense(merged: tuple[int, bytes], size: int) -> Symbols:
    total = np.zeros(size, np.int32)
    positions, symbols = GOLOMBS["numpy"].unpack(merged[1], merged[0], size)
    total[positions] = symbols
    return total


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(
    size=st.integers(1, 5000), seed=st.integers(0, 1 << 32), flips=st.lists(st.integers(0, 3), min_size=2, max_size=4)
)
def test_all_give_the_reason_of_the_first_malformed_part(size: int, seed: int, flips: list[int]) -> None:
    rng = np.random.default_rng(seed)
    parts = []
    for number in flips:
        positions = np.flatnonzero(rng.random(size) < 0.3)
        symbols = np.rint(rng.standard_cauchy(positions.size)).clip(LOWEST, HIGHEST).astype(np.int32)
        symbols[symbols == 0] = 1
        damaged = bytearray(GOLOMBS["numpy"].pack(positions, symbols, size))
        for _ in range(number if damaged else 0):
            damaged[rng.integers(len(damaged))] ^= 1 << int(rng.integers(8))
        parts.append((bytes(damaged), positions.size))
    outcomes: set[tuple[int, bytes] | str] = set()
    for implementation in GOLOMBS.values():
        try:
            outcomes.add(implementation.merge(parts, size))
        except WireError as error:
            outcomes.add(error.reason)
    assert len(outcomes) == 1


@pytest.mark.parametrize("count", [1, 3, 4, 5, 55, 56, 57, 112, 113, 1000])
@pytest.mark.parametrize("spread", [1, 2, 3, 40, 20_000, 40_000, 1_000_000])
@pytest.mark.parametrize("values", ["ones", "small", "large"])
def test_batches_of_symbols(count: int, spread: int, values: str) -> None:
    """The extension reads up to 56 symbols at a time, and writes and reads four at a time if they are short."""
    rng = np.random.default_rng(count * spread)
    positions = np.cumsum(rng.geometric(1 / spread, count)) - 1
    scale = {"ones": 0.0, "small": 1.0, "large": 1e9}[values]
    symbols = np.rint(rng.standard_cauchy(count) * scale).clip(LOWEST, HIGHEST).astype(np.int32)
    symbols[symbols == 0] = rng.choice([-1, 1], count)[symbols == 0]
    size = int(positions[-1]) + 1 + int(rng.integers(3 * spread))
    packed = {implementation.pack(positions, symbols, size) for implementation in GOLOMBS.values()}
    assert len(packed) == 1
    for implementation in GOLOMBS.values():
        assert np.array_equal(implementation.unpack(next(iter(packed)), count, size), (positions, symbols))


def test_a_gap_that_no_window_holds(golomb: Golomb) -> None:
    """Many symbols and one long run: its unary part alone has 625 zeros."""
    positions = np.concatenate([np.arange(4000), np.arange(9000, 14_000)])
    size = 14_000
    assert rice_parameter(positions.size, size) == 0
    data = golomb.pack(positions, np.ones(positions.size, np.int32), size)
    assert len(data) == (size + 2 * positions.size + 7) // 8
    assert np.array_equal(golomb.unpack(data, positions.size, size)[0], positions)
    with pytest.raises(WireError, match="position"):
        golomb.unpack(data, positions.size, size - 1)


@pytest.mark.parametrize("children", [2, 300, 1500])
def test_sums_of_many_children(golomb: Golomb, children: int) -> None:
    rng = np.random.default_rng(children)
    size = 70_000
    expected, parts = np.zeros(size, np.int64), []
    for density in rng.choice([0, 0.0001, 0.001, 0.003], children):
        positions = np.flatnonzero(rng.random(size) < density)
        symbols = rng.choice(np.array([-3, -1, 1, 2], np.int32), positions.size)
        expected[positions] += symbols
        parts.append((golomb.pack(positions, symbols, size), positions.size))
    assert np.array_equal(_dense(golomb.merge(parts, size), size), expected)


def test_the_places_of_a_sparse_sum_cost_nothing() -> None:
    """Three children of one symbol each: tiles without one are passed over. Numpy, which reserves for the size, gets less."""
    for name, implementation in GOLOMBS.items():
        size, most_bytes = (1 << 31, 300_000) if name == "compiled" else (1 << 20, 8 << 20)
        parts = [(implementation.pack(*symbols_of({place: 7}), size), 1) for place in (0, 40_000, size - 1)]
        tracemalloc.start()
        try:
            count, data = implementation.merge(parts, size)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        positions, symbols = implementation.unpack(data, count, size)
        assert positions.tolist() == [0, 40_000, size - 1]
        assert symbols.tolist() == [7, 7, 7]
        assert peak < most_bytes


@pytest.mark.parametrize("size", [1, 32767, 32768, 32769, 65536, 100_001])
def test_sums_across_tiles(golomb: Golomb, size: int) -> None:
    """The compiled sum works on 32768 places at a time."""
    rng = np.random.default_rng(size)
    expected, parts = np.zeros(size, np.int64), []
    for density in (0, 0.001, 0.01, 0.5, 1):
        positions = np.flatnonzero(rng.random(size) < density)
        symbols = rng.integers(1, 200, positions.size).astype(np.int32) * rng.choice([-1, 1], positions.size).astype(np.int32)
        expected[positions] += symbols
        parts.append((golomb.pack(positions, symbols, size), positions.size))
    assert np.array_equal(_dense(golomb.merge(parts, size), size), expected)


def test_sums_wrap_instead_of_failing(golomb: Golomb) -> None:
    def one(value: int) -> tuple[bytes, int]:
        return golomb.pack(*symbols_of({1: value}), 3), 1

    assert _dense(golomb.merge([one(HIGHEST), one(1)], 3), 3).tolist() == [0, LOWEST, 0]
    assert _dense(golomb.merge([one(LOWEST), one(-1)], 3), 3).tolist() == [0, HIGHEST, 0]
    assert golomb.merge([one(LOWEST), one(LOWEST)], 3) == (0, b"")
    assert golomb.merge([one(5), one(-5)], 3) == (0, b"")
    assert golomb.merge([], 3) == (0, b"")


def test_the_streams_stand_one_after_the_other(golomb: Golomb) -> None:
    positions, symbols = symbols_of({3: 1, 10: -6, 11: 2})
    assert rice_parameter(3, 40) == 3
    #    runs 3 6 0     remainders    signs  lengths    mantissas
    written = bits("1 1 1   011 110 000   0 1 0   1 001 01   10 0")
    assert golomb.pack(positions, symbols, 40) == written
    assert golomb.unpack(written, 3, 40)[1].tolist() == [1, -6, 2]


@pytest.mark.parametrize(
    ("data", "count", "size", "reason"),
    [
        (b"", -1, 5, "count"),
        (b"\xff" * 9, 6, 5, "count"),
        (b"", 1 << 32, 1 << 31, "count"),
        (b"\0", 0, 5, "trailing"),
        (b"", 1, 5, "truncated"),
        (bits("1 0 1") + b"\0", 1, 1, "trailing"),
        (bits("1 0 1 1"), 1, 1, "trailing"),
        (bits("0000 0000"), 1, 1, "truncated"),
        (bits("1 0 0000000"), 1, 1, "truncated"),
        (bits("01 0 1"), 1, 1, "position"),
        (bits("1 0" + "0" * 32 + "1" + "0" * 32), 1, 1, "magnitude"),
        (bits("1 0" + "0" * 31 + "1" + "0" * 31), 1, 1, "magnitude"),
        (bits("1 1" + "0" * 31 + "1" + "0" * 30 + "1"), 1, 1, "magnitude"),
    ],
)
def test_what_pack_would_not_write_is_refused(golomb: Golomb, data: bytes, count: int, size: int, reason: str) -> None:
    with pytest.raises(WireError) as refused:
        golomb.unpack(data, count, size)
    assert refused.value.reason == reason
    with pytest.raises(WireError) as refused:
        golomb.merge([(b"", 0), (data, count)], size)
    assert refused.value.reason == reason


def test_the_lowest_symbol_is_one(golomb: Golomb) -> None:
    assert golomb.unpack(bits("1 1" + "0" * 31 + "1" + "0" * 31), 1, 1)[1].tolist() == [LOWEST]


@pytest.mark.parametrize(
    ("positions", "symbols", "size"),
    [([0, 0], [1, 1], 5), ([3, 2], [1, 1], 5), ([5], [1], 5), ([-1], [1], 5), ([1], [0], 5)],
)
def test_misuse_is_a_codec_error(golomb: Golomb, positions: list[int], symbols: list[int], size: int) -> None:
    with pytest.raises(CodecError):
        golomb.pack(np.array(positions, np.int64), np.array(symbols, np.int32), size)


@pytest.mark.parametrize("filler", [b"\0", b"\xff", b"\x01", b"\x92"])
def test_memory_follows_the_bytes_and_not_the_claim(golomb: Golomb, filler: bytes) -> None:
    data = filler * 20_000
    tracemalloc.start()
    try:
        for count in (1, 1000, 20_000, 160_000, 10**6, 1 << 30):
            for call in (golomb.unpack, lambda *claim: golomb.merge([claim[:2]], claim[2])):
                if call != golomb.unpack and golomb.name == "numpy":
                    continue  # reserves for the size as it is documented to do
                with pytest.raises(WireError):
                    call(data, count, 1 << 31)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 400 * len(data)


@pytest.mark.parametrize("size", [1, 2, 100, 66_250, 10**6, 1 << 31])
def test_the_rice_parameter_is_near_the_best(size: int) -> None:
    """Within 4 % of the shortest expected runs over all k, at every density."""
    for share in np.geomspace(1 / size, 1, 60):
        count = max(1, round(size * share))
        p = count / size

        def cost(k: int, p: float = p) -> float:
            return k + (1 / -np.expm1(2.0**k * np.log1p(-p)) if p < 1 else 1)

        assert 0 <= rice_parameter(count, size) <= 30
        assert cost(rice_parameter(count, size)) <= 1.04 * min(cost(k) for k in range(32))


def test_installation_without_a_compiler_falls_back_to_numpy(tmp_path: Path) -> None:
    assert build(tmp_path, CC=str(tmp_path / "no-compiler"), LDSHARED=str(tmp_path / "no-compiler")) == []
    bare = tmp_path / "edgemw"
    shutil.copytree(ROOT / "edgemw", bare, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    code = "from edgemw.compression.lattice import Lattice; import numpy; "
    code += "print(Lattice().coders.golomb.name, Lattice('golomb').encode(numpy.ones(3, numpy.float32), 1.0).hex())"
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True, env={})
    assert run.stdout.split() == ["numpy", struct.pack("<fI", 1.0, 3).hex() + bits("111 000 111").hex()]


def test_the_fastest_is_the_compiled_one_where_it_is_installed() -> None:
    installed = importlib.machinery.PathFinder.find_spec(NAME, [str(ROOT / "edgemw" / "compression")])
    assert fastest().name == ("compiled" if installed else "numpy")
