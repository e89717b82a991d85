"""Coarser symbols on the announced step: the limit is met, nothing is lost, and payloads merge as before."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemw.compression.coarse import can_coarsen, encode_within
from edgemw.compression.lattice import Lattice
from edgemw.compression.residual import Contribution, encode_update
from edgemw.compression.table import CODECS, codec_named
from edgemw.core.bundle import Vector
from edgemw.core.errors import CodecError
from edgemw.core.ids import UpdateId

SIZE, STEP = 3000, 0.25
LATTICE = Lattice(rounding="nearest")
NOTHING = LATTICE.encode(np.zeros(SIZE, np.float32), STEP)


def update(seed: int, scale: float = 1.0) -> Vector:
    return (np.random.default_rng(seed).standard_t(3, SIZE) * scale).astype(np.float32)


def symbols(payload: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return LATTICE.decode(payload, SIZE) / np.float32(STEP)


@settings(deadline=None)
@given(seed=st.integers(0, 1000), scale=st.sampled_from([0.1, 1.0, 5.0, 40.0]), limit_bytes=st.integers(0, 3000))
def test_the_limit_is_met_and_what_is_cut_off_stays(seed: int, scale: float, limit_bytes: int) -> None:
    vector = update(seed, scale)
    payload, _ = encode_within(LATTICE, vector, STEP, limit_bytes)
    assert len(payload) <= max(limit_bytes, len(NOTHING))
    said = LATTICE.decode(payload, SIZE)
    left = vector - said
    np.testing.assert_array_equal(said.astype(np.float64) + left, vector.astype(np.float64))
    assert np.linalg.norm(left) <= np.linalg.norm(vector)  # as error feedback needs it
    assert LATTICE.check(payload, SIZE) == STEP


def test_what_survives_are_multiples_of_a_power_of_two_and_as_many_as_fit() -> None:
    vector = update(0)
    whole = LATTICE.encode(vector, STEP)
    assert encode_within(LATTICE, vector, STEP, len(whole)) == (whole, False)
    sizes = []
    for limit_bytes in range(len(whole) - 1, len(NOTHING), -40):
        payload, _ = encode_within(LATTICE, vector, STEP, limit_bytes)
        found = np.abs(symbols(payload)).astype(int)
        assert not (found[found < 127] % 2).any()  # 127 is as far as a device's symbols go
        sizes.append(len(payload))
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) >= 5  # not all or nothing


def test_a_coarse_payload_merges_with_a_fine_one() -> None:
    fine, vector = LATTICE.encode(update(1), STEP), update(2)
    coarse, _ = encode_within(LATTICE, vector, STEP, 500)
    merged = symbols(LATTICE.merge([fine, coarse], SIZE))
    np.testing.assert_array_equal(merged, symbols(fine) + symbols(coarse))


@pytest.mark.parametrize("codec", [LATTICE, Lattice()], ids=["nearest", "by chance"])
def test_an_update_within_a_limit_conserves_mass(codec: Lattice) -> None:
    contribution = Contribution(UpdateId("device-0", 1, 0), 0, 3, update(3))
    before = update(4)
    encoded, residual = encode_update(codec, contribution, before, STEP, 300)
    assert len(encoded.sections[0].payload) <= 300
    said = LATTICE.decode(encoded.sections[0].payload, SIZE)
    np.testing.assert_array_equal(said + residual, contribution.delta * np.float32(3) + before)


def test_steps_at_the_ends_of_float32_are_coarsened_too() -> None:
    vector = np.full(SIZE, 3e38, np.float32)
    assert LATTICE.check(encode_within(LATTICE, vector, 2e38, 20)[0], SIZE) == np.float32(2e38)
    assert encode_within(LATTICE, vector, 0.0, 0) == (LATTICE.encode(vector, 0.0), True)


@pytest.mark.parametrize("name", [name for name in CODECS if name != "lattice"])
def test_other_codecs_are_refused_above_the_limit_and_untouched_below(name: str) -> None:
    codec, vector = codec_named(name), update(5)
    assert not can_coarsen(codec)
    payload = codec.encode(vector, 0.0)
    assert encode_within(codec, vector, 0.0, len(payload)) == (payload, False)
    with pytest.raises(CodecError, match=rf"takes {len(payload)} bytes in {name}, more than the {len(payload) - 1}"):
        encode_within(codec, vector, 0.0, len(payload) - 1)


def test_a_step_that_is_much_too_small_still_lets_the_largest_values_through() -> None:
    payload, _ = encode_within(LATTICE, update(6), STEP / 1000, 200)
    assert len(NOTHING) < len(payload) <= 200
    assert np.abs(symbols(payload)).max() > 0
