"""Steps that are powers of two: what adds exactly, and sums over releases that become one section."""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Callable

import hypothesis
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import strategies as st

from edgemw.compression.checks import CHECKS, Case, check_growth
from edgemw.compression.lattice import Lattice
from edgemw.compression.merge import fold, gathered, merge
from edgemw.compression.residual import Contribution, encode_update
from edgemw.compression.steps import MOST_PLACES, announced, nearest_power
from edgemw.compression.table import codec_named
from edgemw.core.bundle import Vector
from edgemw.core.encoded import Encoded
from edgemw.core.errors import CodecError, WireError
from edgemw.core.ids import UpdateId
from edgemw.fog.server import mean_update

SIZE = 500
DYADIC = Lattice(steps="dyadic")


def drawn(seed: int, scale: float = 1.0) -> Vector:
    return (scale * np.random.default_rng(seed).laplace(0, 1, SIZE)).astype(np.float32)


def summed(values: list[float], step: float, doublings: int) -> bytes:
    """Larger symbols than a device sends."""
    payload = Lattice().encode(np.array(values, np.float32), step)
    for _ in range(doublings):
        payload = Lattice().merge([payload, payload], len(values))
    return payload


# -- payloads


def test_the_finer_step_wins_and_the_sum_is_exact() -> None:
    codec = Lattice()
    coarse, fine = codec.encode(drawn(0, 10), 2.0), codec.encode(drawn(1), 0.25)
    merged = codec.merge([coarse, fine], SIZE)
    assert codec.check(merged, SIZE) == 0.25
    expected = codec.decode(coarse, SIZE).astype(np.float64) + codec.decode(fine, SIZE)
    assert np.array_equal(codec.decode(merged, SIZE), expected)


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(
    exponents=st.lists(st.integers(-12, 12), min_size=2, max_size=4),
    coders=st.lists(st.sampled_from(["range", "golomb"]), min_size=4, max_size=4),
    seed=st.integers(0, 1000),
)
def test_any_order_and_grouping_gives_the_same_bytes(exponents: list[int], coders: list[str], seed: int) -> None:
    parts = [
        Lattice(coder).encode(drawn(seed + n, 2.0**exponent), 2.0**exponent)
        for n, (exponent, coder) in enumerate(zip(exponents, coders, strict=False))
    ]
    codec = Lattice()
    whole = codec.merge(parts, SIZE)
    for order in itertools.permutations(parts):
        for cut in range(1, len(parts)):
            assert codec.merge([codec.merge(order[:cut], SIZE), codec.merge(order[cut:], SIZE)], SIZE) == whole
    expected = sum((codec.decode(part, SIZE).astype(np.float64) for part in parts), np.zeros(SIZE))
    assert np.array_equal(codec.decode(whole, SIZE), expected.astype(np.float32))


def test_a_finer_step_is_kept_where_its_symbols_cancel() -> None:
    codec = Lattice()
    plus, minus, other = (codec.encode(vector, step) for vector, step in ((drawn(1), 0.5), (-drawn(1), 0.5), (drawn(2), 1.0)))
    left = codec.merge([codec.merge([plus, minus], SIZE), other], SIZE)
    assert left == codec.merge([plus, codec.merge([minus, other], SIZE)], SIZE)
    assert codec.check(left, SIZE) == 0.5


def test_symbols_that_move_out_of_32_bits_wrap_as_sums_do() -> None:
    codec = Lattice()
    large = codec.merge([summed([1, 0, -1], 1.0, 28), codec.encode(np.array([1, 3, 0], np.float32), 1.0)], 3)
    merged = codec.merge([large, codec.encode(np.zeros(3, np.float32), 0.0625)], 3)
    assert [value / 0.0625 for value in codec.decode(merged, 3).tolist()] == [16, 48, 0]


@pytest.mark.parametrize(
    ("steps", "adds"),
    [
        ((1.0, 2.0**-MOST_PLACES), True),
        ((1.0, 2.0 ** -(MOST_PLACES + 1)), False),
        ((1.0, 0.75), False),
        ((0.3, 0.6), False),
        ((2.0**127, 2.0**103), True),
        ((2.0**-149, 2.0**-125), True),
        ((0.3, 0.0), True),
        ((0.3, 0.3), True),
    ],
)
def test_which_steps_add(steps: tuple[float, float], adds: bool) -> None:
    codec = Lattice()
    payloads = [codec.encode(np.float32(step) * np.ones(3, np.float32), step) for step in steps]
    for pair in (payloads, payloads[::-1]):
        if adds:
            assert codec.check(codec.merge(pair, 3), 3) == float(np.float32(min(step for step in steps if step)))
        else:
            with pytest.raises(WireError, match="step"):
                codec.merge(pair, 3)


@pytest.mark.parametrize("coder", ["range", "golomb"])
def test_a_payload_without_symbols_adds_from_any_coarser_step(coder: str) -> None:
    """A release whose step is far too large, because somebody claimed too much energy, brings zeros only."""
    codec = Lattice(coder)
    said, nothing = Lattice("golomb").encode(drawn(1), 0.5), codec.encode(drawn(2), 2.0**127)
    assert (
        codec.merge([said, nothing], SIZE) == codec.merge([nothing, said], SIZE) == codec.merge([said, _empty(coder, 0.5)], SIZE)
    )
    with pytest.raises(WireError, match="places apart"):
        codec.merge([said, codec.encode(np.full(SIZE, 2.0**127, np.float32), 2.0**127)], SIZE)
    with pytest.raises(WireError, match="places apart"):
        codec.merge([said, _empty(coder, 2.0**-30)], SIZE)


def _empty(coder: str, step: float) -> bytes:
    return Lattice(coder).encode(np.zeros(SIZE, np.float32), step)


def test_a_malformed_payload_on_another_step_is_refused() -> None:
    codec = Lattice()
    with pytest.raises(WireError, match="state"):
        codec.merge([codec.encode(drawn(0), 1.0), codec.encode(drawn(1), 2.0)[:-3]], SIZE)


@pytest.mark.parametrize("coder", ["range", "golomb"])
@pytest.mark.parametrize("places", [0, 1, 7])
def test_shifted_divides_exactly(coder: str, places: int) -> None:
    payload = Lattice(coder).encode(drawn(4), 0.5)
    moved = Lattice().shifted(payload, places)
    assert np.array_equal(Lattice().decode(moved, SIZE), Lattice().decode(payload, SIZE) / np.float32(2.0**places))
    assert moved[4:] == payload[4:]


def test_shifted_refuses_what_would_not_be_exact() -> None:
    codec = Lattice()
    for step, places in ((2.0**-149, 1), (float(np.float32(1e-44)), 3), (1.0, 150)):
        with pytest.raises(WireError, match="finer"):
            codec.shifted(codec.encode(np.zeros(3, np.float32), step), places)
    with pytest.raises(CodecError, match="coarser"):
        codec.shifted(codec.encode(np.zeros(3, np.float32), 1.0), -1)
    with pytest.raises(WireError, match="truncated"):
        codec.shifted(b"123", 1)
    assert codec.shifted(bytes(8), 200) == bytes(8)


@pytest.mark.parametrize(
    ("step", "power"),
    [(0.0, 0.0), (1.0, 1.0), (1.41, 1.0), (1.42, 2.0), (0.3, 0.25), (3e-40, 2.0**-100), (3.4e38, 2.0**127), (1e-320, 2.0**-100)],
)
def test_the_nearest_power_of_two_in_the_logarithm(step: float, power: float) -> None:
    assert nearest_power(step) == power
    assert announced(DYADIC, step) == power
    assert announced(Lattice(), step) == step
    assert announced(codec_named("dense"), step) == step


# -- steps of a device's own


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_without_an_announced_step_devices_choose_theirs_and_the_contract_holds(
    check: Callable[[Case], None], rounding: str
) -> None:
    near, far = 1.5, 1e-3 if check is not check_growth else 1.0  # integers of a coarser step become longer
    vectors = (drawn(0), drawn(1, near), drawn(2, far), np.zeros(SIZE, np.float32))
    check(Case(Lattice(rounding=rounding, kappa=4), vectors, 0.0))


@pytest.mark.parametrize("kappa", [0.5, 2, 4.0])
@pytest.mark.parametrize("scale", [1e-20, 1e-3, 1.0, 1e30])
def test_an_own_step_is_the_power_of_two_nearest_to_kappa_root_mean_squares(kappa: float, scale: float) -> None:
    vector = drawn(0, scale)
    wanted = kappa * float(np.sqrt(np.mean(np.square(vector.astype(np.float64)))))
    step = Lattice().check(Lattice(kappa=kappa).encode(vector, 0.0), SIZE)
    assert math.frexp(step)[0] == 0.5
    assert wanted / math.sqrt(2) <= step <= wanted * math.sqrt(2)


def test_an_announced_step_goes_before_an_own_one_and_zeros_have_none() -> None:
    codec = Lattice(kappa=4.0)
    assert codec.encode(drawn(0), 0.3) == Lattice().encode(drawn(0), 0.3)
    assert codec.encode(np.zeros(SIZE, np.float32), 0.0) == bytes(8)
    assert codec.encode(drawn(0, 1e-45), 0.0)[4:] == struct.pack("<I", 1 << 31)  # nothing is said, and all of it is kept


@pytest.mark.parametrize("kappa", [-1.0, math.inf, math.nan, "four"])
def test_a_kappa_that_is_no_number_of_steps_is_refused(kappa: float) -> None:
    with pytest.raises(CodecError, match="kappa"):
        codec_named("lattice", kappa=kappa)


# -- encodings


def update(seed: int, base: int, step: float, weight: int) -> Encoded:
    contribution = Contribution(UpdateId(f"device-{seed}", 1, 0), base, weight, drawn(seed))
    return encode_update(Lattice(("range", "golomb")[seed % 2]), contribution, np.zeros(SIZE, np.float32), step)[0]


STEPS = {3: 4.0, 4: 1.0, 5: 16.0, 7: 8.0, 8: 2.0}
UPDATES = [update(seed, base, STEPS[base], 10 + seed) for seed, base in enumerate([8, 5, 3, 8, 7, 4])]
NOW = 8


def weight_of(tau: int) -> float:
    """1 / sqrt(1 + tau), to the nearest power of two in the logarithm; by hand."""
    return {0: 1.0, 1: 1.0, 3: 0.5, 4: 0.5, 5: 0.5}[tau]


def by_hand() -> npt.NDArray[np.float64]:
    total = np.zeros(SIZE)
    for part in UPDATES:
        (section,) = part.sections
        total += weight_of(NOW - section.base) * Lattice().decode(section.payload, SIZE).astype(np.float64)
    return total / sum(part.weight for part in UPDATES)


def trees(parts: list[Encoded]) -> list[list[list[Encoded]]]:
    """Some ways to hand updates to fog nodes, in several orders."""
    orders = list(itertools.permutations(parts))[::97]
    return [[list(order[:cut]), list(order[cut:])] for order in orders for cut in (1, 3, 5)]


def test_an_asynchronous_window_is_one_section_whatever_the_tree_and_the_mean_is_exact() -> None:
    whole = fold(DYADIC, merge(DYADIC, UPDATES), NOW)
    mean = mean_update(DYADIC, whole, NOW, "sqrt")
    assert len(whole.sections) == 1
    for fogs in trees(UPDATES):
        windows = [gathered(DYADIC, merge(DYADIC, parts), NOW) for parts in fogs]
        assert gathered(DYADIC, merge(DYADIC, windows), NOW) == whole
        late_folding = merge(DYADIC, [merge(DYADIC, parts) for parts in fogs])
        assert len(late_folding.sections) == 5
        assert mean_update(DYADIC, late_folding, NOW, "sqrt").tobytes() == mean.tobytes()
    assert np.array_equal(mean, by_hand().astype(np.float32))


def test_weight_count_and_energy_are_summed_and_not_discounted() -> None:
    """As FedBuff divides by the number of updates."""
    merged = merge(DYADIC, UPDATES)
    (section,) = fold(DYADIC, merged, NOW).sections
    assert (section.base, section.weight, section.count) == (NOW, merged.weight, len(UPDATES))
    assert section.energy == sum(part.sections[0].energy for part in UPDATES)
    assert fold(DYADIC, merged, NOW).contributions == merged.contributions


@pytest.mark.parametrize("behind", [*range(40), 127, 128, 1000, 1 << 20])
def test_the_discount_is_the_nearest_power_of_two(behind: int) -> None:
    (section,) = fold(DYADIC, update(0, 0, 1.0, 5), behind).sections
    halvings = -math.log2(DYADIC.check(section.payload, SIZE))
    assert abs(halvings - math.log2(1 + behind) / 2) <= 0.5
    assert halvings == math.ceil(math.log2(1 + behind) / 2 - 0.5)


def test_an_update_without_sections_folds_to_itself_and_free_steps_stay_side_by_side() -> None:
    empty = Encoded("lattice", SIZE, (), frozenset({UpdateId("a", 1, 0)}))
    assert fold(DYADIC, empty, 9) == empty
    merged = merge(Lattice(), UPDATES)
    assert gathered(Lattice(), merged, NOW) == merged
    dense = Encoded("dense", 4, (), frozenset())
    assert gathered(codec_named("dense"), dense, NOW) == dense


def test_free_steps_cannot_be_folded() -> None:
    with pytest.raises(WireError, match="powers of two"):
        fold(DYADIC, merge(DYADIC, [update(0, 1, 0.3, 1), update(1, 2, 0.7, 1)]), 2)
