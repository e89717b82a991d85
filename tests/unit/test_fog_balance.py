"""A fog node's books of mass: 0 where sums are sums, and where they are not, that shows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from edgemw.compression.lattice import Lattice
from edgemw.compression.merge import gathered, merge
from edgemw.compression.nested import nest, taken_back
from edgemw.compression.table import codec_named
from edgemw.core.encoded import Encoded, Section
from edgemw.core.ids import UpdateId
from edgemw.fog.balance import Balance
from tests.support.world import World
from tests.unit.test_roles import Learner, counted, sent, tree

SIZE, STEP = 500, 0.25


def update(seq: int, base: int = 3) -> Encoded:
    vector = np.random.default_rng(seq).laplace(0, 0.3, SIZE).astype(np.float32)
    section = Section(base, 10, 1, 1.0, Lattice(steps="dyadic").encode(vector, STEP))
    return Encoded("lattice", SIZE, (section,), frozenset({UpdateId("device-0", 1, seq)}))


def payloads(sections: Sequence[Section]) -> list[bytes]:
    return [section.payload for section in sections]


@pytest.mark.parametrize("steps", ["free", "dyadic"])
def test_sums_of_late_and_timely_updates_balance_to_the_last_bit(steps: str) -> None:
    codec, parts, books = Lattice(steps=steps), [update(1), update(2), update(3, base=0), update(4, base=1)], Balance()
    books.merged(codec, parts, gathered(codec, merge(codec, parts), 3).sections, 3)
    books.merged(codec, parts, merge(codec, parts).sections)
    assert books.worst == 0


def test_an_update_that_is_left_out_or_taken_twice_shows_and_is_not_forgotten() -> None:
    codec, parts = Lattice(), [update(1), update(2), update(3)]
    for wrong in (parts[:2], [*parts, update(4)]):
        books = Balance()
        books.merged(codec, parts, merge(codec, wrong).sections)
        first = books.worst
        assert first > 1e-3
        books.merged(codec, parts, merge(codec, parts).sections)
        assert books.worst == first


def test_a_remainder_balances_and_one_that_was_lost_shows() -> None:
    lattice, books = Lattice(steps="dyadic"), Balance()
    window, before = (update(seq).sections[0].payload for seq in (1, 2))
    nested = nest(lattice, window, before, SIZE, limit_bytes=40)
    books.nested(lattice, SIZE, [window, before], [nested.sent, nested.kept])
    back = taken_back(lattice, nested.kept, nested.sent, window, SIZE)
    books.nested(lattice, SIZE, [nested.kept, nested.sent], [window, back])
    books.nested(lattice, SIZE, [window, b""], [window, b""])
    assert books.worst == 0
    books.nested(lattice, SIZE, [window, before], [nested.sent, b""])
    assert books.worst > 1e-3


def test_other_codecs_keep_no_books() -> None:
    dense, books = codec_named("dense"), Balance()
    books.merged(dense, [update(1)], ())
    books.merged(Lattice(), [], ())
    assert books.worst == 0


def test_a_node_that_adds_wrongly_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def short(self: Lattice, given: Sequence[bytes], size: int) -> bytes:
        return given[0]

    def imbalances(world: World) -> list[int | float | str]:
        world.run(300)
        assert counted(world) == sent(world)
        return [world.machines[name].facts(world.now)["mass_imbalance"] for name in ("fog-0", "top")]

    assert imbalances(tree(Learner(), rounds=3, children=2)) == [0, 0]
    monkeypatch.setattr(Lattice, "merge", short)
    assert all(isinstance(found, float) and found > 1e-3 for found in imbalances(tree(Learner(), rounds=3, children=2)))
