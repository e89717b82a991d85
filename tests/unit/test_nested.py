"""A fog node that sends less than its window brought loses nothing of it."""

from __future__ import annotations

import doctest
import importlib
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemw.compression.codec import Bound
from edgemw.compression.lattice import Lattice
from edgemw.compression.nested import nest, taken_back
from edgemw.core.errors import WireError

SIZE = 400
LATTICE = Lattice(steps="dyadic")


def payload(seed: int, exponent: int, children: int = 3) -> bytes:
    rng = np.random.default_rng(seed)
    step = math.ldexp(1.0, exponent)
    vectors = [(rng.laplace(0, 1, SIZE) * step).astype(np.float32) for _ in range(children)]
    return LATTICE.merge([LATTICE.encode(vector, step) for vector in vectors], SIZE)


def exact(payload: bytes) -> Bound:
    """What a payload stands for, as float64."""
    total: Bound = np.zeros(SIZE)
    return total + LATTICE.decode(payload, SIZE) if payload else total


def test_the_example_in_the_documentation_runs() -> None:
    results = doctest.testmod(importlib.import_module("edgemw.compression.nested"))
    assert (results.failed, results.attempted) == (0, 5)


@given(
    windows=st.lists(st.tuples(st.integers(0, 2**32), st.integers(-6, 3)), min_size=1, max_size=6),
    limit_bytes=st.integers(8, 400),
)
def test_what_was_sent_and_what_is_kept_is_what_came_and_fits_the_budget(
    windows: list[tuple[int, int]], limit_bytes: int
) -> None:
    came, sent, kept = np.zeros(SIZE), np.zeros(SIZE), b""
    for seed, exponent in windows:
        window = payload(seed, exponent)
        nested = nest(LATTICE, window, kept, SIZE, limit_bytes)
        assert len(nested.sent) <= limit_bytes
        came, sent, kept = came + exact(window), sent + exact(nested.sent), nested.kept
        assert np.array_equal(sent + exact(kept), came)


@given(st.integers(0, 2**32), st.integers(40, 300))
def test_what_waits_is_sent_once_and_not_back_and_forth(seed: int, limit_bytes: int) -> None:
    kept = nest(LATTICE, payload(seed, 0), b"", SIZE, limit_bytes).kept
    for _ in range(4):  # windows that bring nothing
        nested = nest(LATTICE, LATTICE.encode(np.zeros(SIZE, np.float32), 1.0), kept, SIZE, limit_bytes)
        moved = exact(nested.sent) != 0
        assert np.all(np.abs(exact(nested.kept))[moved] < np.abs(exact(kept))[moved])
        kept = nested.kept


def test_a_budget_that_is_wide_enough_keeps_nothing_back() -> None:
    window = payload(1, 0)
    nested = nest(LATTICE, window, b"", SIZE, len(window))
    assert nested.sent == window
    assert not exact(nested.kept).any()


def test_the_coarsest_lattice_that_is_needed_is_taken_and_no_coarser() -> None:
    window = payload(1, 0)
    limit_bytes = len(window) // 2
    places = 0
    while len(LATTICE.split(window, places, SIZE)[0]) > limit_bytes:
        places += 1
    assert places > 0
    assert nest(LATTICE, window, b"", SIZE, limit_bytes).sent == LATTICE.split(window, places, SIZE)[0]


@given(st.integers(0, 2**32), st.integers(8, 200))
def test_what_comes_back_is_as_if_it_had_never_been_sent(seed: int, limit_bytes: int) -> None:
    first, second = payload(seed, 0), payload(seed + 1, -2)
    before = nest(LATTICE, first, b"", SIZE, limit_bytes).kept
    nested = nest(LATTICE, second, before, SIZE, limit_bytes)
    kept = taken_back(LATTICE, nested.kept, nested.sent, second, SIZE)
    assert np.array_equal(exact(kept), exact(before))


@pytest.mark.parametrize("symbol", [-(2**31), -127, -3, -2, -1, 1, 2, 3, 5, 127, 2**31 - 1])
@pytest.mark.parametrize("places", [0, 1, 2, 24])
def test_halves_are_rounded_towards_zero_and_the_parts_add_up(symbol: int, places: int) -> None:
    at = np.array([7])
    window = LATTICE._sparse(0.5, True, at, np.array([symbol], np.int32), SIZE)
    coarse, rest = LATTICE.split(window, places, SIZE)
    expected = math.copysign(math.ceil(abs(symbol) / 2**places - 0.5), symbol) * 2**places
    assert exact(coarse)[7] == pytest.approx(expected * 0.5, rel=2**-23)
    assert LATTICE.merge([coarse, rest], SIZE) == window


def test_steps_that_do_not_add_are_refused() -> None:
    odd = Lattice(rounding="nearest").encode(np.full(SIZE, 3, np.float32), 0.3)
    with pytest.raises(WireError, match="different steps"):
        nest(LATTICE, payload(1, 0), odd, SIZE, 100)
    with pytest.raises(WireError, match="coarser"):
        LATTICE.split(payload(1, 0), 25, SIZE)
    assert LATTICE.split(LATTICE.encode(np.zeros(SIZE, np.float32), 0.0), 3, SIZE) == (bytes(8), bytes(8))
