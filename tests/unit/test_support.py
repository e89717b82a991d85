"""The shared support: a partition by chance, the same everywhere."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from edgemw.compression.support import support, support_size


def places(size: int, blocks: int, block: int, seed: int = 0) -> npt.NDArray[np.int64]:
    found: npt.NDArray[np.int64] = np.arange(size)[support(size, blocks, block, seed)]
    return found


@pytest.mark.parametrize(("size", "blocks"), [(1, 1), (1, 10), (7, 3), (1000, 10), (1003, 10), (5, 65535)])
def test_every_coordinate_is_in_one_block_and_blocks_are_of_one_size(size: int, blocks: int) -> None:
    parts = [places(size, blocks, block) for block in range(min(blocks, 100))]
    if blocks <= 100:
        assert sorted(np.concatenate(parts).tolist()) == list(range(size))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    for block, part in enumerate(parts):
        assert len(part) == support_size(size, blocks, block)
        assert (np.diff(part) > 0).all()


def test_the_blocks_are_the_ones_that_were_written_down() -> None:
    """They have to be the same on every machine and in every release of numpy."""
    assert [places(12, 3, block, seed=7).tolist() for block in range(3)] == [[3, 4, 7, 10], [0, 2, 5, 8], [1, 6, 9, 11]]


def test_another_seed_is_another_partition_and_the_same_seed_is_the_same() -> None:
    one, again, other = places(1000, 10, 3, seed=1), places(1000, 10, 3, seed=1), places(1000, 10, 3, seed=2)
    assert np.array_equal(one, again)
    assert len(np.intersect1d(one, other)) < 30  # 10 expected


def test_neighbours_fall_into_a_block_independently() -> None:
    """Of 100 000 places in 10 blocks, neighbours share one as often as chance has it: five standard deviations."""
    size = 100_000
    together = int((np.diff(places(size, 10, 0)) == 1).sum())
    assert abs(together - size / 100) < 5 * np.sqrt(size / 100)


def test_blocks_are_read_only() -> None:
    found = support(100, 10, 0, 0)
    assert not isinstance(found, slice)
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 1
