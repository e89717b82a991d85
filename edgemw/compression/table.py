"""The codecs by the name that stands in files and on the wire. A new codec is one file and one line here."""

from __future__ import annotations

from collections.abc import Callable

from edgemw.compression.codec import Codec
from edgemw.compression.dense import Dense
from edgemw.compression.lattice import Lattice
from edgemw.core.errors import WireError

CODECS: dict[str, Callable[[str], Codec]] = {"lattice": lambda dtype: Lattice(), "dense": Dense}


def codec_named(name: str, dtype: str = "float32") -> Codec:
    """The codec of a release; reading and merging need no dtype.

    Raises:
        WireError: a name that is not in the table.
        CodecError: a dtype that the codec does not have.
    """
    if name not in CODECS:
        raise WireError("codec", f"no codec {name!r}; known: {', '.join(CODECS)}")
    return CODECS[name](dtype)
