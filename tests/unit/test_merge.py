"""Addition of encodings: what the contract suite leaves open."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from edgemw.compression.dense import Dense
from edgemw.compression.lattice import Lattice
from edgemw.compression.merge import merge
from edgemw.core.encoded import Encoded, Section
from edgemw.core.errors import CodecError, WireError
from edgemw.core.ids import UpdateId

STEPS = {1: 1.0, 2: 0.5, 3: 0.25}


def update(name: str, *bases: int, weight: int = 1, energy: float = 1.0) -> Encoded:
    """Ones, in a section for each base."""
    codec = Lattice()
    sections = tuple(Section(base, weight, 1, energy, codec.encode(np.ones(4, np.float32), STEPS[base])) for base in bases)
    return Encoded(codec.name, 4, sections, frozenset({UpdateId(name, 1, 0)}))


def test_sections_come_out_in_order_of_their_bases() -> None:
    merged = merge(Lattice(), [update("a", 3), update("b", 1, 3), update("c", 2)])
    assert [(section.base, section.weight, section.count) for section in merged.sections] == [(1, 1, 1), (2, 1, 1), (3, 2, 2)]
    assert [Lattice().check(section.payload, 4) for section in merged.sections] == [1.0, 0.5, 0.25]


def test_weights_are_integers_however_large() -> None:
    merged = merge(Lattice(), [update("a", 1, weight=2**62), update("b", 1, weight=2**62 + 1)])
    assert merged.weight == 2**63 + 1


def test_the_only_section_of_a_base_is_passed_on_as_it_is() -> None:
    half = Dense("float16").encode(np.ones(4, np.float32), 0.0)
    part = Encoded("dense", 4, (Section(1, 1, 1, 1.0, half),), frozenset())
    assert merge(Dense(), [part]) == part


def test_an_update_without_sections_adds_only_its_identity() -> None:
    empty = Encoded("lattice", 4, (), frozenset({UpdateId("b", 1, 0)}))
    part = update("a", 1)
    merged = merge(Lattice(), [part, empty])
    assert merged.sections == part.sections
    assert merged.contributions == part.contributions | empty.contributions


def test_energies_that_peers_invent_stay_finite() -> None:
    merged = merge(Lattice(), [update(name, 1, energy=sys.float_info.max) for name in ("a", "b")])
    assert merged.sections[0].energy == sys.float_info.max


def test_one_base_with_two_steps_is_refused() -> None:
    other = Section(1, 1, 1, 1.0, Lattice().encode(np.ones(4, np.float32), 3.0))
    with pytest.raises(WireError, match="steps"):
        merge(Lattice(), [update("a", 1), Encoded("lattice", 4, (other,), frozenset({UpdateId("b", 1, 0)}))])


def test_the_error_names_what_would_be_counted_twice() -> None:
    with pytest.raises(CodecError, match="a/1/0 would be counted twice"):
        merge(Lattice(), [update("a", 1), update("b", 1), update("a", 2)])
