"""The lanes codec: its range, its blocks, masks that cancel, and what its readers refuse."""

from __future__ import annotations

import struct

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from edgemw.compression.codec import Parameter, ring_of
from edgemw.compression.lanes import Lanes, lanes_of, with_lanes
from edgemw.compression.residual import Contribution, encode_update, give_back
from edgemw.core.bundle import Vector
from edgemw.core.errors import CodecError, WireError
from edgemw.core.ids import UpdateId

SIZE = 1000
WIDTHS = (2, 4, 6, 7, 8, 12, 13, 16)


def laplace(size: int = SIZE, seed: int = 7) -> Vector:
    return np.random.default_rng(seed).laplace(0, 1, size).astype(np.float32)


# -- the range


@pytest.mark.parametrize("bits", WIDTHS)
def test_as_many_as_were_announced_add_without_wrapping(bits: int) -> None:
    """Against the sum of the decoded parts, where every part is at an end of the range."""
    members = min(5, (1 << (bits - 1)) - 1)
    codec = Lanes(bits=bits, blocks=1, members=members)
    vector = np.where(np.arange(SIZE) % 2, 1e30, -1e30).astype(np.float32)
    payload = codec.encode(vector, 1.0)
    one = codec.decode(payload, SIZE)
    reach = ((1 << (bits - 1)) - 1) // members
    assert set(one.tolist()) == {-reach, reach}
    assert np.array_equal(codec.decode(codec.merge([payload] * members, SIZE), SIZE), members * one)


def test_one_more_than_fit_wrap_modulo_the_width() -> None:
    codec = Lanes(bits=8, blocks=1, members=1)
    payload = codec.encode(np.array([127, -127, 3], np.float32), 1.0)
    assert Lanes().decode(codec.merge([payload] * 3, 3), 3).tolist() == [125, -125, 9]


def test_ties_round_away_from_zero() -> None:
    codec = Lanes(blocks=1)
    assert codec.decode(codec.encode(np.array([0.5, -0.5, 1.5, -2.5, 0.49], np.float32), 1.0), 5).tolist() == [1, -1, 2, -3, 0]


# -- the blocks


def test_over_one_cycle_every_coordinate_has_its_turn_and_over_many_nothing_is_lost() -> None:
    blocks, rounds, step = 10, 200, 1.0
    residual, trained, sent = np.zeros(SIZE, np.float32), np.zeros(SIZE), np.zeros(SIZE)
    rng, kept = np.random.default_rng(0), []
    for number in range(rounds):
        codec = Lanes(blocks=blocks, block=number % blocks)
        delta = (0.1 * rng.laplace(0, 1, SIZE)).astype(np.float32)
        encoded, residual = encode_update(codec, Contribution(UpdateId("device", 1, number), 3, 1, delta), residual, step)
        trained += delta
        sent += codec.decode(encoded.sections[0].payload, SIZE)
        kept.append(float(np.linalg.norm(residual)))
        if number == 3:
            assert np.allclose(give_back(codec, encoded, residual) - residual, codec.decode(encoded.sections[0].payload, SIZE))
    assert np.abs(sent + residual - trained).max() < 1e-4
    assert max(kept[-50:]) < 1.2 * max(kept[50:100])
    assert np.abs(trained - sent).max() < 4.5  # half a step, and what one cycle brings


def test_a_payload_is_as_long_on_step_0_as_on_any_other() -> None:
    for blocks in (1, 3, 10):
        codec = Lanes(blocks=blocks)
        assert len(codec.encode(laplace(), 0.0)) == len(codec.encode(laplace(), 1.0)) == 16 + SIZE // blocks


@pytest.mark.parametrize("bits", WIDTHS)
def test_lanes_take_their_bits_and_no_more(bits: int) -> None:
    payload = Lanes(bits=bits, blocks=3, block=1, members=1).encode(laplace(), 1.0)
    assert len(payload) == 16 + (333 * bits + 7) // 8


# -- masks


@pytest.mark.parametrize("bits", WIDTHS)
def test_a_mask_and_its_negative_cancel(bits: int) -> None:
    """Pairwise masks of three members, as secure aggregation has them, also where there is nothing to say."""
    rng = np.random.default_rng(bits)
    codec = Lanes(bits=bits, blocks=3, members=min(3, (1 << (bits - 1)) - 1))
    for step in (1.0, 0.0):
        payloads = [codec.encode(laplace(seed=seed), step) for seed in range(3)]
        one, two, three = rng.integers(0, 1 << bits, (3, 333), np.uint16)
        masks = [one + two, three - one, 0 - two - three]
        masked = [
            with_lanes(payload, lanes_of(payload, SIZE) + mask, SIZE) for payload, mask in zip(payloads, masks, strict=True)
        ]
        assert codec.merge(masked, SIZE) == codec.merge(payloads, SIZE)
        for before, after in zip(payloads, masked, strict=True):
            assert codec.check(after, SIZE) == step
            assert len(after) == len(before)
            assert not np.array_equal(lanes_of(after, SIZE), lanes_of(before, SIZE))


def test_masked_lanes_tell_nothing() -> None:
    """Under a uniform mask every value of a lane is as likely: chi-square with 255 degrees of freedom, five deviations."""
    payload = Lanes(blocks=1).encode(np.ones(100_000, np.float32), 1.0)
    mask = np.random.default_rng(3).integers(0, 256, 100_000, np.uint8)
    counts = np.bincount(lanes_of(with_lanes(payload, lanes_of(payload, 100_000) + mask, 100_000), 100_000), minlength=256)
    expected = 100_000 / 256
    assert abs(((counts - expected) ** 2 / expected).sum() - 255) < 5 * np.sqrt(2 * 255)


def test_lanes_are_read_only_and_of_the_right_number() -> None:
    payload = Lanes().encode(laplace(), 1.0)
    lanes = lanes_of(payload, SIZE)
    with pytest.raises(ValueError, match="read-only"):
        lanes[0] = 1
    assert with_lanes(payload, lanes, SIZE) == payload
    with pytest.raises(CodecError, match="99"):
        with_lanes(payload, lanes[:99], SIZE)
    with pytest.raises(WireError):
        lanes_of(payload[:-1], SIZE)


@hypothesis.given(
    lanes=st.lists(st.lists(st.integers(-(1 << 40), 1 << 40), min_size=5, max_size=5), min_size=2, max_size=5),
    bits=st.integers(2, 16),
)
def test_a_merge_is_addition_of_lanes(lanes: list[list[int]], bits: int) -> None:
    codec = Lanes(bits=bits, blocks=1, members=1)
    zero = codec.encode(np.zeros(5, np.float32), 1.0)
    payloads = [with_lanes(zero, np.array(values), 5) for values in lanes]
    total = [sum(column) % (1 << bits) for column in zip(*lanes, strict=True)]
    assert lanes_of(codec.merge(payloads, 5), 5).tolist() == total


# -- what is refused


OTHERS: tuple[tuple[dict[str, Parameter], float, str], ...] = (
    ({}, 2.0, "step"),
    ({"bits": 16, "blocks": 20}, 1.0, "lanes"),  # of the same length
    ({"blocks": 11}, 1.0, "lanes"),
    ({"members": 15}, 1.0, "lanes"),
    ({"seed": 1}, 1.0, "lanes"),
    ({"block": 1}, 1.0, "lanes"),
)


@pytest.mark.parametrize(("other", "step", "reason"), OTHERS)
def test_payloads_that_differ_in_more_than_their_lanes_do_not_add(other: dict[str, int], step: float, reason: str) -> None:
    codec = Lanes()
    ours, theirs = codec.encode(laplace(), 1.0), Lanes(**other).encode(laplace(), step)
    assert codec.check(theirs, SIZE) == step
    assert (ring_of(codec, ours) == ring_of(codec, theirs)) == (reason == "step")
    for pair in ([ours, theirs], [theirs, ours]):
        with pytest.raises(WireError) as refused:
            codec.merge(pair, SIZE)
        assert refused.value.reason == reason


@pytest.mark.parametrize(
    "parameters",
    [
        {"bits": 1},
        {"bits": 17},
        {"bits": 8.0},
        {"members": 0},
        {"members": 128},
        {"bits": 4, "members": 8},
        {"blocks": 0},
        {"blocks": 65536},
        {"block": 10},
        {"block": -1},
        {"blocks": 1, "block": 1},
        {"seed": -1},
        {"seed": 1 << 32},
    ],
)
def test_parameters_that_are_refused(parameters: dict[str, int]) -> None:
    with pytest.raises(CodecError, match=r"is not a whole number from|give more bits or fewer members"):
        Lanes(**parameters)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"\0" * 15, "truncated"),
        (struct.pack("<fIHHHH", -1.0, 0, 1, 0, 8, 1) + bytes(3), "step"),
        (struct.pack("<fIHHHH", -0.0, 0, 1, 0, 8, 1) + bytes(3), "step"),
        (struct.pack("<fIHHHH", np.nan, 0, 1, 0, 8, 1) + bytes(3), "step"),
        (struct.pack("<fIHHHH", 1.0, 0, 1, 0, 1, 1) + bytes(3), "lanes"),
        (struct.pack("<fIHHHH", 1.0, 0, 1, 0, 17, 1) + bytes(7), "lanes"),
        (struct.pack("<fIHHHH", 1.0, 0, 1, 0, 8, 0) + bytes(3), "lanes"),
        (struct.pack("<fIHHHH", 1.0, 0, 1, 0, 8, 128) + bytes(3), "lanes"),
        (struct.pack("<fIHHHH", 1.0, 0, 0, 0, 8, 1) + bytes(3), "block"),
        (struct.pack("<fIHHHH", 1.0, 0, 2, 2, 8, 1) + bytes(3), "block"),
        (struct.pack("<fIHHHH", 1.0, 0, 1, 0, 8, 1) + bytes(2), "length"),
        (struct.pack("<fIHHHH", 1.0, 0, 1, 0, 8, 1), "length"),
        (struct.pack("<fIHHHH", 1.0, 0, 4, 0, 8, 1) + bytes(1), "length"),  # an empty block
        (struct.pack("<fIHHHH", 1.0, 0, 1, 0, 6, 1) + b"\0\0\4", "trailing"),
    ],
)
def test_payloads_that_no_encoder_writes(payload: bytes, reason: str) -> None:
    for read in (Lanes().check, Lanes().decode, lanes_of, lambda data, size: Lanes().merge([data], size)):
        with pytest.raises(WireError) as refused:
            read(payload, 3)
        assert refused.value.reason == reason
