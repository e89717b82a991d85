"""The contract of a codec: the published checks over every codec in the table, with parameters and with every coder."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgemw.compression.checks import CHECKS, Case, sample_vectors
from edgemw.compression.codec import Codec
from edgemw.compression.coders import Coders
from edgemw.compression.golomb import fastest
from edgemw.compression.lattice import Lattice
from edgemw.compression.table import CODECS, codec_named
from edgemw.conformance.test_codecs import LARGEST, SIZES, STEPS
from edgemw.core.bundle import Vector
from edgemw.core.errors import CodecError, WireError
from tests.unit.test_golomb import GOLOMBS
from tests.unit.test_rangecoder import CODERS as RANGES
from tests.unit.test_rangecoder import QUICK

GOLOMB_CODERS = {name: Coders(golomb, QUICK) for name, golomb in GOLOMBS.items()}
RANGE_CODERS = {name: Coders(fastest(), coder) for name, coder in RANGES.items()}
CODEC_KINDS: dict[str, Callable[[], Codec]] = {
    **{
        f"lattice-golomb-{name}": partial(Lattice("golomb", "nearest").using, with_golomb)
        for name, with_golomb in GOLOMB_CODERS.items()
    },
    **{
        f"lattice-range-{name}": partial(Lattice("range", "nearest").using, with_range)
        for name, with_range in RANGE_CODERS.items()
    },
    "lattice-stochastic": partial(codec_named, "lattice", rounding="stochastic"),
    "lattice-dyadic": partial(codec_named, "lattice", steps="dyadic", rounding="nearest"),
    "lattice-dyadic-stochastic-golomb": partial(codec_named, "lattice", steps="dyadic", rounding="stochastic", coder="golomb"),
    "lanes": partial(codec_named, "lanes"),
    "lanes-16-bits-everything": partial(codec_named, "lanes", bits=16, blocks=1),
    "lanes-6-bits-3-blocks": partial(codec_named, "lanes", bits=6, blocks=3, members=7, seed=1, block=2),
    "dense-float32": partial(codec_named, "dense", dtype="float32"),
    "dense-float16": partial(codec_named, "dense", dtype="float16"),
    "topk": partial(codec_named, "topk"),
    "topk-30-percent": partial(codec_named, "topk", k=0.3),
    "topk-everything": partial(codec_named, "topk", k=1),
    "qsgd": partial(codec_named, "qsgd"),
    "qsgd-5000-levels": partial(codec_named, "qsgd", levels=5000),
    "signsgd": partial(codec_named, "signsgd"),
    "powersgd": partial(codec_named, "powersgd"),
    "powersgd-by-5": partial(codec_named, "powersgd", rank=4, columns=5),
}
SLOW = "lattice-range-python"  # a loop over symbols; tests/unit/test_rangecoder.py holds it to the bytes of the compiled one
QUICK_KINDS = [kind for kind in CODEC_KINDS if kind != SLOW]
KINDS_AND_SIZES = [(kind, size) for kind in CODEC_KINDS for size in SIZES if size < 100 or kind != SLOW]


def test_every_codec_in_the_table_is_under_contract() -> None:
    assert {kind.split("-")[0] for kind in CODEC_KINDS} == set(CODECS)
    assert all(codec_named(name).name == name for name in CODECS)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize(("kind", "size"), KINDS_AND_SIZES)
def test_contract(kind: str, check: Callable[[Case], None], size: int) -> None:
    codec = CODEC_KINDS[kind]()
    vectors = sample_vectors(np.random.default_rng(size), size)
    for step in STEPS if codec.stepped else STEPS[:1]:
        check(Case(codec, vectors, step))


VECTORS = st.integers(1, 40).flatmap(
    lambda size: st.lists(hnp.arrays(np.float32, size, elements=st.floats(-LARGEST, LARGEST, width=32)), min_size=3, max_size=5)
)
SMALL_VECTORS = st.integers(1, 40).flatmap(
    lambda size: st.lists(hnp.arrays(np.float32, size, elements=st.floats(-200, 200, width=32)), min_size=3, max_size=5)
)


@pytest.mark.parametrize("kind", QUICK_KINDS)
@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(vectors=VECTORS | SMALL_VECTORS, step=st.sampled_from(STEPS) | st.floats(0, LARGEST, width=32))
def test_contract_on_any_vectors(kind: str, vectors: list[Vector], step: float) -> None:
    case = Case(CODEC_KINDS[kind](), tuple(vectors), step)
    for check in CHECKS:
        if check.__name__ != "check_hostile_bytes":  # random itself, and slow
            check(case)


@pytest.mark.parametrize("kind", CODEC_KINDS)
@hypothesis.settings(max_examples=300, deadline=None)
@hypothesis.given(payload=st.binary(max_size=200), size=st.integers(1, 10_000))
def test_random_bytes_raise_only_wire_errors(kind: str, payload: bytes, size: int) -> None:
    codec = CODEC_KINDS[kind]()
    for read in (codec.check, codec.decode, lambda data, places: codec.merge([data], places)):
        with contextlib.suppress(WireError):
            read(payload, size)


@pytest.mark.parametrize("kind", CODEC_KINDS)
def test_sums_of_hostile_payloads_still_merge(kind: str) -> None:
    """What `check` accepted must never stop a fog node: not even two payloads that exceed the range together."""
    codec = CODEC_KINDS[kind]()
    payload = codec.encode(np.full(3, LARGEST, np.float32), 1e37)
    for _ in range(40):
        payload = codec.merge([payload, payload], 3)
        assert np.isfinite(codec.decode(payload, 3)).all()
        codec.check(payload, 3)


GOLDEN = Path(__file__).resolve().parents[1] / "golden"
GOLDEN_KINDS = {
    "codec_lattice.json": ["lattice-dyadic", *(kind for kind in CODEC_KINDS if kind.startswith("lattice-range-"))],
    "codec_lattice_golomb.json": [kind for kind in CODEC_KINDS if kind.startswith("lattice-golomb-")],
    "codec_lattice_stochastic.json": ["lattice-stochastic"],
    "codec_lanes.json": ["lanes-6-bits-3-blocks"],
    "codec_dense.json": ["dense-float32"],
    "codec_dense_float16.json": ["dense-float16"],
    "codec_topk.json": ["topk-30-percent"],
    "codec_qsgd.json": ["qsgd"],
    "codec_signsgd.json": ["signsgd"],
    "codec_powersgd.json": ["powersgd"],
}


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name, kinds in GOLDEN_KINDS.items() for kind in kinds])
def test_the_format_is_still_the_one_that_was_written_down(name: str, kind: str) -> None:
    codec = CODEC_KINDS[kind]()
    for case in json.loads((GOLDEN / name).read_text()):
        vectors = [_vector(case["size"], values) for values in case["vectors"]]
        payloads = [bytes.fromhex(payload) for payload in case["payloads"]]
        assert [codec.encode(vector, case["step"]) for vector in vectors] == payloads, case["name"]
        assert codec.merge(payloads, case["size"]).hex() == case["merged"], case["name"]
        decoded = codec.decode(bytes.fromhex(case["merged"]), case["size"])
        assert np.array_equal(decoded, _vector(case["size"], case["decoded"])), case["name"]


def _vector(size: int, values: dict[str, float]) -> Vector:
    vector = np.zeros(size, np.float32)
    for place, value in values.items():
        vector[int(place)] = value
    return vector


def test_unknown_names_and_dtypes_are_refused() -> None:
    with pytest.raises(WireError, match="no codec 'gzip'; known: lattice, lanes, dense, topk, qsgd, signsgd, powersgd"):
        codec_named("gzip")
    for dtype in ("int32", "float64", "nonsense", ""):
        with pytest.raises(CodecError, match="float32 and float16"):
            codec_named("dense", dtype=dtype)


def test_the_checks_find_broken_codecs() -> None:
    """A check-suite that accepts anything would be worthless."""

    class Forgetful(Lattice):
        def merge(self, payloads: Sequence[bytes], size: int) -> bytes:
            return payloads[0]

    vectors = sample_vectors(np.random.default_rng(0), 50)
    case = Case(Forgetful(), vectors, 1.0)
    broken = []
    for check in CHECKS:
        try:
            check(case)
        except (AssertionError, IndexError):
            broken.append(check.__name__)
    assert {"check_commutes", "check_adds", "check_encoded_merge"} <= set(broken)
