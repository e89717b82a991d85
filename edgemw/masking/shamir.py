"""Shamir's secret sharing: a secret of 32 bytes in n shares, of which any t give it back and fewer say nothing.

    f(x) = secret + a_1 x + ... + a_(t-1) x^(t-1) mod p ;  the share of member i (from 0) is f(i + 1)

p = 2^256 + 297 is the least prime above 2^256, so every secret of 32 bytes is an element; a share takes 33 bytes, little endian.
Coefficients are drawn from 40 bytes each, which is within 2^-63 of even. The arithmetic is Python's, whose time depends on the
numbers: shares are made and put together on machines whose owners know them anyway.

Source: Shamir, How to share a secret, CACM 22 (1979).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

PRIME = (1 << 256) + 297
SECRET_BYTES = 32
SHARE_BYTES = 33
COEFFICIENT_BYTES = 40


def split(secret: bytes, threshold: int, members: int, randomness: bytes) -> list[bytes]:
    """The shares of members 0 to members - 1.

    Args:
        secret: of SECRET_BYTES.
        threshold: how many shares give it back, from 1 to `members`.
        members: how many shares there are.
        randomness: `COEFFICIENT_BYTES * (threshold - 1)` bytes that nobody can guess and that are used once.

    Raises:
        ValueError: an argument of another size.
    """
    if len(secret) != SECRET_BYTES or len(randomness) != COEFFICIENT_BYTES * (threshold - 1):
        raise ValueError(f"a secret of {len(secret)} bytes and {len(randomness)} random ones")
    if not 1 <= threshold <= members:
        raise ValueError(f"{threshold} of {members} shares")
    pieces = (randomness[at : at + COEFFICIENT_BYTES] for at in range(0, len(randomness), COEFFICIENT_BYTES))
    coefficients = [int.from_bytes(secret, "little"), *(int.from_bytes(piece, "little") % PRIME for piece in pieces)]
    return [_value(coefficients, member + 1).to_bytes(SHARE_BYTES, "little") for member in range(members)]


def weights(members: Sequence[int]) -> dict[int, int]:
    """What the shares of these members count for when they are put together: one computation for all their secrets."""
    places = [member + 1 for member in members]
    found = {}
    for member, x in zip(members, places, strict=True):
        above = below = 1
        for other in places:
            if other != x:
                above, below = above * other % PRIME, below * (other - x) % PRIME
        found[member] = above * pow(below, -1, PRIME) % PRIME
    return found


def join(shares: Mapping[int, bytes], counted: Mapping[int, int]) -> bytes:
    """The secret, from the shares of as many members as its threshold says.

    Args:
        shares: by member.
        counted: `weights` of just these members.

    Raises:
        ValueError: the shares are not those of one secret of 32 bytes.
    """
    secret = sum(int.from_bytes(shares[member], "little") * weight for member, weight in counted.items()) % PRIME
    if secret >> (8 * SECRET_BYTES):
        raise ValueError("these shares belong to no secret")
    return secret.to_bytes(SECRET_BYTES, "little")


def _value(coefficients: list[int], x: int) -> int:
    value = 0
    for coefficient in reversed(coefficients):
        value = (value * x + coefficient) % PRIME
    return value
