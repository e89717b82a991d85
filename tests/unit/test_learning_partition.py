"""Partitions: nothing is lost or given twice, the seed decides, and what cannot be dealt out is said."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from edgemw.core.errors import DataError
from edgemw.learning.partition import Rows, dirichlet, iid, natural

# 30 devices, alpha 0.3, seed 0, at least 8 rows each: what common numpy code for a label-Dirichlet split gives for digits
DIGITS_SIZES = [
    54, 17, 156, 24, 41, 35, 89, 20, 16, 39, 97, 67, 77, 50, 44,
    112, 16, 59, 11, 61, 91, 48, 43, 53, 109, 59, 129, 37, 47, 96,
]  # fmt: skip


def all_of(parts: list[Rows]) -> list[int]:
    return sorted(np.concatenate(parts).tolist())


@given(count=st.integers(0, 200), devices=st.integers(1, 30), seed=st.integers(0, 99))
def test_iid_deals_every_row_once_and_evenly(count: int, devices: int, seed: int) -> None:
    parts = iid(count, devices, np.random.default_rng(seed))
    assert all_of(parts) == list(range(count))
    sizes = [len(part) for part in parts]
    assert len(sizes) == devices
    assert max(sizes) - min(sizes) <= 1
    assert all((np.diff(part) > 0).all() for part in parts)


@settings(max_examples=40)
@given(
    per_class=st.integers(20, 60),
    devices=st.integers(1, 6),
    alpha=st.floats(0.1, 100),
    min_size=st.integers(0, 5),
    seed=st.integers(0, 99),
)
def test_dirichlet_deals_every_row_once_and_leaves_nobody_short(
    per_class: int, devices: int, alpha: float, min_size: int, seed: int
) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat([3, 7, 11, 12], per_class))
    parts = dirichlet(labels, devices, alpha, min_size, np.random.default_rng(seed))
    assert all_of(parts) == list(range(len(labels)))
    assert len(parts) == devices
    assert min(map(len, parts)) >= min_size
    again = dirichlet(labels, devices, alpha, min_size, np.random.default_rng(seed))
    assert all(one.tolist() == two.tolist() for one, two in zip(parts, again, strict=True))


def test_dirichlet_on_digits_is_the_split_that_others_draw() -> None:
    _, labels = load_digits(return_X_y=True)
    parts = dirichlet(labels, 30, 0.3, 8, np.random.default_rng(0))
    assert [len(part) for part in parts] == DIGITS_SIZES


def test_small_alpha_gives_few_classes_and_large_alpha_all() -> None:
    labels = np.repeat(np.arange(10), 200)

    def classes(alpha: float) -> float:
        parts = dirichlet(labels, 10, alpha, 1, np.random.default_rng(0))
        return float(np.mean([len(np.unique(labels[part])) for part in parts]))

    assert classes(0.05) < 4
    assert classes(1000) == 10


def test_labels_may_be_words() -> None:
    parts = dirichlet(np.array(["no", "yes"] * 50), 3, 1.0, 5, np.random.default_rng(0))
    assert all_of(parts) == list(range(100))


def test_dirichlet_says_what_is_impossible() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(DataError, match="100 rows cannot give 30 devices at least 8 each"):
        dirichlet(np.zeros(100), 30, 0.5, 8, rng)
    with pytest.raises(DataError, match=r"alpha 1e-06 leaves a device under 5 rows in .* use a larger alpha or fewer devices"):
        dirichlet(np.zeros(20), 4, 1e-6, 5, rng)
    with pytest.raises(DataError, match=r"one label per row, not \(24,\)"):
        dirichlet(np.zeros((100, 24)), 3, 0.5, 1, rng)


@given(clients=st.lists(st.integers(0, 12), min_size=1, max_size=80), data=st.data())
def test_natural_keeps_clients_whole(clients: list[int], data: st.DataObject) -> None:
    owners = np.array(clients)
    devices = data.draw(st.integers(1, len(set(clients))))
    parts = natural(owners, devices)
    assert all_of(parts) == list(range(len(owners)))
    held = [set(owners[part].tolist()) for part in parts]
    assert sum(map(len, held)) == len(set(clients))  # no client on two devices
    assert all(held)
    assert max(map(len, held)) - min(map(len, held)) <= 1


def test_natural_takes_names_as_well() -> None:
    parts = natural(np.array(["bo", "al", "bo", "cy"]), 3)
    assert [part.tolist() for part in parts] == [[1], [0, 2], [3]]


def test_more_devices_than_clients_are_refused() -> None:
    with pytest.raises(DataError, match="3 devices but the data come from 2 clients"):
        natural(np.array([5, 5, 9]), 3)
