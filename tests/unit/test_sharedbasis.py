"""`powersgd` from its second release on: one side per round, on what the last release changed."""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np
import pytest

from edgemw.compression.checks import CHECKS, Case, sample_vectors
from edgemw.compression.codec import Past, codec_at
from edgemw.compression.dense import is_sum
from edgemw.compression.powersgd import PowerSgd
from edgemw.compression.table import codec_named
from edgemw.core.bundle import Slot, Vector
from edgemw.core.errors import WireError

ROWS, COLUMNS, BIAS = 40, 25, 40
LAYOUT = (Slot("weight", (ROWS, COLUMNS), 0), Slot("bias", (BIAS,), ROWS * COLUMNS))
SIZE = ROWS * COLUMNS + BIAS


def noise(seed: int, size: int = SIZE) -> Vector:
    return np.random.default_rng(seed).standard_normal(size).astype(np.float32)


def along(change: Vector, release: int = 4, layout: tuple[Slot, ...] = LAYOUT, **parameters: int) -> PowerSgd:
    return PowerSgd(**parameters).along(Past(release, change, layout))


def left_out(codec: PowerSgd, vector: Vector) -> float:
    error = PowerSgd().decode(codec.encode(vector, 0.0), vector.size) - vector
    return float(np.linalg.norm(error) / np.linalg.norm(vector))


@pytest.mark.parametrize("release", [4, 5])
def test_payloads_on_one_basis_add_as_factors_and_do_not_grow(release: int) -> None:
    codec = along(noise(0), release, rank=3)
    payloads = [codec.encode(noise(seed), 0.0) for seed in range(1, 9)]
    sums = [PowerSgd().merge(payloads[:count], SIZE) for count in (2, 8)]
    assert len(sums[0]) == len(sums[1]) < 4 * SIZE
    assert not is_sum(sums[1])
    nested = PowerSgd().merge([sums[0], PowerSgd().merge(payloads[2:], SIZE)], SIZE)
    expected = np.sum([PowerSgd().decode(payload, SIZE).astype(np.float64) for payload in payloads], axis=0)
    for total in (sums[1], nested):
        assert np.allclose(PowerSgd().decode(total, SIZE), expected, rtol=0, atol=1e-5)


def test_a_device_says_its_basis_and_one_factor_and_vectors_as_they_are() -> None:
    payload = along(noise(0), 4, rank=3).encode(noise(1), 0.0)
    assert len(payload) == 7 + 2 * 9 + 2 * 3 * (ROWS + COLUMNS) + 2 * BIAS
    assert np.abs(PowerSgd().decode(payload, SIZE)[-BIAS:] - noise(1)[-BIAS:]).max() < 2**-10


def test_a_layer_that_is_zero_takes_no_bytes() -> None:
    vector = noise(1)
    vector[: ROWS * COLUMNS] = 0  # personal, or frozen
    payload = along(noise(0), 4).encode(vector, 0.0)
    assert len(payload) == 7 + 2 * 9 + 2 * BIAS
    assert not PowerSgd().decode(payload, SIZE)[:-BIAS].any()


def test_different_bases_and_other_forms_add_by_decoding() -> None:
    shared, other, own = along(noise(0)), along(noise(9)), PowerSgd(columns=COLUMNS)
    payloads = [codec.encode(noise(seed), 0.0) for seed, codec in enumerate((shared, other, own), start=1)]
    for pair in ([0, 1], [0, 2], [2, 1]):
        total = PowerSgd().merge([payloads[i] for i in pair], SIZE)
        assert is_sum(total)
        expected = sum(PowerSgd().decode(payloads[i], SIZE) for i in pair)
        assert np.allclose(PowerSgd().decode(total, SIZE), expected, rtol=0, atol=1e-5)


def test_who_knows_no_past_has_a_basis_of_its_own() -> None:
    codec = PowerSgd(rank=2)
    past = Past(1, np.zeros(SIZE, np.float32), LAYOUT)
    for other in (codec.along(past), codec.along(Past(1, np.full(SIZE, np.inf, np.float32), LAYOUT)), codec_at(codec, 1)):
        assert other.encode(noise(1), 0.0) == codec.encode(noise(1), 0.0)


def test_columns_take_the_place_of_layers() -> None:
    codec = along(noise(0), 4, rank=2, columns=30)  # the last row is cut
    payload = codec.encode(noise(1), 0.0)
    assert len(payload) == 7 + 9 + 2 * 2 * (35 + 30)
    assert left_out(codec, noise(1)) < 1


def test_what_repeats_is_found_in_a_few_rounds_and_the_rest_is_said_in_the_end() -> None:
    """Six devices with a common part of rank 2: alternating sides on the releases' own change are power iteration."""
    rng = np.random.default_rng(3)
    common = (rng.standard_normal((ROWS, 2)) @ rng.standard_normal((2, COLUMNS))).ravel()
    layout = (Slot("weight", (ROWS, COLUMNS), 0),)
    residuals, shares = np.zeros((6, common.size), np.float32), []
    change: Vector = np.zeros(common.size, np.float32)
    for release in range(12):
        codec = PowerSgd(rank=2).along(Past(release, change, layout))
        total = np.zeros(common.size, np.float32)
        for device in range(6):
            said = residuals[device] + (common + 0.1 * rng.standard_normal(common.size)).astype(np.float32)
            sent = codec.decode(codec.encode(said, 0.0), common.size)
            residuals[device] = said - sent
            total += sent
        change = (total / 6).astype(np.float32)
        shares.append(float(np.linalg.norm(change - common) / np.linalg.norm(common)))
    assert shares[-1] < 0.3 < shares[4]  # what the first rounds left out is said with it, and a part of the noise
    assert np.linalg.norm(residuals, axis=1).max() < 2 * np.linalg.norm(common)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize(("size", "columns"), [(1, 1), (7, 3), (60, 0), (400, 20)])
def test_contract(check: Callable[[Case], None], size: int, columns: int) -> None:
    layout = (Slot("a", (size,), 0),) if size < 60 else (Slot("a", (5, 6, 2), 0), *([Slot("b", (size - 60,), 60)] * (size > 60)))
    for release in (2, 3):
        codec = along(noise(5, size), release, layout, rank=2, columns=columns)
        check(Case(codec, sample_vectors(np.random.default_rng(size), size), 0.0))


def piece(rows: int, columns: int, rank: int) -> bytes:
    return struct.pack("<IIB", rows, columns, rank)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"\2\0\2", "truncated"),
        (struct.pack("<BBBhH", 2, 2, 2, 0, 1) + piece(3, 2, 0) + bytes(12), "exponent"),
        (struct.pack("<BBBhH", 2, 0, 4, 0, 1) + piece(3, 2, 0) + bytes(24), "exponent"),
        (struct.pack("<BBBhH", 2, 0, 2, 513, 1) + piece(3, 2, 0) + bytes(12), "exponent"),
        (struct.pack("<BBBhH", 2, 0, 8, 1, 1) + piece(3, 2, 0) + bytes(48), "exponent"),
        (struct.pack("<BBBhH", 2, 0, 2, 0, 0), "shape"),
        (struct.pack("<BBBhH", 2, 0, 2, 0, 5) + piece(3, 2, 0), "shape"),
        (struct.pack("<BBBhH", 2, 0, 2, 0, 1) + piece(2, 2, 0) + bytes(8), "shape"),
        (struct.pack("<BBBhH", 2, 0, 2, 0, 1) + piece(4, 2, 0) + bytes(16), "shape"),
        (struct.pack("<BBBhH", 2, 0, 2, 0, 2) + piece(3, 2, 0) + piece(0, 9, 0) + bytes(12), "shape"),
        (struct.pack("<BBBhH", 2, 0, 2, 0, 1) + piece(3, 2, 3) + bytes(30), "shape"),
        (struct.pack("<BBBhH", 2, 0, 2, 0, 1) + piece(1, 2**32 - 1, 255), "shape"),  # 32 GiB of zeros
        (struct.pack("<BBBhH", 2, 0, 2, 0, 2) + piece(3, 2, 255) + piece(1, 1, 255), "shape"),
        (struct.pack("<BBBhH", 2, 0, 2, 0, 1) + piece(3, 2, 1) + bytes(9), "length"),
        (struct.pack("<BBBhH", 2, 0, 2, 0, 1) + piece(3, 2, 1) + b"\0\x7e" + bytes(8), "not-finite"),
        (struct.pack("<BBBhH", 2, 0, 2, 0, 1) + piece(3, 2, 1) + bytes(8) + b"\0\x7c", "not-finite"),
        (
            struct.pack("<BBBhH6d", 2, 0, 8, 0, 1, 1e300, 0, 0, 0, 0, 0)[:7]
            + piece(3, 2, 0)
            + struct.pack("<6d", 1e300, *[0] * 5),
            "not-finite",
        ),
    ],
)
def test_payloads_that_no_encoder_writes(payload: bytes, reason: str) -> None:
    for read in (PowerSgd().check, PowerSgd().decode, lambda data, size: PowerSgd().merge([data], size)):
        with pytest.raises(WireError) as refused:
            read(payload, 6)
        assert refused.value.reason == reason


def test_the_largest_sums_stay_finite() -> None:
    payload = along(noise(0)).encode(np.full(SIZE, 3e38, np.float32), 0.0)
    for _ in range(1200):
        payload = PowerSgd().merge([payload, payload], SIZE)
    assert np.isfinite(codec_named("powersgd").decode(payload, SIZE)).all()
