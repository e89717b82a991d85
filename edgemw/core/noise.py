"""Gaussian noise in whole numbers, from a secret that nobody else knows.

    n_i = round(scale g_i),  g_i = sqrt(-2 ln u) cos(2 pi v),  u in (0, 1], v in [0, 1) of 53 bits

Added to integers x, which is exact, it is a rounded Gaussian mechanism: x + round(g) = round(x + g), and rounding what is out
already tells no more. The low bits of a float, which would give x away, are not there.

The uniform numbers are a stream of SHAKE-256, which nobody can tell from chance, or go on with, without the secret. That of one
secret and one purpose is always the same, so a purpose must never come twice with other data. u has 53 bits, so that no |g|
is above 8.6, and the largest n are further apart than 1: with a probability of about scale 2^-53 / 10 for a pair of them, they
tell what they were added to. That belongs to delta.

Source: Box and Muller, Annals of Mathematical Statistics 29(2), 1958; FIPS 202, section 6.2; the low bits: Mironov, CCS 2012.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
import numpy.typing as npt

from edgemw.core.errors import CodecError

Integers = npt.NDArray[np.int64]

LEAST_SECRET_BYTES = 16
MOST_SCALE = 2.0**56
LEAST_CLIP = 2.0**-100
_UNIT = 2.0**-53
_PLACES = 12


def unit_of(clip: float) -> float:
    """What integers stand for where the norm of a part is at most `clip`: a power of two, from clip / 2^13 to clip / 2^12.

    Raises:
        CodecError: the clip is not between 2^-100 and 2^100; far beyond, what float64 says of a norm would not hold.
    """
    if not LEAST_CLIP <= clip <= 1 / LEAST_CLIP:
        raise CodecError(f"a bound of {clip:g} is not between 2^-100 and 2^100")
    return math.ldexp(1.0, math.frexp(clip)[1] - 1 - _PLACES)


def gaussian_integers(secret: bytes, purpose: str, size: int, scale: float) -> Integers:
    """Independent rounded Gaussians, int64[size].

    Args:
        secret: random bytes of this life of this node.
        purpose: what the noise is for, another one for whatever it is added to.
        size: how many.
        scale: their deviation.

    Raises:
        CodecError: the secret is too short to be one, or the scale is above 2^56.
    """
    if len(secret) < LEAST_SECRET_BYTES:
        raise CodecError(f"noise needs a secret of {LEAST_SECRET_BYTES} bytes or more, and this node has {len(secret)}")
    if not 0 <= scale <= MOST_SCALE:
        raise CodecError(f"noise of deviation {scale}: above 2^56 it would leave 64 bits")
    pairs = (size + 1) // 2
    stream = hashlib.shake_256(b"%d:%b%b" % (len(secret), secret, purpose.encode())).digest(16 * pairs)
    words = np.frombuffer(stream, "<u8") >> np.uint64(11)
    radius = np.sqrt(-2 * np.log((words[:pairs] + 1.0) * _UNIT)) * scale
    angle = words[pairs:] * (2 * np.pi * _UNIT)
    both = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:size]
    noise: Integers = np.rint(both).astype(np.int64)
    return noise
