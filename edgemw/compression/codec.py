"""The codec: a vector to bytes, bytes to a vector, and bytes + bytes to bytes.

A codec is a value without state; `checks.py` checks that one keeps the promises below. What it could not represent is the
caller's error feedback (`residual.py`); who is inside a sum is `merge.py`'s business.

Payloads describe themselves: whoever reads or merges makes the codec without parameters, and only encoding depends on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeGuard, runtime_checkable

import numpy as np
import numpy.typing as npt

from edgemw.core.bundle import Slot, Vector
from edgemw.core.errors import CodecError

Bound = npt.NDArray[np.float64]
Merging = Literal["exact", "growth", "decodes"]
Parameter = int | float | str


@runtime_checkable
class Codec(Protocol):
    """A way to write a float32[P] vector as a payload that can be added to others.

    Attributes:
        name: what stands on the wire and in files.
        merging: how payloads add.
            exact: without floats, to the same bytes in any order and grouping.
            growth: in the codec's own form, to one rounding of float32; a sum is as long as what its parts name together.
            decodes: every payload is decoded, and the payload of a sum holds P floats.
        stepped: the codec needs the step that the release announces.
        feedback: what an encoding leaves out is kept by its sender, and said next time; else it is unbiased and forgotten.
    """

    name: str
    merging: Merging
    stepped: bool
    feedback: bool

    def encode(self, vector: Vector, step: float) -> bytes:
        """Write a finite vector.

        With feedback, what is left out, `vector - decode(encode(vector))`, has at most the vector's 2-norm: otherwise error
        feedback would grow without end.

        Args:
            vector: float32[P].
            step: the quantisation step of the release that the vector was trained from; 0 announces none.

        Raises:
            CodecError: the vector is not finite, or the step is not a finite float32 of 0 or more (where one is needed).
        """
        ...

    def decode(self, payload: bytes, size: int) -> Vector:
        """The vector float32[size] that the payload stands for, finite. Raises WireError on any malformed payload."""
        ...

    def merge(self, payloads: Sequence[bytes], size: int) -> bytes:
        """The payload of the sum.

        Raises:
            CodecError: no payloads.
            WireError: a payload is malformed, or they are on different steps or in different rings.
        """
        ...

    def check(self, payload: bytes, size: int) -> float:
        """The step that the payload is on (0 without one). Raises WireError if `decode` would.

        Well-formed payloads of one step, and of one `ring_of`, can be merged, whoever wrote them: a sum that leaves the codec's
        range still is a payload.
        """
        ...

    def bound(self, vector: Vector, step: float) -> Bound:
        """The largest |decode(encode(vector)) - vector| that the documentation allows for each value, float64[P]."""
        ...


class Ringed(Codec, Protocol):
    """A codec whose payloads must share more than the step to be added, such as their places."""

    @property
    def members(self) -> int:
        """How many encodings add without wrapping."""
        ...

    def ring(self, payload: bytes) -> bytes:
        """What that is, of a payload that `check` accepted; payloads that differ in it raise WireError when they are merged."""
        ...

    def own_ring(self) -> bytes:
        """What that is, of the payloads that this codec encodes."""
        ...

    def at(self, release: int) -> Ringed:
        """The codec that encodes what is trained from a release."""
        ...


def codec_at(codec: Codec, release: int, past: Past | None = None) -> Codec:
    """The codec that encodes what is trained from a release; for most codecs it is the same for all.

    Args:
        codec: as the release asks for it.
        release: its number.
        past: of the release; None is not known, or not asked for.
    """
    if past is not None and is_guided(codec):
        return codec.along(past)
    return codec.at(release) if is_ringed(codec) else codec


def ring_of(codec: Codec, payload: bytes) -> bytes:
    """What a well-formed payload must share with others to be added to them, beside the step; most codecs ask for nothing."""
    return codec.ring(payload) if is_ringed(codec) else b""


@dataclass(frozen=True, slots=True)
class Past:
    """What everybody knows who has a release and the one before it.

    Attributes:
        release: number of the later one.
        change: float32[P], its theta minus that of the one before.
        layout: the tensors that theta consists of, in order.
    """

    release: int
    change: Vector
    layout: tuple[Slot, ...]


class Guided(Codec, Protocol):
    """A codec that looks at what the last release changed, to find what the next one will."""

    def along(self, past: Past) -> Codec:
        """The codec that encodes what is trained from a release."""
        ...


class Shifting(Codec, Protocol):
    """A codec whose payloads add across steps that are powers of two.

    Attributes:
        dyadic: releases are to announce powers of two, so that sums over releases become one section (`merge.fold`).
        most: the largest magnitude of an integer that `encode` writes.
    """

    dyadic: bool
    most: int

    def measure(self, payload: bytes, size: int) -> tuple[float, int]:
        """The step, as `check` says it, and the largest magnitude of an integer. Raises WireError if `decode` would."""
        ...

    def shifted(self, payload: bytes, places: int) -> bytes:
        """The payload of the vector divided by 2^places, exactly.

        Raises:
            CodecError: negative places.
            WireError: the payload is malformed, or its step becomes one that float32 does not have.
        """
        ...


def is_ringed(codec: Codec) -> TypeGuard[Ringed]:
    """What isinstance would say; it takes 30 us for a Protocol of Python 3.11, and is asked several times for every update."""
    return all(hasattr(codec, name) for name in ("members", "ring", "own_ring", "at"))


def is_guided(codec: Codec) -> TypeGuard[Guided]:
    """The same of Guided."""
    return hasattr(codec, "along")


def is_shifting(codec: Codec) -> TypeGuard[Shifting]:
    """The same of Shifting."""
    return all(hasattr(codec, name) for name in ("dyadic", "most", "measure", "shifted"))


def whole_number(name: str, value: Parameter, least: int, most: int) -> int:
    """A parameter that counts something. Raises CodecError unless it is an integer from `least` to `most`."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise CodecError(f"{name} = {value!r} is not a whole number from {least} to {most}")
    return value


def known_name(name: str, value: Parameter, known: tuple[str, ...]) -> str:
    """A parameter that names something. Raises CodecError unless it is one of the known names."""
    if value not in known:
        raise CodecError(f"{name} = {value!r} is none of {', '.join(known)}")
    return str(value)
