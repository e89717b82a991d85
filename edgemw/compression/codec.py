"""The codec: a vector to bytes, bytes to a vector, and bytes + bytes to bytes.

A codec is a value without state; `checks.py` checks that one keeps the promises below. What it could not represent is the
caller's error feedback (`residual.py`); who is inside a sum is `merge.py`'s business.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from edgemw.core.bundle import Vector


class Codec(Protocol):
    """A way to write a float32[P] vector as a payload that can be added to others without decoding it.

    Attributes:
        name: what stands on the wire and in files.
        exact: merging is exact and gives the same bytes in any order and grouping; otherwise within rounding.
        stepped: the codec needs the step that the release announces.
    """

    name: str
    exact: bool
    stepped: bool

    def encode(self, vector: Vector, step: float) -> bytes:
        """Write a finite vector.

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
            WireError: a payload is malformed, or they are on different steps.
        """
        ...

    def check(self, payload: bytes, size: int) -> float:
        """The step that the payload is on (0 without one). Raises WireError if `decode` would.

        Well-formed payloads of one step can be merged, whoever wrote them: a sum that leaves the codec's range still is a
        payload.
        """
        ...
