"""What masks are made of: shares of a secret, keys in pairs, streams in the ring."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemw.masking.keys import Secrets, Tampered, agreed, public, seal, unseal
from edgemw.masking.masks import WIDE_BITS, Lanes, Mask, add_pairs, pair_key, take_off_pairs
from edgemw.masking.shamir import COEFFICIENT_BYTES, PRIME, SHARE_BYTES, join, split, weights

SEEDS = st.binary(min_size=32, max_size=32)


def is_prime(n: int) -> bool:
    """Miller-Rabin with forty bases: wrong once in 2^80."""
    odd, twos = n - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    rng = random.Random(7)
    for _ in range(40):
        x = pow(rng.randrange(2, n - 1), odd, n)
        if x in (1, n - 1):
            continue
        for _ in range(twos - 1):
            x = x * x % n
            if x == n - 1:
                break
        else:
            return False
    return True


def test_the_field_is_the_smallest_that_holds_a_secret() -> None:
    assert is_prime(PRIME)
    assert PRIME.bit_length() == 257
    assert not any(is_prime(n) for n in range((1 << 256) + 1, PRIME))


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(1, 20), st.data())
def test_any_threshold_of_shares_gives_a_secret_back(secret: bytes, members: int, data: st.DataObject) -> None:
    threshold = data.draw(st.integers(1, members))
    shares = split(secret, threshold, members, data.draw(st.randoms(use_true_random=False)).randbytes(40 * (threshold - 1)))
    assert all(len(share) == SHARE_BYTES for share in shares)
    chosen = data.draw(st.lists(st.sampled_from(range(members)), min_size=threshold, max_size=threshold, unique=True))
    assert join({member: shares[member] for member in chosen}, weights(sorted(chosen))) == secret


@settings(max_examples=30, deadline=None)
@given(SEEDS, SEEDS, st.integers(2, 12))
def test_fewer_shares_belong_to_any_secret(secret: bytes, other: bytes, threshold: int) -> None:
    """With one share less there is a polynomial of the same degree through them for every other secret."""
    shares = split(secret, threshold, threshold, bytes(range(COEFFICIENT_BYTES)) * (threshold - 1))
    known = [(0, int.from_bytes(other, "little")), *((i + 1, int.from_bytes(shares[i], "little")) for i in range(threshold - 1))]
    last = sum(
        y * product(threshold - x2 for x2, _ in known if x2 != x) * pow(product(x - x2 for x2, _ in known if x2 != x), -1, PRIME)
        for x, y in known
    )
    forged = [*shares[:-1], (last % PRIME).to_bytes(SHARE_BYTES, "little")]
    assert join(dict(enumerate(forged)), weights(range(threshold))) == other


def product(numbers: object) -> int:
    result = 1
    for number in numbers:  # type: ignore[attr-defined]
        result = result * number % PRIME
    return result


def test_a_secret_or_randomness_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="31 bytes"):
        split(bytes(31), 2, 3, bytes(COEFFICIENT_BYTES))
    with pytest.raises(ValueError, match="0 random"):
        split(bytes(32), 2, 3, b"")
    with pytest.raises(ValueError, match="4 of 3"):
        split(bytes(32), 4, 3, bytes(3 * COEFFICIENT_BYTES))


@settings(max_examples=20, deadline=None)
@given(SEEDS, SEEDS, SEEDS)
def test_two_members_agree_on_a_key_that_no_other_group_has(one: bytes, two: bytes, group: bytes) -> None:
    a, b = Secrets.of(one), Secrets.of(two)
    key = agreed(a.mask, public(b.mask), group, b"pair")
    assert key == agreed(b.mask, public(a.mask), group, b"pair")
    assert key != agreed(a.mask, public(b.mask), bytes(32) if any(group) else b"x" * 32, b"pair")
    assert a.mask != a.cipher
    assert "seed" not in repr(a) or one.hex() not in repr(a)


@settings(max_examples=30, deadline=None)
@given(SEEDS, SEEDS, st.data())
def test_a_sealed_share_that_was_altered_or_goes_another_way_is_noticed(one: bytes, two: bytes, data: st.DataObject) -> None:
    a, b, group = Secrets.of(one), Secrets.of(two), bytes(32)
    sealed = seal(a.cipher, public(b.cipher), group, b"0>1", b"share" * 10)
    assert unseal(b.cipher, public(a.cipher), group, b"0>1", sealed) == b"share" * 10
    at, bit = data.draw(st.integers(0, len(sealed) - 1)), data.draw(st.integers(0, 7))
    altered = bytearray(sealed)
    altered[at] ^= 1 << bit
    for box, way, about in ((bytes(altered), b"0>1", group), (sealed, b"1>0", group), (sealed, b"0>1", b"x" * 32)):
        with pytest.raises(Tampered):
            unseal(b.cipher, public(a.cipher), about, way, box)


def test_a_key_of_small_order_is_refused() -> None:
    with pytest.raises(Tampered, match="small order"):
        agreed(bytes(range(32)), bytes(32), bytes(32), b"pair")


@settings(max_examples=30, deadline=None)
@given(st.lists(SEEDS, min_size=2, max_size=6, unique=True), st.sampled_from([np.uint8, np.uint16]), st.data())
def test_pair_masks_cancel_and_those_of_the_dropped_come_off(seeds: list[bytes], dtype: type, data: st.DataObject) -> None:
    group = b"g" * 32
    keys = [Secrets.of(seed).mask for seed in seeds]
    dropped = data.draw(st.sets(st.sampled_from(range(len(keys))), max_size=len(keys) - 1))
    lanes: Lanes = np.zeros(17, dtype)
    total = Mask.of(lanes)
    for member in set(range(len(keys))) - dropped:
        own = Mask.of(lanes)
        add_pairs(own, member, [(o, pair_key(keys[member], public(k), group)) for o, k in enumerate(keys) if o != member])
        total.lanes += own.lanes
        total.wide = (total.wide + own.wide) % (1 << WIDE_BITS)
    left = Mask.of(lanes)
    for member in dropped:
        survivors = [(o, public(k)) for o, k in enumerate(keys) if o not in dropped]
        take_off_pairs(left, member, keys[member], survivors, group)
    assert np.array_equal(total.lanes, left.lanes)
    assert total.wide == left.wide


def test_the_masks_of_different_groups_have_nothing_in_common() -> None:
    """A wrapped stream would show as equal lanes: of 4096, 16 are equal by chance."""
    keys = [Secrets.of(bytes([n]) * 32).mask for n in range(2)]
    found = []
    for group in (b"a" * 32, b"b" * 32):
        mask = Mask.of(np.zeros(4096, np.uint8))
        add_pairs(mask, 0, [(1, pair_key(keys[0], public(keys[1]), group))])
        found.append(mask.lanes)
    assert int((found[0] == found[1]).sum()) < 50
