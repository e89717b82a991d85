"""Range coding: one format, two implementations, the size that was promised, and the extension that may be missing."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import tracemalloc
from pathlib import Path

import hypothesis
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import strategies as st

from edgemw.compression.coders import Coders
from edgemw.compression.golomb import Golomb
from edgemw.compression.golomb_numpy import NumpyGolomb, Positions, Symbols, rice_parameter
from edgemw.compression.lattice import Lattice
from edgemw.compression.rangecoder import fastest
from edgemw.compression.rangecoder_python import PythonRangeCoder
from edgemw.core.errors import CodecError, WireError

ROOT = Path(__file__).resolve().parents[2]
NAME = "edgemw.compression._rangecoder"
LOWEST, HIGHEST = -(1 << 31), (1 << 31) - 1
PAIRED = 1024


def build(folder: Path, **environment: str) -> list[Path]:
    """Build the extensions into a folder, as an installation would; returns what came of this one."""
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
    return list((folder / "lib").rglob("_rangecoder.*"))


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
    found: dict[str, Golomb] = {"python": PythonRangeCoder()}
    if NAME in sys.modules or importlib.util.find_spec(NAME):
        found["compiled"] = importlib.import_module("edgemw.compression.rangecoder_compiled").CompiledRangeCoder()
    return found


CODERS = implementations()
QUICK = CODERS.get("compiled", CODERS["python"])


@pytest.fixture(params=CODERS)
def coder(request: pytest.FixtureRequest) -> Golomb:
    return CODERS[request.param]


def symbols_of(places: dict[int, int]) -> tuple[Positions, Symbols]:
    ordered = sorted(places.items())
    return np.array([place for place, _ in ordered], np.int64), np.array([value for _, value in ordered], np.int32)


def drawn_symbols(rng: np.random.Generator, size: int, density: float, decay: float = 0.6) -> tuple[Positions, Symbols]:
    positions = np.flatnonzero(rng.random(size) < density)
    return positions, (rng.geometric(decay, positions.size) * rng.choice([-1, 1], positions.size)).astype(np.int32)


def dense(count: int, data: bytes, size: int) -> Symbols:
    total = np.zeros(size, np.int32)
    positions, symbols = QUICK.unpack(data, count, size)
    total[positions] = symbols
    return total


def outcome(coder: Golomb, data: bytes, count: int, size: int) -> str:
    """What became of reading the bytes; those that are read must be those that are written."""
    try:
        positions, symbols = coder.unpack(data, count, size)
    except WireError as error:
        return error.reason
    assert coder.pack(positions, symbols, size) == data
    return "read"


VALUES = st.one_of(st.integers(-3, 3), st.integers(-40, 40), st.integers(LOWEST, HIGHEST)).filter(bool)
PLACES = st.integers(1, 3000).flatmap(
    lambda size: st.tuples(st.just(size), st.dictionaries(st.integers(0, size - 1), VALUES, max_size=60))
)


@hypothesis.settings(deadline=None)
@hypothesis.given(drawn=PLACES)
def test_unpack_is_the_inverse_of_pack_and_all_write_the_same_bytes(drawn: tuple[int, dict[int, int]]) -> None:
    size, places = drawn
    positions, symbols = symbols_of(places)
    packed = {implementation.pack(positions, symbols, size) for implementation in CODERS.values()}
    assert len(packed) == 1
    for implementation in CODERS.values():
        read_positions, read_symbols = implementation.unpack(next(iter(packed)), positions.size, size)
        assert f"{read_positions.dtype} {read_symbols.dtype}" == "int64 int32"
        assert np.array_equal(read_positions, positions)
        assert np.array_equal(read_symbols, symbols)


@pytest.mark.parametrize("count", [1, 2, 8, 9, 16, 17, 1023, 1024, 1025, 2049, 6000])
@pytest.mark.parametrize("spread", [1, 7, 3000])
def test_blocks_and_pairs_of_states(count: int, spread: int) -> None:
    """Tables change after 8, 16 ... symbols and are halved after 4096; magnitudes have a state of their own from 1024 on."""
    rng = np.random.default_rng(count)
    positions = np.cumsum(rng.geometric(1 / spread, count)) - 1
    symbols = np.rint(rng.standard_cauchy(count) * spread).clip(LOWEST, HIGHEST).astype(np.int32)
    symbols[symbols == 0] = 1
    size = int(positions[-1]) + 1 + spread
    packed = {implementation.pack(positions, symbols, size) for implementation in CODERS.values()}
    assert len(packed) == 1
    for implementation in CODERS.values():
        read = implementation.unpack(next(iter(packed)), count, size)
        assert np.array_equal(read, (positions, symbols))


@hypothesis.settings(deadline=None, max_examples=500)
@hypothesis.given(
    data=st.binary(max_size=40),
    count=st.integers(-1, 40) | st.integers(0, 1 << 32),
    size=st.integers(0, 50) | st.integers(0, 1 << 31),
)
def test_all_refuse_the_same_bytes_for_the_same_reason(data: bytes, count: int, size: int) -> None:
    assert len({outcome(implementation, data, count, size) for implementation in CODERS.values()}) == 1


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(
    size=st.integers(1, 8000),
    seed=st.integers(0, 1 << 32),
    density=st.floats(0, 1),
    flips=st.integers(0, 3),
    cut=st.integers(0, 9),
)
def test_all_agree_on_damaged_payloads(size: int, seed: int, density: float, flips: int, cut: int) -> None:
    rng = np.random.default_rng(seed)
    positions, symbols = drawn_symbols(rng, size, density)
    damaged = bytearray(QUICK.pack(positions, symbols, size))
    for _ in range(flips if damaged else 0):
        damaged[-1 - min(int(rng.geometric(0.03)), len(damaged) - 1)] ^= 1 << int(rng.integers(8))
    data = bytes(damaged[: max(len(damaged) - cut, 0)])
    assert len({outcome(implementation, data, positions.size, size) for implementation in CODERS.values()}) == 1


def test_every_short_payload_is_refused_or_is_what_pack_writes() -> None:
    """One symbol in one of two places: all strings of one and two bytes, against all symbols that take so many."""
    accepted = {
        data
        for length in (1, 2)
        for data in map(bytes, itertools.product(range(256), repeat=length))
        if outcome(QUICK, data, 1, 2) == "read"
    }
    singles = [QUICK.pack(*symbols_of({place: value}), 2) for place in (0, 1) for value in range(-300, 301) if value]
    assert accepted == {data for data in singles if len(data) <= 2}
    assert len(set(singles)) == 1200


@pytest.mark.parametrize("count", [3, PAIRED - 1, PAIRED, 3000])
def test_a_prefix_and_an_appended_byte_are_refused(coder: Golomb, count: int) -> None:
    rng = np.random.default_rng(count)
    positions = np.sort(rng.choice(20 * count, count, replace=False))
    data = coder.pack(positions, np.ones(count, np.int32), 20 * count)
    for length in {*range(0, len(data), max(1, len(data) // 40)), *range(max(0, len(data) - 12), len(data))}:
        with pytest.raises(WireError):
            coder.unpack(data[:length], count, 20 * count)
    for more in (b"\0", b"\xff", b"\0\0", b"\x01\x02"):
        with pytest.raises(WireError):
            coder.unpack(data + more, count, 20 * count)


@pytest.mark.parametrize("children", [2, 400])
def test_sums_of_many_children(coder: Golomb, children: int) -> None:
    """Of none, some and more symbols than a pair of states needs."""
    rng = np.random.default_rng(children)
    size = 70_000
    expected, parts = np.zeros(size, np.int64), []
    for number in range(children):
        positions, symbols = drawn_symbols(rng, size, 0.02 if number == 1 else rng.choice([0, 0.0002]))
        expected[positions] += symbols
        parts.append((QUICK.pack(positions, symbols, size), positions.size))
    assert np.array_equal(dense(*coder.merge(parts, size), size), expected)


def test_all_give_the_reason_of_the_first_malformed_part() -> None:
    size = 60_000
    sound = QUICK.pack(*symbols_of({3: 1, 50_000: 2}), size)
    beyond, more = (QUICK.pack(*symbols_of({3: 1, size + 10_000: 2}), 2 * size), 2), (sound + b"\0\0", 2)
    for parts in ([beyond, more], [more, beyond], [(sound, 2), more, beyond], [(sound, 2), (b"", -1), more]):
        outcomes = set()
        for implementation in CODERS.values():
            with pytest.raises(WireError) as refused:
                implementation.merge(parts, size)
            outcomes.add(refused.value.reason)
        assert len(outcomes) == 1


@pytest.mark.parametrize("size", [1, 32767, 32768, 32769, 65536])
def test_sums_across_tiles(coder: Golomb, size: int) -> None:
    """The compiled sum works on 32768 places at a time."""
    rng = np.random.default_rng(size)
    expected, parts = np.zeros(size, np.int64), []
    for density in (0, 0.001, 0.01, 0.3) if coder.name == "python" else (0, 0.001, 0.01, 0.5, 1):
        positions, symbols = drawn_symbols(rng, size, density, 0.05)
        expected[positions] += symbols
        parts.append((QUICK.pack(positions, symbols, size), positions.size))
    count, data = coder.merge(parts, size)
    assert np.array_equal(dense(count, data, size), expected)
    positions = np.flatnonzero(expected)
    assert data == QUICK.pack(positions, expected[positions].astype(np.int32), size)


def test_sums_wrap_instead_of_failing(coder: Golomb) -> None:
    def one(value: int) -> tuple[bytes, int]:
        return coder.pack(*symbols_of({1: value}), 3), 1

    assert dense(*coder.merge([one(HIGHEST), one(1)], 3), 3).tolist() == [0, LOWEST, 0]
    assert dense(*coder.merge([one(LOWEST), one(-1)], 3), 3).tolist() == [0, HIGHEST, 0]
    assert coder.merge([one(LOWEST), one(LOWEST)], 3) == (0, b"")
    assert coder.merge([one(5), one(-5)], 3) == (0, b"")
    assert coder.merge([], 3) == (0, b"")


def test_bytes_written_by_hand(coder: Golomb) -> None:
    """One symbol of -1 at place 5 of 8: k = 2, so that the field is 01 1, and the tokens are 0, written first, and 1."""
    assert rice_parameter(1, 8) == 2
    none = 7 * 2**32 // 8
    for _ in range(2):
        none = none * none >> 32
    runs = coder_shares(1024, none)
    magnitudes = coder_shares(64, 1 << 31)
    state = 1
    for first, width in (magnitudes[0], runs[1]):
        state = (state // width << 12) + first + state % width
    written = bytes([0b01100000]) + state.to_bytes((state.bit_length() + 7) // 8, "big")
    assert coder.pack(*symbols_of({5: -1}), 8) == written
    assert coder.unpack(written, 1, 8)[0].tolist() == [5]


def coder_shares(total: int, ratio: int) -> list[tuple[int, int]]:
    """First slot and number of slots of each token at the beginning, as the format describes them."""
    counts, rest = [], total << 20
    for _ in range(16):
        counts.append((rest - (rest * ratio >> 32)) >> 20)
        rest = rest * ratio >> 32
    while not counts[-1]:
        counts.pop()
    scale = ((4096 - len(counts) - 1) << 16) // sum(counts)
    widths = [1 + (count * scale >> 16) for count in [*counts, 0]]
    widths[widths.index(max(widths))] += 4096 - sum(widths)
    return [(sum(widths[:token]), width) for token, width in enumerate(widths)]


@pytest.mark.parametrize(
    ("data", "count", "size", "reason"),
    [
        (b"", -1, 5, "count"),
        (b"\xff" * 9, 6, 5, "count"),
        (b"", 1 << 32, 1 << 31, "count"),
        (b"\0", 0, 5, "trailing"),
        (b"", 1, 5, "truncated"),
        (b"\0", 1, 1, "truncated"),
        (b"\x40\x01", 1, 1, "trailing"),
        (b"\0\0", 1, 1, "state"),
        (b"\0\x02", 1, 1, "state"),
        (b"\xff" * 200, PAIRED, PAIRED, "token"),
        (b"\xff" * (PAIRED // 8 + 6), PAIRED, PAIRED, "truncated"),
        (b"\0" * (PAIRED // 8 + 7), PAIRED, PAIRED, "state"),
    ],
)
def test_what_pack_would_not_write_is_refused(coder: Golomb, data: bytes, count: int, size: int, reason: str) -> None:
    with pytest.raises(WireError) as refused:
        coder.unpack(data, count, size)
    assert refused.value.reason == reason
    with pytest.raises(WireError) as refused:
        coder.merge([(b"", 0), (data, count)], size)
    assert refused.value.reason == reason


def test_a_symbol_outside_32_bits_is_refused(coder: Golomb) -> None:
    """-2^31 is a symbol; with its sign bit cleared it would be 2^31."""
    data = bytearray(coder.pack(*symbols_of({0: LOWEST}), 1))
    assert coder.unpack(bytes(data), 1, 1)[1].tolist() == [LOWEST]
    data[0] ^= 0x80
    with pytest.raises(WireError, match="magnitude"):
        coder.unpack(bytes(data), 1, 1)


def test_an_escape_to_a_token_that_needs_none_is_refused(coder: Golomb) -> None:
    """What follows the escape here is 7 zero bits: the token 0, which has slots."""
    first, _ = coder_shares(1024, 0)[-1]
    state = 1 << 12 + 7 | first
    with pytest.raises(WireError, match="token"):
        coder.unpack(b"\0" + state.to_bytes(3, "big"), 1, 1)


def test_a_position_beyond_the_size_is_refused(coder: Golomb) -> None:
    """The run 4 is 1 and the field 00; with the field 11 it is 7, of 6 places."""
    assert rice_parameter(1, 6) == 2
    data = bytearray(coder.pack(*symbols_of({4: 1}), 6))
    data[0] |= 0xC0
    with pytest.raises(WireError, match="position"):
        coder.unpack(bytes(data), 1, 6)


@pytest.mark.parametrize(
    ("positions", "symbols", "size"),
    [([0, 0], [1, 1], 5), ([3, 2], [1, 1], 5), ([5], [1], 5), ([-1], [1], 5), ([1], [0], 5)],
)
def test_misuse_is_a_codec_error(coder: Golomb, positions: list[int], symbols: list[int], size: int) -> None:
    with pytest.raises(CodecError):
        coder.pack(np.array(positions, np.int64), np.array(symbols, np.int32), size)


@pytest.mark.parametrize("filler", [b"\0", b"\xff", b"\x01", b"\x92"])
def test_memory_follows_the_bytes_and_not_the_claim(coder: Golomb, filler: bytes) -> None:
    data = filler * 20_000
    tracemalloc.start()
    try:
        for count in (1, 1000, 20_000, 160_000, 10**6, 1 << 30):
            for call in (coder.unpack, lambda *claim: coder.merge([claim[:2]], claim[2])):
                if call != coder.unpack and coder.name == "python":
                    continue  # reserves for the size as it is documented to do
                with pytest.raises(WireError):
                    call(data, count, 1 << 31)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 400 * len(data)


def laplace(rng: np.random.Generator, size: int, kappa: float) -> Symbols:
    """A vector on a step of kappa times its root mean square, as a device makes it."""
    scaled = rng.laplace(size=size) / (kappa * np.sqrt(2))
    symbols: Symbols = np.trunc(scaled + np.copysign(0.5, scaled)).astype(np.int32)
    return symbols


def entropy_bytes(symbols: npt.NDArray[np.int32]) -> float:
    """P times the order-0 entropy, zeros included."""
    _, counts = np.unique(symbols, return_counts=True)
    return float(-(counts * np.log2(counts / symbols.size)).sum()) / 8


def excess(symbols: Symbols) -> float:
    positions = np.flatnonzero(symbols)
    return len(QUICK.pack(positions, symbols[positions], symbols.size)) / entropy_bytes(symbols) - 1


@pytest.mark.parametrize("kappa", [2, 3, 4, 5])
@pytest.mark.parametrize("children", [1, 5, 16, 64])
@pytest.mark.parametrize("size", [10_000, 40_000, 300_000])
def test_within_3_percent_of_the_entropy(kappa: float, children: int, size: int) -> None:
    rng = np.random.default_rng(1000 * size + 10 * children + int(kappa))
    symbols = np.zeros(size, np.int32)
    for _ in range(children):
        symbols += laplace(rng, size, kappa)
    if entropy_bytes(symbols) >= 1000:
        assert excess(symbols) < 0.03


@pytest.mark.parametrize("density", [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 0.5])
@pytest.mark.parametrize("kilobytes", [1, 8])
def test_within_3_percent_at_every_density(density: float, kilobytes: int) -> None:
    rng = np.random.default_rng(int(density * 1000))
    sample = np.zeros(1_000_000, np.int32)
    positions, values = drawn_symbols(rng, sample.size, density, 0.9)
    sample[positions] = values
    size = int(sample.size * 1000 * kilobytes / entropy_bytes(sample))
    symbols = sample[rng.integers(0, sample.size, size)]
    assert excess(symbols) < 0.03


def test_the_lattice_writes_less_with_it(coder: Golomb) -> None:
    vector = np.random.default_rng(0).laplace(size=2000).astype(np.float32)
    codec, plain = Lattice("range").using(Coders(NumpyGolomb(), coder)), Lattice("golomb")
    payload = codec.encode(vector, 3.0)
    assert np.array_equal(codec.decode(payload, vector.size), plain.decode(plain.encode(vector, 3.0), vector.size))
    assert len(payload) < len(plain.encode(vector, 3.0))


def test_installation_without_a_compiler_falls_back_to_python(tmp_path: Path) -> None:
    assert build(tmp_path, CC=str(tmp_path / "no-compiler"), LDSHARED=str(tmp_path / "no-compiler")) == []
    shutil.copytree(ROOT / "edgemw", tmp_path / "edgemw", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    code = "from edgemw.compression.rangecoder import fastest; import numpy; "
    code += "print(fastest().name, fastest().pack(numpy.arange(3), numpy.ones(3, numpy.int32), 3).hex())"
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True, env={})
    assert run.stdout.split() == ["python", QUICK.pack(np.arange(3), np.ones(3, np.int32), 3).hex()]


def test_the_fastest_is_the_compiled_one_where_it_is_installed() -> None:
    installed = importlib.machinery.PathFinder.find_spec(NAME, [str(ROOT / "edgemw" / "compression")])
    assert fastest().name == ("compiled" if installed else "python")
