"""Error feedback: nothing is lost between what was to be sent, what was sent, and what is kept."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgemw.compression.codec import Codec
from edgemw.compression.dense import Dense
from edgemw.compression.lattice import Lattice
from edgemw.compression.merge import merge
from edgemw.compression.residual import Contribution, encode_update, give_back
from edgemw.core.bundle import Vector
from edgemw.core.encoded import Encoded
from edgemw.core.errors import CodecError
from edgemw.core.ids import UpdateId

NEAREST = Lattice(rounding="nearest")
CODECS: list[Codec] = [NEAREST, Dense("float32"), Dense("float16")]
NAMES = ["lattice", "float32", "float16"]


def contribution(delta: Vector, weight: int = 1, seq: int = 0) -> Contribution:
    return Contribution(UpdateId("device", 1, seq), 3, weight, delta)


def deltas(limit: float) -> st.SearchStrategy[Vector]:
    return hnp.arrays(np.float32, st.integers(1, 30), elements=st.floats(-limit, limit, width=32))


def decoded(codec: Codec, encoded: Encoded) -> Vector:
    return codec.decode(encoded.sections[0].payload, encoded.size)


def test_an_update_carries_its_identity_base_weight_and_energy() -> None:
    encoded, _ = encode_update(Lattice(), contribution(np.array([1, -2], np.float32), 5), np.array([1, 0], np.float32), 1.0)
    (section,) = encoded.sections
    assert (encoded.codec, encoded.size, encoded.contributions) == ("lattice", 2, frozenset({UpdateId("device", 1, 0)}))
    assert (section.base, section.weight, section.count, section.energy) == (3, 5, 1, 5**2 + 10**2)  # without the residual
    assert decoded(Lattice(), encoded).tolist() == [6, -10]


def test_an_update_also_stands_for_the_weight_of_what_was_returned_and_is_in_the_residual() -> None:
    owing = replace(contribution(np.array([1, -2], np.float32), 5), owed=10)
    encoded, _ = encode_update(Lattice(), owing, np.array([20, 0], np.float32), 1.0)
    assert encoded.weight == 15
    assert decoded(Lattice(), encoded).tolist() == [25, -10]
    assert encoded.sections[0].energy == 5**2 + 10**2


@hypothesis.given(delta=deltas(120), step=st.sampled_from([0.0, 0.3, 1.0, 7.0]))
def test_within_127_steps_sent_and_kept_are_exactly_what_was_to_be_sent(delta: Vector, step: float) -> None:
    hypothesis.assume(step == 0 or np.abs(delta).max() < 127 * step)
    encoded, residual = encode_update(NEAREST, contribution(delta), np.zeros_like(delta), step)
    assert np.array_equal(decoded(Lattice(), encoded) + residual, delta)


@pytest.mark.parametrize("codec", CODECS, ids=NAMES)
@hypothesis.given(delta=deltas(float(2.0**120)), step=st.floats(0, float(2.0**120), width=32))
def test_otherwise_to_one_rounding(codec: Codec, delta: Vector, step: float) -> None:
    encoded, residual = encode_update(codec, contribution(delta), np.zeros_like(delta), step)
    kept = decoded(codec, encoded).astype(np.float64) + residual
    assert (np.abs(kept - delta) <= 2.0**-24 * np.abs(delta) + 2.0**-149).all()


@pytest.mark.parametrize("codec", CODECS, ids=NAMES)
def test_over_many_rounds_everything_sent_and_the_residual_are_everything_trained(codec: Codec) -> None:
    """The sums of 100 rounds agree to 1e-6 of the largest value that was carried."""
    rng = np.random.default_rng(0)
    residual = np.zeros(500, np.float32)
    trained, sent = np.zeros(500), np.zeros(500)
    largest = 0.0
    for seq in range(100):
        delta = rng.laplace(0, 1, 500).astype(np.float32)
        trained += 3.0 * delta
        encoded, residual = encode_update(codec, contribution(delta, 3, seq), residual, 10.0)
        sent += decoded(codec, encoded)
        largest = max(largest, float(np.abs(residual).max()), float(np.abs(3 * delta).max()))
    assert np.abs(sent + residual - trained).max() <= 100 * 1e-6 * largest
    if codec.stepped:
        assert np.abs(residual).max() <= 5.0 * (1 + 1e-6)


def test_without_feedback_nothing_is_kept_and_what_was_kept_before_is_said_once() -> None:
    codec = Lattice(rounding="stochastic")
    encoded, residual = encode_update(codec, contribution(np.full(4, 3, np.float32)), np.full(4, 2, np.float32), 2.5)
    assert decoded(codec, encoded).tolist() == [5] * 4
    assert residual.tolist() == [0] * 4


def test_what_is_out_of_range_stays_also_without_feedback() -> None:
    codec, delta = Lattice(), np.array([1000, 0.25, -3], np.float32)
    encoded, residual = encode_update(codec, contribution(delta), np.zeros(3, np.float32), 1.0)
    assert decoded(codec, encoded)[0] == 127
    assert np.array_equal(decoded(codec, encoded) + residual, delta)


@hypothesis.given(delta=deltas(120), step=st.sampled_from([0.0, 1.0, 3.0]))
def test_give_back_restores_what_was_encoded(delta: Vector, step: float) -> None:
    encoded, residual = encode_update(NEAREST, contribution(delta), np.zeros_like(delta), step)
    before = residual.copy()
    assert np.array_equal(give_back(Lattice(), encoded, residual), delta)
    assert np.array_equal(residual, before)


def test_a_merged_encoding_is_given_back_whole() -> None:
    parts = [
        encode_update(Lattice(), contribution(np.full(3, 4, np.float32), 1, seq), np.zeros(3, np.float32), 1.0)[0]
        for seq in (0, 1)
    ]
    assert give_back(Lattice(), merge(Lattice(), parts), np.ones(3, np.float32)).tolist() == [9, 9, 9]


@pytest.mark.parametrize("codec", CODECS, ids=NAMES)
@pytest.mark.parametrize("delta", [[np.nan, 0], [np.inf, 0], [3e38, 0]])
def test_what_is_not_finite_is_refused_and_leaves_the_residual(codec: Codec, delta: list[float]) -> None:
    """Also where only the weighted delta leaves float32."""
    residual = np.array([1, 2], np.float32)
    with pytest.raises(CodecError, match="NaN or infinite"):
        encode_update(codec, contribution(np.array(delta, np.float32), 100), residual, 1.0)
    assert residual.tolist() == [1, 2]


def test_another_size_is_refused_instead_of_stretched() -> None:
    with pytest.raises(CodecError, match="delta"):
        encode_update(Lattice(), contribution(np.ones(1, np.float32)), np.zeros(5, np.float32), 1.0)


def test_energies_add_in_any_order_to_the_same_number() -> None:
    """Twelve significant bits each, so float64 holds every partial sum."""
    rng = np.random.default_rng(1)
    energies = []
    for seq, scale in enumerate(10.0 ** rng.uniform(-2.5, 2.5, 6)):
        delta = (scale * rng.standard_normal(1000)).astype(np.float32)
        encoded, _ = encode_update(Lattice(), contribution(delta, 1, seq), np.zeros(1000, np.float32), 1.0)
        energies.append(encoded.sections[0].energy)
        assert energies[-1] == pytest.approx(float((delta.astype(np.float64) ** 2).sum()), rel=2.0**-12)
    assert len({sum(order) for order in itertools.permutations(energies)}) == 1
    assert sum(energies) == math.fsum(energies)
