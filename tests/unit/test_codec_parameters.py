"""Codecs beside lattice and dense: what their parameters do, and what their readers refuse."""

from __future__ import annotations

import doctest
import importlib
import math
import struct

import numpy as np
import pytest

from edgemw.compression.codec import Parameter
from edgemw.compression.powersgd import PowerSgd
from edgemw.compression.qsgd import Qsgd
from edgemw.compression.signsgd import SignSgd
from edgemw.compression.table import CODECS, codec_named
from edgemw.compression.topk import TopK
from edgemw.core.bundle import Vector
from edgemw.core.errors import CodecError, WireError


def laplace(size: int, seed: int = 7) -> Vector:
    return np.random.default_rng(seed).laplace(0, 1, size).astype(np.float32)


def left_out(name: str, vector: Vector, **parameters: Parameter) -> float:
    """The 2-norm of what encoding left out, relative to the vector."""
    decoded = codec_named(name).decode(codec_named(name, **parameters).encode(vector, 0.0), vector.size)
    return float(np.linalg.norm(decoded - vector) / np.linalg.norm(vector))


@pytest.mark.parametrize("name", [name for name in CODECS if name != "lattice"])
def test_the_examples_in_the_documentation_run(name: str) -> None:
    results = doctest.testmod(importlib.import_module(f"edgemw.compression.{name}"))
    assert results.attempted > 3
    assert results.failed == 0


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("topk", {"k": 0.0}),
        ("topk", {"k": 1.1}),
        ("topk", {"k": math.nan}),
        ("topk", {"k": "many"}),
        ("topk", {"levels": 3}),
        ("qsgd", {"levels": -1}),
        ("qsgd", {"levels": 2**24 + 1}),
        ("qsgd", {"levels": 2.5}),
        ("qsgd", {"levels": True}),
        ("signsgd", {"k": 0.1}),
        ("powersgd", {"rank": 0}),
        ("powersgd", {"rank": 65}),
        ("powersgd", {"columns": -1}),
        ("lattice", {"golomb": 1}),
        ("lattice", {"name": "dense"}),
        ("lattice", {"coder": "zip"}),
        ("lattice", {"coder": 1}),
        ("lattice", {"rounding": "up"}),
        ("dense", {"not a word": 1}),
    ],
)
def test_parameters_that_a_codec_does_not_have_or_refuses(name: str, parameters: dict[str, Parameter]) -> None:
    with pytest.raises(CodecError):
        codec_named(name, **parameters)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("dense", {"dtype": "float16"}),
        ("topk", {"k": 0.2}),
        ("qsgd", {"levels": 300}),
        ("powersgd", {"rank": 5, "columns": 17}),
    ],
)
def test_readers_need_no_parameters(name: str, parameters: dict[str, Parameter]) -> None:
    vector, writer = laplace(500), codec_named(name, **parameters)
    payload = writer.encode(vector, 0.0)
    assert payload != codec_named(name).encode(vector, 0.0)
    assert np.array_equal(codec_named(name).decode(payload, 500), writer.decode(payload, 500))
    assert codec_named(name).merge([payload, payload], 500) == writer.merge([payload, payload], 500)


@pytest.mark.parametrize(("k", "count"), [(0.01, 2), (0.011, 3), (1e-9, 1), (1, 200)])
def test_topk_keeps_the_largest(k: float, count: int) -> None:
    vector = laplace(200)
    decoded = TopK().decode(TopK(k).encode(vector, 0.0), 200)
    assert set(np.flatnonzero(decoded)) == set(np.argsort(-np.abs(vector))[:count])


def test_topk_sums_name_what_their_parts_name_and_drop_what_cancels() -> None:
    codec = TopK(k=0.5)
    one, other = np.array([4, 3, 0, 0], np.float32), np.array([-4, 0, 2, 0], np.float32)
    merged = codec.merge([codec.encode(one, 0.0), codec.encode(other, 0.0)], 4)
    assert codec.decode(merged, 4).tolist() == [0, 3, 2, 0]
    assert merged[:4] == struct.pack("<I", 2)


def test_qsgd_rounds_up_as_often_as_the_value_is_above_the_level() -> None:
    """Unbiased: the mean over vectors that differ in one far value only, against five standard deviations."""
    total, rounds = np.zeros(64), 400
    vector = np.linspace(-1, 1, 64).astype(np.float32)
    for number in range(rounds):
        vector[0] = -1 - 1e-6 * number
        total += Qsgd().decode(Qsgd().encode(vector, 0.0), 64)
    level = float(np.linalg.norm(vector)) / 8
    assert np.abs(total / rounds - vector)[1:].max() < 5 * level / 2 / math.sqrt(rounds)


def test_qsgd_leaves_out_less_with_more_levels_and_half_at_most_with_the_square_root_of_them() -> None:
    errors = [left_out("qsgd", laplace(10_000), levels=levels) for levels in (0, 200, 1000, 10_000)]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] < 0.5


def test_signsgd_keeps_the_share_of_energy_that_the_paper_says() -> None:
    vector = laplace(10_000)
    kept = float(np.abs(vector).sum()) ** 2 / (vector.size * float(np.square(vector).sum()))
    assert left_out("signsgd", vector) ** 2 == pytest.approx(1 - kept, rel=1e-4)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_powersgd_finds_a_matrix_of_its_rank(rank: int) -> None:
    rng = np.random.default_rng(rank)
    matrix = rng.standard_normal((30, rank)) @ rng.standard_normal((rank, 12))
    vector = matrix.astype(np.float32).ravel()
    assert left_out("powersgd", vector, rank=rank, columns=12) < 2**-9
    assert left_out("powersgd", vector, rank=rank) > 0.1  # rows that are cut anywhere have no rank


def test_powersgd_comes_near_the_best_approximation() -> None:
    """Without a warm start one step gives up some of what the singular vectors hold."""
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((40, 40)) * 0.9 ** np.arange(40)
    best = float(np.sqrt((np.linalg.svd(matrix, compute_uv=False)[4:] ** 2).sum()) / np.linalg.norm(matrix))
    assert best < left_out("powersgd", matrix.astype(np.float32).ravel(), rank=4, columns=40) < 1.3 * best


@pytest.mark.parametrize(
    ("codec", "payload", "reason"),
    [
        (TopK(), b"\0\0\0\0", "truncated"),
        (TopK(), struct.pack("<IBf", 4, 4, 1.0) + bytes(20), "count"),
        (TopK(), struct.pack("<IBf", 1, 2, 1.0) + b"\0\x7c\xc0", "not-finite"),
        (TopK(), struct.pack("<IBf", 1, 2, 1.0) + b"\0\x3c\xb0", "position"),  # a negative one
        (TopK(), struct.pack("<IBf", 1 << 31, 4, 1.0), "count"),
        (Qsgd(), b"\1", "truncated"),
        (Qsgd(), struct.pack("<BdII", 2, 1.0, 1, 0), "levels"),
        (Qsgd(), struct.pack("<BdII", 1, 1.0, 0, 0), "levels"),
        (Qsgd(), struct.pack("<BdII", 1, 1e44, 1, 0), "norm"),
        (Qsgd(), struct.pack("<BdII", 1, math.nan, 1, 0), "norm"),
        (Qsgd(), struct.pack("<BdII", 1, -1.0, 1, 0), "norm"),
        (Qsgd(), struct.pack("<BdII", 1, 1.0, 1, 4), "count"),
        (Qsgd(), struct.pack("<BdII", 1, 1.0, 1, 1) + b"\xc8", "magnitude"),  # 2 on one level
        (SignSgd(), b"\1", "truncated"),
        (SignSgd(), struct.pack("<BfB", 2, 1.0, 0), "scale"),
        (SignSgd(), struct.pack("<BfB", 1, -1.0, 0), "scale"),
        (SignSgd(), struct.pack("<BfB", 1, math.inf, 0), "scale"),
        (SignSgd(), struct.pack("<Bf", 1, 1.0), "length"),
        (SignSgd(), struct.pack("<BfB", 1, 1.0, 1), "trailing"),
        (PowerSgd(), b"\1", "truncated"),
        (PowerSgd(), struct.pack("<BHIh", 2, 1, 3, 0) + bytes(8), "exponent"),
        (PowerSgd(), struct.pack("<BHIh", 1, 1, 3, 513) + bytes(8), "exponent"),
        (PowerSgd(), struct.pack("<BHIh", 1, 1, 0, 0) + bytes(8), "shape"),
        (PowerSgd(), struct.pack("<BHIh", 1, 1, 4, 0) + bytes(8), "shape"),
        (PowerSgd(), struct.pack("<BHIh", 1, 2, 3, 0) + bytes(16), "shape"),
        (PowerSgd(), struct.pack("<BHIh", 1, 1, 3, 0) + bytes(7), "length"),
        (PowerSgd(), struct.pack("<BHIh", 1, 1, 3, 0) + b"\0\x7e" + bytes(6), "not-finite"),
    ],
)
def test_payloads_that_no_encoder_writes(codec: TopK | Qsgd | SignSgd | PowerSgd, payload: bytes, reason: str) -> None:
    for read in (codec.check, codec.decode, lambda data, size: codec.merge([data], size)):
        with pytest.raises(WireError) as refused:
            read(payload, 3)
        assert refused.value.reason == reason


def test_powersgd_does_no_more_work_than_its_limit() -> None:
    """A rank above 64 is refused also where the bytes are there for it."""
    payload = struct.pack("<BHIh", 1, 65, 100, 0) + bytes(2 * 65 * 200)
    with pytest.raises(WireError, match="shape"):
        PowerSgd().check(payload, 10_000)
