"""What a payload stands for, as numbers that can be compared, and payloads made smaller."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgemw.compression.codec import Codec
from edgemw.compression.dense import Dense
from edgemw.compression.golomb_numpy import Positions, Symbols
from edgemw.compression.lattice import Lattice
from edgemw.core.errors import CodecError
from edgemw.robust.thinning import thinned

Reals = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Numbers:
    """The vector unit * values, at some places; zero everywhere else.

    Attributes:
        unit: the step of a lattice; 1 for floats.
        places: of the values, in increasing order; None is everywhere.
        values: int32[n] of a lattice, float32[n] else.
    """

    unit: float
    places: Positions | None
    values: Symbols | npt.NDArray[np.float32]

    @property
    def length(self) -> float:
        """The sum of all sizes."""
        return self.unit * float(np.abs(self.values.astype(np.float64)).sum())

    @property
    def square(self) -> float:
        """The sum of all squares."""
        return self.unit * self.unit * float(np.square(self.values.astype(np.float64)).sum())


def read(codec: Codec, payload: bytes, size: int) -> Numbers:
    """The numbers of a payload.

    Raises:
        CodecError: the codec does not show any.
        WireError: the payload is malformed.
    """
    if isinstance(codec, Lattice):
        return Numbers(*codec.symbols(payload, size))
    if isinstance(codec, Dense):
        return Numbers(1.0, None, codec.decode(payload, size))
    raise CodecError(f"codec {codec.name} shows no numbers that could be compared")


def smaller(codec: Codec, payload: bytes, size: int, factor: float, u: float) -> tuple[bytes, bytes]:
    """A payload times a factor below 1, and what that leaves.

    A lattice is thinned, so that the two add up to the payload integer by integer; floats are multiplied, and what they leave is
    not written down.

    Raises:
        CodecError, WireError: as `read`.
    """
    if isinstance(codec, Lattice):
        _, places, symbols = codec.symbols(payload, size)
        kept = thinned(symbols, factor, u)
        rest = symbols - kept
        return codec.with_symbols(payload, places, kept, size), codec.with_symbols(payload, places, rest, size)
    vector = read(codec, payload, size).values * np.float32(factor)
    return codec.encode(vector.astype(np.float32), 0.0), b""
