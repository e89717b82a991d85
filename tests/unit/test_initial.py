"""First values from a seed: the published generator, exact arithmetic, the same bits for ever; wrong recipes refused."""

from __future__ import annotations

import hashlib
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemw.core.errors import BundleError
from edgemw.core.initial import Draw, Kind, Recipe, Values, read_recipe

NOTHING = np.empty(0, np.float32)
UNIFORM = Draw("uniform", 0.125)
_MASK = (1 << 64) - 1


def philox(key: int, count: int) -> list[int]:
    """Words of Philox 4x64 with 10 rounds, in plain integers; the first block is that of counter 1."""
    words: list[int] = []
    for counter in range(1, -(-count // 4) + 1):
        c0, c1, c2, c3, k0, k1 = counter, 0, 0, 0, key & _MASK, key >> 64
        for _ in range(10):
            low, high = 0xD2E7470EE14C6C93 * c0, 0xCA5A826395121157 * c2
            c0, c1, c2, c3 = high >> 64 ^ c1 ^ k0, high & _MASK, low >> 64 ^ c3 ^ k1, low & _MASK
            k0, k1 = k0 + 0x9E3779B97F4A7C15 & _MASK, k1 + 0xBB67AE8584CAA73B & _MASK
        words += [c0, c1, c2, c3]
    return words[:count]


def single(value: float) -> float:
    rounded: float = struct.unpack("<f", struct.pack("<f", value))[0]
    return rounded


@given(st.integers(0, (1 << 64) - 1), st.integers(0, 5), st.integers(0, 20))
def test_values_are_what_the_document_says(seed: int, place: int, size: int) -> None:
    others = (Draw("constant", 1.0),) * place
    uniform = Recipe(seed, (*others, UNIFORM)).make([1] * place + [size], NOTHING)[place:]
    words = philox(seed | place << 64, size)
    assert uniform.tolist() == [single((2 * (word >> 40) + 1 - 2**24) * 0.125 / 2**24) for word in words]
    normal = Recipe(seed, (*others, Draw("normal", 0.5))).make([1] * place + [size], NOTHING)[place:]
    halves = [(word >> 32) + (word & 0xFFFFFFFF) for word in philox(seed | place << 64, 6 * size)]
    sums = [sum(halves[6 * n : 6 * n + 6]) - 6 * (2**32 - 1) for n in range(size)]
    assert normal.tolist() == [single(single(total) * 2.0**-33) for total in sums]


def test_the_bits_never_change() -> None:
    recipe = Recipe(
        7, (UNIFORM, Draw("normal", float(np.float32(0.02))), Draw("constant", -1.0), Draw("uniform", float(np.float32(1 / 3))))
    )
    theta = recipe.make([70_000, 70_000, 3, 5], NOTHING)
    digest = hashlib.sha256(theta.astype("<f4").tobytes()).hexdigest()
    assert digest == "e65987c0228e93c9d7768eaeb0e48a00c37cf331778ee0c10d0a7f12dc822d65"


@pytest.mark.parametrize(("kind", "deviation", "largest"), [("uniform", 0.125 / 3**0.5, 0.125), ("normal", 0.125, 0.75)])
def test_the_distribution_is_that_of_its_name(kind: Kind, deviation: float, largest: float) -> None:
    values = Recipe(1, (Draw(kind, 0.125),)).make([200_000], NOTHING)
    assert abs(float(values.mean())) < 5 * deviation / 200_000**0.5
    assert float(values.std()) == pytest.approx(deviation, rel=0.01)
    assert float(np.abs(values).max()) < largest
    assert (values != 0).all() or kind == "normal"


def test_tensors_and_seeds_have_streams_of_their_own() -> None:
    first, second = (Recipe(seed, (UNIFORM, UNIFORM)).make([1000, 1000], NOTHING) for seed in (1, 2))
    parts = [first[:1000], first[1000:], second[:1000], second[1000:]]
    assert all(abs(float(np.corrcoef(a, b)[0, 1])) < 0.15 for n, a in enumerate(parts) for b in parts[:n])


def test_stored_tensors_keep_their_places() -> None:
    recipe = Recipe(3, (None, UNIFORM, None))
    stored: Values = np.arange(5, dtype=np.float32)
    theta = recipe.make([2, 4, 3], stored)
    assert theta[[0, 1, 6, 7, 8]].tolist() == stored.tolist()
    assert recipe.stored([2, 4, 3], theta).tolist() == stored.tolist()


@given(st.lists(st.none() | st.builds(Draw, st.sampled_from(["uniform", "normal"]), st.floats(0, 9, width=32)), max_size=5))
def test_a_recipe_goes_to_json_and_back(draws: list[Draw | None]) -> None:
    recipe = Recipe(5, tuple(draws))
    assert read_recipe(recipe.document(), len(draws)) == recipe


@pytest.mark.parametrize(
    "document",
    [
        None, [], "seed", {"seed": 1}, {"draws": [None]}, {"seed": 1, "draws": 5},
        {"seed": True, "draws": [None]}, {"seed": -1, "draws": [None]}, {"seed": 1 << 64, "draws": [None]},
        {"seed": 1.0, "draws": [None]}, {"seed": 1, "draws": []}, {"seed": 1, "draws": [None, None]},
        {"seed": 1, "draws": [["cauchy", 1.0]]}, {"seed": 1, "draws": [["uniform"]]}, {"seed": 1, "draws": [[[], 1.0]]},
        {"seed": 1, "draws": [["uniform", "1"]]}, {"seed": 1, "draws": [["uniform", True]]},
        {"seed": 1, "draws": [["uniform", -1.0]]}, {"seed": 1, "draws": [["uniform", 0.1]]},
        {"seed": 1, "draws": [["normal", float("inf")]]}, {"seed": 1, "draws": [["constant", 1e39]]},
        {"seed": 1, "draws": [["uniform", 10**400]]},
    ],
)  # fmt: skip
def test_a_recipe_that_cannot_be_followed_is_refused(document: Any) -> None:
    with pytest.raises(BundleError):
        read_recipe(document, 1)
