"""Windows with children that lie: what one may bring, who is left out, and that nothing is lost where nobody lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemw.compression import side
from edgemw.compression.codec import Codec
from edgemw.compression.dense import Dense
from edgemw.compression.lattice import Lattice
from edgemw.compression.merge import merge
from edgemw.compression.table import codec_named
from edgemw.core.encoded import Encoded, Section
from edgemw.core.errors import CodecError
from edgemw.core.ids import UpdateId
from edgemw.robust.child import Bounded, Child
from edgemw.robust.limits import numbers_of
from edgemw.robust.options import FITS, RobustOptions, fewest_for, liars, protects, unfit
from edgemw.robust.table import robust_named
from edgemw.robust.thinning import thinned

SIZE, STEP = 200, 0.125
BOUND = 1.5
WHOLE = [RobustOptions(use) for use in FITS]
LATTICE = Lattice(steps="dyadic")


def half(text: str) -> float:
    return 0.5


def part(
    name: str, vector: npt.NDArray[Any], *, weight: int = 10, codec: Codec = LATTICE, seq: int = 0, base: int = 3, count: int = 1
) -> Encoded:
    payload = codec.encode((weight * vector).astype(np.float32), STEP)
    energy = float(np.square(weight * vector.astype(np.float64)).sum())
    section = Section(base, weight, count, energy, payload)
    return Encoded(codec.name, vector.size, (section,), frozenset({UpdateId(name, 1, seq)}))


def honest(count: int, *, codec: Codec = LATTICE, scale: float = 0.05) -> list[Child]:
    """Children that say nearly the same."""
    rng = np.random.default_rng(7)
    common = rng.normal(0, scale, SIZE)
    vectors = [(common + rng.normal(0, scale / 4, SIZE)).astype(np.float32) for _ in range(count)]
    return [Child(f"child-{n}", (part(f"child-{n}", vector, codec=codec),)) for n, vector in enumerate(vectors)]


def liar(vector: npt.NDArray[Any], name: str = "liar", weight: int = 10) -> Child:
    return Child(name, (part(name, vector.astype(np.float32), weight=weight),))


def replaced(one: Encoded, weight: int) -> Encoded:
    """The same update with another claim."""
    return replace(one, sections=tuple(replace(section, weight=weight) for section in one.sections))


def bounded(use: str, children: Sequence[Child], codec: Codec = LATTICE) -> Bounded:
    robust = robust_named(RobustOptions(use, BOUND))
    assert robust is not None
    return robust.bound(codec, children, {}, half)


def of(found: Bounded, name: str) -> list[Encoded]:
    return [one for one in found.parts if {update.node for update in one.contributions} == {name}]


def length(codec: Codec, parts: Sequence[Encoded]) -> float:
    return sum(one.length for one in numbers_of(codec, Child("", tuple(parts))))


# ------------------------------------------------------------------------------------------------------------- thinning


@given(
    st.lists(st.integers(-127, 127), min_size=1, max_size=60),
    st.floats(0, 1),
    st.floats(0, 1, exclude_max=True),
)
def test_what_is_thinned_stays_between_nothing_and_all_and_adds_up_to_its_share(
    numbers: list[int], factor: float, u: float
) -> None:
    symbols = np.array(numbers, np.int32)
    kept = thinned(symbols, factor, u)
    assert (np.sign(kept) * np.sign(symbols) >= 0).all()
    assert (np.abs(kept) <= np.abs(symbols)).all()
    assert abs(np.abs(kept).sum() - factor * np.abs(symbols).sum()) <= 1 + 1e-6


def test_every_unit_has_the_same_chance() -> None:
    symbols, steps = np.array([1, -3, 0, 7, 1, 1, -2], np.int32), 10_000
    mean = sum(thinned(symbols, 0.3, (n + 0.5) / steps).astype(float) for n in range(steps)) / steps
    np.testing.assert_allclose(mean, 0.3 * symbols, atol=1e-3)


# ---------------------------------------------------------------------------------------------------------------- bounds


@pytest.mark.parametrize("use", ["norm", "krum"])
@pytest.mark.parametrize("codec", [LATTICE, Dense()], ids=["lattice", "dense"])
def test_a_window_of_children_alike_passes_bit_for_bit(use: str, codec: Codec) -> None:
    children = [replace(child, parts=(honest(1, codec=codec)[0].parts[0],)) for child in honest(5, codec=codec)]
    same = [
        Child(f"child-{n}", (replace(child.parts[0], contributions=frozenset({UpdateId(f"child-{n}", 1, 0)})),))
        for n, child in enumerate(children)
    ]
    found = bounded(use, same, codec)
    assert not found.kept
    assert not found.cut
    inside = [child.parts[0] for child in same if child.name not in found.left_out]
    assert list(found.parts) == inside
    assert len(found.left_out) == (1 if use == "krum" else 0)


LIES = st.fixed_dictionaries(
    {
        "scale": st.floats(0.001, 1e6),
        "weight": st.integers(1, 1 << 40),
        "count": st.integers(1, 1 << 20),
        "places": st.integers(1, SIZE),
        "seed": st.integers(0, 100),
    }
)


@settings(max_examples=60, deadline=None)
@given(LIES)
def test_whatever_a_child_sends_it_brings_no_more_than_the_bound(lie: dict[str, int]) -> None:
    vector = np.zeros(SIZE, np.float32)
    rng = np.random.default_rng(lie["seed"])
    vector[: lie["places"]] = rng.choice([-1, 1], lie["places"]) * lie["scale"]
    payload = LATTICE.encode(vector.clip(-127 * STEP, 127 * STEP), STEP)
    section = Section(3, lie["weight"], lie["count"], float(lie["scale"]), payload)
    lying = Child("liar", (Encoded("lattice", SIZE, (section,), frozenset({UpdateId("liar", 1, 0)})),))
    others = honest(6)
    found = bounded("norm", [*others, lying])
    (left,) = of(found, "liar")
    longest = sorted(length(LATTICE, child.parts) for child in others)[-1]
    assert left.weight <= BOUND * 10
    assert left.count <= BOUND
    assert length(LATTICE, [left]) <= BOUND * BOUND * longest + STEP
    for child in others:
        assert length(LATTICE, of(found, child.name)) >= 0.5 * length(LATTICE, child.parts)


@pytest.mark.parametrize("use", ["norm", "krum"])
@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(7)), factor=st.sampled_from([1.0, -10.0, 100.0]))
def test_what_is_left_does_not_depend_on_who_came_first(use: str, order: list[int], factor: float) -> None:
    children = honest(6)
    children.append(liar(factor * LATTICE.decode(children[0].parts[0].sections[0].payload, SIZE) / 10))
    first, second = bounded(use, children), bounded(use, [children[at] for at in order])
    assert first == second


@settings(max_examples=30, deadline=None)
@given(factor=st.floats(-30, 30), weight=st.integers(1, 1000), use=st.sampled_from(["norm", "krum"]))
def test_what_is_left_and_what_is_cut_add_up_to_what_came_integer_by_integer(factor: float, weight: int, use: str) -> None:
    children = [*honest(6), liar(np.full(SIZE, factor * 0.1), weight=weight)]
    found = bounded(use, children)
    inside = [child for child in children if child.name not in found.left_out]
    came = merge(LATTICE, [one for child in inside for one in child.parts]).sections[0].payload
    went = [one.sections[0].payload for one in (*found.parts, *found.cut)]
    total = sum(LATTICE.decode(payload, SIZE).astype(np.float64) for payload in went)
    np.testing.assert_array_equal(total, LATTICE.decode(came, SIZE))


def test_many_updates_of_one_child_have_one_bound() -> None:
    vector = LATTICE.decode(honest(1)[0].parts[0].sections[0].payload, SIZE) / 10
    many = Child("many", tuple(part("many", -vector, seq=seq) for seq in range(20)))
    found = bounded("norm", [*honest(6), many])
    assert sum(one.weight for one in of(found, "many")) <= 20
    assert length(LATTICE, of(found, "many")) <= BOUND * 1.5 * length(LATTICE, honest(1)[0].parts)


def test_side_values_of_a_child_are_left_out_where_they_are_too_large() -> None:
    children = [
        Child(child.name, (replace(child.parts[0], sections=(replace(child.parts[0].sections[0], side=side.encode(values)),)),))
        for child, values in zip(honest(4), [np.ones(3), np.ones(3), np.ones(3), np.full(3, 1e6)], strict=True)
    ]
    found = bounded("norm", children)
    assert [bool(one.sections[0].side) for one in found.parts] == [True, True, True, False]


def test_two_children_are_added_as_they_are() -> None:
    children = [honest(1)[0], liar(np.full(SIZE, 5.0))]
    assert bounded("norm", children).parts == tuple(one for child in children for one in child.parts)


def test_two_children_are_bounded_by_what_a_third_brought_earlier() -> None:
    *earlier, child = honest(3)
    robust = robust_named(RobustOptions("norm"))
    assert robust is not None
    lying = liar(np.full(SIZE, 5.0))
    measures = robust.bound(LATTICE, earlier, {}, half).measures
    found = robust.bound(LATTICE, [child, lying], measures, half)
    assert list(found.kept) == ["liar"]


# ------------------------------------------------------------------------------------------------------------------ krum


@pytest.mark.parametrize("seed", range(5))
def test_krum_leaves_out_those_that_are_far_from_all_others(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lying = [liar(rng.normal(0, 0.1, SIZE), f"a-liar-{n}") for n in range(2)]
    found = bounded("krum", [*honest(8), *lying])
    assert found.left_out == ("a-liar-0", "a-liar-1")


@pytest.mark.parametrize("weight", [1 << 30, 1 << 40, 1 << 48])
def test_claims_whose_product_is_beyond_64_bits_scramble_no_choice(weight: int) -> None:
    """Of two liars with such claims; 2^48 is the most that a node takes."""
    shouting = np.full(SIZE, -1.0)
    liars_ = [Child(name, (replaced(part(name, shouting), weight),)) for name in ("liar-0", "liar-1")]
    found = bounded("krum", [*honest(10), *liars_])
    assert all(length(LATTICE, of(found, one.name)) == 0 for one in liars_)
    assert sum(bool(of(found, one.name)) for one in honest(10)) >= 8
    assert sum(one.weight for one in found.parts) <= 10 * 10 + 2 * 15


def test_krum_leaves_nobody_out_where_they_are_too_few() -> None:
    assert bounded("krum", [*honest(3), liar(np.full(SIZE, 5.0))]).left_out == ()


# -------------------------------------------------------------------------------------------------------- median, trimmed


@pytest.mark.parametrize("use", ["median", "trimmed"])
def test_dense_windows_are_near_to_the_honest_whatever_a_fifth_sends(use: str) -> None:
    codec, others = Dense(), honest(8, codec=Dense())
    mean = codec.decode(merge(codec, [child.parts[0] for child in others]).sections[0].payload, SIZE) / 80
    lying = [Child(f"liar-{n}", (part(f"liar-{n}", np.full(SIZE, -1e4, np.float32), codec=codec),)) for n in range(2)]
    found = bounded(use, [*others, *lying], codec)
    (one,) = found.parts
    assert (one.weight, one.count) == (100, 10)
    assert np.abs(codec.decode(one.sections[0].payload, SIZE) / one.weight - mean).max() < 0.05
    plain = codec.decode(merge(codec, [child.parts[0] for child in [*others, *lying]]).sections[0].payload, SIZE) / 100
    assert np.abs(plain - mean).min() > 100


@pytest.mark.parametrize(("use", "expected"), [("median", 2.0), ("trimmed", 3.0)])
def test_the_mean_at_the_top_is_the_median_or_the_trimmed_mean(use: str, expected: float) -> None:
    codec = Dense()
    children = [
        Child(f"c-{n}", (part(f"c-{n}", np.full(4, value, np.float32), codec=codec),))
        for n, value in enumerate([1, 2, 2, 5, 900])
    ]
    (one,) = bounded(use, children, codec).parts
    np.testing.assert_allclose(codec.decode(one.sections[0].payload, 4) / one.weight, expected)


def test_a_late_section_of_a_child_is_in_its_one_vote() -> None:
    codec = Dense()
    children = [Child(f"c-{n}", (part(f"c-{n}", np.full(4, 2.0, np.float32), codec=codec),)) for n in range(3)]
    late = Child("late", (part("late", np.full(4, 900.0, np.float32), codec=codec, base=1),))
    (one,) = bounded("median", [*children, late], codec).parts
    assert [section.base for section in one.sections] == [3]
    np.testing.assert_allclose(codec.decode(one.sections[0].payload, 4) / one.weight, 2.0)


# --------------------------------------------------------------------------------------------------------- what goes with what


@pytest.mark.parametrize("options", WHOLE, ids=lambda one: one.use)
def test_a_codec_that_shows_no_numbers_is_refused(options: RobustOptions) -> None:
    robust = robust_named(options)
    assert robust is not None
    assert unfit(options.use, "qsgd")
    with pytest.raises(CodecError):
        robust.bound(codec_named("qsgd"), honest(4), {}, half)


def test_how_many_children_are_enough() -> None:
    assert [liars(count, 0.2) for count in (4, 5, 10, 15)] == [0, 1, 2, 3]
    assert (fewest_for("norm", 0.2), fewest_for("krum", 0.2), fewest_for("trimmed", 0.2)) == (3, 5, 5)
    assert fewest_for("krum", 0.4) == 7
    assert not protects("krum", 8, 0.4)  # 3 of 8: Krum needs 9
